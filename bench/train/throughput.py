#!/usr/bin/env python3
"""Training speed and memory of `statera finetune` beside transformers' Trainer: the same model, data, order, batch and optimizer, fp32, on a CPU.

    python3 bench/train/throughput.py PROGRAM WORK --peer PYTHON [--vlm MODEL DATA.jsonl] [--only text vlm] [--steps 10] [--rounds 2] [--threads 2]
                                      [--prepare] [--json FILE]

    text   Qwen3 of 101 M parameters (12 blocks of 768, vocabulary 32768, tied), random weights; conversations of one question and one answer
    vlm    MODEL on DATA (LLaVA's form, one picture and one answer: others are left out), such as tiny-vlm on its own training data

PYTHON is one of an environment with torch, transformers, accelerate and safetensors. Both sides see the same tokens: the peer's ids, positions' inputs and
pixels are made by `statera preprocess` before its clock runs, while the program's own preparing runs beside its training. The tools run in turn, beginning with the
other one in every round, each in a process of its own.
  tok/s   tokens of the conversations (padding is none) over the seconds of all steps but the first two
  peak    memory of the process (resident set), Python and torch included on the peer's side
  loss    of the last step: the two sides train the same
"""
import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))
from process import measured  # noqa: E402

SKIPPED = 2  # steps in which memory is still being taken
BATCH, BATCHES = {"text": 4, "vlm": 32}, 2  # conversations of a batch, batches that are seen again and again
LR = 1e-4
CONFIG = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
          "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32768, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
          "rope_theta": 10000, "max_position_embeddings": 2048, "hidden_act": "silu", "attention_bias": False, "initializer_range": 0.02}


# ---- the peer, in its own environment ------------------------------------------------------------------------------------------------

def examples_of(work, tokenizer, image_token):
    """The prepared conversations; learned is what follows the opening of the assistant's turn, to the end."""
    import torch
    from safetensors.torch import load_file
    opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    found = []
    for i in range(len(list(work.glob("item*.safetensors")))):
        item = load_file(work / f"item{i}.safetensors")
        ids = item["input_ids"].reshape(-1)
        begin = max(k for k in range(len(ids)) if ids[k:k + len(opening)].tolist() == opening) + len(opening)
        labels = torch.full_like(ids, -100)
        labels[begin:] = ids[begin:]
        found.append({**item, "input_ids": ids, "labels": labels, "mm_token_type_ids": (ids == image_token).long()})
    return found


