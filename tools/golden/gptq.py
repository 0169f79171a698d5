#!/usr/bin/env python3
"""GPTQ in float64 with numpy, written from the paper (Frantar et al. 2022, algorithm 1) and from docs/methods/gptq.md where that differs.

    python tools/golden/gptq.py --out tests/golden/gptq.safetensors [--show]

Inverse-Hessian form: U is the upper Cholesky factor of (G + damping)^-1, columns go in blocks of 128, the error of a column is
spread over the later ones by U's row. The program solves the same problem on one factor of G itself, so the two share no formula.
What is given a precision is given it here too: scales and zero points in the weight's dtype, the quotient that is rounded in fp32 (the
largest weight of a symmetric group lies on a tie: w / (w / 7.5)). Everything else is float64.
Inputs are small integers, hence exact in every precision; rows are correlated and some channels are large, one is never active.
src/quant/methods/gptq/golden_test.cpp holds the program to the file.
"""
import argparse
from pathlib import Path

import numpy as np
import torch

import common

SEED, BLOCK, DAMP = 20260, 128, 0.01
common.DTYPES[torch.int8] = "I8"

# name: rows, columns, tokens, dtype
LAYERS = {"wide": (24, 288, 320, torch.float32), "narrow": (40, 160, 200, torch.float32), "half": (32, 96, 160, torch.bfloat16)}
# layer, bits, group, symmetric, act_order
CASES = [("wide", 4, 128, True, False), ("wide", 4, 32, False, False), ("wide", 3, 96, True, True),
         ("narrow", 4, -1, True, False), ("narrow", 3, 40, True, False), ("narrow", 4, 32, False, True), ("narrow", 2, 80, False, False),
         ("narrow", 8, 32, True, False), ("half", 4, 32, True, False), ("half", 4, 32, False, False)]


def inputs(rng, tokens, columns):
    """int8 [T, K]: a few shared directions plus noise, every 16th channel ten times as large, channel 7 always zero."""
    shared = rng.standard_normal((tokens, 24)) @ rng.standard_normal((24, columns))
    x = 1.5 * shared / np.sqrt(24) + rng.standard_normal((tokens, columns))
    x[:, 3::16] *= 10
    x[:, 7] = 0
    return np.clip(np.round(3 * x), -127, 127).astype(np.int8)


def grid(w, bits, symmetric, dtype):
    """Scale and zero point of each row of w (float64, [N, g]) in the arithmetic of `dtype`; both as float64 [N]."""
    low = torch.from_numpy(w).to(dtype).amin(1).clamp(max=0)
    high = torch.from_numpy(w).to(dtype).amax(1).clamp(min=0)
    qmin, qmax = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    zero = torch.zeros_like(low)
    if symmetric:
        scale = torch.maximum(-low, high) / ((qmax - qmin) / 2)
    else:
        scale = (high - low) / (qmax - qmin)
        zero = torch.nan_to_num(torch.round(qmin - low / scale), nan=0.0).clamp(qmin, qmax)
    scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(dtype).eps), scale)
    return scale.double().numpy(), zero.double().numpy()


def inverse_factor(gram):
    """Upper U with U^T U = (G + damping)^-1. The mean of the diagonal is over live channels; dead ones get it whole, and so keep to themselves."""
    dead = np.diag(gram) == 0
    mean = np.diag(gram)[~dead].mean()
    inverse = np.linalg.inv(gram + np.diag(np.where(dead, mean, DAMP * mean)))
    return np.linalg.cholesky(inverse).T


def gptq(W, gram, bits, group, symmetric, act_order, dtype):
    """Codes [N, K], scales [N, G], zero points [N, G], dequantized weights [N, K]. W float64."""
    rows, columns = W.shape
    group = columns if group < 0 else group
    order = np.argsort(-np.diag(gram), kind="stable") if act_order else np.arange(columns)
    U = inverse_factor(gram[np.ix_(order, order)])
    W = W[:, order].copy()
    groups = -(-columns // group)
    scale, zero = np.zeros((rows, groups)), np.zeros((rows, groups))
    fixed = act_order or group == columns
    if fixed:  # grids of the stored order, of the weights as they are
        stored = np.empty_like(W)
        stored[:, order] = W
        for g in range(groups):
            scale[:, g], zero[:, g] = grid(stored[:, g * group:(g + 1) * group], bits, symmetric, dtype)
    qmin, qmax = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes, result = np.zeros_like(W), np.zeros_like(W)
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        errors = np.zeros((rows, end - begin))
        for j in range(begin, end):
            if not fixed and j % group == 0:
                # beyond the block the columns still wait for the errors of this block
                now = W[:, j:j + group].copy()
                late = max(end - j, 0)
                now[:, late:] -= errors[:, :j - begin] @ U[begin:j, j + late:j + group]
                scale[:, j // group], zero[:, j // group] = grid(now, bits, symmetric, dtype)
            g = order[j] // group
            quotient = W[:, j].astype(np.float32) / scale[:, g].astype(np.float32) + zero[:, g].astype(np.float32)
            code = np.clip(np.round(quotient), qmin, qmax).astype(np.float64)
            codes[:, j] = code
            result[:, j] = (code - zero[:, g]) * scale[:, g]
            errors[:, j - begin] = (W[:, j] - result[:, j]) / U[j, j]
            W[:, j + 1:end] -= np.outer(errors[:, j - begin], U[j, j + 1:end])
        W[:, end:] -= errors @ U[begin:end, end:]
    back = np.argsort(order)
    return codes[:, back], scale, zero, result[:, back]


def loss(W, rounded, gram):
    return float(np.einsum("nk,kl,nl->", rounded - W, gram, rounded - W))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--show", action="store_true", help="print each case's loss beside that of plain rounding")
    args = ap.parse_args()
    rng = np.random.default_rng(SEED)
    tensors, layers = {}, {}
    for name, (rows, columns, tokens, dtype) in LAYERS.items():
        x = inputs(rng, tokens, columns)
        w = torch.from_numpy(rng.standard_normal((rows, columns)) * 0.05).to(dtype)
        gram = x.astype(np.float64).T @ x.astype(np.float64)
        layers[name] = w.double().numpy(), gram, dtype
        tensors[f"{name}.x"], tensors[f"{name}.w"] = torch.from_numpy(x), w
    losses = []
    for name, bits, group, symmetric, act_order in CASES:
        W, gram, dtype = layers[name]
        codes, scale, zero, rounded = gptq(W, gram, bits, group, symmetric, act_order, dtype)
        losses.append(loss(W, rounded, gram))
        tensors[f"case{len(losses) - 1}.q"] = torch.from_numpy(codes).to(torch.int8)
        if args.show:
            columns = W.shape[1]
            plain = np.zeros_like(W)
            for a in range(0, columns, columns if group < 0 else group):
                b = columns if group < 0 else min(a + group, columns)
                s, z = (v[:, None] for v in grid(W[:, a:b], bits, symmetric, dtype))
                low = -(2 ** (bits - 1))
                plain[:, a:b] = (np.clip(np.round(W[:, a:b] / s + z), low, -low - 1) - z) * s
            print(name, bits, group, symmetric, act_order, f"{losses[-1]:.6g} of plain {losses[-1] / loss(W, plain, gram):.3f}")
    meta = common.versions(numpy=np.__version__, seed=SEED, damp=DAMP, losses=losses,
                           cases=[dict(layer=n, bits=b, group=g, symmetric=s, act_order=a) for n, b, g, s, a in CASES])
    common.write_safetensors(args.out, tensors, meta)


if __name__ == "__main__":
    main()
