"""bench/accuracy/table.py on the bundled checkpoint (which answers nothing right): variants are made, scored, gone on with, and put on a page."""
import json
import os
import subprocess
import sys

from support import EXAMPLE, PICTURES, ROOT, Checks

c = Checks(sys.argv[1])
W = c.work
CALIBRATION = ROOT / "examples" / "calibration" / "messages.jsonl"
(W / "eval").mkdir()
for name, answer in (("shape.clean", "circle"), ("box.clean", '[{"bbox_2d": [1, 2, 30, 40], "label": "circle"}]')):
    lines = [{"id": i, "image": str(PICTURES / "shapes_a.png"), "question": f"What is {i}?", "answers": [answer]} for i in range(4)]
    (W / "eval" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
tasks = {"shape": {"metric": "exact", "max_new_tokens": 3}, "box": {"metric": "iou", "max_new_tokens": 3}}
(W / "eval" / "tasks.json").write_text(json.dumps({"prompt": "{question}", "tasks": tasks}))


def table(*args):
    return subprocess.run([sys.executable, str(ROOT / "bench" / "accuracy" / "table.py"), *map(str, args)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})


def run(*more):
    return table("run", c.program, EXAMPLE, W / "work", "--eval", W / "eval", "--data", CALIBRATION, "--samples", 4, "--limit", 2, *more)


some = ("--weights", "outliers", "norms", "--only", "bf16", "rtn-w3", "mbq-w3", "smoothquant-w4a8")
r = run(*some)
c.check("weights alone with outliers everywhere, 8-bit activations with those behind norms",
        r.returncode == 0 and [line.split()[0] for line in r.stdout.splitlines()] ==
        ["outliers/bf16", "outliers/rtn-w3", "outliers/mbq-w3", "norms/bf16", "norms/smoothquant-w4a8"], r.stdout + r.stderr)
results = json.loads((W / "work" / "results.json").read_text())
c.check("each answered each question", all(len(a) == 2 for made in results["runs"].values() for a in made["answers"].values()), results["runs"])
c.check("the box task has its own score", results["runs"]["outliers/bf16"]["rows"][1]["metric"] == "iou")
times = {f: f.stat().st_mtime_ns for f in W.rglob("model.safetensors")}
c.check("two models with outliers and three checkpoints", len(times) == 5, times)
r = run(*some)
c.check("a second run makes nothing anew", r.returncode == 0 and times == {f: f.stat().st_mtime_ns for f in W.rglob("model.safetensors")}, r.stderr)

r = table("write", W / "page.md", W / "work")
text = (W / "page.md").read_text() if r.returncode == 0 else r.stderr
for said in ("| task | bf16 | RTN W3 | MBQ W3 |", "| task | bf16 | SmoothQuant W4A8 |", "With outlier channels everywhere",
             "With outlier channels behind norms", "first 2 of each file", "Not measured: RTN W4"):
    c.check(f"the page says {said}", said in text, text[-1500:])
c.check("and nothing of this machine", str(W) not in text and str(ROOT) not in text)

for name, says, args in (("other calibration", "another samples", ("--samples", 5)), ("an unknown variant", "none of bf16", ("--only", "rtn-w5"))):
    r = run(*args)
    c.check(f"{name} is refused", r.returncode != 0 and says in r.stderr and r.stderr.count("\n") == 1, r.stderr[-500:])

c.finish()
