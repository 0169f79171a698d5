#!/usr/bin/env python3
"""A checkpoint with outlier channels that computes the same function: what makes activations hard to quantize, made to order.

    python tools/outliers/inject.py SOURCE OUT --factor 32 --channels 4 [--where norm mlp value] [--seed 0] [--no-check]

In every language block some channels between two operations become `factor` times as large and what reads them as much smaller:
    norm   weights (and biases) of both norms  | columns of q, k, v and of gate, up
    mlp    rows of up                          | columns of down
    value  rows of v (and bias)                | columns of o, of every head that reads the value head
Channels are drawn anew for each place. The factor is a power of two, so bf16 and f16 weights stay exact and so do all sums: with floating
weights the logits are those of SOURCE, which is checked with transformers (--no-check leaves it out; it needs torch either way).
Blocks with fused layers (qkv_proj, gate_up_proj) or experts are refused.
"""
import argparse
import json
import math
import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from safetensors import safe_open
from safetensors.torch import save_file

PLACES = ("norm", "mlp", "value")
READERS = {"input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
           "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"]}


def load(folder):
    """All tensors by name, and each name's file."""
    tensors, files = {}, {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        if path.name.startswith("golden"):
            continue
        with safe_open(path, framework="pt") as f:
            for name in f.keys():
                tensors[name], files[name] = f.get_tensor(name), path.name
    if not tensors:
        raise SystemExit(f"{folder}: no safetensors files")
    return tensors, files


def scale_rows(tensors, module, rows, factor):
    for kind in ("weight", "bias"):
        if f"{module}.{kind}" in tensors:
            tensors[f"{module}.{kind}"][rows] *= factor


def inject(tensors, config, factor, channels, where=PLACES, seed=0):
    """Changes tensors in place; returns {block: {place: channels}}."""
    text = config.get("text_config", config)
    heads, kv_heads = text["num_attention_heads"], text.get("num_key_value_heads", text["num_attention_heads"])
    draw = torch.Generator().manual_seed(seed)
    pick = lambda n: torch.randperm(n, generator=draw)[:channels].sort().values
    blocks = sorted({m[1] for name in tensors if (m := re.match(r"((?:\w+\.)*?layers\.\d+)\.input_layernorm\.weight$", name))},
                    key=lambda b: int(b.rsplit(".", 1)[1]))
    blocks = [b for b in blocks if "visual" not in b and "vision" not in b]
    if not blocks:
        raise SystemExit("no blocks with an input_layernorm")
    chosen = {}
    for block in blocks:
        need = [f"{block}.{r}.weight" for readers in READERS.values() for r in readers]
        need += [f"{block}.mlp.down_proj.weight", f"{block}.self_attn.o_proj.weight"]
        missing = [n for n in need if n not in tensors]
        if missing:
            raise SystemExit(f"{missing[0]} is missing: fused layers and experts are not handled")
        chosen[block] = {}
        if "norm" in where:
            for norm, readers in READERS.items():
                c = pick(tensors[f"{block}.{norm}.weight"].numel())
                scale_rows(tensors, f"{block}.{norm}", c, factor)
                for r in readers:
                    tensors[f"{block}.{r}.weight"][:, c] /= factor
                chosen[block][norm] = c.tolist()
        if "mlp" in where:
            c = pick(tensors[f"{block}.mlp.up_proj.weight"].shape[0])
            scale_rows(tensors, f"{block}.mlp.up_proj", c, factor)
            tensors[f"{block}.mlp.down_proj.weight"][:, c] /= factor
            chosen[block]["up_proj"] = c.tolist()
        if "value" in where:
            width = tensors[f"{block}.self_attn.v_proj.weight"].shape[0]
            c, size = pick(width), width // kv_heads
            scale_rows(tensors, f"{block}.self_attn.v_proj", c, factor)
            for share in range(heads // kv_heads):
                columns = (c // size * (heads // kv_heads) + share) * size + c % size
                tensors[f"{block}.self_attn.o_proj.weight"][:, columns] /= factor
            chosen[block]["v_proj"] = c.tolist()
    return chosen


def write(source, out, tensors, files):
    Path(out).mkdir(parents=True)
    for path in Path(source).iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, Path(out) / path.name)
    for file in set(files.values()):
        save_file({n: t for n, t in tensors.items() if files[n] == file}, Path(out) / file, metadata={"format": "pt"})


def logits(folder, ids):
    import transformers as T
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    kind = json.loads((Path(folder) / "config.json").read_text())["architectures"][0]
    model = getattr(T, kind).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def make(source, out, factor, channels, where=PLACES, seed=0, check=True):
    """Writes OUT; returns the channels and the largest difference of a logit (None: not checked)."""
    if math.frexp(factor)[0] != 0.5 or factor <= 0:
        raise SystemExit(f"--factor {factor} is no power of two")
    source, out = Path(source), Path(out)
    if out.exists():
        raise SystemExit(f"{out} exists")
    config = json.loads((source / "config.json").read_text())
    tensors, files = load(source)
    before = {n: t.clone() for n, t in tensors.items()}
    chosen = inject(tensors, config, factor, channels, where, seed)
    for name, t in tensors.items():  # a power of two loses nothing but what leaves the range of the dtype
        ratio = t.double() / before[name].double()
        if not bool(((t == before[name]) | torch.isin(ratio, torch.tensor([factor, 1 / factor], dtype=torch.double))).all()):
            raise SystemExit(f"{name}: weights leave the range of {t.dtype}; take a smaller factor")
    write(source, out, tensors, files)
    worst = None
    if check:
        vocab = config.get("text_config", config)["vocab_size"]
        taken = {v for k, v in config.items() if k.endswith("_token_id") and isinstance(v, int)}
        ids = [i for i in torch.randint(vocab, (96,), generator=torch.Generator().manual_seed(seed)).tolist() if i not in taken]
        a, b = (logits(f, torch.tensor([ids])) for f in (source, out))
        worst = float((a - b).abs().max())
        if not worst <= 1e-6:
            raise SystemExit(f"{out}: logits differ by {worst:.2e}")
    return chosen, worst


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("source", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--factor", type=float, default=32)
    ap.add_argument("--channels", type=int, default=4, help="outlier channels at each place of a block")
    ap.add_argument("--where", nargs="+", choices=PLACES, default=list(PLACES))
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--no-check", action="store_true")
    args = ap.parse_args()
    chosen, worst = make(args.source, args.out, args.factor, args.channels, args.where, args.seed, not args.no_check)
    for block, places in chosen.items():
        print(block, " ".join(f"{place}:{','.join(map(str, c))}" for place, c in places.items()))
    if worst is not None:
        print(f"logits differ by at most {worst:.2e}")


if __name__ == "__main__":
    main()
