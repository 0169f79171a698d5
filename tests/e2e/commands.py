"""Every command on the bundled example and the tiny checkpoints, as a person would run it."""
import json
import os
import signal
import subprocess
import sys
import time

from support import EXAMPLE, PICTURES, ROOT, TINY, Checks, floats, integers, read_header, tensor_bytes

c = Checks(sys.argv[1])
W = c.work

# ---- help and version
r = c.good("the bare program lists its commands", "--help")
for command in ("inspect", "init", "quantize", "compare", "chat", "generate", "logits", "preprocess", "bench", "tokenizer train"):
    c.check(f"--help lists {command}", command in r.stdout)
    h = c.good(f"{command} --help", *command.split(), "--help")
    c.check(f"{command} --help has examples", "statera " + command in h.stdout, h.stdout[-300:])
c.good("--version", "--version")

r = c.good("docs-cli", "docs-cli")
c.check("docs/cli.md is what the program says (statera docs-cli > docs/cli.md)", (ROOT / "docs" / "cli.md").read_text() == r.stdout)

# ---- inspect
r = c.good("inspect --json", "inspect", EXAMPLE, "--json")
info = json.loads(r.stdout)
c.check("inspect names the architecture", "qwen3_vl" in json.dumps(info))
c.check("inspect finds no problem", not info.get("problems"), json.dumps(info)[:300])
stored = sum(1 for k in read_header(EXAMPLE / "model.safetensors")[0] if k != "__metadata__")
c.check("inspect counts the tensors", str(stored) in r.stdout, str(stored))

