"""Shared by the fixture generators: a byte-stable safetensors writer, random weights, positions.

Not part of the product: statera never starts Python. The official safetensors writer may order the
metadata differently from run to run, hence the small one here.
"""
import hashlib
import json
import math

import torch
import transformers

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
          torch.int32: "I32", torch.uint8: "U8"}


def versions(**extra):
    """String metadata every fixture carries."""
    meta = dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__)
    return {**meta, **{k: v if isinstance(v, str) else json.dumps(v) for k, v in extra.items()}}


def write_safetensors(path, tensors, metadata=None):
    """Same tensors and metadata, same bytes. Tensors lie in name order, the data 8-byte aligned."""
    header, offset, blobs = {}, 0, []
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    for name, t in sorted(tensors.items()):
        raw = t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""
        header[name] = dict(dtype=DTYPES[t.dtype], shape=list(t.shape), data_offsets=[offset, offset + len(raw)])
        offset += len(raw)
        blobs.append(raw)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for raw in blobs:
            f.write(raw)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def randomise(model, seed):
    """Seeded weights that bf16, f16 and f32 all hold exactly; gains and biases are random too.

    Each tensor draws from its own generator, so the result does not depend on the module order.
    """
    for name, p in model.named_parameters():
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        gen = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        noise = torch.randn(p.shape, generator=gen)
        if p.ndim >= 2:
            fan_in = p[0].numel() if p.ndim > 3 else p.shape[-1]
            noise = noise / math.sqrt(fan_in)
        else:
            noise = (1.0 if "norm" in name.lower() or "ln_q" in name else 0.0) * name.endswith("weight") + 0.1 * noise
        noise = noise.bfloat16().float()
        # below 2^-16 a bf16 value may lose bits as an f16 subnormal
        p.data = torch.where(noise.abs() < 2.0**-16, torch.zeros(()), noise)
    model.tie_weights()


def mrope_positions(kind, ids, image_id, video_id, images=(), videos=(), second_per_grid=(), tokens_per_second=2):
    """M-RoPE rows [3, 1, L] for one unpadded sequence, merge 2.

    After a vision block the next position is the largest of all three rows plus one. transformers 5.23
    advances by the spatial extent only, which differs for long Qwen2-VL and Qwen2.5-VL videos.
    kind: qwen2_vl (t = frame), qwen2_5_vl (t = trunc(frame * second_per_grid * tokens_per_second) for
    videos, 0 for images), qwen3_vl (every frame of a video is a block of its own, t = 0).
    """
    images, videos = [list(g) for g in images], [list(g) for g in videos]
    if kind.startswith("qwen3_vl"):
        videos = [[1, h, w] for t, h, w in videos for _ in range(t)]
    seconds = list(second_per_grid) or [1.0] * len(videos)
    rows, nxt, i = [], 0, 0
    ids = ids.reshape(-1).tolist()
    while i < len(ids):
        if ids[i] not in (image_id, video_id):
            rows.append((nxt, nxt, nxt))
            nxt, i = nxt + 1, i + 1
            continue
        video = ids[i] == video_id
        t, h, w = (videos if video else images).pop(0)
        second = seconds.pop(0) if video and seconds else 1.0
        for a in range(t):
            tau = 0 if kind.startswith("qwen3_vl") else a
            if kind == "qwen2_5_vl":
                tau = math.trunc(a * second * tokens_per_second) if video else 0
            for y in range(h // 2):
                rows += [(nxt + tau, nxt + y, nxt + x) for x in range(w // 2)]
        count = t * h * w // 4
        assert all(k == ids[i] for k in ids[i:i + count]) and len(rows) == i + count
        i += count
        nxt = max(max(r) for r in rows) + 1
    assert not images and not videos
    return torch.tensor(rows).T[:, None, :].contiguous()
