"""Safetensors checkpoints of the example models: their hash, their size, and the same tensors in shards small enough for the repository.

Standard library only; tensors are bytes here, never numbers.
"""
import hashlib
import json
import math
import struct
from pathlib import Path


def tensors(folder):
    """(name, dtype, shape, bytes) of every tensor, by name."""
    found = []
    for path in sorted(Path(folder).glob("*.safetensors")):
        with open(path, "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            header = json.loads(f.read(n))
        found += [(name, path, 8 + n, info) for name, info in header.items() if name != "__metadata__"]
    if not found:
        raise SystemExit(f"{folder}: no safetensors files")
    for name, path, start, info in sorted(found, key=lambda t: t[0]):
        begin, end = info["data_offsets"]
        with open(path, "rb") as f:
            f.seek(start + begin)
            yield name, info["dtype"], info["shape"], f.read(end - begin)


def sha256_of(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def weights_sha256(folder):
    """Of names, types, shapes and values: the same however the tensors are spread over files."""
    h = hashlib.sha256()
    for name, dtype, shape, data in tensors(folder):
        h.update(json.dumps([name, dtype, shape]).encode())
        h.update(data)
    return h.hexdigest()


def parameters(folder):
    return sum(math.prod(shape) for _, _, shape, _ in tensors(folder))


def write_file(path, part):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in part:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(data for *_, data in part)


def write_shards(source, out, most):
    """SOURCE's tensors as OUT/model.safetensors, or as numbered files of at most `most` bytes of tensors with their index."""
    parts, total = [[]], 0
    for tensor in tensors(source):
        size = len(tensor[3])
        if size > most:
            raise SystemExit(f"{source}: {tensor[0]} has {size} bytes, a file at most {most}")
        if sum(len(t[3]) for t in parts[-1]) + size > most:
            parts.append([])
        parts[-1].append(tensor)
        total += size
    names = ["model.safetensors"] if len(parts) == 1 else [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    for name, part in zip(names, parts):
        write_file(Path(out) / name, part)
    if len(parts) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": {t[0]: name for name, part in zip(names, parts) for t in part}}
        (Path(out) / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
