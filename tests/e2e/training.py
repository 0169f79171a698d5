"""statera finetune as a person runs it: a run that is killed several times ends with the same losses and weights; bad data in one line."""
import json
import os
import signal
import subprocess
import sys
import time

from support import EXAMPLE, PICTURES, TINY, Checks

c = Checks(sys.argv[1])
W = c.work
pictures = ["words.png", "chart.png", "shapes_a.png", "shapes_b.png"]
with open(W / "talks.jsonl", "w") as f:
    for i in range(16):
        f.write(json.dumps({"image": str(PICTURES / pictures[i % 4]), "conversations": [
            {"from": "human", "value": f"<image>\nWhat is number {i}?"}, {"from": "gpt", "value": f"Number {i} is {i * 7}."}]}) + "\n")
flags = ["--data", str(W / "talks.jsonl"), "--max-steps", "24", "--batch", "2", "--lr", "1e-3", "--save-every", "3", "--lanes", "2",
         "--max-pixels", "16384", "--progress", "off"]


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


c.good("an undisturbed run", "finetune", EXAMPLE, *flags, "--out", W / "calm")
calm = losses(W / "calm")
c.check("a loss for each step, falling", len(calm) == 24 and sum(calm[-4:]) < 0.8 * sum(calm[:4]), calm)
killed = 0
for lines in (5, 11, 17):
    p = subprocess.Popen([c.program, "finetune", str(EXAMPLE), *flags, "--threads", "1", "--out", str(W / "rough")], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    log = W / "rough" / "log.jsonl"
    while p.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        time.sleep(0.002)
    if p.poll() is None:
        os.kill(p.pid, signal.SIGKILL)
        killed += 1
    p.wait()
c.check("runs were killed", killed > 0)
r = c.good("the last run", "finetune", EXAMPLE, *flags, "--out", W / "rough", "--json")
c.check("it went on", json.loads(r.stdout)["resumed_at"] > 0, r.stdout)
c.check("the same losses bit for bit", losses(W / "rough") == calm)
same = (W / "rough" / "model.safetensors").read_bytes() == (W / "calm" / "model.safetensors").read_bytes()
c.check("the same weights", same)
c.check("two checkpoints are kept", sorted(p.name for p in (W / "calm").glob("checkpoint-*")) == ["checkpoint-21", "checkpoint-24"])
r = c.good("what was trained answers", "chat", W / "calm", "--prompt", "What is number 3?", "--max-new-tokens", "8")
c.good("a run from a trained model", "finetune", W / "calm", "--data", W / "talks.jsonl", "--max-steps", "2", "--batch", "2", "--progress", "off", "--out", W / "further")
c.check("keeps its own records", len(losses(W / "further")) == 2 and json.loads((W / "further" / "run.json").read_text())["max_steps"] == 2)
with open(W / "clips.jsonl", "w") as f:
    for way in ("left", "right"):
        clip = {"type": "video", "video": [str(PICTURES / pictures[2 + i % 2]) for i in range(4)], "sample_fps": 2.0}
        f.write(json.dumps({"messages": [{"role": "user", "content": [clip, {"type": "text", "text": "Which way?"}]}, {"role": "assistant", "content": way}]}) + "\n")
c.good("clips", "finetune", EXAMPLE, "--data", W / "clips.jsonl", "--max-steps", "12", "--batch", "2", "--lr", "1e-3", "--max-pixels", "16384", "--progress", "off",
           "--out", W / "clips")
c.check("are learnt from", losses(W / "clips")[-1] < 0.8 * losses(W / "clips")[0], losses(W / "clips"))
c.good("names of the toolkit", "finetune", EXAMPLE, "--data", W / "talks.jsonl", "--output_dir", W / "named", "--max-steps", "1", "--tune_mm_llm", "True",
       "--tune_mm_vision", "False", "--no-tune-mm-mlp", "--mm_projector_lr", "1e-4", "--per_device_train_batch_size", "2", "--max_grad_norm", "1",
       "--report_to", "tensorboard", "--logging_dir", W / "board")
run = json.loads((W / "named" / "run.json").read_text())
c.check("switches as the toolkit writes them", (run["train_language"], run["train_vision"], run["train_merger"]) == (True, False, False), run)
c.check("an event file", [b"train/loss" in p.read_bytes() for p in (W / "board").glob("events.out.tfevents.*")] == [True])

# ---- bad input
c.bad("a finished run", "finetune", EXAMPLE, *flags, "--out", W / "calm", says=["finished"])
c.bad("an unknown flag", "finetune", EXAMPLE, *flags, "--out", W / "x", "--tune-mm-visio", says=["--tune-mm-visio"])
c.bad("no data", "finetune", EXAMPLE, "--out", W / "x", says=["--data"])
c.bad("a data file that is not there", "finetune", EXAMPLE, "--data", W / "none.jsonl", "--out", W / "x", says=["none.jsonl"])
c.bad("router losses of a dense model", "finetune", EXAMPLE, *flags, "--out", W / "routed", "--router-aux-loss-coef", "0.01", says=["no router"])
c.bad("moments in three bits", "finetune", EXAMPLE, *flags, "--out", W / "x", "--optim-states", "3bit", says=["--optim-states", "8bit"])
c.bad("a model without a tokenizer", "finetune", TINY / "qwen3", *flags, "--out", W / "x", says=["tokenizer"])
c.bad("nothing learns", "finetune", EXAMPLE, *flags, "--out", W / "frozen", "--no-train-vision", "--no-train-merger", "--no-train-language",
      "--no-train-embeddings", says=["frozen"])
(W / "gone.jsonl").write_text(json.dumps({"image": "gone.png", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]}))
c.bad("a picture that is not there", "finetune", EXAMPLE, "--data", W / "gone.jsonl", "--progress", "off", "--out", W / "x", says=["gone.jsonl: line 1", "gone.png"])
c.bad("text data", "finetune", EXAMPLE, "--data", TINY / "README.md", "--out", W / "x", says=["README.md"])

c.finish()
