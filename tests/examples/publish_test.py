"""What brings a trained model into examples/ and its scores onto a page: shards, card, sizes, tables. Standard library only."""
import base64
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "examples"), str(ROOT / "bench" / "accuracy")]
import checkpoint  # noqa: E402
import page  # noqa: E402
import publish  # noqa: E402
import score  # noqa: E402
from card import card  # noqa: E402
from questions import TASKS  # noqa: E402
from text_domains import DOMAINS  # noqa: E402

EXAMPLES = ROOT / "tools" / "examples"
PICTURE = b"\x89PNG picture"


def result(file, score_, n=4, target=None, error=0.1):
    task, _, split = file.partition(".")
    return {"file": file, "task": task, "split": split, "metric": "exact", "n": n, "score": score_, "standard_error": error, "scores": {}, "target": target}


def workplace(folder):
    """What train.sh leaves, in small."""
    model, world = folder / "tiny-vlm", folder / "world"
    for path in (model, world / "eval", world / "train", folder / "scores"):
        path.mkdir(parents=True)
    checkpoint.write_file(model / "model.safetensors", [(f"t{i}", "F32", [2, 2], struct.pack("<4f", i, 1, 2, 3)) for i in range(5)])
    (model / "config.json").write_text("{}")
    (model / "run.json").write_text(json.dumps({"model": "/somewhere/init", "max_steps": 70, "seed": 5, "batch": 32, "lr": 0.002, "vision_lr": None}))
    (model / "log.jsonl").write_text('{"step": 60, "eval_loss": 2.0}\n{"step": 70, "loss": 1.0}\n{"step": 70, "eval_loss": 1.25}\n')
    for name in ("shape.clean", "box.hard"):
        (world / "eval" / f"{name}.jsonl").write_text("".join(json.dumps({"id": i}) + "\n" for i in range(6)))
    (world / "train" / "0.png").write_bytes(PICTURE)
    lines = [{"image": "train/0.png", "conversations": []}, {"image": ["train/0.png"] * 2, "conversations": []},
             {"messages": [{"role": "user", "content": [{"type": "video", "video": ["train/0.png"]}, {"type": "text", "text": "?"}]},
                           {"role": "assistant", "content": "left"}]}, {"conversations": []}]
    (world / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [result("shape.clean", 0.9, target=0.95), result("shape.hard", 0.5), result("box.clean", 0.7), result("box.hard", 0.3)]
    write_scores(folder, rows)
    return folder


def write_scores(folder, rows, **more):
    made = {"weights_sha256": checkpoint.weights_sha256(folder / "tiny-vlm"), "program": "statera 9", "limit": 0, "rows": rows, **more}
    (folder / "scores" / "scores.json").write_text(json.dumps(made))


class Published(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.work = workplace(self.folder / "work")
        self.examples = self.folder / "examples"

    def test_shards_hold_the_same_tensors_and_hash_alike(self):
        out = self.folder / "shards"
        out.mkdir()
        checkpoint.write_shards(self.work / "tiny-vlm", out, 40)
        self.assertEqual([f.name for f in sorted(out.glob("*.safetensors"))], [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)])
        self.assertEqual(list(checkpoint.tensors(out)), list(checkpoint.tensors(self.work / "tiny-vlm")))
        self.assertEqual(checkpoint.weights_sha256(out), checkpoint.weights_sha256(self.work / "tiny-vlm"))
        self.assertEqual(checkpoint.parameters(out), 20)
        index = json.loads((out / "model.safetensors.index.json").read_text())
        self.assertEqual(index["weight_map"]["t4"], "model-00003-of-00003.safetensors")
        self.assertEqual(index["metadata"]["total_size"], 80)
        with self.assertRaisesRegex(SystemExit, "t0 has 16 bytes"):
            checkpoint.write_shards(self.work / "tiny-vlm", out, 15)

    def test_one_changed_weight_is_another_hash(self):
        before = checkpoint.weights_sha256(self.work / "tiny-vlm")
        data = bytearray((self.work / "tiny-vlm" / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (self.work / "tiny-vlm" / "model.safetensors").write_bytes(data)
        self.assertNotEqual(checkpoint.weights_sha256(self.work / "tiny-vlm"), before)

    def test_the_card_tells_scores_goal_seed_steps_and_licence(self):
        publish.publish(self.work, "tiny-vlm", self.examples)
        text = (self.examples / "tiny-vlm" / "README.md").read_text()
        for said in ("| task | metric | clean | goal | hard |", "| shape | exact | 90.0 ± 10.0 | 95 | 50.0 ± 10.0 |", "| mean of tasks |  | 80.0 ± 7.1 |  | 40.0 ± 7.1 |",
                     "max_steps 70, batch 32, lr 0.002, seed 5", "Held-out loss at step 70: 1.2500", "statera 9", "Apache-2.0",
                     checkpoint.weights_sha256(self.work / "tiny-vlm"), "All of them lie in `eval/`"):
            self.assertIn(said, text)
        self.assertNotIn("somewhere", text)

    def test_everything_a_stranger_needs_is_there_and_nothing_of_the_machine(self):
        publish.publish(self.work, "tiny-vlm", self.examples, questions=4, calibration=3)
        out = self.examples / "tiny-vlm"
        self.assertEqual(sorted(f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()),
                         ["README.md", "calibration.jsonl", "config.json", "eval/box.hard.jsonl", "eval/shape.clean.jsonl", "eval/tasks.json", "model.safetensors"])
        self.assertEqual((out / "eval" / "box.hard.jsonl").read_text().count("\n"), 4)
        self.assertIn("The first 4 questions", (out / "README.md").read_text())
        lines = [json.loads(line) for line in (out / "calibration.jsonl").read_text().splitlines()]
        uri = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
        self.assertEqual([line["image"] for line in lines[:2]], [uri, [uri, uri]])
        self.assertEqual(lines[2]["messages"][0]["content"][0]["video"], [uri])
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[2]["messages"][1], {"role": "assistant", "content": "left"})

    def test_scores_of_other_weights_or_of_a_part_are_refused(self):
        rows = [result("shape.clean", 0.9)]
        write_scores(self.work, rows, weights_sha256="0")
        with self.assertRaisesRegex(SystemExit, "other weights"):
            publish.publish(self.work, "tiny-vlm", self.examples)
        write_scores(self.work, rows, limit=3)
        with self.assertRaisesRegex(SystemExit, "score all of them"):
            publish.publish(self.work, "tiny-vlm", self.examples)
        self.assertEqual(list(self.examples.iterdir()), [])

    def test_what_the_repository_cannot_take_is_refused_and_the_old_stays(self):
        publish.publish(self.work, "tiny-vlm", self.examples)
        (self.examples / "other").write_bytes(b"0" * (publish.TREE_CAP - 100))
        with self.assertRaisesRegex(SystemExit, "take fewer --questions"):
            publish.publish(self.work, "tiny-vlm", self.examples)
        (self.examples / "other").unlink()
        (self.work / "world" / "eval" / "box.hard.jsonl").write_bytes(b"0" * (publish.FILE_CAP + 1))
        with self.assertRaisesRegex(SystemExit, "box.hard.jsonl is larger"):
            publish.publish(self.work, "tiny-vlm", self.examples)
        self.assertEqual([f.name for f in self.examples.iterdir()], ["tiny-vlm"])

    def test_a_template_with_an_unknown_word_is_an_error(self):
        (self.folder / "card.md").write_text("$scores $nothing")
        scores = json.loads((self.work / "scores" / "scores.json").read_text())
        with self.assertRaises(KeyError):
            card(self.folder / "card.md", self.work / "tiny-vlm", scores)


class Scored(unittest.TestCase):
    def test_every_task_of_the_worlds_is_judged(self):
        for name, tasks in (("tiny-vlm", TASKS), ("tiny-moe", DOMAINS)):
            told = json.loads((EXAMPLES / name / "tasks.json").read_text())
            self.assertEqual(sorted(told["tasks"]), sorted(tasks))
            self.assertLessEqual({t["metric"] for t in told["tasks"].values()}, {"exact", "relaxed", "anls", "vqa", "iou"})

    def test_files_and_tasks_must_match(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for name in ("b", "a.clean", "a.hard"):
                (folder / f"{name}.jsonl").write_text("")
            (folder / "tasks.json").write_text('{"prompt": "{question}", "tasks": {"a": {"metric": "exact"}, "b": {"metric": "anls"}}}')
            self.assertEqual([(p.name, task, split) for p, task, split, _ in score.files_of(folder)],
                             [("a.clean.jsonl", "a", "clean"), ("a.hard.jsonl", "a", "hard"), ("b.jsonl", "b", "")])
            self.assertEqual([p.stem for p, *_ in score.files_of(folder, "clean")], ["a.clean"])
            with self.assertRaisesRegex(SystemExit, "no file matches"):
                score.files_of(folder, "x")
            (folder / "c.jsonl").write_text("")
            with self.assertRaisesRegex(SystemExit, "no task c"):
                score.files_of(folder)
            (folder / "c.jsonl").unlink()
            (folder / "b.jsonl").unlink()
            with self.assertRaisesRegex(SystemExit, "no questions of task b"):
                score.files_of(folder)


class Page(unittest.TestCase):
    RUNS = {"bf16": {"rows": [result("a.clean", 0.75), result("a.hard", 0.5)], "answers": {"a.clean": [1, 1, 1, 0], "a.hard": [1, 0, 1, 0]}},
            "rtn-w4": {"rows": [result("a.clean", 0.25), result("a.hard", 0.5)], "answers": {"a.clean": [1, 0, 0, 0], "a.hard": [1, 0, 1, 0]}, "bits_per_weight": 4.625},
            "mbq-w4": {"rows": [result("a.clean", 0.75), result("a.hard", 0.25)], "answers": {"a.clean": [1, 1, 1, 0], "a.hard": [1, 0, 0, 0]}, "bits_per_weight": 4.625}}

    def test_differences_are_taken_question_by_question(self):
        # Two of eight questions are lost: mean -1/4, s^2 = (2 * (3/4)^2 + 6 * (1/4)^2) / 7, over the root of 8.
        found = score.paired(self.RUNS["rtn-w4"], self.RUNS["bf16"])
        self.assertAlmostEqual(found["score"], -0.25)
        self.assertAlmostEqual(found["standard_error"], ((2 * 0.5625 + 6 * 0.0625) / 7 / 8) ** 0.5)

    def test_a_table_has_a_row_a_task_and_what_it_comes_to(self):
        lines = page.table(self.RUNS, ["rtn-w4", "mbq-w4"]).splitlines()
        self.assertEqual(lines[0], "| task | bf16 | RTN W4 | MBQ W4 |")
        self.assertEqual(lines[2], "| a, clean | 75.0 ± 10.0 | 25.0 ± 10.0 | 75.0 ± 10.0 |")
        self.assertEqual(lines[4], "| mean, clean | 75.0 ± 10.0 | 25.0 ± 10.0 | 75.0 ± 10.0 |")
        self.assertTrue(lines[6].startswith("| against bf16 |  | -25.0 ±") and lines[7].startswith("| against RTN |  |  | 12.5 ±"), lines)
        self.assertEqual(lines[8], "| stored bits per weight | 16 | 4.62 | 4.62 |")

    def results(self, model="m", parameters=3000000, factor=32.0, without=()):
        settings = {"model": model, "weights_sha256": "0" * 64, "samples": 8, "data": "c", "data_sha256": "1" * 64, "seed": 0, "channels": 4, "factor": factor,
                    "group": 32, "program": "statera 9"}
        runs = {f"plain/{v}": {**r, "limit": 4} for v, r in self.RUNS.items() if v not in without}
        return {"settings": settings, "parameters": parameters, "variants": [*self.RUNS, "mbq-w3"], "runs": runs, "command": "table.py", "machine": "x", "commit": "c"}

    def test_parts_of_a_measurement_are_said_to_be_parts(self):
        text = page.write([self.results()])
        for said in ("**Not all questions**: the first 4 of each file.", "Not measured: MBQ W3.", "## m", "in groups of 32"):
            self.assertIn(said, text)
        with self.assertRaisesRegex(SystemExit, "bf16 has not been measured"):
            page.write([self.results(without=("bf16",))])

    def test_a_page_keeps_what_it_says_of_other_models(self):
        both = page.write([self.results("a"), self.results("b")])
        self.assertEqual(page.write([self.results("b")], page.write([self.results("a")])), both)
        again = page.write([self.results("a", parameters=5000000)], both)
        self.assertEqual(again, both.replace("3.00 million", "5.00 million", 1))
        with self.assertRaisesRegex(SystemExit, "other settings"):
            page.write([self.results("b", factor=64.0)], both)


if __name__ == "__main__":
    unittest.main()
