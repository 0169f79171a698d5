#!/usr/bin/env python3
"""A checkpoint with outlier channels that computes the same function: what makes activations hard to quantize, made to order.

    python3 tools/outliers/inject.py SOURCE OUT --factor 32 --channels 4 [--where norm mlp value] [--seed 0] [--program build/release/statera]

In every language block some channels between two operations become `factor` times as large and what reads them as much smaller:
    norm   weights (and biases) of both norms  | columns of q, k, v; of gate, up, and of router, every expert and the shared expert's gate
    mlp    rows of up, of every expert         | columns of its down
    value  rows of v (and bias)                | columns of o, of every head that reads the value head
Channels are drawn anew for each place and each expert. The factor is a power of two, so bf16, f16 and f32 weights stay exact and so do all sums:
with floating weights the logits are those of SOURCE, bit for bit. --program has `statera compare` confirm it. Layers may be fused (qkv_proj,
gate_up_proj), experts lie each in its own tensors or in one; a tensor of a block that is not known here is refused. Standard library only.
"""
import argparse
import itertools
import json
import math
import mmap
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

PLACES = ("norm", "mlp", "value")
SIZES = {"BF16": 2, "F16": 2, "F32": 4}


def decode(raw, dtype):
    """The number as a double, which holds all of them exactly."""
    return struct.unpack("<f", b"\0\0" + raw)[0] if dtype == "BF16" else struct.unpack("<e" if dtype == "F16" else "<f", raw)[0]


def encode(value, dtype):
    return struct.pack("<f", value)[2:] if dtype == "BF16" else struct.pack("<e" if dtype == "F16" else "<f", value)


class Tensor:
    def __init__(self, data, start, dtype, shape):
        self.data, self.start, self.dtype, self.shape = data, start, dtype, shape

    def scale(self, name, picks, factor):
        """Multiplies the elements whose index along each axis of `picks` is one of those listed there."""
        if self.dtype not in SIZES:
            raise SystemExit(f"{name}: {self.dtype} weights are not handled")
        size, strides = SIZES[self.dtype], [math.prod(self.shape[i + 1:]) for i in range(len(self.shape))]
        for index in itertools.product(*(picks.get(axis, range(n)) for axis, n in enumerate(self.shape))):
            at = self.start + size * sum(i * s for i, s in zip(index, strides))
            wanted = decode(self.data[at:at + size], self.dtype) * factor
            try:
                raw = encode(wanted, self.dtype)
            except OverflowError:
                raw = None
            if raw is None or decode(raw, self.dtype) != wanted:
                raise SystemExit(f"{name}: weights leave the range of {self.dtype}; take a smaller factor")
            self.data[at:at + size] = raw


class Checkpoint:
    """The safetensors files of a folder, changed where they lie."""

    def __init__(self, folder):
        self.tensors, self.maps = {}, []
        for path in sorted(Path(folder).glob("*.safetensors")):
            with open(path, "r+b") as f:
                data = mmap.mmap(f.fileno(), 0)
            self.maps.append(data)
            n = struct.unpack("<Q", data[:8])[0]
            for name, info in json.loads(data[8:8 + n]).items():
                if name != "__metadata__":
                    self.tensors[name] = Tensor(data, 8 + n + info["data_offsets"][0], info["dtype"], info["shape"])
        if not self.tensors:
            raise SystemExit(f"{folder}: no safetensors files")

    def scale(self, cells, factor):
        for name, picks in cells:
            self.tensors[name].scale(name, picks, factor)

    def close(self):
        for data in self.maps:
            data.flush()
            data.close()


