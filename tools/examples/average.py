"""The weights of two checkpoints in between: SHARE * B + (1 - SHARE) * A, in f32, rounded to bf16 (to the nearest, halves to even). What B forgot of A
while it learned something else comes back, at little loss of that, when B was trained from A.

    python3 tools/examples/average.py A B OUT --share 0.75

Side files are B's. Standard library only; the same input gives the same bytes.
"""
import argparse
import shutil
from array import array
from pathlib import Path

from checkpoint import tensors, write_file


def floats(dtype, data):
    """Numbers of a tensor's bytes."""
    values = array("f")
    if dtype == "BF16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        data = bytes(wide)
    elif dtype != "F32":
        raise SystemExit(f"average.py: tensors of type {dtype}; only BF16 and F32")
    values.frombytes(data)
    return values


def bf16(values):
    """Bytes of finite numbers."""
    bits = array("I")
    bits.frombytes(array("f", values).tobytes())
    return array("H", [(u + 0x7FFF + (u >> 16 & 1)) >> 16 for u in bits]).tobytes()


def averaged(a, b, share):
    """Tensors between those of the folders a and b."""
    theirs = {name: (dtype, shape, data) for name, dtype, shape, data in tensors(a)}
    for name, dtype, shape, data in tensors(b):
        if name not in theirs or theirs[name][1] != shape:
            raise SystemExit(f"{a}: no tensor {name} of shape {shape}, as {b} has")
        from_a, from_b = floats(theirs[name][0], theirs.pop(name)[2]), floats(dtype, data)
        yield name, "BF16", shape, bf16([x + share * (y - x) for x, y in zip(from_a, from_b)])
    if theirs:
        raise SystemExit(f"{b}: no tensor {next(iter(theirs))}, as {a} has")


def average(a, b, out, share):
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        for path in sorted(b.iterdir()):
            if path.is_file() and ".safetensors" not in path.name:
                shutil.copyfile(path, staging / path.name)
        write_file(staging / "model.safetensors", list(averaged(a, b, share)))
        shutil.rmtree(out, ignore_errors=True)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("a", type=Path)
    ap.add_argument("b", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--share", type=float, default=0.5, help="of B, 0 to 1")
    args = ap.parse_args()
    if not 0 <= args.share <= 1:
        ap.error(f"--share {args.share}: expected 0 to 1")
    average(args.a, args.b, args.out, args.share)


if __name__ == "__main__":
    main()
