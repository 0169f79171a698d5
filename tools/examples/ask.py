"""A few questions with one picture from a folder of questions, for people to see: writes the pictures, prints PICTURE, question, answer with tabs.

    python3 tools/examples/ask.py EVAL PICTURES [--count 4] [--split clean]

The first question of every third task, as EVAL/tasks.json lists them. Standard library only.
"""
import argparse
import base64
import json
from pathlib import Path

from score import files_of


def with_picture(folder, split):
    """(task, line) of the first question of each task that shows one picture, given as a data: URI."""
    for path, task, its_split, _ in files_of(folder):
        line = json.loads(path.read_text().splitlines()[0])
        if its_split in ("", split) and isinstance(line.get("image"), str) and line["image"].startswith("data:"):
            yield task, line


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("eval", type=Path)
    ap.add_argument("pictures", type=Path)
    ap.add_argument("--count", type=int, default=4)
    ap.add_argument("--split", default="clean")
    args = ap.parse_args()
    found = list(with_picture(args.eval, args.split))[::3][:args.count]
    if not found:
        raise SystemExit(f"{args.eval}: no question of split {args.split} shows one picture")
    args.pictures.mkdir(parents=True, exist_ok=True)
    for task, line in found:
        kind, _, data = line["image"].partition(";base64,")
        path = args.pictures / f"{task}.{kind.rpartition('/')[2]}"
        path.write_bytes(base64.b64decode(data))
        print(path, line["question"], line["answers"][0], sep="\t")


if __name__ == "__main__":
    main()
