"""The material of tiny-vlm: pictures with train.jsonl and validation.jsonl (conversations),
grids.jsonl (training pictures of grids told whole), and eval/TASK.clean.jsonl, eval/TASK.hard.jsonl (questions for
`statera eval --tasks vqa --prompt '{question}'`, pictures inside as data: URIs). Needs Pillow; the same seed and the same Pillow give
the same bytes.

    python tools/examples/vlm_world.py --out DIR --train 120000 --eval 150
"""
import argparse
import base64
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import draw
import scenes
from common import read_weights, stream, write_lines
from questions import TASKS
from vlm_items import FPS, description, evaluation_items, training_item, training_line, training_order

HERE = Path(__file__).parent
PER_FOLDER = 1000


def names_of(folder, number, scene):
    """Of its pictures, below the folder of the world."""
    several = scene["kind"] in ("pair", "clip")
    return [f"{folder}/{number // PER_FOLDER:03}/{number:06}{'abcdefgh'[i] if several else ''}.png" for i in range(len(scenes.pictures_of(scene)))]


def write_training_item(job):
    """The conversation about a picture, and for a grid the one that tells it whole; the picture is written."""
    out, folder, task, seed, index, number = job
    scene, turns = training_item(task, seed, index, held_out=folder == "validation")
    names = names_of(folder, number, scene)
    for name, picture in zip(names, scenes.pictures_of(scene)):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.png(picture))
    line = training_line(task, scene, turns, names)
    if scene["kind"] != "grid":
        return line, None
    return line, training_line("description", scene, [description(scene, stream(seed, "descriptions", task, index))], names)


def conversations(out, folder, seed, count, weights, pool):
    """folder.jsonl, with its pictures in folder/; grids.jsonl for training."""
    jobs = ((out, folder, task, seed, index, number) for number, (task, index) in enumerate(training_order(seed, count, weights)))
    told = []

    def lines():
        for line, whole in pool.map(write_training_item, jobs, chunksize=64):
            yield line
            told.append(whole)
    write_lines(out / f"{folder}.jsonl", lines())
    if folder == "train":
        write_lines(out / "grids.jsonl", filter(None, told))


def data_uri(picture):
    return "data:image/png;base64," + base64.b64encode(draw.png(picture)).decode()


def evaluation_line(task, split, index, made):
    scene, question, answer = made
    uris = [data_uri(p) for p in scenes.pictures_of(scene)]
    line = {"id": f"{task}-{split}-{index}", "question": question, "answers": [answer]}
    if scene["kind"] == "clip":
        return {**line, "video": uris, "sample_fps": FPS}
    return {**line, "image": uris if len(uris) > 1 else uris[0]}


def write_evaluation(job):
    out, task, split, seed, count = job
    lines = (evaluation_line(task, split, i, made) for i, made in enumerate(evaluation_items(task, split, seed, count)))
    write_lines(out / "eval" / f"{task}.{split}.jsonl", lines)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--train", type=int, default=60000, help="conversations of train.jsonl")
    ap.add_argument("--validation", type=int, default=500, help="conversations of validation.jsonl")
    ap.add_argument("--eval", type=int, default=150, help="questions of each task and split, 0: no eval folder")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--mixture", default=HERE / "tiny-vlm" / "mixture.yaml")
    ap.add_argument("--jobs", type=int, default=os.cpu_count())
    args = ap.parse_args()
    out, weights = Path(args.out), read_weights(args.mixture, TASKS)
    with ProcessPoolExecutor(args.jobs) as pool:
        conversations(out, "train", args.seed, args.train, weights, pool)
        conversations(out, "validation", args.seed, args.validation, weights, pool)
        jobs = [(out, task, split, args.seed, args.eval) for task in TASKS for split in ("clean", "hard") if args.eval]
        list(pool.map(write_evaluation, jobs))


if __name__ == "__main__":
    main()
