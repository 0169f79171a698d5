"""`statera eval` and `statera compare` as a person runs them: killed and continued, perplexity against `statera logits`, bad input."""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

from support import EXAMPLE, PICTURES, ROOT, TINY, Checks, floats, integers

c = Checks(sys.argv[1])
W = c.work
TEXT = ROOT / "examples" / "calibration" / "text.txt"

# ---- perplexity, by hand from the logits of one forward pass over the same tokens
messages = ROOT / "examples" / "messages" / "text.json"
c.good("preprocess", "preprocess", EXAMPLE, "--messages", messages, "--out", W / "ids.safetensors")
c.good("logits", "logits", EXAMPLE, "--messages", messages, "--out", W / "logits.safetensors")
ids = integers(W / "ids.safetensors", "input_ids")[1]
shape, values = floats(W / "logits.safetensors", "logits")
vocabulary, nll = shape[-1], 0.0
for t in range(1, len(ids)):
    row = values[(t - 1) * vocabulary:t * vocabulary]
    top = max(row)
    nll += top + math.log(sum(math.exp(x - top) for x in row)) - row[ids[t]]
r = c.good("compare of one conversation", "compare", EXAMPLE, EXAMPLE, "--messages", messages, "--json")
own = json.loads(r.stdout)
c.check("its perplexity is exp of the mean -log p", abs(own["perplexity_a"] / math.exp(nll / (len(ids) - 1)) - 1) < 1e-5, f"{own['perplexity_a']} {nll}")
c.check("a checkpoint equals itself", own["kl_max"] == 0 and own["top1_agreement"] == own["top5_agreement"] == 1, r.stdout[:300])

r = c.good("perplexity", "eval", EXAMPLE, "--tasks", "perplexity", "--data", TEXT, "--max-length", "64", "--stride", "32", "--json")
result = json.loads(r.stdout)["results"][0]
c.check("equals transformers (src/api/evaluate_test.cpp)", abs(result["scores"]["nll_per_token"]["value"] - 7.171266337894032) < 1e-5, result["scores"])
c.check("the report says over what", result["n"] == 177 and result["standard_error"] > 0 and result["standard_error_over"] == "windows", result)

# ---- compare of two checkpoints, pictures and text
c.good("quantize", "quantize", EXAMPLE, "--out", W / "w4", "--w-bits", "4", "--w-group", "128")
r = c.good("compare", "compare", EXAMPLE, W / "w4", "--data", ROOT / "examples" / "calibration" / "messages.jsonl", "--data", TEXT, "--limit", "3", "--max-length", "100", "--scratch", W, "--json")
both = json.loads(r.stdout)
c.check("contexts add up", both["text_context"]["positions"] + both["vision_context"]["positions"] == both["positions"] == sum(b["positions"] for b in both["by_position"]))
c.check("six sequences", len(both["prompts"]) == 6, len(both["prompts"]))
c.check("the temporary file has gone", not list(W.glob("statera_spill*")))
c.good("compare as text", "compare", EXAMPLE, W / "w4")

# ---- one model in memory at a time: what a larger model adds to the peak is less than two of it
config = json.loads((EXAMPLE / "config.json").read_text())
config["text_config"].update(num_hidden_layers=12, intermediate_size=4096, hidden_size=768, num_attention_heads=12, num_key_value_heads=12)
config["vision_config"].update(out_hidden_size=768)
(W / "config.json").write_text(json.dumps(config))
c.good("init", "init", W / "config.json", "--out", W / "large", "--seed", "3")
for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
    shutil.copy(EXAMPLE / name, W / "large" / name)
c.good("quantize it", "quantize", W / "large", "--out", W / "large8", "--w-bits", "8", "--w-group", "-1")
floor = json.loads(c.good("the peak of small ones", "compare", EXAMPLE, EXAMPLE, "--messages", messages, "--json").stdout)["peak_rss"]
# Packed weights are made from the file's pages, both in memory while a model is opened.
for name, most in (("large", 1.6), ("large8", 2.6)):
    size = sum(f.stat().st_size for f in (W / name).glob("*.safetensors"))
    r = c.good(f"compare of {name}", "compare", W / name, W / name, "--messages", messages, "--json")
    added = (json.loads(r.stdout)["peak_rss"] - floor) / size
    c.check(f"{name} stands in memory once", added < most, f"{added:.2f} times its {size >> 20} MiB")

# ---- questions: kill -9 while answering, then again
with open(W / "q.jsonl", "w") as f:
    for i in range(24):
        f.write(json.dumps({"id": f"q{i}", "image": str(PICTURES / ("chart.png" if i % 2 else "words.png")), "question": f"What is {i}?", "answers": ["4", "four"]}) + "\n")
