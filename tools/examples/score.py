"""Scores a checkpoint on a folder of questions, TASK.jsonl or TASK.SPLIT.jsonl, whose tasks.json says how each task is asked and judged.

    python3 tools/examples/score.py PROGRAM MODEL EVAL OUT [--limit N] [--only REGEX]

`statera eval` does each file in OUT/FILE/ (a killed run goes on there); OUT/scores.json gathers the scores. Standard library only.
tasks.json: {"prompt": "{question}", "tasks": {TASK: {"metric", "max_new_tokens"?, "target"?: {SPLIT: score}}}}
"""
import argparse
import json
import re
import subprocess
from pathlib import Path

from checkpoint import weights_sha256


def run(program, *args):
    """The JSON that a command of the program prints."""
    r = subprocess.run([str(a) for a in (program, *args, "--json", "--progress", "off")], capture_output=True, text=True)
    if r.returncode > 0:
        raise SystemExit(f"statera {args[0]}: {json.loads(r.stdout)['error']['message']}")
    if r.returncode:
        raise SystemExit(f"statera {args[0]}: ended by signal {-r.returncode}")
    return json.loads(r.stdout)


def version(program):
    return subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def files_of(folder, only=None):
    """(file, task, split, settings) of every question file, in the order of tasks.json; what either lacks is an error."""
    folder = Path(folder)
    if not (folder / "tasks.json").is_file():
        raise SystemExit(f"{folder}: has no tasks.json")
    told = json.loads((folder / "tasks.json").read_text())
    by_task = {}
    for path in sorted(folder.glob("*.jsonl")):
        task, _, split = path.stem.partition(".")
        if task not in told["tasks"]:
            raise SystemExit(f"{path}: tasks.json knows no task {task}")
        by_task.setdefault(task, []).append((path, task, split, {"prompt": told["prompt"], "max_new_tokens": 64, **told["tasks"][task]}))
    missing = [task for task in told["tasks"] if task not in by_task]
    if missing:
        raise SystemExit(f"{folder}: no questions of task {missing[0]}")
    found = [f for task in told["tasks"] for f in by_task[task] if not only or re.search(only, f[0].stem)]
    if not found:
        raise SystemExit(f"{folder}: no file matches {only}")
    return found


def score(program, model, folder, out, limit=0, only=None, say=lambda text: None):
    """Scores as OUT/scores.json holds them."""
    rows = []
    for path, task, split, how in files_of(folder, only):
        flags = ["--tasks", "vqa", "--data", path, "--metric", how["metric"], "--prompt", how["prompt"], "--max-new-tokens", how["max_new_tokens"]]
        result = run(program, "eval", model, *flags, "--limit", limit, "--out", Path(out) / path.stem)["results"][0]
        rows.append({"file": path.stem, "task": task, "split": split, "metric": how["metric"], "n": result["n"], "score": result["score"],
                     "standard_error": result["standard_error"], "scores": result["scores"], "target": how.get("target", {}).get(split or "all")})
        say(f"{path.stem:20s} {how['metric']:8s} {percent(rows[-1])}  of {result['n']}")
    made = {"weights_sha256": weights_sha256(model), "program": version(program), "limit": limit, "rows": rows}
    (Path(out) / "scores.json").write_text(json.dumps(made, indent=1) + "\n")
    return made


def answers_of(folder, rows):
    """Every question's own score, by file, of what `score` left in a folder."""
    lines = {r["file"]: (Path(folder) / r["file"] / "vqa.jsonl").read_text().splitlines()[1:] for r in rows}
    return {r["file"]: [json.loads(line)["score"] for line in lines[r["file"]][:r["n"]]] for r in rows}


def paired(run, base):
    """Mean and standard error of the differences, question by question, of two runs with `answers` as above."""
    d = [a - b for name in base["answers"] for a, b in zip(run["answers"].get(name, ()), base["answers"][name])]
    m = sum(d) / len(d)
    error = (sum((x - m) ** 2 for x in d) / (len(d) - 1) / len(d)) ** 0.5 if len(d) > 1 else None
    return {"score": m, "standard_error": error}


def percent(row):
    error = row["standard_error"]
    return f"{100 * row['score']:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def mean(rows):
    """The mean over files and its standard error, questions of different files being independent."""
    errors = [r["standard_error"] for r in rows]
    whole = None if None in errors else sum(e * e for e in errors) ** 0.5 / len(rows)
    return {"score": sum(r["score"] for r in rows) / len(rows), "standard_error": whole}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=Path)
    ap.add_argument("model", type=Path)
    ap.add_argument("eval", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("--limit", type=int, default=0, help="questions of each file; 0: all")
    ap.add_argument("--only", help="regular expression for names of files, such as clean")
    args = ap.parse_args()
    made = score(args.program, args.model, args.eval, args.out, args.limit, args.only, lambda text: print(text, flush=True))
    print(f"{'mean':29s} {percent(mean(made['rows']))}")


if __name__ == "__main__":
    main()
