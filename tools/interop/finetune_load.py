"""Do checkpoints and adapters that `statera finetune` trained load in transformers and PEFT, with the same logits and greedy answers?

Run by hand in an environment with torch, transformers, peft, pillow and safetensors:
    python tools/interop/finetune_load.py build/release/statera [MODEL ...] [--steps 6] [--keep DIR]
MODEL is a checkpoint folder with a tokenizer; the bundled tiny-qwen3-vl when none is given. Each is trained for a few steps on the bundled
conversations (texts alone for models without eyes): once whole, as a checkpoint, and once with LoRA adapters on all of its language blocks' linear layers, as PEFT
stores them. transformers loads the checkpoint, PEFT the adapter on the untouched base, both in fp32; beside them stand the program's own
logits of the checkpoint, and of the adapter merged by `statera merge`. Logits must agree within 2e-3 absolute, greedy answers entirely; and
the trained model must be another one than the base: logits apart by more than ten times that.
"""
import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch
import transformers as T
from peft import PeftModel
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "calibration" / "messages.jsonl"
INPUTS = ("input_ids", "pixel_values", "image_grid_thw")
TOLERANCE, TOKENS = 2e-3, 24
TRAIN = ["--batch", "2", "--max-len", "2048", "--lr", "2e-3", "--seed", "1", "--save-dtype", "fp32", "--progress", "off"]


def run(*args):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {r.stderr.strip()[-400:]}")
    return r.stdout


def conversations(work, eyes):
    """Training data and the questions that both sides answer."""
    lines = [json.loads(line) for line in DATA.read_text().splitlines()]
    pictured = [line for line in lines if '"image"' in json.dumps(line)]
    chosen = pictured if eyes else [line for line in lines if line not in pictured]
    for line in chosen:
        for message in line["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if "image" in part:
                    part["image"] = str((DATA.parent / part["image"]).resolve())
    (work / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in chosen))
    for i, line in enumerate(chosen[:3]):
        (work / f"question{i}.json").write_text(json.dumps(line["messages"][:1]))
    return len(chosen[:3])


def ours(program, model, question, work):
    """Inputs, logits and the greedy answer by the program."""
    run(program, "preprocess", model, "--messages", question, "--out", work / "inputs.safetensors")
    run(program, "logits", model, "--messages", question, "--out", work / "logits.safetensors")
    request = {"messages": json.loads(question.read_text()), "temperature": 0, "max_new_tokens": TOKENS, "repetition_penalty": 1}
    (work / "request.jsonl").write_text(json.dumps(request) + "\n")
    (work / "answer.jsonl").unlink(missing_ok=True)
    run(program, "generate", model, "--input", work / "request.jsonl", "--output", work / "answer.jsonl")
    inputs = {k: v for k, v in load_file(work / "inputs.safetensors").items() if k in INPUTS}
    answer = json.loads((work / "answer.jsonl").read_text().splitlines()[-1])
    return inputs, load_file(work / "logits.safetensors")["logits"], answer["text"]


def theirs(model, tokenizer, inputs):
    if "pixel_values" in inputs:  # what transformers' processor adds: which tokens stand for pictures
        inputs = {**inputs, "mm_token_type_ids": (inputs["input_ids"] == model.config.image_token_id).long()}
    with torch.no_grad():
        logits = model(**inputs).logits
        ids = model.generate(**inputs, do_sample=False, repetition_penalty=1.0, temperature=None, top_p=None, top_k=None, max_new_tokens=TOKENS)
    return logits, tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)


def compare(label, program, folder, model, base, work, count):
    """Prints a line; whether the two sides agree and training did something."""
    tokenizer = T.AutoTokenizer.from_pretrained(folder)
    apart, moved, equal = 0.0, 0.0, 0
    for i in range(count):
        inputs, logits, answer = ours(program, folder, work / f"question{i}.json", work)
        their_logits, their_answer = theirs(model, tokenizer, inputs)
        logits = logits.reshape(their_logits.shape)
        apart = max(apart, (logits - their_logits).abs().max().item())
        moved = max(moved, (theirs(base, tokenizer, inputs)[0] - their_logits).abs().max().item())
        equal += answer.strip() == their_answer.strip()
    ok = apart < TOLERANCE and equal == count and moved > 10 * TOLERANCE
    print(f"{label:40s} {'ok  ' if ok else 'FAR '} logits {apart:.2e}, answers {equal} of {count} equal, moved by {moved:.2f}", flush=True)
    return ok


def load(folder):
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(T, kind).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def one(program, source, steps, work):
    config = json.loads((source / "config.json").read_text())
    count = conversations(work, "vision_config" in config)
    train = [program, "finetune", source, "--data", work / "train.jsonl", "--max-steps", str(steps), *TRAIN]
    run(*train, "--out", work / "full")
    run(*train, "--out", work / "adapter", "--lora-r", "4", "--lora-target", r"layers\.\d+\.(self_attn|mlp).*_proj", "--lr", "2e-2")
    run(program, "merge", work / "adapter", "--base", source, "--out", work / "merged", "--dtype", "fp32")
    ok = compare(f"{source.name}: checkpoint", program, work / "full", load(work / "full"), load(source), work, count)
    adapted = PeftModel.from_pretrained(load(source), work / "adapter").eval()
    return compare(f"{source.name}: adapter", program, work / "merged", adapted, load(source), work, count) and ok


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=Path)
    ap.add_argument("models", nargs="*", type=Path, default=[ROOT / "examples" / "tiny-qwen3-vl"])
    ap.add_argument("--steps", type=int, default=6)
    ap.add_argument("--keep", type=Path, help="folder for what is made, instead of a temporary one")
    args = ap.parse_args()
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    wrong = 0
    for model in args.models:
        with tempfile.TemporaryDirectory() as temporary:
            work = (args.keep or Path(temporary)) / model.name
            work.mkdir(parents=True)
            wrong += not one(args.program.resolve(), model.resolve(), args.steps, work)
    raise SystemExit(min(wrong, 1))


if __name__ == "__main__":
    main()
