#!/usr/bin/env python3
"""Digests of codes, scales and zero points as compressed-tensors computes them, for src/quant/methods/rtn/golden_test.cpp.
Matrices come from the counter-based generator of src/base/rng.h, so both sides make the same ones. Prints the table of the test.
Made with torch 2.15.0, compressed-tensors 0.20.0: python tools/golden/rtn.py"""
import hashlib

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams

ROWS, COLUMNS = 24, 192
TYPES = {"kFloat": torch.float32, "kBFloat16": torch.bfloat16, "kHalf": torch.float16}


def mix64(x):
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def matrix(seed, dtype):
    """Uniform weights, of magnitudes that change by row; row 5 is zero, row 7 positive, row 9 negative."""
    with np.errstate(over="ignore"):
        key = mix64(np.uint64(seed) ^ mix64(np.uint64(0)))
        draws = mix64(key + np.arange(ROWS * COLUMNS, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95))
    u = (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53
    w = ((u - 0.5).reshape(ROWS, COLUMNS) * np.exp2((12 - np.arange(ROWS) % 12) % 12)[:, None]).astype(np.float32)
    w[5] = 0
    w[7] = np.abs(w[7])
    w[9] = -np.abs(w[9])
    return torch.from_numpy(w).to(dtype)


def digest(w, bits, group, symmetric):
    strategy = {"strategy": "group", "group_size": group} if group > 0 else {"strategy": "channel"}
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
    grouped = w.view(ROWS, -1, group if group > 0 else COLUMNS)
    scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), args)
    codes = quantize(w, scale, zero, args, dtype=torch.int8)
    h = hashlib.sha256(codes.contiguous().numpy().tobytes())
    h.update(scale.to(torch.float32).contiguous().numpy().tobytes())
    if not symmetric:
        h.update(zero.to(torch.int8).contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


seed = 0
for name, dtype in TYPES.items():
    for bits in range(2, 9):
        for group in (-1, 32, 64):
            for symmetric in (True, False):
                seed += 1
                print(f'    {{at::{name}, {bits}, {group}, {str(symmetric).lower()}, {seed}, "{digest(matrix(seed, dtype), bits, group, symmetric)}"}},')
