"""The picture world of tiny-vlm before it is drawn: answers, split, places, bytes. Standard library only."""
import json
import sys
import unittest
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "examples"))
import common  # noqa: E402
import scenes  # noqa: E402
import vlm_items  # noqa: E402
from questions import TASKS  # noqa: E402
from vlm_oracle import right  # noqa: E402

WEIGHTS = common.read_weights(ROOT / "tools" / "examples" / "tiny-vlm" / "mixture.yaml", TASKS)


def training(seed, count):
    return [(task, *vlm_items.training_item(task, seed, index)) for task, index in vlm_items.training_order(seed, count, WEIGHTS)]


class VlmWorld(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.train = training(1, 700)
        made = [(scene, vlm_items.description(scene, common.stream("told", i)))
                for i, (_, scene, _) in enumerate(cls.train) if scene["kind"] in vlm_items.DESCRIBED]
        cls.described = [m for m in made if m[1]]
        cls.eval = {(task, split): list(vlm_items.evaluation_items(task, split, 1, 30)) for task in TASKS for split in ("clean", "hard")}

    def every_question(self):
        for _, scene, turns in self.train:
            for question, answer in turns:
                yield scene, question.removesuffix(vlm_items.SHORT), answer
        for made in self.eval.values():
            yield from made
        for scene, described in self.described:
            yield scene, *described

    def test_every_answer_is_what_the_oracle_finds(self):
        wrong, count = [], 0
        for scene, question, answer in self.every_question():
            count += 1
            if not right(scene, question, answer, scenes):
                wrong.append((question, answer, scene))
        self.assertEqual(wrong[:2], [])
        self.assertGreater(count, 2700)

    def test_descriptions_are_of_every_kind_but_several_pictures(self):
        self.assertEqual({scene["kind"] for scene, _ in self.described}, {"shapes", "grid", "text", "chart", "table"})
        self.assertFalse(right(*self.other_description("chart"), scenes))
        self.assertFalse(right(*self.other_description("grid"), scenes))

    def other_description(self, kind):
        """A scene with what is true of another one."""
        (scene, _), (_, (question, answer)) = [d for d in self.described if d[0]["kind"] == kind][:2]
        return scene, question, answer

    def test_the_oracle_refuses_wrong_answers(self):
        refused = Counter()
        for (task, _), made in self.eval.items():
            for (scene, question, answer), (_, _, other) in zip(made, made[1:]):
                if answer != other:
                    refused[task] += not right(scene, question, other, scenes)
        for task in TASKS:
            self.assertGreater(refused[task], 8, task)

    def test_evaluation_never_occurs_in_training(self):
        trained = {json.dumps(scenes.content_of(scene)) for _, scene, _ in self.train}
        for made in self.eval.values():
            for scene, _, _ in made:
                self.assertNotIn(json.dumps(scenes.content_of(scene)), trained)
                self.assertTrue(common.is_held_out(scenes.content_of(scene)))
        for _, scene, _ in self.train:
            self.assertFalse(common.is_held_out(scenes.content_of(scene)))

    def test_a_word_counts_as_the_same_content_in_any_letters_and_place(self):
        a, b = ({"kind": "text", "text": text, "x": x} for text, x in (("Lamp", 0.1), ("LAMP", 0.9)))
        self.assertEqual(scenes.content_of(a), scenes.content_of(b))

    def test_unseen_pairs_and_the_unseen_font_are_in_the_hard_split_only(self):
        self.assertFalse(any(scenes.holds_unseen(scene) for _, scene, _ in self.train))
        for (task, split), made in self.eval.items():
            held = sum(scenes.holds_unseen(scene) for scene, _, _ in made)
            may = split == "hard" and TASKS[task][0] in vlm_items.WITH_UNSEEN
            self.assertEqual(held, len(made) // 2 if may else 0, (task, split))

    def test_pictures_fit_patches_and_objects_lie_inside_and_apart(self):
        for scene, _, _ in self.every_question():
            for picture in scenes.pictures_of(scene):
                self.assertTrue(picture["w"] % 16 == 0 and picture["h"] % 16 == 0 and max(picture["w"], picture["h"]) <= 160)
                objects = picture.get("objects", [])
                for i, o in enumerate(objects):
                    left, top, right_, bottom = scenes.extent(o)
                    self.assertTrue(left >= 0 and top >= 0 and right_ <= picture["w"] and bottom <= picture["h"], o)
                    self.assertTrue(all(scenes.apart(o, p, 1) for p in objects[i + 1:]))

    def test_hard_pictures_differ_from_clean_ones(self):
        self.assertTrue(all(p["mess"] is None for (_, split), made in self.eval.items() if split == "clean" for s, _, _ in made for p in scenes.pictures_of(s)))
        hard = [p for (_, split), made in self.eval.items() if split == "hard" for s, _, _ in made for p in scenes.pictures_of(s)]
        self.assertTrue(all(p["mess"] for p in hard))
        self.assertGreater(sum(o["angle"] != 0 for p in hard for o in p.get("objects", [])), 100)

    def test_answers_are_varied(self):
        for (task, split), made in self.eval.items():
            most = Counter(answer for _, _, answer in made).most_common(1)[0][1]
            self.assertLessEqual(most, 0.62 * len(made), (task, split))
            self.assertEqual(len({vlm_items.key_of(m) for m in made}), len(made))

    def test_lines_have_the_form_that_trainers_read(self):
        kinds = set()
        for task, scene, turns in self.train:
            names = [f"{i}.png" for i in range(len(scenes.pictures_of(scene)))]
            line = vlm_items.training_line(task, scene, turns, names)
            kinds.add(scene["kind"])
            if scene["kind"] == "clip":
                self.assertEqual(line["messages"][0]["content"][0], {"type": "video", "video": names, "sample_fps": 2.0})
                continue
            said = line["conversations"]
            self.assertEqual("".join(t["value"] for t in said).count("<image>"), len(names))
            self.assertEqual([t["from"] for t in said], ["human", "gpt"] * len(turns))
        self.assertEqual(kinds, {"shapes", "grid", "text", "chart", "table", "pair", "clip"})

    def test_the_same_seed_gives_the_same_bytes(self):
        text = lambda seed: json.dumps(training(seed, 60))
        self.assertEqual(text(5), text(5))
        self.assertNotEqual(text(5), text(6))


if __name__ == "__main__":
    unittest.main()