class Block:
    """One block's tensors by the names behind its own, and what has been said about them."""

    def __init__(self, name, tensors, heads, kv_heads):
        self.name, self.heads, self.kv_heads = name, heads, kv_heads
        self.shapes = {n[len(name) + 1:]: t.shape for n, t in tensors.items() if n.startswith(name + ".")}
        self.hidden = self.shapes["input_layernorm.weight"][0]
        self.known = {n for n in self.shapes if re.fullmatch(r"self_attn\.([qko]_proj\.bias|[qk]_norm\.weight)", n)}

    def cell(self, part, picks):
        """One tensor's elements, or none where the block has no such tensor."""
        self.known.add(part)
        return [(f"{self.name}.{part}", picks)] if part in self.shapes else []

    def rows(self, module, channels, offset=0):
        picks = {0: [offset + c for c in channels]}
        return self.cell(module + ".weight", picks) + self.cell(module + ".bias", picks)

    def columns(self, modules, channels):
        return [cell for m in modules for cell in self.cell(m + ".weight", {1: channels})]

    def norms(self):
        """(place, width, what makes channels larger, what reads them) of both norms."""
        attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.qkv_proj"]
        yield ("input_layernorm", self.hidden, lambda c: self.rows("input_layernorm", c), lambda c: self.columns(attention, c))
        yield ("post_attention_layernorm", self.hidden, lambda c: self.rows("post_attention_layernorm", c), self.after_attention)

    def after_attention(self, channels):
        routers = ["mlp.gate", "mlp.shared_expert_gate", "block_sparse_moe.gate"]
        gates = [g + "." + gate for g, (gate, up, _) in self.single() for gate in (gate, up)] + ["mlp.gate_up_proj"]
        return self.columns(routers + gates, channels) + self.fused_experts(lambda native: {2 if native else 1: channels}, None)

    def single(self):
        """(folder, names of gate, up, down) of every MLP whose layers are tensors of their own."""
        for part in self.shapes:
            if m := re.fullmatch(r"(mlp|mlp\.shared_expert|mlp\.experts\.\d+)\.down_proj\.weight", part):
                if m[1] + ".up_proj.weight" in self.shapes:
                    yield m[1], ("gate_proj", "up_proj", "down_proj")
            elif m := re.fullmatch(r"(block_sparse_moe\.experts\.\d+)\.w2\.weight", part):
                yield m[1], ("w1", "w3", "w2")

    def fused_experts(self, gate_up, down):
        """Cells of the two tensors that hold all experts, (experts, out, in) as transformers computes with them or (experts, in, out) as Qwen
        published them: gate_up and down tell the picks of either layout."""
        names = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
        if names[0] not in self.shapes:
            return []
        native = self.shapes[names[0]][2] == self.hidden and self.shapes[names[1]][1] == self.hidden
        return [cell for name, picks in zip(names, (gate_up, down)) if picks for cell in self.cell(name, picks(native))]

    def mlps(self):
        for folder, (_, up, down) in self.single():
            yield (f"{folder}.{up}", self.shapes[f"{folder}.{up}.weight"][0], lambda c, m=f"{folder}.{up}": self.rows(m, c),
                   lambda c, m=f"{folder}.{down}": self.columns([m], c))
        if "mlp.gate_up_proj.weight" in self.shapes:
            half = self.shapes["mlp.gate_up_proj.weight"][0] // 2
            yield ("mlp.gate_up_proj", half, lambda c: self.rows("mlp.gate_up_proj", c, half), lambda c: self.columns(["mlp.down_proj"], c))
        if "mlp.experts.gate_up_proj" in self.shapes:
            experts, a, b = self.shapes["mlp.experts.down_proj"]
            width = a + b - self.hidden
            for e in range(experts):
                yield (f"mlp.experts.{e}", width,
                       lambda c, e=e: self.fused_experts(lambda native: {0: [e], 1 if native else 2: [width + i for i in c]}, None),
                       lambda c, e=e: self.fused_experts(None, lambda native: {0: [e], 2 if native else 1: c}))

    def values(self):
        fused = "self_attn.qkv_proj.weight" in self.shapes
        width = self.shapes["self_attn.qkv_proj.weight"][0] * self.kv_heads // (self.heads + 2 * self.kv_heads) if fused else \
            self.shapes["self_attn.v_proj.weight"][0]
        size, shared = width // self.kv_heads, self.heads // self.kv_heads
        readers = lambda c: [(i // size * shared + head) * size + i % size for i in c for head in range(shared)]
        module, offset = ("self_attn.qkv_proj", size * (self.heads + self.kv_heads)) if fused else ("self_attn.v_proj", 0)
        yield ("v_proj", width, lambda c: self.rows(module, c, offset), lambda c: self.columns(["self_attn.o_proj"], readers(c)))

    def places(self):
        return {"norm": list(self.norms()), "mlp": list(self.mlps()), "value": list(self.values())}


def inject(checkpoint, config, factor, channels, where=PLACES, seed=0):
    """Changes the checkpoint's files; returns {block: {place: channels}}."""
    text = config.get("text_config", config)
    heads = text["num_attention_heads"]
    names = {m[1] for name in checkpoint.tensors if (m := re.match(r"((?:\w+\.)*?layers\.\d+)\.input_layernorm\.weight$", name))}
    names = sorted((n for n in names if "visual" not in n and "vision" not in n), key=lambda n: int(n.rsplit(".", 1)[1]))
    if not names:
        raise SystemExit("no blocks with an input_layernorm")
    chosen, work = {}, []
    for name in names:
        block = Block(name, checkpoint.tensors, heads, text.get("num_key_value_heads") or heads)
        chosen[name] = {}
        for kind, places in block.places().items():
            for place, width, larger, smaller in places:
                c = sorted(random.Random(f"{seed}/{name}/{place}").sample(range(width), min(channels, width)))
                cells = larger(c), smaller(c)
                if not all(cells):
                    raise SystemExit(f"{name}: nothing reads {place}")
                if kind in where:
                    work.append(cells)
                    chosen[name][place] = c
        if unknown := sorted(set(block.shapes) - block.known):
            raise SystemExit(f"{name}.{unknown[0]} is not handled")
    for larger, smaller in work:
        checkpoint.scale(larger, factor)
        checkpoint.scale(smaller, 1 / factor)
    return chosen


def compare(program, source, out):
    """Ends the run unless the two give the same logits on the program's own texts."""
    r = subprocess.run([str(a) for a in (program, "compare", source, out, "--json", "--progress", "off")], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"{out}: {r.stderr.strip()}")
    if (worst := json.loads(r.stdout)["logit_max_difference"]) != 0:
        raise SystemExit(f"{out}: logits differ by {worst:.2e}")


def make(source, out, factor, channels, where=PLACES, seed=0, program=None):
    """Writes OUT, which appears when it is complete; returns the channels. With `program`, logits are compared."""
    source, out = Path(source), Path(out)
    if factor <= 0 or math.frexp(factor)[0] != 0.5:
        raise SystemExit(f"--factor {factor} is no power of two")
    if out.exists():
        raise SystemExit(f"{out} exists")
    staging = out.with_name(out.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("golden"):
            shutil.copyfile(path, staging / path.name)
    try:
        checkpoint = Checkpoint(staging)
        chosen = inject(checkpoint, json.loads((source / "config.json").read_text()), factor, channels, where, seed)
        checkpoint.close()
        if program:
            compare(program, source, staging)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return chosen


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("source", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--factor", type=float, default=32)
    ap.add_argument("--channels", type=int, default=4, help="outlier channels at each place of a block, and of an expert")
    ap.add_argument("--where", nargs="+", choices=PLACES, default=list(PLACES))
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--program", type=Path, help="the statera program: compare the logits of both")
    args = ap.parse_args()
    chosen = make(args.source, args.out, args.factor, args.channels, args.where, args.seed, args.program)
    for block, places in chosen.items():
        print(block, " ".join(f"{place}:{','.join(map(str, c))}" for place, c in places.items()))
    if args.program:
        print("logits are equal")


if __name__ == "__main__":
    main()
