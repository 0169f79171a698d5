#!/usr/bin/env python3
"""Ten training steps of tiny checkpoints by transformers and torch's AdamW: losses, gradient norms, one full gradient.

    train.py --tiny tests/tiny --out tests/golden

fp32, eager attention, one thread. Three samples a step, each run alone; the loss is the mean over the learned
tokens of all three (transformers' num_items_in_batch). Norms and biases do not decay; cosine with two steps of
warm-up; gradients clipped to norm 1. Learned tokens are given as a mask over input_ids; labels are its shift.

A mixture of experts also has router losses, each sample's by its share of the tokens, with coefficients far above the
usual so that their gradients show: transformers' load_balancing_loss_func (the aux_loss of output_router_logits) and
the mean squared logsumexp of the router logits. packed.*: the same over the rows of all samples at once. Of the experts'
gradients the first's and the last's are kept, under the names of single experts.
"""
import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers as T

from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from common import versions, write_safetensors
from models import IMG, load, vision_inputs

STEPS, WARMUP, LR, DECAY, CLIP = 10, 2, 2e-3, 0.1, 1.0
AUX, Z = 0.2, 0.05
NAMES = ["qwen2", "qwen3", "qwen2_vl", "qwen3_vl", "qwen3_moe"]
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


def squared_logsumexp(router_logits):
    return torch.cat(router_logits).logsumexp(-1).square().mean()


def losses(model, batch):
    """Of each sample: what it adds to the loss, and of that the router losses without their coefficients."""
    count = sum(int(learned[1:].sum()) for _, learned in batch)
    tokens = sum(len(learned) for _, learned in batch)
    routed = hasattr(model.config, "num_experts")
    for inputs, learned in batch:
        out = model(**inputs, use_cache=False, **(dict(output_router_logits=True) if routed else {}))
        labels = torch.where(learned, inputs["input_ids"][0], -100)
        loss = F.cross_entropy(out.logits[0].float()[:-1], labels[1:], ignore_index=-100, reduction="sum") / count
        share = len(learned) / tokens
        aux, z = (share * out.aux_loss, share * squared_logsumexp(out.router_logits)) if routed else (0, 0)
        yield loss + AUX * aux + Z * z, torch.as_tensor(aux).item(), torch.as_tensor(z).item(), out.router_logits if routed else None


def packed(model, batch, tensors):
    """Router losses over the rows of all samples at once."""
    parts = list(losses(model, batch))
    logits = tuple(torch.cat(layer) for layer in zip(*[p[3] for p in parts]))
    aux = load_balancing_loss_func(logits, model.config.num_experts, model.config.num_experts_per_tok)
    z = squared_logsumexp(logits)
    (AUX * aux + Z * z).backward()
    tensors["packed.routers"] = torch.stack([aux, z])
    for n, p in model.named_parameters():
        if n.endswith((".gate.weight", "layernorm.weight")):
            tensors[f"packed.grad.{n}"] = p.grad.clone()
    model.zero_grad()


def named_gradients(model):
    for n, p in model.named_parameters():
        if ".experts." not in n:
            yield n, p.grad
            continue
        stem, kind = n.rsplit(".", 1)
        for e in (0, len(p) - 1):
            parts = zip(["gate_proj", "up_proj"], p.grad[e].chunk(2)) if kind == "gate_up_proj" else [(kind, p.grad[e])]
            for name, grad in parts:
                yield f"{stem}.{e}.{name}.weight", grad


def build(name, tiny, out):
    config = json.loads((tiny / name / "config.json").read_text())
    model, batch = load(tiny / name), samples(config)
    plain = lambda n: n.endswith("bias") or "norm" in n or "ln_q" in n
    named = [(n, p) for n, p in model.named_parameters()]
    groups = [dict(params=[p for n, p in named if not plain(n)], weight_decay=DECAY),
              dict(params=[p for n, p in named if plain(n)], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    schedule = T.get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    tensors, curve, norms, routers = {}, [], [], []
    for i, (inputs, learned) in enumerate(batch):
        tensors.update({f"sample{i}.{k}": v for k, v in inputs.items() if k != "mm_token_type_ids"})
        tensors[f"sample{i}.learned"] = learned.to(torch.int64)
    routed = hasattr(model.config, "num_experts")
    if routed:
        packed(model, batch, tensors)
    for step in range(STEPS):
        total, aux, z = 0.0, 0.0, 0.0
        for loss, its_aux, its_z, _ in losses(model, batch):
            loss.backward()
            total, aux, z = total + loss.item(), aux + its_aux, z + its_z
        if step == 0:
            tensors.update({f"grad.{n}": g.clone() for n, g in named_gradients(model)})
        curve.append(total)
        routers.append([aux, z])
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    tensors.update(losses=torch.tensor(curve, dtype=torch.float32), norms=torch.tensor(norms, dtype=torch.float32))
    meta = versions(model=name, lr=LR, weight_decay=DECAY, clip=CLIP, warmup=WARMUP, schedule="cosine")
    if routed:
        tensors["routers"] = torch.tensor(routers, dtype=torch.float32)
        meta = {**meta, "aux": str(AUX), "z": str(Z)}
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
