"""The README.md of an example model from what its training and its scoring left: run.json, log.jsonl, scores.json and the template card.md.

    python3 tools/examples/card.py TEMPLATE MODEL SCORES.json > README.md

Standard library only. `publish.py` calls it.
"""
import argparse
import json
import sys
from pathlib import Path
from string import Template

from checkpoint import parameters, weights_sha256
from score import mean, percent

# Of run.json, in this order; what else it holds is at its default or says how, not what, was trained.
TOLD = ("max_steps", "batch", "accumulate", "max_len", "lr", "schedule", "warmup_ratio", "weight_decay", "beta1", "beta2", "max_grad_norm", "dtype",
        "matmul_precision", "save_dtype", "lanes", "seed")


def score_table(rows):
    """A row a task, a column a split, and the goal beside it where tasks.json names one."""
    splits = list(dict.fromkeys(r["split"] for r in rows))
    has_goal = {s: any(r["target"] is not None for r in rows if r["split"] == s) for s in splits}
    head = ["task", "metric"]
    for s in splits:
        head += [s or "score", "goal"] if has_goal[s] else [s or "score"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for task in dict.fromkeys(r["task"] for r in rows):
        of_task = {r["split"]: r for r in rows if r["task"] == task}
        cells = [task, next(iter(of_task.values()))["metric"]]
        for s in splits:
            row = of_task.get(s)
            cells.append(percent(row) if row else "")
            if has_goal[s]:
                cells.append(f"{100 * row['target']:.0f}" if row and row["target"] is not None else "")
        lines.append("| " + " | ".join(cells) + " |")
    cells = ["mean of tasks", ""]
    for s in splits:
        cells += [percent(mean([r for r in rows if r["split"] == s]))] + [""] * has_goal[s]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |"])


def losses(log):
    """The last held-out loss of log.jsonl, and the step it was measured at."""
    found = [line for line in map(json.loads, Path(log).read_text().splitlines()) if "eval_loss" in line]
    if not found:
        raise SystemExit(f"{log}: holds no held-out loss")
    return found[-1]


def card(template, model, scores, published=0, counts=None):
    """published: questions of each file that lie beside the card, 0 for all; counts: bytes of its files by kind."""
    model = Path(model)
    ran, held_out = json.loads((model / "run.json").read_text()), losses(model / "log.jsonl")
    sha256 = weights_sha256(model)
    if scores["weights_sha256"] != sha256:
        raise SystemExit(f"{model}: the scores are of other weights; score it again")
    asked = sorted({r["n"] for r in scores["rows"]})
    some = f"The first {published} questions of each file lie in `eval/`." if published else "All of them lie in `eval/`."
    return Template(Path(template).read_text()).substitute(
        scores=score_table(scores["rows"]), parameters=f"{parameters(model) / 1e6:.2f}", sha256=sha256, program=scores["program"],
        steps=ran["max_steps"], seed=ran["seed"], options=", ".join(f"{k} {ran[k]}" for k in TOLD if ran.get(k) not in (None, "")),
        eval_loss=f"{held_out['eval_loss']:.4f}", eval_step=held_out["step"],
        questions=" to ".join(map(str, sorted({asked[0], asked[-1]}))), published=some,
        sizes=", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in (counts or {}).items()))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("template", type=Path)
    ap.add_argument("model", type=Path, help="folder that `statera finetune` wrote")
    ap.add_argument("scores", type=Path)
    args = ap.parse_args()
    sys.stdout.write(card(args.template, args.model, json.loads(args.scores.read_text())))


if __name__ == "__main__":
    main()