def collate(items):
    """Padded on the right; pictures one behind the other."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    pad = lambda key, value: pad_sequence([i[key].reshape(-1) for i in items], batch_first=True, padding_value=value)
    batch = {"input_ids": pad("input_ids", 0), "labels": pad("labels", -100),
             "attention_mask": pad_sequence([torch.ones_like(i["input_ids"]) for i in items], batch_first=True)}
    if "pixel_values" in items[0]:
        batch["pixel_values"] = torch.cat([i["pixel_values"] for i in items])
        batch["image_grid_thw"] = torch.cat([i["image_grid_thw"].reshape(-1, 3) for i in items])
        batch["mm_token_type_ids"] = pad("mm_token_type_ids", 0)
    return batch


def peer(work, model, steps, batch):
    import torch
    import transformers as T
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    T.logging.set_verbosity_error()
    kind = json.loads((model / "config.json").read_text())["architectures"][0]
    net = getattr(T, kind).from_pretrained(model, dtype=torch.float32)
    examples = examples_of(work, T.AutoTokenizer.from_pretrained(model), getattr(net.config, "image_token_id", -1))
    clock, losses = [], []

    class Watch(T.TrainerCallback):
        def on_step_end(self, *_, **__):
            clock.append(time.time())

        def on_log(self, _args, _state, _control, logs=None, **__):
            if "loss" in logs:
                losses.append(logs["loss"])

    class Ordered(T.Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(examples, batch_size=batch, shuffle=False, collate_fn=collate)

    how = T.TrainingArguments(output_dir=work / "peer", per_device_train_batch_size=batch, max_steps=steps, learning_rate=LR, lr_scheduler_type="constant",
                              weight_decay=0.0, max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
                              optim="adamw_torch", remove_unused_columns=False)
    Ordered(model=net, args=how, callbacks=[Watch()]).train()
    per_batch = [sum(len(e["input_ids"]) for e in examples[i:i + batch]) for i in range(0, len(examples), batch)]
    tokens = sum(per_batch[step % len(per_batch)] for step in range(SKIPPED, steps))
    speed = tokens / (clock[-1] - clock[SKIPPED - 1])
    print(json.dumps({"speed": speed, "loss": losses[-1], "tokens": tokens, "version": f"transformers {T.__version__}, torch {torch.__version__}"}))


# ---- the data ------------------------------------------------------------------------------------------------------------------------

def text_items(count):
    """Conversations of some 250 tokens out of the bundled texts, cut at words."""
    words = (ROOT / "examples" / "calibration" / "text.txt").read_text().split()
    piece = lambda i, n: " ".join(words[(i * 37 + k) % len(words)] for k in range(n))
    for i in range(count):
        yield [{"role": "user", "content": piece(i, 20)}, {"role": "assistant", "content": piece(i + 11, 45)}]


def vlm_items(path, count):
    for line in Path(path).read_text().splitlines():
        item = json.loads(line)
        said = item.get("conversations", [])
        if isinstance(item.get("image"), str) and len(said) == 2:
            picture = item["image"] if item["image"].startswith("data:") else str((Path(path).parent / item["image"]).resolve())
            question = said[0]["value"].replace("<image>\n", "")
            yield [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]},
                   {"role": "assistant", "content": said[1]["value"]}]
            count -= 1
            if count == 0:
                return
    raise SystemExit(f"{path}: {count} conversations of one picture and one answer too few")


def prepare(program, work, model, items, env):
    """The conversations as the program trains on them, and for the peer as tensors."""
    work.mkdir(parents=True)
    with open(work / "train.jsonl", "w") as f:
        f.writelines(json.dumps({"messages": m}) + "\n" for m in items)
    for i, messages in enumerate(items):
        (work / "messages.json").write_text(json.dumps(messages))
        measured([program, "preprocess", model, "--messages", work / "messages.json", "--out", work / f"item{i}.safetensors", "--no-add-generation-prompt"], env)


# ---- the whole -----------------------------------------------------------------------------------------------------------------------

def ours(program, work, model, steps, batch, threads, env):
    out = work / "ours"
    _, m = measured([program, "finetune", model, "--out", out, "--data", work / "train.jsonl", "--max-steps", steps, "--batch", batch, "--max-len", 2048, "--lr", LR,
                     "--schedule", "constant", "--warmup-ratio", 0, "--weight-decay", 0, "--no-shuffle", "--save-every", 0, "--threads", threads,
                     "--progress", "off", "--overwrite", "--restart"], env)
    lines = [line for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "tokens_per_second" in line][:steps]
    kept = lines[SKIPPED:]
    tokens = sum(line["tokens"] for line in kept)
    return {**m, "tokens": tokens, "speed": tokens / sum(line["tokens"] / line["tokens_per_second"] for line in kept), "loss": lines[-1]["loss"], "version": "statera"}


def theirs(python, work, model, steps, batch, env):
    text, m = measured([python, Path(__file__).resolve(), "peer", work, model, steps, batch], env)
    return {**m, **json.loads(text.splitlines()[-1])}


def compare(name, args, model, items, env):
    work, batch = args.work / name, BATCH[name]
    if not work.exists():
        prepare(args.program, work, model, items, env)
    if args.prepare:
        return None
    runs = {"statera": [], "trainer": []}
    tools = {"statera": lambda: ours(args.program, work, model, args.steps, batch, args.threads, env),
             "trainer": lambda: theirs(args.peer, work, model, args.steps, batch, env)}
    for r in range(args.rounds):
        for tool in list(tools)[::1 if r % 2 == 0 else -1]:
            one = tools[tool]()
            runs[tool].append(one)
            print(f"  {name} round {r} {tool}: {one['speed']:.0f} tok/s, peak {one['rss'] / 2**30:.2f} GiB, loss {one['loss']:.4f}, others {one['others']:.2f}", flush=True)
    mid = {t: {k: statistics.median(x[k] for x in ones) for k in ("speed", "rss", "loss", "tokens")} for t, ones in runs.items()}
    if mid["statera"]["tokens"] != mid["trainer"]["tokens"]:
        raise SystemExit(f"{name}: {mid['statera']['tokens']} tokens here, {mid['trainer']['tokens']} there")
    print(f"{name}: {mid['statera']['speed'] / mid['trainer']['speed']:.2f} times as fast, {mid['statera']['rss'] / mid['trainer']['rss']:.2f} of the memory; "
          f"last loss {mid['statera']['loss']:.4f}, {mid['trainer']['loss']:.4f} ({runs['trainer'][0]['version']})", flush=True)
    return runs


def run(args):
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    results = {}
    if "text" in args.only:
        folder = args.work / "model"
        if not folder.exists():
            example = ROOT / "examples" / "tiny-qwen3-vl"
            source = args.work / "config"
            source.mkdir(parents=True, exist_ok=True)
            for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                (source / file).write_bytes((example / file).read_bytes())
            (source / "config.json").write_text(json.dumps(CONFIG))
            measured([args.program, "init", source, "--out", folder, "--seed", 1, "--dtype", "fp32"], env)
        results["text"] = compare("text", args, folder, list(text_items(BATCH["text"] * BATCHES)), env)
    if "vlm" in args.only:
        if not args.vlm:
            raise SystemExit("vlm: give --vlm MODEL DATA.jsonl, or --only text")
        results["vlm"] = compare("vlm", args, args.vlm[0], list(vlm_items(args.vlm[1], BATCH["vlm"] * BATCHES)), env)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def main():
    if sys.argv[1:2] == ["peer"]:
        return peer(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=Path)
    ap.add_argument("work", type=Path)
    ap.add_argument("--peer", required=True, help="python of an environment with transformers and accelerate")
    ap.add_argument("--vlm", nargs=2, type=Path, metavar=("MODEL", "DATA"))
    ap.add_argument("--only", nargs="+", choices=["text", "vlm"], default=["text", "vlm"])
    ap.add_argument("--steps", type=int, default=10)
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--prepare", action="store_true", help="write models and data to WORK and stop")
    ap.add_argument("--json", type=Path)
    run(ap.parse_args())


if __name__ == "__main__":
    main()
