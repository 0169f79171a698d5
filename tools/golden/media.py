"""Fixtures and expected values of src/image: tests/golden/media.

Reference: transformers' Qwen2VLImageProcessor (torchvision backend, u8 resampling), Qwen2VLVideoProcessor, Qwen3VLVideoProcessor and
its load_image; qwen-vl-utils (Pillow for pictures, torchvision float resampling for clips, decord as reader). Clips are
decoded for transformers by PyAV. Run: python tools/golden/media.py --out tests/golden/media

Written: the fixture files, cases.json, and two raw files it points into: decode.bin (whole RGB pictures) and samples.bin
(pixel_values as u8 before normalisation, every stride-th value).
"""

import argparse
import json
import os
import pathlib
import struct
import warnings
import zlib

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"
warnings.filterwarnings("ignore")

import av
import numpy as np
import PIL
import torch
import torchvision
import transformers
from PIL import Image
from qwen_vl_utils import vision_process
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
HALF = dict(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
Q2 = dict(patch_size=14, temporal_patch_size=2, merge_size=2, **CLIP)
Q3 = dict(patch_size=16, temporal_patch_size=2, merge_size=2, **HALF)


def size(lo, hi):
    return {"shortest_edge": lo, "longest_edge": hi}


PROCESSORS = {
    "q2": dict(generation="qwen2_vl", image=dict(min_pixels=3136, max_pixels=12845056, **Q2), video=None),
    "q25": dict(generation="qwen2_5_vl", image=dict(min_pixels=3136, max_pixels=12845056, **Q2), video=None),
    "q25-sampling": dict(generation="qwen2_5_vl", image=dict(size=size(3136, 50176), **Q2),
                         video=dict(size=size(3136, 50176), do_sample_frames=True, fps=2, min_frames=4, max_frames=768, **Q2)),
    "q3": dict(generation="qwen3_vl", image=dict(size=size(65536, 16777216), **Q3), video=dict(size=size(4096, 25165824), fps=2, **Q3)),
    "q3-small": dict(generation="qwen3_vl", image=dict(size=size(4096, 65536), **Q3), video=dict(size=size(4096, 200000), fps=2, **Q3)),
    "q3-capped": dict(generation="qwen3_vl", image=dict(size=size(4096, 65536), **Q3),
                      video=dict(size=size(4096, 25165824), fps=2, cap_pixels_per_frame=True, max_video_tokens=64, **Q3)),
    "defaults": dict(generation="qwen2_vl", image={}, video={}),
    "rescale-only": dict(generation="qwen3_vl", image=dict(size=size(4096, 65536), do_normalize=False, **Q3), video=None),
    "bilinear": dict(generation="qwen3_vl", image=dict(size=size(4096, 65536), resample=2, **Q3), video=None),
}


def picture(h, w, channels=3, phase=0.0):
    """Smooth content: Pillow and torch then agree to a step or two."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    y, x = y / max(h - 1, 1), x / max(w - 1, 1)
    planes = [x, y, 1 - (x + y) / 2, 0.2 + 0.8 * x * y, ]
    out = [np.clip(p * 200 + 28 + 24 * np.sin(6 * (x + 2 * y) + phase + c), 0, 255) for c, p in enumerate(planes[:channels])]
    return np.stack(out, -1).round().astype(np.uint8)


def blocks(h, w):
    """A large picture that packs small: flat areas."""
    out = np.zeros((h, w, 3), np.uint8)
    out[:, :] = (90, 140, 200)
    out[h // 4: h // 2, w // 3: w - w // 5] = (230, 60, 20)
    out[h // 2:, : w // 4] = (20, 200, 90)
    return out


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(path, samples, colour_type, depth, extra=b""):
    """samples: [H, W, C] of u8 or u16. Pillow cannot write 16-bit colour."""
    h, w = samples.shape[:2]
    lines = b"".join(b"\0" + samples[y].astype(">u2" if depth == 16 else "u1").tobytes() for y in range(h))
    head = struct.pack(">IIBBBBB", w, h, depth, colour_type, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b""))


def write_pictures(out):
    names = []

    def save(name, image, **how):
        image.save(out / name, **how)
        names.append(name)

    rgb = Image.fromarray(picture(37, 53))
    save("rgb.png", rgb)
    save("rgb.jpg", rgb, quality=92)
    save("rgb444.jpg", rgb, quality=92, subsampling=0)
    save("progressive.jpg", rgb, quality=90, progressive=True)
    save("rgb.bmp", rgb.crop((0, 0, 21, 9)))
    save("palette.bmp", rgb.crop((0, 0, 21, 9)).quantize(16))
    save("rgb.tiff", rgb, compression="tiff_lzw")
    save("lossless.webp", rgb, lossless=True)
    save("lossy.webp", rgb, quality=90)
    save("grey.png", rgb.convert("L"))
    save("grey.jpg", rgb.convert("L"), quality=92)
    save("bilevel.png", rgb.convert("1"))
    save("palette.png", rgb.quantize(32))
    save("palette_alpha.png", rgb.quantize(32), transparency=bytes(range(0, 256, 8)))
    save("palette_key.png", rgb.quantize(8), transparency=3)
    save("rgb_key.png", rgb, transparency=(28, 28, 228))
    save("grey_key.png", rgb.convert("L"), transparency=60)
    rgba = np.concatenate([picture(37, 53), (np.arange(37 * 53) % 256).astype(np.uint8).reshape(37, 53, 1)], -1)
    rgba[0, 0] = (255, 0, 0, 128)
    save("rgba.png", Image.fromarray(rgba))
    save("rgba.webp", Image.fromarray(rgba), lossless=True, exact=True)
    save("rgba.tiff", Image.fromarray(rgba))
    la = np.stack([rgba[..., 0], rgba[..., 3]], -1)
    la[0, 0] = (10, 0)
    save("grey_alpha.png", Image.fromarray(la))
    cmyk = Image.fromarray(picture(37, 53, 4), "CMYK") if PIL.__version__ < "13" else Image.frombytes("CMYK", (53, 37), picture(37, 53, 4).tobytes())
    save("cmyk.jpg", cmyk, quality=95)
    save("cmyk.tiff", cmyk)
    grey16 = (picture(37, 53, 1)[..., 0].astype(np.uint16) * 3)
    save("grey16.png", Image.fromarray(grey16))
    save("grey16.tiff", Image.fromarray(grey16))
    wide = picture(11, 17, 4).astype(np.uint16) * 257 + 77
    raw_png(out / "rgb16.png", wide[..., :3], 2, 16)
    raw_png(out / "rgba16.png", wide, 6, 16)
    raw_png(out / "grey_alpha16.png", wide[..., :2], 4, 16)
    names += ["rgb16.png", "rgba16.png", "grey_alpha16.png"]
    save("opaque.gif", rgb.quantize(64))
    save("key.gif", rgb.quantize(64), transparency=5)
    frames = [Image.fromarray(picture(20, 30, 3, k)).quantize(32) for k in range(3)]
    save("animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    save("animated.webp", Image.fromarray(picture(20, 30)), save_all=True, append_images=[Image.fromarray(picture(20, 30, 3, 2))], lossless=True)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"exif{orientation}.jpg", rgb.crop((0, 0, 48, 32)), quality=92, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("exif6.png", rgb, exif=exif)
    save("exif6.webp", rgb, lossless=True, exif=exif)
    return names


def write_larger(out):
    """Pictures for sizes only: not in the decode list."""
    for h, w in [(1, 1), (13, 13), (27, 28), (3, 600), (600, 3), (10, 2000), (100, 100)]:
        Image.fromarray(picture(h, w)).save(out / f"s{h}x{w}.png", optimize=True)
    for h, w in [(480, 640), (428, 640), (1080, 1920), (28, 5600)]:
        Image.fromarray(blocks(h, w)).quantize(8).convert("RGB").save(out / f"s{h}x{w}.png", optimize=True)
    for h, w in [(240, 320), (97, 61)]:
        Image.fromarray(picture(h, w)).save(out / f"p{h}x{w}.jpg", quality=85)
    noise = np.random.default_rng(0).integers(0, 256, (60, 75, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out / "noise60x75.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(100, 300)).save(out / "turned300x100.jpg", quality=85, exif=exif)
    for k in range(5):
        Image.fromarray(picture(60, 80, 3, k * 0.7)).save(out / f"frame{k}.jpg", quality=85)


def write_clip(path, n, rate, h, w, codec="libx264", pix_fmt="yuv420p", options=None):
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as box:
        stream = box.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = w, h, pix_fmt
        stream.options = options or {"crf": "26", "preset": "slow", "bf": "2"}
        base = picture(h, w, 3).astype(np.int64) // 2
        for k in range(n):
            frame = base.copy()
            frame[:, :, :] += 110 * k // max(n - 1, 1)  # brightness says which frame it is
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame.astype(np.uint8), format="rgb24")):
                box.mux(packet)
        for packet in stream.encode():
            box.mux(packet)


def write_clips(out):
    write_clip(out / "c50at10.mp4", 50, 10, 240, 320)
    write_clip(out / "c100at25.mp4", 100, 25, 120, 160)
    write_clip(out / "c7at2.mp4", 7, 2, 64, 96)
    write_clip(out / "c1.mp4", 1, 25, 64, 64)
    write_clip(out / "c3.mp4", 3, 30, 20, 20)
    write_clip(out / "c12.webm", 12, 5, 48, 64, "libvpx-vp9", options={"crf": "34", "b": "0"})
    write_clip(out / "lossless.mkv", 9, 5, 24, 32, "ffv1", "bgr0", {})


def decode_clip(path):
    with av.open(str(path)) as box:
        rate = float(box.streams.video[0].average_rate)
        return np.stack([f.to_ndarray(format="rgb24") for f in box.decode(video=0)]), rate


# qwen-vl-utils 0.0.14 hands the merged factor to frames of a list where the patch size belongs; put right here.
_fetch_image = vision_process.fetch_image


def fetch_image_fixed(ele, factor=None, image_patch_size=None):
    return _fetch_image(ele, image_patch_size=factor // 2 if factor else image_patch_size)


vision_process.fetch_image = fetch_image_fixed


class Golden:
    def __init__(self, out):
        self.out, self.cases, self.samples = out, [], bytearray()

    def processor(self, name):
        p = PROCESSORS[name]
        image = Qwen2VLImageProcessor(**p["image"])
        klass = Qwen3VLVideoProcessor if p["generation"] == "qwen3_vl" else Qwen2VLVideoProcessor
        return image, klass(**(p["image"] if p["video"] is None else p["video"]))

    def where(self, source):
        return source if source.startswith("data:") else str(self.out / source)

    def pack(self, values, processor):
        """f32 rows -> u8 samples before normalisation."""
        ours = processor
        rows = values.double().reshape(values.shape[0], 3, -1)
        if ours.do_normalize:
            mean, std = (torch.tensor(v).double().reshape(1, 3, 1) for v in (ours.image_mean, ours.image_std))
            rows = rows * std + mean
        flat = (rows * 255).round().clamp(0, 255).to(torch.uint8).flatten().numpy()
        stride = max(1, flat.size // 3000) | 1
        taken = flat[::stride]
        at = len(self.samples)
        self.samples += taken.tobytes()
        return dict(rows=values.shape[0], columns=values.shape[1], at=at, count=int(taken.size), stride=int(stride))

    def case(self, name, processor, items, style="hf", tolerance=2, options=None, **expected):
        self.cases.append(dict(name=name, processor=processor, style=style, items=items, options=options or {}, tolerance=tolerance, **expected))

    def hf_images(self, name, processor, items, tolerance=0, options=None):
        image, _ = self.processor(processor)
        values, grids = [], []
        for item in items:
            lo = item.get("min_pixels", (options or {}).get("min_pixels"))
            hi = item.get("max_pixels", (options or {}).get("max_pixels"))
            kw = {}
            if lo or hi:
                kw["size"] = size(lo or image.size["shortest_edge"], hi or image.size["longest_edge"])
            got = image(images=[load_image(self.where(item["image"]))], return_tensors="pt", **kw)
            values.append(got["pixel_values"])
            grids += got["image_grid_thw"].tolist()
        self.case(name, processor, items, "hf", tolerance, options, image_grid_thw=grids, pixel_values=self.pack(torch.cat(values), image))

    def hf_video(self, name, processor, item, call=None, options=None, frames=None, tolerance=2):
        _, video = self.processor(processor)
        if frames is None:
            frames, rate = decode_clip(self.out / item["video"])
            metadata = dict(fps=rate, total_num_frames=len(frames))
        else:
            frames, metadata = frames
        got = video(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()], video_metadata=[metadata], return_metadata=True,
                    return_tensors="pt", **(call or {}))
        meta = got["video_metadata"][0]
        indices = meta.frames_indices
        indices = list(range(len(frames))) if indices is None else [int(i) for i in indices]
        self.case(name, processor, [item], "hf", tolerance, options, video_grid_thw=got["video_grid_thw"].tolist(), indices=[indices], fps=[meta.fps],
                  second_per_grid_ts=[2 / (len(indices) / len(frames) * meta.fps)], pixel_values_videos=self.pack(got["pixel_values_videos"], video))

    def util(self, name, processor, items, tolerance=2):
        image, video = self.processor(processor)
        patch = image.patch_size
        real = []
        for item in items:
            item = dict(item)
            for key in ("image", "video"):
                if key in item:
                    item[key] = [self.where(s) for s in item[key]] if isinstance(item[key], list) else self.where(item[key])
            real.append(item)
        images, videos = vision_process.process_vision_info([{"role": "user", "content": real}], return_video_metadata=True, image_patch_size=patch)
        resize = {"do_resize": False} if patch == 16 else {}
        expected = {}
        if images:
            got = image(images=images, return_tensors="pt", **resize)
            expected |= dict(image_grid_thw=got["image_grid_thw"].tolist(), pixel_values=self.pack(got["pixel_values"], image))
        if videos:
            got = video(videos=[v for v, _ in videos], do_sample_frames=False, return_tensors="pt", **resize)
            metas = [m for _, m in videos]
            expected |= dict(video_grid_thw=got["video_grid_thw"].tolist(), pixel_values_videos=self.pack(got["pixel_values_videos"], video),
                             indices=[[int(i) for i in m["frames_indices"]] for m in metas], fps=[m["fps"] for m in metas],
                             second_per_grid_ts=[2 / (len(m["frames_indices"]) / m["total_num_frames"] * m["fps"]) for m in metas])
        self.case(name, processor, items, "qwen-vl-utils", tolerance, None, **expected)


def image_cases(g, names):
    for name in ["rgb.png", "grey.png", "grey_alpha.png", "palette.png", "palette_alpha.png", "rgba.png", "grey16.png", "rgb16.png", "bilevel.png",
                 "exif6.png", "opaque.gif", "lossless.webp"]:
        g.hf_images("hf " + name, "q3-small", [dict(type="image", image=name)])
    for name in ["cmyk.jpg", "rgb.jpg", "grey.jpg", "lossy.webp", "exif5.jpg", "exif8.jpg"]:
        g.hf_images("hf " + name, "q25", [dict(type="image", image=name)], tolerance=2)
    for name in ["s1x1.png", "s13x13.png", "s27x28.png", "s3x600.png", "s600x3.png", "s10x2000.png", "s100x100.png", "s480x640.png", "s428x640.png",
                 "s1080x1920.png", "s28x5600.png"]:
        for processor in ("q3", "q25"):
            g.hf_images(f"hf {processor} {name}", processor, [dict(type="image", image=name)])
    three = [dict(type="image", image=n) for n in ("rgb.png", "p97x61.jpg", "grey.png")]
    g.hf_images("hf several pictures", "q25", three, tolerance=2)
    g.hf_images("hf class defaults", "defaults", [dict(type="image", image="s1080x1920.png")])
    g.hf_images("hf rescale only", "rescale-only", [dict(type="image", image="rgb.png")])
    g.hf_images("hf bilinear", "bilinear", [dict(type="image", image="rgb.png")])
    g.hf_images("hf item budget", "q3", [dict(type="image", image="s480x640.png", min_pixels=4096, max_pixels=50176), three[0]])
    g.hf_images("hf budget of the call", "q25", [dict(type="image", image="s480x640.png")], options=dict(max_pixels=50176, min_pixels=3136))
    for name in ["rgb.png", "rgba.png", "grey_alpha.png", "palette_alpha.png", "grey16.png", "cmyk.jpg", "exif6.jpg", "rgba.webp", "s27x28.png", "s3x600.png",
                 "s100x100.png", "s480x640.png", "turned300x100.jpg"]:
        g.util("util q3 " + name, "q3", [dict(image=name)])
    for name in ["p240x320.jpg", "s428x640.png", "rgba.png"]:
        g.util("util q25 " + name, "q25", [dict(type="image", image=name)])
    for processor in ("q3", "q25"):
        g.hf_images(f"hf {processor} noise", processor, [dict(type="image", image="noise60x75.png")])
        for h, w in [(30, 64), (90, 100), (30, 100), (90, 50), (1, 1)]:
            g.util(f"util {processor} noise {h}x{w}", processor, [dict(image="noise60x75.png", resized_height=h, resized_width=w)])
    g.util("util resized", "q3", [dict(image="p240x320.jpg", resized_height=280, resized_width=420)])
    g.util("util budget", "q25", [dict(image="s480x640.png", min_pixels=50176, max_pixels=50176), dict(image="rgb.png")])


def video_cases(g):
    g.hf_video("hf q3 50@10", "q3", dict(type="video", video="c50at10.mp4"))
    g.hf_video("hf q3 100@25", "q3", dict(type="video", video="c100at25.mp4"))
    g.hf_video("hf q3 small budget", "q3-small", dict(type="video", video="c50at10.mp4"))
    g.hf_video("hf q3 capped", "q3-capped", dict(type="video", video="c50at10.mp4"))
    g.hf_video("hf q3 fps 4", "q3-small", dict(type="video", video="c100at25.mp4", fps=4), call=dict(fps=4))
    g.hf_video("hf q3 odd num_frames", "q3-small", dict(type="video", video="c100at25.mp4"), call=dict(fps=None, num_frames=5), options=dict(num_frames=5))
    g.hf_video("hf q3 odd count", "q3-small", dict(type="video", video="c7at2.mp4"))
    g.hf_video("hf q3 tiny frames", "q3", dict(type="video", video="c3.mp4"))
    g.hf_video("hf q3 lossless", "q3", dict(type="video", video="lossless.mkv"), tolerance=0)
    g.hf_video("hf q3 webm", "q3", dict(type="video", video="c12.webm"))
    g.hf_video("hf q25 all frames", "q25", dict(type="video", video="c7at2.mp4"))
    g.hf_video("hf q25 one frame", "q25", dict(type="video", video="c1.mp4"))
    g.hf_video("hf q25 sampled", "q25-sampling", dict(type="video", video="c50at10.mp4"))
    g.hf_video("hf q25 num_frames", "q25-sampling", dict(type="video", video="c100at25.mp4"), call=dict(num_frames=8, fps=None), options=dict(num_frames=8))
    listed = [f"frame{k}.jpg" for k in range(5)]
    frames = np.stack([np.asarray(load_image(g.where(n))) for n in listed])
    for processor in ("q3", "q25"):
        metadata = dict(fps=1.0, total_num_frames=5, frames_indices=list(range(5)))
        g.hf_video(f"hf {processor} frame list", processor, dict(type="video", video=listed, sample_fps=1), call=dict(do_sample_frames=False), frames=(frames, metadata))
    for processor in ("q3", "q25"):
        g.util(f"util {processor} 50@10 fps 1", processor, [dict(video="c50at10.mp4", fps=1)])
        g.util(f"util {processor} 100@25", processor, [dict(video="c100at25.mp4")])
        g.util(f"util {processor} frame list", processor, [dict(video=listed, sample_fps=1)])
        g.util(f"util {processor} 7@2", processor, [dict(video="c7at2.mp4")])
    g.util("util trimmed", "q3", [dict(video="c50at10.mp4", fps=2, video_start=1, video_end=4)])
    g.util("util nframes", "q3", [dict(video="c100at25.mp4", nframes=5)])
    g.util("util low budget", "q3", [dict(video="c50at10.mp4", min_pixels=1024, max_pixels=102400)])
    g.util("util resized clip", "q25", [dict(video="c100at25.mp4", resized_height=100, resized_width=130)])
    g.util("util total_pixels", "q3", [dict(video="c50at10.mp4", total_pixels=65536, min_pixels=4096)])
    g.util("util pictures and a clip", "q3", [dict(image="rgba.png"), dict(text="and"), dict(video="c7at2.mp4"), dict(image="grey.png")])


def decode_cases(out, names):
    data, cases = bytearray(), []
    for name in names:
        hf = np.asarray(load_image(str(out / name)))
        util = np.asarray(vision_process.to_rgb(Image.open(out / name)))
        entry = dict(file=name, lossy=name.endswith(".jpg") or name == "lossy.webp")
        for key, pixels in (("hf", hf), ("util", util)):
            entry[key] = dict(height=pixels.shape[0], width=pixels.shape[1], at=len(data))
            data += pixels.tobytes()
        cases.append(entry)
    (out / "decode.bin").write_bytes(bytes(data))
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    names = write_pictures(out)
    write_larger(out)
    write_clips(out)
    g = Golden(out)
    image_cases(g, names)
    video_cases(g)
    versions = dict(torch=torch.__version__, torchvision=torchvision.__version__, transformers=transformers.__version__, pillow=PIL.__version__, av=av.__version__,
                    qwen_vl_utils="0.0.14", decord="0.6.0")
    document = dict(versions=versions, processors=PROCESSORS, decode=decode_cases(out, names), cases=g.cases)
    (out / "samples.bin").write_bytes(bytes(g.samples))
    text = json.dumps(document, separators=(",", ":"))
    (out / "cases.json").write_text(text.replace('{"name"', '\n{"name"').replace('{"file"', '\n{"file"') + "\n")
    print(len(g.cases), "cases,", len(document["decode"]), "decodings,", sum(f.stat().st_size for f in out.iterdir()) // 1024, "KiB")


if __name__ == "__main__":
    main()