flags = ["--tasks", "vqa", "--data", str(W / "q.jsonl"), "--metric", "vqa", "--max-new-tokens", "6", "--max-running", "2", "--threads", "1"]
c.good("an undisturbed run", "eval", EXAMPLE, *flags, "--out", W / "calm")
calm, report = (W / "calm" / "vqa.jsonl").read_bytes(), json.loads((W / "calm" / "report.json").read_text())
c.check("a line for each question", calm.count(b"\n") == 25 and report["results"][0]["n"] == 24, calm.count(b"\n"))
killed = 0
for lines in (3, 9, 17):
    p = subprocess.Popen([c.program, "eval", str(EXAMPLE), *flags, "--out", str(W / "rough")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = W / "rough" / "vqa.jsonl"
    while p.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= lines):
        time.sleep(0.002)
    if p.poll() is None:
        os.kill(p.pid, signal.SIGKILL)
        killed += 1
    p.wait()
c.check("runs were killed", killed > 0)
r = c.good("the last run", "eval", EXAMPLE, *flags, "--out", W / "rough")
c.check("a killed run ends with the same bytes", (W / "rough" / "vqa.jsonl").read_bytes() == calm)
c.check("it says what it took over", "from an earlier run" in r.stdout, r.stdout)
again = json.loads((W / "rough" / "report.json").read_text())
again["results"][0]["log"] = report["results"][0]["log"]
c.check("and with the same report", again == report)

# ---- boxes: two scores; the random model writes none
BOX = '[{"bbox_2d": [490, 47, 719, 219], "label": "red circle"}]'
(W / "box.jsonl").write_text("".join(json.dumps({"question": f"Locate {i}.", "answer": BOX}) + "\n" for i in range(3)))
r = c.good("boxes", "eval", EXAMPLE, "--tasks", "vqa", "--data", W / "box.jsonl", "--metric", "iou", "--max-new-tokens", "4", "--out", W / "boxes", "--json")
scores = json.loads(r.stdout)["results"][0]["scores"]
c.check("a hit rate and an overlap, both 0", [(k, v["value"]) for k, v in scores.items()] == [("iou", 0), ("mean_iou", 0)], scores)
log = W / "boxes" / "vqa.jsonl"
first, *lines = log.read_text().splitlines()
log.write_text("\n".join([first] + [json.dumps({**json.loads(line), "score": 1, "mean_iou": 0.75}) for line in lines]) + "\n")
r = c.good("boxes from the log", "eval", EXAMPLE, "--tasks", "vqa", "--data", W / "box.jsonl", "--metric", "iou", "--max-new-tokens", "4", "--out", W / "boxes", "--json")
scores = json.loads(r.stdout)["results"][0]["scores"]
c.check("both are taken from the log", [(k, v["value"]) for k, v in scores.items()] == [("iou", 1), ("mean_iou", 0.75)], scores)

# ---- bad input
c.bad("an answer that is no list of boxes", "eval", EXAMPLE, *flags[:4], "--metric", "iou", says=["q.jsonl: line 1", "bbox_2d"])
c.bad("an unknown metric", "eval", EXAMPLE, *flags[:4], "--metric", "iuo", says=["iou"])
c.bad("other settings over the same log", "eval", EXAMPLE, *flags, "--out", W / "calm", "--prompt", "{question}", says=["vqa.jsonl", "prompt"])
c.bad("another checkpoint under the log", "eval", W / "w4", *flags, "--out", W / "calm", says=["vqa.jsonl", "model"])
(W / "broken.jsonl").write_text('{"question": "?", "answer": "x"}\n{"question": "?"\n')
c.bad("a broken line", "eval", EXAMPLE, "--tasks", "vqa", "--data", W / "broken.jsonl", says=["broken.jsonl: line 2"])
(W / "missing.jsonl").write_text('{"image": "gone.png", "question": "?", "answer": "x"}\n')
c.bad("a missing picture", "eval", EXAMPLE, "--tasks", "vqa", "--data", W / "missing.jsonl", says=["missing.jsonl: line 1", "gone.png"])
c.bad("pictures for a model without eyes", "eval", TINY / "qwen2", "--tasks", "vqa", "--data", W / "q.jsonl", says=["q.jsonl: line 1"])
c.bad("no data file", "eval", EXAMPLE, "--tasks", "perplexity", "--data", W / "none.txt", says=["none.txt"])
c.bad("no data", "eval", EXAMPLE, "--tasks", "perplexity", says=["data"])
c.bad("an unknown task", "eval", EXAMPLE, "--tasks", "vga", "--data", TEXT, says=["vqa"])
c.bad("a stride beyond the window", "eval", EXAMPLE, "--tasks", "perplexity", "--data", TEXT, "--max-length", "8", "--stride", "9", says=["stride"])
c.bad("a log that is none", "eval", EXAMPLE, *flags[:4], "--out", W / "q.jsonl", says=["q.jsonl"])
c.bad("no folder for temporary results", "compare", EXAMPLE, EXAMPLE, "--scratch", W / "none", says=["none"])
c.bad("another vocabulary", "compare", EXAMPLE, TINY / "qwen2", says=["vocabularies"])

c.finish()
