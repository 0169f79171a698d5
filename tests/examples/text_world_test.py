"""The text world of tiny-moe: answers, split, mixture, bytes. Standard library only."""
import json
import re
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "examples"))
import common  # noqa: E402
import text_world  # noqa: E402
from text_domains import DOMAINS  # noqa: E402
from text_oracle import right  # noqa: E402

WEIGHTS = common.read_weights(ROOT / "tools" / "examples" / "tiny-moe" / "mixture.yaml", DOMAINS)


def turns(line):
    said = line["messages"]
    return [(q["content"], a["content"]) for q, a in zip(said[::2], said[1::2])]


def story_question(about, answer):
    """A part of the answer about a crowd as a question of its own, and the answer to that."""
    if about[0].islower():
        return f"Who has the {about} now?", answer
    return (f"How many apples did {about} pick?" if answer.isdigit() else f"Where is {about}?"), answer


class TextWorld(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.train = list(text_world.training(1, 3000, WEIGHTS))
        cls.even = list(text_world.training(2, 2000, dict.fromkeys(DOMAINS, 1)))  # enough of the rare ones, too
        cls.eval = {domain: list(text_world.evaluation(1, domain, 300)) for domain in DOMAINS}

    def test_every_answer_is_what_the_oracle_finds(self):
        asked = [(line["domain"], q, a) for line in self.train + self.even for q, a in turns(line)]
        asked += [(domain, line["question"], line["answers"][0]) for domain, lines in self.eval.items() for line in lines]
        wrong = [item for item in asked if not right(*item)]
        self.assertEqual(wrong[:3], [])
        self.assertGreater(len(asked), 9000)

    def test_the_oracle_refuses_wrong_answers(self):
        for domain, lines in self.eval.items():
            refused = sum(not right(domain, line["question"], other["answers"][0]) for line, other in zip(lines, lines[1:])
                          if line["answers"] != other["answers"] and domain != "code")
            self.assertTrue(refused > 50 or domain == "code", domain)
        self.assertFalse(right("code", "Write Python that prints 3 times 4.", "print(3 + 4)"))
        self.assertFalse(right("code", "What does this print?\nprint(3)", "4"))

    def test_evaluation_never_occurs_in_training(self):
        trained = {q for line in self.train + self.even for q, _ in turns(line)}
        asked = {line["question"] for lines in self.eval.values() for line in lines}
        self.assertEqual(trained & asked, set())
        rng = common.stream("split")
        for domain, make in DOMAINS.items():  # by content, whatever the wording
            for _ in range(200):
                self.assertFalse(common.is_held_out(text_world.item(domain, rng, held_out=False)[0]))

    def told(self, kind):
        """(text, turns with the text taken off the first question) of conversations about a story each, on both sides of the split."""
        for held_out in (False, True):
            for line in text_world.training(1, 150, {kind: 1}, held_out=held_out):
                (question, answer), *more = turns(line)
                text = question[:question.rindex(".") + 1]
                self.assertEqual(common.is_held_out("story " + text), held_out)
                yield text, [(question.removeprefix(text).strip(), answer), *more]

    def check_every_question(self, text, asked):
        """Each that the story allows is there once, with the right answer."""
        self.assertEqual([(q, a) for q, a in asked if not right("stories", f"{text} {q}", a)], [])
        about = {q for q, _ in asked}
        self.assertEqual(len(about), len(asked))
        for begins, pattern in (("Who has", r"had an? \w+ (\w+)"), ("Where", r"(\w+) (?:went|walked|ran) to"), ("How many", r"(\w+) picked")):
            self.assertEqual(sum(q.startswith(begins) for q in about), len(set(re.findall(pattern, text))), text)

    def test_stories_and_crowds_are_asked_every_question_about_them(self):
        for text, asked in self.told("stories_through"):
            self.check_every_question(text, asked)
        noted = 0
        for text, asked in self.told("crowds_in_turn"):
            if text.count(".") == 1:
                noted += 1
                self.assertEqual({q: a for q, a in asked}, dict(story_question(*part.split()) for part in text[:-1].split(", ")))
            else:
                self.check_every_question(text, asked)
        self.assertTrue(100 < noted < 200)

    def test_crowds_asked_about_at_once_are_told_in_the_order_of_the_question(self):
        for text, ((question, answer),) in self.told("crowds_at_once"):
            told = [part.split() for part in answer.split(", ")]
            keys = [key for key, _ in told]
            self.assertEqual([word for word in re.findall(r"\w+", question) if word in keys], keys)
            if text.count(".") == 1:
                self.assertEqual(dict(part.split() for part in text[:-1].split(", ")), dict(told))
            else:
                self.check_every_question(text, [story_question(*pair) for pair in told])

    def test_sums_count_as_the_same_content_either_way_round(self):
        found = {}
        rng = common.stream("sums")
        for _ in range(20000):
            content, question, answer = DOMAINS["arithmetic"](rng)
            if question.endswith(" = ?") and question.count(" ") == 4:
                a, op, b = question.split()[:3]
                found[a, op, b] = content
        twins = [(k, v) for k, v in found.items() if k[1] in "+*" and (k[2], k[1], k[0]) in found]
        self.assertGreater(len(twins), 10)
        for (a, op, b), content in twins:
            self.assertEqual(found[b, op, a], content)

    def test_domains_have_their_share(self):
        seen = Counter(line["domain"] for line in self.train)
        self.assertEqual({d: seen[d] for d in WEIGHTS}, {d: round(30 * w) for d, w in WEIGHTS.items()})
        self.assertEqual(sum(WEIGHTS.values()), 100)
        self.assertEqual(sum(common.shares(7, {"a": 1, "b": 1, "c": 1}).values()), 7)

    def test_the_same_seed_gives_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            texts = []
            for name, seed in (("a", 1), ("b", 1), ("c", 2)):
                path = Path(folder) / name
                common.write_lines(path, text_world.training(seed, 200, WEIGHTS))
                texts.append(path.read_bytes())
            self.assertEqual(texts[0], texts[1])
            self.assertNotEqual(texts[0], texts[2])
            first = json.loads(texts[0].splitlines()[0])
            self.assertEqual([m["role"] for m in first["messages"][:2]], ["user", "assistant"])

    def test_a_mixture_with_an_unknown_name_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mixture.yaml"
            path.write_text("# shares\narithmetic: 1\nsortin: 2\n")
            with self.assertRaises(SystemExit) as refused:
                common.read_weights(path, DOMAINS)
            self.assertIn("line 3", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
