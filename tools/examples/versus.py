"""Scores of several checkpoints on the same questions, as a table for the terminal: tasks down, checkpoints across.

    python3 tools/examples/versus.py PROGRAM EVAL OUT LABEL=MODEL ... [--limit N] [--only REGEX]

The first checkpoint is the one that the last line compares with, question by question. Standard library only.
"""
import argparse
from pathlib import Path

from score import answers_of, mean, paired, percent, score


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=Path)
    ap.add_argument("eval", type=Path)
    ap.add_argument("out", type=Path)
    ap.add_argument("models", nargs="+", metavar="LABEL=MODEL")
    ap.add_argument("--limit", type=int, default=0)
    ap.add_argument("--only")
    args = ap.parse_args()
    runs = {}
    for label, _, model in (m.partition("=") for m in args.models):
        rows = score(args.program, Path(model), args.eval, args.out / label, args.limit, args.only)["rows"]
        runs[label] = {"rows": rows, "answers": answers_of(args.out / label, rows)}
    line = lambda name, cells: print(f"{name:16s}" + "".join(f"{c:>14s}" for c in cells))
    line("", runs)
    first = next(iter(runs.values()))
    for i, row in enumerate(first["rows"]):
        line(row["task"], [percent(run["rows"][i]) for run in runs.values()])
    line("mean", [percent(mean(run["rows"])) for run in runs.values()])
    line("lost", [""] + [percent(paired(run, first)) for run in list(runs.values())[1:]])


if __name__ == "__main__":
    main()