# ---- logits against the goldens
for name in ("llama", "phi3_longrope", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
    golden, out = TINY / name / "golden.safetensors", W / f"{name}.safetensors"
    if not golden.exists():
        continue
    c.good(f"logits of {name}", "logits", TINY / name, "--inputs", golden, "--out", out, "--hidden")
    for tensor in [k for k in read_header(golden)[0] if k == "logits" or k.startswith("hidden_")]:
        (s1, a), (s2, b) = floats(golden, tensor), floats(out, tensor)
        worst = max(abs(x - y) for x, y in zip(a, b)) if len(a) == len(b) else float("inf")
        c.check(f"{name} {tensor} equals transformers", worst < 1e-4 and s1 == s2, f"{worst} {s1} {s2}")
r = c.good("logits in bf16", "logits", TINY / "llama", "--inputs", TINY / "llama" / "golden.safetensors", "--out", W / "bf16.safetensors", "--dtype", "bf16")
a, b = floats(TINY / "llama" / "golden.safetensors", "logits")[1], floats(W / "bf16.safetensors", "logits")[1]
worst = max(abs(x - y) for x, y in zip(a, b))
c.check("bf16 logits are near and not equal", 1e-4 < worst < 0.3, worst)

# ---- preprocess against the example's goldens
golden = TINY / "example_golden.safetensors"
header = read_header(golden)[0]
for case in sorted({k.split(".")[0] for k in header if "." in k}):
    source = next((ROOT / "examples" / "messages").glob(f"{case}*.json"), None)
    c.check(f"messages of {case}", source is not None)
    out = W / f"{case}.safetensors"
    c.good(f"preprocess {case}", "preprocess", EXAMPLE, "--messages", source, "--out", out)
    ours = read_header(out)[0]
    for tensor in ("input_ids", "position_ids", "image_grid_thw", "video_grid_thw"):
        if f"{case}.{tensor}" in header:
            want, got = integers(golden, f"{case}.{tensor}"), integers(out, tensor)
            c.check(f"{case} {tensor} equals transformers", want == got, f"{want[0]} {got[0]}")
    if f"{case}.last_logits" in header:
        logits = W / f"{case}_logits.safetensors"
        c.good(f"logits of {case}", "logits", EXAMPLE, "--messages", source, "--out", logits)
        vocab = header[f"{case}.last_logits"]["shape"][-1]
        want, got = floats(golden, f"{case}.last_logits")[1], floats(logits, "logits")[1][-vocab:]
        worst = max(abs(x - y) for x, y in zip(want, got))
        # decoders of JPEG and video differ by a grey level here and there
        c.check(f"{case}: last logits are transformers'", worst < 0.1, worst)

# ---- chat and generate
ask = ["chat", EXAMPLE, "--image", PICTURES / "chart.png", "--prompt", "What is shown?", "--max-new-tokens", "8", "--temperature", "0"]
one, two = c.good("chat answers", *ask), c.good("chat answers again", *ask)
c.check("greedy answers repeat", one.stdout == two.stdout and one.stdout.strip(), one.stdout)
c.good("chat with keys and values in 8 bits", *ask, "--kv-cache", "int8")
r = c.good("chat as a conversation", "chat", EXAMPLE, "--max-new-tokens", "4", "--temperature", "0", stdin=f"/help\n/image {PICTURES / 'chart.png'}\nHello\n/reset\nAgain\n/exit\n")
requests, answers = W / "requests.jsonl", W / "answers.jsonl"
lines = [{"id": f"q{i}", "prompt": f"Question {i}", "max_new_tokens": 6} for i in range(5)]
lines[2] = {"id": "q2", "messages": [{"role": "user", "content": [{"type": "image", "image": str(PICTURES / "chart.png")}, {"type": "text", "text": "And this?"}]}], "max_new_tokens": 6}
requests.write_text("".join(json.dumps(x) + "\n" for x in lines))
c.good("generate", "generate", EXAMPLE, "--input", requests, "--output", answers, "--temperature", "0")
whole = answers.read_text()
got = [json.loads(x) for x in whole.splitlines()]
c.check("answers come in order", [x["id"] for x in got] == [x["id"] for x in lines], [x.get("id") for x in got])
answers.write_text("".join(whole.splitlines(True)[:2]) + whole.splitlines(True)[2][:20])
c.good("generate resumes", "generate", EXAMPLE, "--input", requests, "--output", answers, "--temperature", "0")
texts = lambda s: [json.loads(x)["text"] for x in s.splitlines()]
c.check("a resumed file holds the same answers", texts(answers.read_text()) == texts(whole), answers.read_text()[:300])

# ---- quantize, in every format, and read back
for bits, group, more in (("4", "128", []), ("4", "128", ["--asym"]), ("3", "64", []), ("2", "32", ["--asym"]), ("8", "-1", []), ("5", "64", []), ("6", "128", []), ("7", "-1", []), ("8", "-1", ["--a-bits", "8"]), ("4", "-1", ["--a-bits", "8"])):
    name = f"w{bits}g{group}{''.join(more)}"
    plan = c.good(f"plan {name}", "quantize", EXAMPLE, "--out", W / name, "--w-bits", bits, "--w-group", group, *more, "--plan", "--json")
    c.check(f"a plan writes nothing {name}", not (W / name).exists())
    c.good(f"quantize {name}", "quantize", EXAMPLE, "--out", W / name, "--w-bits", bits, "--w-group", group, *more)
    c.check(f"{name} is smaller", (W / name / "model.safetensors").stat().st_size < (EXAMPLE / "model.safetensors").stat().st_size)
    c.check(f"{name} keeps the tokenizer", (W / name / "tokenizer.json").read_bytes() == (EXAMPLE / "tokenizer.json").read_bytes())
    c.good(f"inspect {name}", "inspect", W / name)
    c.good(f"chat {name}", "chat", W / name, "--prompt", "Hello", "--max-new-tokens", "4", "--temperature", "0")
# ---- calibrated methods, on the bundled set
for method in ("gptq", "awq", "smoothquant"):
    bits = ["--w-bits", "8", "--w-group", "-1", "--a-bits", "8"] if method == "smoothquant" else ["--w-bits", "4", "--w-group", "128"]
    r = c.good(f"quantize by {method}", "quantize", EXAMPLE, "--out", W / method, "--method", method, *bits, "--n-samples", "8", "--max-seq-len", "128", "--json")
    layers = json.loads(r.stdout)["layers"] if r.returncode == 0 else []
    if method == "gptq":
        c.check("gptq's outputs are nearer than round-to-nearest's in every layer", layers and all(x["output_error"] <= x["rtn_output_error"] for x in layers))
    c.good(f"chat {method}", "chat", W / method, "--prompt", "Hello", "--max-new-tokens", "4", "--temperature", "0")
r = c.good("compare", "compare", EXAMPLE, W / "w4g128", "--json")
c.check("4 bits differ from 16 a little", 0 < json.loads(r.stdout).get("kl", json.loads(r.stdout).get("kl_mean", -1)) < 1, r.stdout[:400])
r = c.good("compare with itself", "compare", EXAMPLE, EXAMPLE, "--json")

# ---- bench: every figure is there and positive
bench = ["bench", EXAMPLE, "--pp", "16", "--tg", "4", "--image", "64x64", "--repeats", "1", "--read-buffer", "64MB"]
r = c.good("bench --json", *bench, "--profile", "--trace", W / "trace.json", "--json")
b = json.loads(r.stdout) if r.returncode == 0 else {}
for phase in ("prefill", "decode", "vision", "first_token"):
    p = b.get(phase, {})
    for figure in ("seconds", "tokens_per_second"):
        c.check(f"bench: {figure} of {phase}", 0 < p.get(figure, {}).get("min", 0) <= p[figure]["median"] <= p[figure]["max"], json.dumps(p)[:300])
    for figure in ("tokens", "flop", "bytes", "weight_bytes", "limit_seconds", "share_of_limit", "flop_per_second"):
        c.check(f"bench: {figure} of {phase}", p.get(figure, 0) > 0, json.dumps(p)[:300])
    c.check(f"bench: {phase} beside every peak", set(p.get("share_of_peak", {})) == set(b["limits"]["operations_per_second"]) >= {"fp32", "int8"}, json.dumps(p)[:300])
limits = b.get("limits", {})
for name, rate in [("read", limits.get("read_bytes_per_second", {})), *limits.get("operations_per_second", {}).items()]:
    for threads in ("one_thread", "all_threads"):
        c.check(f"bench: limit of {name}, {threads}", rate.get(threads, {}).get("min", 0) > 0, json.dumps(limits)[:300])
c.check("bench: load and memory", b.get("load", {}).get("mapped_seconds", 0) > 0 and b["load"]["packed_seconds"] > 0 and b["peak_memory_bytes"] >= b["load"]["resident_bytes"] > 0, str(b)[:300])
c.check("bench: what lies between operators is a share", 0 < b.get("overhead", {}).get("decode_outside_operators", 0) < 1 and 0 < b["overhead"]["decode_outside_loops"] <= 1, str(b.get("overhead")))
c.check("bench: energy is said", "energy" in b and (b["energy"] == "not available") == (b["decode"]["joules"] is None), b.get("energy"))
stages = {s["stage"]: s for s in b.get("profile", [])}
c.check("bench: the profile has every stage", set(stages) == {"prefill", "decode", "vision", "first token"} and stages["decode"]["runs"] == 4, str(list(stages)))
for name, s in stages.items():
    parts = sum(o["seconds"] for o in s["operators"]) + s["seconds_outside_operators"]
    c.check(f"bench: operators of {name} and the rest add up", abs(parts - s["seconds"]) < 1e-6 * s["seconds"] + 1e-9, f"{parts} {s['seconds']}")
c.check("bench: the trace is a list of events", len(json.loads((W / "trace.json").read_text())["traceEvents"]) > 100)
r = c.good("bench as text", *bench, "--w-bits", "4", "--profile")
c.check("the text shows limits and operators", "limits measured here" in r.stdout and "between operators" in r.stdout, r.stdout[-600:])
r = c.good("bench of random weights", "bench", "--preset", TINY / "qwen2" / "config.json", "--w-bits", "4", "--w-group", "32", "--pp", "8", "--tg", "2", "--repeats", "1", "--read-buffer", "16MB", "--json")
c.check("random weights are no load", r.returncode == 0 and json.loads(r.stdout)["load"]["mapped_seconds"] is None and "vision" not in json.loads(r.stdout), r.stdout[:300])

# ---- a tokenizer of our own and a model for it
texts_of = [ROOT / "examples" / "calibration" / "text.txt", ROOT / "examples" / "calibration" / "messages.jsonl"]
r = c.good("tokenizer train", "tokenizer", "train", *texts_of, "--out", W / "tok", "--vocab-size", "512", "--json")
special = json.loads(r.stdout)["special"]
c.check("special tokens stand last", special["<|endoftext|>"] == 498 and special["<|video_pad|>"] == 511, r.stdout)
c.good("tokenizer train again", "tokenizer", "train", *texts_of, "--out", W / "tok2", "--vocab-size", "512")
c.check("the same files give the same tokenizer", (W / "tok" / "tokenizer.json").read_bytes() == (W / "tok2" / "tokenizer.json").read_bytes())
config = json.loads((EXAMPLE / "config.json").read_text())
config.update({f"{name}_token_id": special[f"<|{token}|>"] for name, token in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))})
config["text_config"].update(vocab_size=512, bos_token_id=498, eos_token_id=500)
(W / "tok" / "config.json").write_text(json.dumps(config))
for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
    (W / "tok" / name).write_bytes((EXAMPLE / name).read_bytes())
