"""Scenes to pixels, with Pillow. Nothing here decides anything: every number is the scene's.

Fonts: DejaVu (Debian's fonts-dejavu-core, free licence) and Aileron as it lies inside Pillow (CC0).
"""
import io
import random
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

from scenes import outline

FONT_FOLDER = Path("/usr/share/fonts/truetype/dejavu")
FONT_FILES = {"sans": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf", "mono": "DejaVuSansMono.ttf", "serif": "DejaVuSerif.ttf",
              "serif_bold": "DejaVuSerif-Bold.ttf"}
PALETTE = 80  # colours of a stored picture
FINE = 4  # masks are drawn this many times larger and reduced
INK, LINE = (30, 30, 30), (120, 120, 120)
_fonts = {}


def font(name, points):
    if (name, points) not in _fonts:
        if name == "pillow":
            _fonts[name, points] = ImageFont.load_default(points)
        else:
            path = FONT_FOLDER / FONT_FILES[name]
            if not path.is_file():
                raise SystemExit(f"draw: no {path.name} in {FONT_FOLDER} (Debian package fonts-dejavu-core)")
            _fonts[name, points] = ImageFont.truetype(str(path), points)
    return _fonts[name, points]


def paste_shape(image, shape, x, y, size, angle, rgb):
    """The shape around (x, y) with smooth edges."""
    reach = int(size * 0.75) + 2
    left, top = int(x) - reach, int(y) - reach
    mask = Image.new("L", (2 * reach * FINE, 2 * reach * FINE), 0)
    pen = ImageDraw.Draw(mask)
    at = lambda points: [((x - left + px) * FINE, (y - top + py) * FINE) for px, py in points]
    pen.polygon(at(outline(shape, size, angle)), fill=255)
    if shape == "ring":
        pen.polygon(at(outline(shape, size * 0.55, angle)), fill=0)
    mask = mask.reduce(FINE)
    image.paste(tuple(rgb), (left, top), mask)


def centred(pen, x, y, text, name, points, fill=INK):
    pen.text((x, y), text, font=font(name, points), fill=fill, anchor="mm")


def draw_objects(image, scene):
    for o in scene["objects"]:
        paste_shape(image, o["shape"], o["x"], o["y"], o["size"], o["angle"], o["rgb"])


def draw_grid(image, scene):
    pen, w, h = ImageDraw.Draw(image), scene["w"] - 1, scene["h"] - 1
    cell_w, cell_h = w / scene["columns"], h / scene["rows"]
    for i in range(scene["columns"] + 1):
        pen.line([(round(i * cell_w), 0), (round(i * cell_w), h)], fill=LINE)
    for i in range(scene["rows"] + 1):
        pen.line([(0, round(i * cell_h)), (w, round(i * cell_h))], fill=LINE)
    for c in scene["cells"]:
        x, y, size = (c["column"] - 0.5) * cell_w, (c["row"] - 0.5) * cell_h, 0.6 * min(cell_w, cell_h)
        if "font" in c:
            centred(pen, round(x), round(y), c["shape"], c["font"], 16, tuple(c["rgb"]))
        else:
            paste_shape(image, c["shape"], x, y, size, 0, c["rgb"])


