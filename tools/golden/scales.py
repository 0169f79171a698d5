#!/usr/bin/env python3
"""Do awq and mbq choose the scales that their formulas say? The searches written anew on transformers' models, beside the program's.

    python tools/golden/scales.py build/release/statera [--only example qwen2_vl] [--keep DIR]

For three tiny vision-language checkpoints (the bundled Qwen3-VL; Qwen2-VL and Qwen2.5-VL made here, with the bundled tokenizer and outlier
channels) and the bundled messages: transformers in fp32 with eager attention, ids and pictures by the checkpoint's own processor;
sensitivities from one backward pass per conversation, then for every block and scale group the 20 candidates of the paper, each judged by
replaying self_attn, mlp or the single layer on the whole data. From the program only the rounding grid is taken over (docs/methods/rtn.md),
in fp32, so that the searches are compared and nothing else. The program runs with all rows (--search-tokens 0) and floating earlier blocks
(--propagate original).

Two judgements, both exact; anything else fails the run.

1. Everything is computed here, and the least loss picks the ratio. Where the program picked another, the ratios differ by rounding and not by
   formula: see 2.
2. The program's own mean |x| of each group (calibration/scales.safetensors), which must be the one here to 1e-5, makes the candidates; W * s then
   is the program's to the last bit, and so is every code of every weight. Weights only: each of the 20 losses must be the program's to 1e-5, and the
   least of them the program's ratio (or within those 1e-5 of it). With 8-bit activations the inputs of a group still differ in their last bits, and a
   code whose value lies within 1e-3 of half way between two (the largest value of a token does by definition: w / (w / 127.5)) may be
   either one. The loss is then taken with those codes set the one way and the other, each to where its gradient says less and more: between these two
   every one of the program's 20 losses must lie.

So a ratio that differs under 1 and passes 2 is a tie that was proven: the program's loss of the one here and the loss here of the program's, with codes
aligned, say what the program chose. A row per model and setting: equal ratios under 1; of 2 how far losses are off, at most (for 8-bit
activations how wide the span of the ties is, at most); the same of rho.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
import transformers as T
from PIL import Image
from safetensors.torch import load_file

from common import randomise, write_json

HERE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HERE / "tools" / "outliers"))
import inject

EXAMPLE, MESSAGES = HERE / "examples" / "tiny-qwen3-vl", HERE / "examples" / "calibration" / "messages.jsonl"
STEPS, FLOOR = 20, 1e-4
CLOSE, UNDECIDED = 1e-5, 1e-3  # of losses and means, relative; of activations' codes around half way between two
WEIGHTS_ONLY = [("sym", dict(bits=3, group=32, symmetric=True)), ("asym", dict(bits=3, group=32, symmetric=False)),
                ("own", dict(bits=3, group=8, symmetric=False, own=True))]  # asymmetric, ranges as MBQ's code takes them
W4A8 = ("w4a8", dict(bits=4, group=-1, symmetric=True, a_bits=8))
SQUARED = ("mse", dict(bits=3, group=32, symmetric=False, squared=True))  # the published code's other loss: each modality's own mean
SETTINGS = [(m, label, how) for m in ("awq", "mbq") for label, how in WEIGHTS_ONLY] + [("mbq", *W4A8), ("mbq", *SQUARED)]


# ---- models ----------------------------------------------------------------------------------------------------------------------

def make_checkpoint(kind, out, seed):
    """A random Qwen2-VL or Qwen2.5-VL with the example's tokenizer and template; weights that bf16 holds."""
    example = json.loads((EXAMPLE / "config.json").read_text())
    ids = {k: example[k] for k in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    text = dict(hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                vocab_size=example["text_config"]["vocab_size"], max_position_embeddings=4096, rms_norm_eps=1e-6,
                bos_token_id=example["text_config"]["bos_token_id"], eos_token_id=example["text_config"]["eos_token_id"],
                rope_parameters=dict(rope_type="default", mrope_section=[4, 6, 6], rope_theta=1e6), use_sliding_window=False)
    vision = dict(depth=2, in_channels=3, num_heads=2, patch_size=14, spatial_merge_size=2, temporal_patch_size=2)
    if kind == "qwen2_vl":
        vision |= dict(embed_dim=32, mlp_ratio=2, hidden_size=128)
        config, cls, processor = T.Qwen2VLConfig, T.Qwen2VLForConditionalGeneration, "Qwen2VLProcessor"
    else:
        vision |= dict(hidden_size=32, intermediate_size=64, out_hidden_size=128, window_size=56, fullatt_block_indexes=[1], tokens_per_second=2)
        config, cls, processor = T.Qwen2_5_VLConfig, T.Qwen2_5_VLForConditionalGeneration, "Qwen2_5_VLProcessor"
    torch.manual_seed(seed)
    model = cls(config(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids))
    randomise(model, seed)
    model.to(torch.bfloat16).save_pretrained(out)
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EXAMPLE / name, out / name)
    pictures = json.loads((EXAMPLE / "preprocessor_config.json").read_text())
    write_json(out / "preprocessor_config.json", {**pictures, "patch_size": 14, "processor_class": processor})


