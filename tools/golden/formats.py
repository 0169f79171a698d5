#!/usr/bin/env python3
"""Goldens of the checkpoint formats, from the packages that define them.

    formats.py --out tests/golden

dtypes.safetensors: every dtype and a few shapes as safetensors' own writer lays them out (byte-equality of ours).
formats.safetensors: random matrices, and what compressed-tensors makes of them (needs: pip install compressed-tensors==0.20.0).
Seeded; running it again writes the same bytes.
"""
import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def dtypes():
    g = torch.Generator().manual_seed(7)
    raw = lambda n: torch.randint(0, 120, (n,), generator=g, dtype=torch.uint8)
    kinds = dict(u8=torch.uint8, i8=torch.int8, f8_e5m2=torch.float8_e5m2, f8_e4m3=torch.float8_e4m3fn,
                 f8_e8m0=torch.float8_e8m0fnu, f4=torch.float4_e2m1fn_x2, i16=torch.int16, u16=torch.uint16,
                 f16=torch.float16, bf16=torch.bfloat16, i32=torch.int32, u32=torch.uint32, f32=torch.float32,
                 i64=torch.int64, u64=torch.uint64, f64=torch.float64, c64=torch.complex64)
    out = {name: raw(48).view(6, 8).view(kind) for name, kind in kinds.items()}
    out["bool"] = torch.tensor([True, False, True])
    out["naïve \"quoted\"\\ name"] = torch.tensor(2.5)
    out["z.empty"] = torch.zeros(0, 3)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    save_file(dtypes(), out / "dtypes.safetensors", metadata={"format": "pt"})
    (out / "dtypes.safetensors").chmod(0o644)
