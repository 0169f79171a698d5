"""Pictures of the bundled example: photographs from scikit-image's package, drawings and a clip of ours."""
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

PHOTOGRAPHS = ["chelsea", "coffee", "astronaut"]
FRAMES, FPS, SIDE = 16, 8, 64


def photographs(folder):
    data = Path(skimage.__file__).parent / "data"
    for name in PHOTOGRAPHS:
        image = Image.open(data / f"{name}.png").convert("RGB")
        image.thumbnail((512, 512), Image.Resampling.LANCZOS)
        image.save(folder / f"{name}.jpg", quality=85, optimize=True)


def shapes(order, triangle):
    """128x96: three shapes in the given order; multiples of 32, so that no resize is needed."""
    image = Image.new("RGB", (128, 96), "white")
    draw = ImageDraw.Draw(image)
    for x, shape in zip((8, 48, 88), order):
        box = (x, 30, x + 32, 62)
        if shape == "circle":
            draw.ellipse(box, fill=(220, 40, 40))
        elif shape == "square":
            draw.rectangle(box, fill=(40, 80, 220))
        else:
            draw.polygon([(x, 62), (x + 32, 62), (x + 16, 30)], fill=triangle)
    draw.line((4, 76, 124, 76), fill="black", width=2)
    return image


def chart(values):
    image = Image.new("RGB", (256, 192), (250, 250, 245))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    draw.line((24, 16, 24, 168, 244, 168), fill="black", width=2)
    for i, value in enumerate(values):
        x = 36 + 42 * i
        draw.rectangle((x, 168 - 3 * value, x + 28, 166), fill=[(200, 70, 60), (230, 150, 40), (80, 150, 80),
                                                               (60, 110, 190), (130, 80, 160)][i])
        draw.text((x + 14, 164 - 3 * value), str(value), fill="black", font=font, anchor="mb")
        draw.text((x + 14, 172), "ABCDE"[i], fill="black", font=font, anchor="mt")
    return image


def words(lines):
    image = Image.new("L", (320, 128), 255)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((16, 12 + 38 * i), line, fill=20, font=ImageFont.load_default(28))
    return image


def drawings(folder):
    shapes(["circle", "square", "triangle"], (40, 160, 70)).save(folder / "shapes_a.png", optimize=True)
    shapes(["square", "circle", "triangle"], (140, 60, 170)).save(folder / "shapes_b.png", optimize=True)
    chart([10, 25, 40, 30, 15]).save(folder / "chart.png", optimize=True)
    words(["BOTH PANS LEVEL", "left 42 g", "right 42 g"]).save(folder / "words.png", optimize=True)


def clip(folder):
    """Two seconds, eight frames a second: a red square crosses a dark field."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=FPS, options=dict(crf="18", preset="slow", threads="1"))
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.time_base = Fraction(1, FPS)
        for i in range(FRAMES):
            picture = np.full((SIDE, SIDE, 3), (24, 28, 40), np.uint8)
            x = round(i * (SIDE - 16) / (FRAMES - 1))
            picture[24:40, x:x + 16] = (220, 40, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    (folder / "square.mp4").write_bytes(buffer.getvalue())


def read_clip(path):
    """u8 frames [T, 3, H, W] and the rate."""
    with av.open(str(path)) as file:
        rate = float(file.streams.video[0].average_rate)
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    return np.stack(frames).transpose(0, 3, 1, 2), rate