def processor_of(folder):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    pictures = json.loads((folder / "preprocessor_config.json").read_text())
    keep = ("size", "image_mean", "image_std", "merge_size", "patch_size", "temporal_patch_size")
    tokenizer = T.AutoTokenizer.from_pretrained(folder)
    template = (folder / "chat_template.jinja").read_text()
    parts = dict(image_processor=T.Qwen2VLImageProcessor(**{k: pictures[k] for k in keep}), tokenizer=tokenizer, chat_template=template)
    if kind == "qwen3_vl":
        return T.Qwen3VLProcessor(video_processor=T.Qwen3VLVideoProcessor(), **parts)
    cls = T.Qwen2VLProcessor if kind == "qwen2_vl" else T.Qwen2_5_VLProcessor
    return cls(video_processor=T.Qwen2VLVideoProcessor(), **parts)


# ---- data ------------------------------------------------------------------------------------------------------------------------

def conversations(path):
    for line in path.read_text().splitlines():
        messages, pictures = json.loads(line)["messages"], []
        for m in messages:
            for part in m["content"] if isinstance(m["content"], list) else []:
                if part["type"] == "image":
                    pictures.append(Image.open(path.parent / part["image"]).convert("RGB"))
        yield messages, pictures


def answer_mask(ids, tokenizer):
    """What an assistant turn holds behind its header: words, end marker, and the line break that the template writes behind it."""
    header = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    end, newline = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer("\n", add_special_tokens=False)["input_ids"]
    mask, i = torch.zeros(len(ids), dtype=torch.bool), 0
    while i < len(ids):
        if ids[i:i + len(header)] != header:
            i += 1
            continue
        begin = i = i + len(header)
        while ids[i] != end:
            i += 1
        i += 1
        if ids[i:i + len(newline)] == newline:
            i += len(newline)
        mask[begin:i] = True
    return mask


def samples(folder, path):
    """Per conversation: the model's inputs, vision and answer masks [T]."""
    processor = processor_of(folder)
    image_id = json.loads((folder / "config.json").read_text())["image_token_id"]
    for messages, pictures in conversations(path):
        text = processor.apply_chat_template(messages, tokenize=False)
        inputs = processor(text=[text], images=pictures or None, return_tensors="pt", return_mm_token_type_ids=True)
        ids = inputs["input_ids"][0]
        yield dict(inputs), ids == image_id, answer_mask(ids.tolist(), processor.tokenizer)


# ---- formulas --------------------------------------------------------------------------------------------------------------------

def rounded(W, bits, group, symmetric, own=False):
    """Round-to-nearest and back, fp32 [N, K]: ranges hold 0, symmetric scale = max|w| / half the steps. own: as MBQ's code rounds."""
    rows, columns = W.shape
    w = W.reshape(rows, -1, columns if group < 0 else group)
    if own:
        low, high = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
        scale = (high - low).clamp(min=1e-5) / (2 ** bits - 1)
        zero = (-(low / scale).round()).clamp(0, 2 ** bits - 1)
        return ((((w / scale).round() + zero).clamp(0, 2 ** bits - 1) - zero) * scale).reshape(rows, columns)
    low, high = w.amin(-1, keepdim=True).clamp(max=0), w.amax(-1, keepdim=True).clamp(min=0)
    qmin, qmax = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    zero = torch.zeros_like(low)
    if symmetric:
        scale = torch.maximum(-low, high) / ((qmax - qmin) / 2)
    else:
        scale = (high - low) / (qmax - qmin)
        zero = torch.nan_to_num((qmin - low / scale).round(), nan=0.0).clamp(qmin, qmax)
    scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(torch.float32).eps), scale)
    return (((w / scale + zero).round().clamp(qmin, qmax) - zero) * scale).reshape(rows, columns)


