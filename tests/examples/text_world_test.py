"""The text world of tiny-moe: answers, split, mixture, bytes. Standard library only."""
import json
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
