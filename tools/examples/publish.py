"""Copies a trained example model into examples/: weights in shards, side files, questions, calibration items, card.

    python3 tools/examples/publish.py WORK NAME [--examples examples] [--questions N] [--calibration 128]

From WORK (what train.sh fills): NAME, world/eval, world/train.jsonl, scores/scores.json. Standard library only; the same input gives the same bytes.
No file may be larger than 4 MiB and examples/ not larger than 25 MiB: --questions takes the first N of each file where that is too much.
"""
import argparse
import base64
import json
import shutil
from pathlib import Path

from card import card
from checkpoint import write_shards

HERE = Path(__file__).resolve().parent
FILE_CAP, TREE_CAP, SHARD = 4 << 20, 25 << 20, 3 << 20
NOT_COPIED = ("run.json", "log.jsonl", "README.md")


def first_lines(path, count):
    lines = path.read_text().splitlines(keepends=True)
    return "".join(lines[:count] if count else lines)


def inlined(value, folder):
    """Paths of pictures and frames as data: URIs."""
    if isinstance(value, list):
        return [inlined(v, folder) for v in value]
    return "data:image/png;base64," + base64.b64encode((folder / value).read_bytes()).decode()


def calibration_line(line, folder):
    """A training conversation that needs no other file."""
    item = json.loads(line)
    if "image" in item:
        item["image"] = inlined(item["image"], folder)
    for message in item.get("messages", []):
        for part in message["content"] if isinstance(message["content"], list) else []:
            for kind in ("image", "video"):
                if kind in part:
                    part[kind] = inlined(part[kind], folder)
    return json.dumps(item, ensure_ascii=False) + "\n"


def bytes_of(folder, pattern):
    return sum(f.stat().st_size for f in Path(folder).glob(pattern) if f.is_file())


def fill(out, work, name, questions, calibration):
    model, world = work / name, work / "world"
    scores = json.loads((work / "scores" / "scores.json").read_text())
    if scores["limit"]:
        raise SystemExit(f"{work / 'scores'}: scores of {scores['limit']} questions a file; score all of them")
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in NOT_COPIED and ".safetensors" not in path.name:
            shutil.copyfile(path, out / path.name)
    write_shards(model, out, SHARD)
    (out / "eval").mkdir()
    for path in sorted((world / "eval").glob("*.jsonl")):
        (out / "eval" / path.name).write_text(first_lines(path, questions))
    shutil.copyfile(HERE / name / "tasks.json", out / "eval" / "tasks.json")
    with open(world / "train.jsonl") as f:
        (out / "calibration.jsonl").write_text("".join(calibration_line(line, world) for _, line in zip(range(calibration), f)))
    counts = {"weights": bytes_of(out, "*.safetensors"), "questions": bytes_of(out, "eval/*"), "calibration items": bytes_of(out, "calibration.jsonl")}
    (out / "README.md").write_text(card(HERE / name / "card.md", model, scores, questions, counts))


def publish(work, name, examples, questions=0, calibration=128):
    out, staging = examples / name, examples / (name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        fill(staging, work, name, questions, calibration)
        if large := [f.name for f in staging.rglob("*") if f.is_file() and f.stat().st_size > FILE_CAP]:
            raise SystemExit(f"{name}: {large[0]} is larger than {FILE_CAP >> 20} MiB")
        total = bytes_of(examples, "**/*") - bytes_of(out, "**/*")
        if total > TREE_CAP:
            raise SystemExit(f"{examples}: would hold {total / 2**20:.1f} MiB, at most {TREE_CAP >> 20}; take fewer --questions")
        shutil.rmtree(out, ignore_errors=True)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return total


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=Path)
    ap.add_argument("name", choices=["tiny-vlm", "tiny-moe"])
    ap.add_argument("--examples", type=Path, default=HERE.parents[1] / "examples")
    ap.add_argument("--questions", type=int, default=0, help="of each file; 0: all")
    ap.add_argument("--calibration", type=int, default=128, help="training conversations, the first of train.jsonl")
    args = ap.parse_args()
    total = publish(args.work, args.name, args.examples, args.questions, args.calibration)
    print(f"{args.examples / args.name}: written; {args.examples} holds {total / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