def token_codes(x, bits):
    """Symmetric per token, steps of max / 127.5: codes before rounding, and the size of a step."""
    half = 2 ** (bits - 1)
    scale = (x.abs().amax(-1, keepdim=True) / (half - 0.5)).clamp(min=1e-30)
    return x / scale, scale


def nearest(codes, bits):
    half = 2 ** (bits - 1)
    return codes.round().clamp(-half, half - 1)


def candidate(mean, k):
    s = (mean ** (k / STEPS)).clamp(min=FLOOR)
    return s / math.sqrt(s.max().item() * s.min().item())


class Captured:
    """What a module was called with, once per conversation."""

    def __init__(self, module):
        self.calls = []
        self.handle = module.register_forward_pre_hook(self.take, with_kwargs=True)

    def take(self, module, args, kwargs):
        self.calls.append((args, kwargs))


def first_of(y):
    return y[0] if isinstance(y, tuple) else y


class Reference:
    def __init__(self, folder, path):
        kind = json.loads((folder / "config.json").read_text())["architectures"][0]
        self.model = getattr(T, kind).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.data = list(samples(folder, path))
        self.blocks = self.model.model.language_model.layers
        self.rho = {"o_proj": self.sensitivities(lambda b: b.self_attn.o_proj), "down_proj": self.sensitivities(lambda b: b.mlp.down_proj)}
        self.rho = {k: np.maximum(v, np.median(v)) for k, v in self.rho.items()}
        hooked = [(b.self_attn, b.mlp, b.mlp.down_proj) for b in self.blocks]
        captured = [[Captured(m) for m in modules] for modules in hooked]
        with torch.no_grad():
            for inputs, _, _ in self.data:
                self.model(**inputs, use_cache=False)
        self.calls = [[c.calls for c in row] for row in captured]
        for c in (c for row in captured for c in row):
            c.handle.remove()

    def sensitivities(self, tap):
        """rho of every block: mean over conversations of mean |gradient| on vision tokens over that on answer tokens."""
        vision, answer = np.zeros(len(self.blocks)), np.zeros(len(self.blocks))
        for inputs, v, a in self.data:
            if not v.any() or not a[1:].any():
                continue
            kept = {}
            handles = [tap(b).register_forward_hook(lambda m, x, y, i=i: (y.requires_grad_(True), y.retain_grad(), kept.__setitem__(i, y))[0])
                       for i, b in enumerate(self.blocks)]
            logits = self.model(**inputs, use_cache=False).logits[0]
            labels = torch.where(a, inputs["input_ids"][0], -100)
            torch.nn.functional.cross_entropy(logits[:-1].float(), labels[1:], ignore_index=-100).backward()
            for h in handles:
                h.remove()
            for i, y in kept.items():
                g = y.grad.reshape(-1, y.shape[-1]).abs().double()
                vision[i] += g[v].mean().item()
                answer[i] += g[a].mean().item()
            self.model.zero_grad()
        return vision / answer

    def groups(self, i):
        """name, role of rho, module to replay, its calls, readers of a block's three groups."""
        b, (attn, mlp, down) = self.blocks[i], self.calls[i]
        yield "input_layernorm", "o_proj", b.self_attn, attn, [b.self_attn.q_proj, b.self_attn.k_proj, b.self_attn.v_proj]
        yield "post_attention_layernorm", "down_proj", b.mlp, mlp, [b.mlp.gate_proj, b.mlp.up_proj]
        yield "up_proj", "down_proj", b.mlp.down_proj, down, [b.mlp.down_proj]

    def losses(self, module, calls, readers, rho, bits, group, symmetric, a_bits=16, squared=False, own=False, mean=None):
        """Least and largest loss of every candidate; the same but for undecided codes of activations. rho None: mean squared error of all
        tokens; else mean absolute error, answers once, vision rho times (squared: own means). mean: of |x|, where it is not to be taken from here."""
        inputs = [a[0] if a else k["hidden_states"] for a, k in calls]
        masks = [(v, a) for _, v, a in self.data]
        if len(inputs[0].shape) < 3 or not any(k for _, k in calls):  # token by token: all conversations at once
            inputs, calls = [torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs])], [((None,), {})]
            masks = [tuple(torch.cat(m) for m in zip(*masks))]
        n_v, n_a, tokens = sum(int(v.sum()) for _, v, _ in self.data), sum(int(a.sum()) for _, _, a in self.data), sum(len(v) for v, _ in masks)

        def run(x, call):
            args, kwargs = call
            return first_of(module(x, *args[1:], **kwargs) if args else module(**{**kwargs, "hidden_states": x})).double()

        def loss(xs):
            total = 0.0
            for x, call, target, (v, a) in zip(xs, calls, targets, masks):
                off = (run(x, call) - target).reshape(-1, target.shape[-1])
                if rho is None:
                    total = total + off.square().mean(-1).sum() / tokens
                else:
                    rows = (off.square() if squared else off.abs()).mean(-1)
                    total = total + rows[a].sum() / (n_a if squared else n_a + n_v) + rho * rows[v].sum() / (n_v if squared else n_a + n_v)
            return total

        with torch.no_grad():
            targets = [run(x, c) for x, c in zip(inputs, calls)]
        here = torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs]).abs().double().mean(0).float()
        originals, spans = [r.weight.data for r in readers], []
        for k in range(STEPS):
            s = candidate(here if mean is None else mean, k)
            for r, W in zip(readers, originals):
                q = rounded(W * s, bits, group, symmetric, own)
                r.weight.data = q if a_bits < 16 else q / s
            spans.append(self.tie_span(loss, inputs, s, a_bits))
            for r, W in zip(readers, originals):
                r.weight.data = W
        return here, spans

    @staticmethod
    def tie_span(loss, inputs, s, a_bits):
        """(least, largest) of the loss over what undecided codes of the activations may be; twice the loss where there are none. The readers of a group
        see the module's input itself, so that it is rounded here."""
        if a_bits == 16:
            with torch.no_grad():
                return [loss(inputs).item()] * 2
        split = [token_codes(x / s, a_bits) for x in inputs]
        codes = [nearest(c, a_bits) for c, _ in split]
        # The other code that an undecided one may be; itself where it is decided.
        others = []
        for (c, _), q in zip(split, codes):
            other = nearest(c + (c - q).sign(), a_bits)
            others.append(torch.where(((c - q).abs() - 0.5).abs() < UNDECIDED, other, q))
        leaves = [(q * step).requires_grad_() for q, (_, step) in zip(codes, split)]
        loss(leaves).backward()
        out = []
        with torch.no_grad():
            for sign in (-1, 1):
                moved = [torch.where(leaf.grad * (o - q) * sign > 0, o, q) * step for leaf, o, q, (_, step) in zip(leaves, others, codes, split)]
                out.append(loss(moved).item())
        return out


