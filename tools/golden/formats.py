#!/usr/bin/env python3
"""Goldens of the checkpoint formats, from the packages that define them.

    formats.py --out tests/golden

dtypes.safetensors: every dtype and a few shapes as safetensors' own writer lays them out (byte-equality of ours).
formats.safetensors: random matrices, and what compressed-tensors makes of them (needs: pip install compressed-tensors==0.20.0).
Seeded; running it again writes the same bytes.
"""
import argparse
import json
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.compressors.naive_quantized.base import IntQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

import common


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


def weight(rows, columns, dtype, seed, zeros):
    """Bell-shaped rows of different widths, with an outlier, a row without negative values and, if asked for, one of zeros
    (asymmetric, the package computes 0/0 for its zero point: undefined, so not compared)."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=g) * torch.logspace(-2, 1, rows)[:, None]
    w[1, 3] = 40.0
    if zeros:
        w[2] = 0
    w[3] = w[3].abs()
    return w.to(dtype)


def compress(w, bits, group, symmetric, int8):
    """What the package stores for one layer, and the values it gives back."""
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, group_size=group if group > 0 else None,
                            strategy="group" if group > 0 else "channel")
    act = QuantizationArgs(num_bits=8, strategy="token", dynamic=True) if int8 else None
    scheme = QuantizationScheme(targets=["Linear"], weights=args, input_activations=act)
    grouped = w.reshape(w.shape[0], -1, group if group > 0 else w.shape[1])
    scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
    state = dict(weight=w, weight_scale=scale)
    if not symmetric:
        state["weight_zero_point"] = zero.to(torch.int8)
    compressor = IntQuantizationCompressor if int8 else PackedQuantizationCompressor
    out = compressor.compress(state, scheme)
    return out, compressor.decompress(dict(out), scheme)["weight"], args


def layers():
    """Tensors "<case>.<name>", and the scheme of each case."""
    out, cases, rows, columns = {}, {}, 20, 80
    for dtype, key in ((torch.float32, "f32"), (torch.bfloat16, "bf16"), (torch.float16, "f16")):
        matrix = {}
        for symmetric, label in ((True, "sym"), (False, "asym")):
            matrix[symmetric] = out[f"{key}_{label}.weight"] = weight(rows, columns, dtype, 11, zeros=symmetric)
        for bits in range(2, 9):
            if dtype == torch.float16 and bits != 4:
                continue
            for group in (16, -1):
                for symmetric in (True, False):
                    for int8 in (False, True) if group < 0 and symmetric else (False,):
                        name = f"{key}_w{bits}_{'channel' if group < 0 else group}_{'sym' if symmetric else 'asym'}{'_int8' if int8 else ''}"
                        stored, back, args = compress(matrix[symmetric], bits, group, symmetric, int8)
                        for field, t in stored.items():
                            if isinstance(t, torch.Tensor):
                                out[f"{name}.{field}"] = t.contiguous()
                        if dtype == torch.float32 or bits == 4:
                            out[f"{name}.dequantized"] = back.contiguous()
                        cases[name] = dict(weight=f"{key}_{'sym' if symmetric else 'asym'}.weight", bits=bits, group=group, symmetric=symmetric, int8=int8)
    return out, cases


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    save_file(dtypes(), out / "dtypes.safetensors", metadata={"format": "pt"})
    common.DTYPES[torch.int8] = "I8"
    tensors, cases = layers()
    meta = common.versions(compressed_tensors=version("compressed-tensors"), cases=cases)
    common.write_safetensors(out / "formats.safetensors", tensors, meta)
    (out / "dtypes.safetensors").chmod(0o644)
