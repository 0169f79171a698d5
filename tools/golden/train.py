#!/usr/bin/env python3
"""Ten training steps of tiny checkpoints by transformers and torch's AdamW: losses, gradient norms, one full gradient.

    train.py --tiny tests/tiny --out tests/golden

fp32, eager attention, one thread. Three samples a step, each run alone; the loss is the mean over the learned
tokens of all three (transformers' num_items_in_batch). Norms and biases do not decay; cosine with two steps of
warm-up; gradients clipped to norm 1. Learned tokens are given as a mask over input_ids; labels are its shift.
"""
import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers as T

from common import versions, write_safetensors
from models import IMG, load, vision_inputs

STEPS, WARMUP, LR, DECAY, CLIP = 10, 2, 2e-3, 0.1, 1.0
NAMES = ["qwen2", "qwen3", "qwen2_vl", "qwen3_vl"]
TEXT = [[5, 9, 100, 17, 249, 33, 7, 61, 4, 180], [11, 40, 8, 77, 3, 150], [3, 77, 150, 21, 9, 240, 66, 13, 101, 5, 88, 7, 19]]
IMAGES = [[(1, 6, 4)], [(1, 4, 4), (1, 2, 6)], []]


def samples(config):
    out = []
    for text, grids in zip(TEXT, IMAGES):
        tail = torch.tensor([[t % 240 for t in text]])
        if "vision_config" in config and grids:
            inputs = vision_inputs(config, images=grids)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], tail], 1)
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMG).int()
        else:
            inputs = dict(input_ids=tail)
            if "vision_config" in config:
                inputs["mm_token_type_ids"] = torch.zeros_like(tail).int()
        learned = torch.zeros(inputs["input_ids"].shape[1], dtype=torch.bool)
        learned[-len(text) // 2:] = True
        learned[-2] = False  # a hole: labels are a mask, not a suffix
        out.append((inputs, learned))
    return out


def losses(model, batch):
    count = sum(int(learned[1:].sum()) for _, learned in batch)
    for inputs, learned in batch:
        logits = model(**inputs, use_cache=False).logits[0].float()
        labels = torch.where(learned, inputs["input_ids"][0], -100)
        yield F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum") / count


def build(name, tiny, out):
    config = json.loads((tiny / name / "config.json").read_text())
    model, batch = load(tiny / name), samples(config)
    plain = lambda n: n.endswith("bias") or "norm" in n or "ln_q" in n
    named = [(n, p) for n, p in model.named_parameters()]
    groups = [dict(params=[p for n, p in named if not plain(n)], weight_decay=DECAY),
              dict(params=[p for n, p in named if plain(n)], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    schedule = T.get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    tensors, curve, norms = {}, [], []
    for i, (inputs, learned) in enumerate(batch):
        tensors.update({f"sample{i}.{k}": v for k, v in inputs.items() if k != "mm_token_type_ids"})
        tensors[f"sample{i}.learned"] = learned.to(torch.int64)
    for step in range(STEPS):
        total = 0.0
        for loss in losses(model, batch):
            loss.backward()
            total += loss.item()
        if step == 0:
            tensors.update({f"grad.{n}": p.grad.clone() for n, p in named})
        curve.append(total)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    tensors.update(losses=torch.tensor(curve, dtype=torch.float32), norms=torch.tensor(norms, dtype=torch.float32))
    meta = versions(model=name, lr=LR, weight_decay=DECAY, clip=CLIP, warmup=WARMUP, schedule="cosine")
    write_safetensors(out / f"train_{name}.safetensors", tensors, meta)
    print(name, [round(c, 4) for c in curve], [round(n, 3) for n in norms])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=NAMES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only:
        build(name, args.tiny, args.out)


if __name__ == "__main__":
    main()