# ---- comparison ------------------------------------------------------------------------------------------------------------------

def program(binary, folder, out, method, path, bits, group, symmetric, a_bits=16, squared=False, own=False):
    flags = ["--w-bits", bits, "--w-group", group, "--sym" if symmetric else "--asym", "--a-bits", a_bits, "--method", method]
    flags += ["--search-tokens", 0, "--propagate", "original", "--data", path, "--json", "--overwrite"]
    flags += ["--mbq-loss", "mse", "--mbq-norm", "own"] if squared else []
    flags += ["--parity", "own-ranges"] if own else []
    r = subprocess.run([str(x) for x in [binary, "quantize", folder, "--out", out, *flags]], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(f"{folder}: {r.stderr.strip()[-400:]}")
    report = json.loads(r.stdout)
    means = load_file(out / "calibration" / "scales.safetensors")
    return {(s["block"], s["group"]): {**s, "mean": means[f"{s['block']}.{s['group']}.mean"]} for s in report["scales"]}, report["data"]


def compare(name, reference, binary, folder, work, method, label, how, path):
    ours, data = program(binary, folder, work / "q", method, path, **how)
    counts = tuple(sum(int(m[k].sum()) for m in reference.data) for k in (1, 2))
    assert counts == (data["vision_tokens"], data["answer_tokens"]), f"tokens differ: {counts} here, {data}"
    same, all_groups, off, worst_rho, notes, wrong = 0, 0, 0.0, 0.0, [], 0
    for i in range(len(reference.blocks)):
        for group, role, module, calls, readers in reference.groups(i):
            rho = float(reference.rho[role][i]) if method == "mbq" else None
            mean, spans = reference.losses(module, calls, readers, rho, **how)
            block = next(b for b, g in ours if g == group and b.endswith(f".{i}"))
            found = ours.pop((block, group))
            best = int(np.argmin([sum(span) for span in spans]))
            chosen = round(found["ratio"] * STEPS)
            all_groups, same = all_groups + 1, same + (best == chosen)
            if rho is not None:
                worst_rho = max(worst_rho, abs(found["rho"] / rho - 1))
            means_off = (found["mean"] / mean - 1).abs().max().item()
            _, aligned = reference.losses(module, calls, readers, rho, **how, mean=found["mean"])
            low, high = np.array(aligned).T
            theirs = np.array(found["losses"])
            inside = (theirs >= low * (1 - CLOSE)) & (theirs <= high * (1 + CLOSE))
            # What the program chose must be the least of its own losses; here it must be possible.
            possible = low[chosen] * (1 - CLOSE) <= high.min() * (1 + CLOSE) and int(np.argmin(theirs)) == chosen
            proven = means_off < CLOSE and inside.all() and possible
            wrong += not proven
            spread = np.abs(theirs / low - 1) if "a_bits" not in how else high / low - 1
            off = max(off, spread.max())
            if best != chosen or not proven:
                notes.append(f"    block {i} {group}: {chosen / STEPS:.2f} there, {best / STEPS:.2f} here, {sum(spans[chosen]) / sum(spans[best]) - 1:.1e} apart here, "
                             f"{theirs[best] / theirs[chosen] - 1:.1e} there; with codes aligned {low[chosen] / high[best] - 1:.1e} to {high[chosen] / low[best] - 1:.1e}: "
                             + ("a tie, proven" if proven else f"NO TIE (means off by {means_off:.1e}, {int(inside.sum())} of {STEPS} losses explained)"))
    assert not ours, f"groups that are not in the reference: {list(ours)}"
    print(f"{name:12s} {method:4s} {label:5s} {same:3d} of {all_groups:3d} ratios; codes aligned, losses {'off by' if 'a_bits' not in how else 'span'} at most {off:.1e}"
          + (f"; rho within {worst_rho:.1e}" if method == "mbq" else ""), flush=True)
    for note in notes:
        print(note)
    return wrong


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=Path)
    ap.add_argument("--data", type=Path, default=MESSAGES)
    ap.add_argument("--only", nargs="*", default=["example", "qwen2_vl", "qwen2_5_vl"])
    ap.add_argument("--settings", nargs="*", help="such as mbq-sym; all when not given")
    ap.add_argument("--threads", type=int, default=1, help="of torch")
    ap.add_argument("--keep", type=Path, help="folder for the checkpoints, instead of a temporary one")
    args = ap.parse_args()
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = args.keep or Path(temporary)
        for seed, name in enumerate(args.only):
            folder = EXAMPLE
            if name != "example":
                folder = work / name
                if not folder.exists():
                    make_checkpoint(name, work / f"{name}_plain", seed)
                    inject.make(work / f"{name}_plain", folder, 16, 3, where=("norm", "mlp"), seed=seed)
            reference = Reference(folder, args.data)
            for method, label, how in SETTINGS:
                if not args.settings or f"{method}-{label}" in args.settings:
                    wrong += compare(name, reference, args.program, folder, work, method, label, how, args.data)
    raise SystemExit(min(wrong, 1))


if __name__ == "__main__":
    main()
