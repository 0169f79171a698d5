"""statera finetune in several processes: the same numbers as in one, at every ZeRO level; resuming with another number; what a dead, silent,
missing or different process does to the others. No launcher: the variables are set here."""
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from support import EXAMPLE, PICTURES, ROOT, Checks, floats, read_header

c = Checks(sys.argv[1])
W = c.work
pictures = ["words.png", "chart.png", "shapes_a.png", "shapes_b.png"]
with open(W / "talks.jsonl", "w") as f:
    for i in range(15):
        item = {"conversations": [{"from": "human", "value": f"What is number {i}?"}, {"from": "gpt", "value": f"Number {i} is {i * 7}." + " Yes." * (i % 4)}]}
        if i % 3 == 0:
            item["image"] = str(PICTURES / pictures[i % 4])
            item["conversations"][0]["value"] = "<image>\n" + item["conversations"][0]["value"]
        f.write(json.dumps(item) + "\n")
STEPS = 10
flags = ["--data", W / "talks.jsonl", "--eval-data", W / "talks.jsonl", "--eval-samples", "5", "--max-steps", STEPS, "--batch", "3", "--lr", "2e-4",
         "--save-every", "4", "--lanes", "1", "--checkpointing", "--max-pixels", "4096", "--progress", "off", "--threads", "1"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(world, *args, only=None, each=None):
    """The processes of one run; `each` gives a rank flags of its own, `only` starts some of them."""
    port = free_port()
    out = []
    for rank in range(world) if only is None else only:
        env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world),
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        own = each(rank) if each else []
        out.append(subprocess.Popen([c.program, "finetune", str(EXAMPLE), *map(str, args), *map(str, own)], env=env, cwd=ROOT, text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return out


def end(processes, timeout=60):
    """(exit code, stdout, lines of stderr) of each."""
    out = []
    for p in processes:
        try:
            text, errors = p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            text, errors = p.communicate()
            errors += "\n(killed by the test: it did not end)"
        out.append((p.returncode, text, [line for line in errors.splitlines() if line.strip()]))
    return out


def good(name, world, *args, **kw):
    ended = end(start(world, *args, **kw))
    c.check(name, all(code == 0 and not lines for code, _, lines in ended), ended)
    return ended


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in lines_of(folder) if "loss" in line]


def near(a, b):
    return len(a) == len(b) == STEPS and all(abs(x - y) <= 1e-5 * abs(y) for x, y in zip(a, b))


def weights_off(one, other):
    """Largest difference of two runs' fp32 weights, as the checkpoints of the last step hold them."""
    name = f"checkpoint-{STEPS}/training_state.safetensors"
    header, _ = read_header(one / name)
    worst = 0.0
    for tensor in header:
        if tensor.startswith("weight."):
            a, b = floats(one / name, tensor), floats(other / name, tensor)
            assert a[0] == b[0], tensor
            worst = max(worst, max(abs(x - y) for x, y in zip(a[1], b[1])))
    return worst


def same(one, other, what="model.safetensors"):
    return (one / what).read_bytes() == (other / what).read_bytes()


def same_states(one, other, step=STEPS):
    """Tensors of a checkpoint's state, bit for bit (its header tells the number of ranks)."""
    def data(folder):
        path = folder / f"checkpoint-{step}" / "training_state.safetensors"
        header, n = read_header(path)
        header.pop("__metadata__")
        return header, path.read_bytes()[8 + n:]
    return data(one) == data(other)


# ---- the same numbers in any number of processes
c.good("one process", "finetune", EXAMPLE, *flags, "--out", W / "one")
ended = good("two processes", 2, *flags, "--out", W / "two")
c.check("the first one reports, the other is quiet", ended[0][1].count("10 steps") == 1 and ended[1][1] == "", ended)
good("four processes, some without samples", 4, *flags, "--out", W / "four")
one = losses(W / "one")
c.check("losses fall", one[-1] < one[0], one)
for name in ("two", "four"):
    c.check(f"{name}: losses as of one process", near(losses(W / name), one), (losses(W / name), one))
    off = weights_off(W / name, W / "one")
    c.check(f"{name}: weights as of one process", off < 2e-5, off)
held = [[line["eval_loss"] for line in lines_of(W / name) if "eval_loss" in line] for name in ("one", "two", "four")]
c.check("held-out losses too", len(held[0]) == 1 and all(abs(h[0] - held[0][0]) <= 1e-5 * held[0][0] for h in held), held)
c.check("learned tokens of all are counted", [line.get("learned_tokens") for line in lines_of(W / "two")] == [line.get("learned_tokens") for line in lines_of(W / "one")])

# ---- what is spread changes nothing, bit for bit
for level in (1, 2, 3):
    out = W / f"zero{level}"
    good(f"--zero {level}", 2, *flags, "--zero", level, "--out", out)
    c.check(f"--zero {level}: the losses of --zero 0", losses(out) == losses(W / "two"), (losses(out), losses(W / "two")))
    c.check(f"--zero {level}: the weights of --zero 0", same(out, W / "two"))
    c.check(f"--zero {level}: the states of --zero 0", same_states(out, W / "two") and same_states(out, W / "two", 8))
small = [*flags[:6], "--max-steps", 3, *flags[8:], "--dtype", "bf16", "--accumulate", 2]
good("bf16, two batches a step", 2, *small, "--out", W / "b0")
good("the same with --zero 3", 2, *small, "--zero", 3, "--out", W / "b3")
pairs = list(zip(losses(W / "b0"), losses(W / "b3")))
c.check("bf16 and accumulation at both levels", len(pairs) == 3 and all(abs(a - b) <= 2e-3 * a for a, b in pairs), pairs)
lora = [*flags, "--lora-r", "4", "--lora-target", "q_proj"]
good("adapters", 2, *lora, "--out", W / "l0")
good("adapters with --zero 3", 2, *lora, "--zero", 3, "--out", W / "l3")
c.check("the same adapters", same(W / "l0", W / "l3", "adapter_model.safetensors"))

# ---- a killed process, and going on with other numbers
folder = W / "rough"
running = start(2, *flags, "--zero", 3, "--out", folder)
log = folder / "log.jsonl"
while all(p.poll() is None for p in running) and not (log.exists() and log.read_bytes().count(b"\n") >= 5):
    time.sleep(0.005)
os.kill(running[1].pid, signal.SIGKILL)
killed = time.monotonic()
ended = end(running)
waited = time.monotonic() - killed
c.check("the other ends with one line that names the dead one", ended[0][0] == 7 and len(ended[0][2]) == 1 and "rank 1 of 2 is gone" in ended[0][2][0], ended)
c.check("at once", waited < 10, waited)
c.check("a checkpoint is there", (folder / "checkpoint-4" / "training_state.safetensors").exists())
for name in ("by_one", "by_four"):
    shutil.copytree(folder, W / name)
ended = good("it goes on with the same number at another level", 2, *flags, "--zero", 1, "--out", folder, "--json")
c.check("from its checkpoint", json.loads(ended[0][1])["resumed_at"] in (4, 8), ended)
c.check("bit for bit", losses(folder) == losses(W / "two") and same(folder, W / "two") and same_states(folder, W / "two"))
c.good("it goes on in one process", "finetune", EXAMPLE, *flags, "--out", W / "by_one")
good("it goes on in four", 4, *flags, "--zero", 2, "--out", W / "by_four")
for name in ("by_one", "by_four"):
    c.check(f"{name}: the same losses", near(losses(W / name), one), losses(W / name))

# ---- what goes wrong, in one line
ended = end(start(2, *flags, "--out", W / "x", each=lambda rank: ["--weight-decay", 0.1 * rank]))
c.check("different options", all(code == 2 and len(lines) == 1 and "weight_decay was 0" in lines[0] and "rank 1" in lines[0] for code, _, lines in ended), ended)
ended = end(start(2, *flags, "--out", W / "two"))
c.check("a finished run", all(code == 2 and len(lines) == 1 and "finished" in lines[0] for code, _, lines in ended), ended)
ended = end(start(2, *flags, "--rank-timeout", "1", "--out", W / "x", only=[0]))
c.check("a process that never comes", ended[0][0] == 7 and len(ended[0][2]) == 1 and "did not come within 1 s" in ended[0][2][0], ended)
ended = end(start(2, *flags, "--rank-timeout", "1", "--out", W / "x", only=[1]))
c.check("a first process that never comes", ended[0][0] == 7 and len(ended[0][2]) == 1 and "MASTER_ADDR" in ended[0][2][0], ended)
running = start(2, *flags, "--rank-timeout", "4", "--out", W / "silent")
log = W / "silent" / "log.jsonl"
while all(p.poll() is None for p in running) and not (log.exists() and log.read_bytes().count(b"\n") >= 1):
    time.sleep(0.005)
os.kill(running[1].pid, signal.SIGSTOP)
ended = end(running[:1])
os.kill(running[1].pid, signal.SIGKILL)
end(running[1:])
c.check("a process that is silent", ended[0][0] == 7 and len(ended[0][2]) == 1 and "does not answer for 4 s" in ended[0][2][0], ended)
running = start(2, *flags, "--out", W / "stopped")
log = W / "stopped" / "log.jsonl"
while all(p.poll() is None for p in running) and not (log.exists() and log.read_bytes().count(b"\n") >= 2):
    time.sleep(0.005)
os.kill(running[1].pid, signal.SIGTERM)
ended = end(running)
c.check("one interrupted process stops all, with a checkpoint", all(code == 130 and len(lines) == 1 and "goes on from there" in lines[0] for code, _, lines in ended), ended)
for name, env, says in (("half of the variables", {"RANK": "0"}, "WORLD_SIZE"), ("a rank too many", {"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 of 2"),
                        ("no meeting place", {"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR")):
    c.bad(name, "finetune", EXAMPLE, *flags, "--out", W / "x", env=env, says=[says])
c.bad("--zero 4", "finetune", EXAMPLE, *flags, "--zero", 4, "--out", W / "x", says=["--zero"])
c.bad("--zero 2 without checkpointing", "finetune", EXAMPLE, *flags, "--no-checkpointing", "--zero", 2, "--out", W / "x", says=["--checkpointing"])

c.finish()