def draw_text(image, scene):
    pen, face = ImageDraw.Draw(image), font(scene["font"], scene["points"])
    left, top, right, bottom = pen.textbbox((0, 0), scene["text"], font=face)
    if scene["pitch"]:
        return draw_spaced(image, scene)
    free = lambda share, room: round(share * max(0, room) // scene["step"] * scene["step"])
    x = 4 + free(scene["x"], scene["w"] - 8 - (right - left)) - left
    y = 4 + free(scene["y"], scene["h"] - 8 - (bottom - top)) - top
    pen.text((x, y), scene["text"], font=face, fill=tuple(scene["rgb"]))


def draw_spaced(image, scene):
    pen, pitch, line = ImageDraw.Draw(image), scene["pitch"], scene["text"]
    column = int(scene["x"] * (scene["w"] // pitch - len(line) + 1))
    row = int(scene["y"] * (scene["h"] // pitch))
    for i, letter in enumerate(line, column):
        centred(pen, (i + 0.5) * pitch, (row + 0.5) * pitch, letter, scene["font"], min(scene["points"], 14), tuple(scene["rgb"]))


def draw_chart(image, scene):
    pen, bars = ImageDraw.Draw(image), scene["bars"]
    lying = scene["lying"]
    w, h = scene["w"], scene["h"]
    x0, y0, x1, y1 = (20, 8, w - 8, h - 18)
    long_side, wide = ((x1 - x0) / 10, (y1 - y0) / len(bars)) if lying else ((y1 - y0) / 10, (x1 - x0) / len(bars))
    for tick in range(0, 11, 2):
        a = round(x0 + tick * long_side) if lying else round(y1 - tick * long_side)
        if scene["lines"]:
            pen.line([(a, y0), (a, y1)] if lying else [(x0, a), (x1, a)], fill=(200, 200, 200))
        centred(pen, *((a, y1 + 9) if lying else (x0 - 9, a)), str(tick), "sans", 9)
    for i, bar in enumerate(bars):
        near, far = (i + 0.18) * wide, (i + 0.82) * wide
        length = bar["value"] * long_side
        box = [x0, y0 + near, x0 + length, y0 + far] if lying else [x0 + near, y1 - length, x0 + far, y1]
        pen.rectangle([round(v) for v in box], fill=tuple(bar["rgb"]), outline=INK)
        middle = (i + 0.5) * wide
        centred(pen, *((x0 - 9, y0 + middle) if lying else (x0 + middle, y1 + 9)), bar["label"], "bold", 11)
    pen.line([(x0, y0), (x0, y1), (x1, y1)], fill=INK)


def draw_table(image, scene):
    pen, w, h = ImageDraw.Draw(image), scene["w"] - 1, scene["h"] - 1
    lines = [[""] + scene["columns"]] + scene["rows"]
    cell_w, cell_h = w / len(lines[0]), h / len(lines)
    for i in range(len(lines) + 1):
        pen.line([(0, round(i * cell_h)), (w, round(i * cell_h))], fill=LINE)
    for i in range(len(lines[0]) + 1):
        pen.line([(round(i * cell_w), 0), (round(i * cell_w), h)], fill=LINE)
    for r, line in enumerate(lines):
        for c, cell in enumerate(line):
            centred(pen, (c + 0.5) * cell_w, (r + 0.5) * cell_h, str(cell), "bold" if r == 0 or c == 0 else "sans", 11)


def disturb(image, how):
    """Light from one side, strokes, speckles. The numbers come from how["seed"] alone."""
    rng, (w, h) = random.Random(how["seed"]), image.size
    if how["light"]:
        ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((w, h))
        shade = ramp.point([255 - round(how["light"] * v) for v in range(256)])
        image = ImageChops.multiply(image, Image.merge("RGB", (shade,) * 3))
    pen = ImageDraw.Draw(image)
    for _ in range(how["strokes"]):
        grey = rng.randrange(120, 200)
        x, y = rng.randrange(w), rng.randrange(h)
        pen.line([(x, y), (x + rng.randrange(-30, 31), y + rng.randrange(-30, 31))], fill=(grey,) * 3)
    for _ in range(int(how["speckle"] * w * h)):
        grey = rng.randrange(256)
        image.putpixel((rng.randrange(w), rng.randrange(h)), (grey,) * 3)
    return image


DRAW = {"shapes": draw_objects, "grid": draw_grid, "text": draw_text, "chart": draw_chart, "table": draw_table}


def render(scene):
    """An RGB image of a scene that is one picture."""
    image = Image.new("RGB", (scene["w"], scene["h"]), tuple(scene["background"]))
    DRAW[scene["kind"]](image, scene)
    return disturb(image, scene["mess"]) if scene["mess"] else image


def png(scene):
    """The bytes of a PNG of the scene, with a palette: half the size and less."""
    buffer = io.BytesIO()
    render(scene).quantize(PALETTE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