c.good("init with the tokenizer", "init", W / "tok", "--out", W / "own")
c.good("chat with it", "chat", W / "own", "--image", PICTURES / "chart.png", "--prompt", "Hello", "--max-new-tokens", "4", "--temperature", "0")

# ---- init, kill -9, resume
config = json.loads((EXAMPLE / "config.json").read_text())
config["text_config"].update(num_hidden_layers=24, intermediate_size=2048, hidden_size=512, num_attention_heads=16, num_key_value_heads=8)
config["vision_config"].update(out_hidden_size=512)
(W / "config.json").write_text(json.dumps(config))
c.good("init", "init", W / "config.json", "--out", W / "big", "--seed", "7")
c.good("init again", "init", W / "config.json", "--out", W / "big2", "--seed", "7")
c.check("the same seed gives the same bytes", (W / "big" / "model.safetensors").read_bytes() == (W / "big2" / "model.safetensors").read_bytes())
flags = ["--w-bits", "4", "--w-group", "128"]
c.good("an undisturbed run", "quantize", W / "big", "--out", W / "calm", *flags)
killed = 0
for delay in (0.15, 0.3, 0.45, 0.6):
    p = subprocess.Popen([c.program, "quantize", str(W / "big"), "--out", str(W / "rough"), *flags, "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    if p.poll() is None:
        p.send_signal(signal.SIGKILL)
        killed += 1
    p.wait()
    if (W / "rough").exists():
        break
    c.check("nothing appears before it is complete", not (W / "rough").exists())
c.check("the run was killed in the middle at least once", killed > 0)
if not (W / "rough").exists():
    c.good("resume", "quantize", W / "big", "--out", W / "rough", *flags)
for f in sorted(os.listdir(W / "calm")):
    if f == "report.html":
        continue  # holds times, as report.json does in one member
    of = lambda run: {**json.loads((W / run / f).read_text()), "this_run": 0} if f == "report.json" else (W / run / f).read_bytes()
    c.check(f"a resumed run's {f} is the undisturbed run's", of("calm") == of("rough"))
c.finish()
