"""Weights between those of two checkpoints: values, rounding, what does not fit. Standard library only."""
import math
import random
import struct
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "examples")]
import average  # noqa: E402
import checkpoint  # noqa: E402


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def nearest(x):
    """Of all bf16 near x the one at the least distance, of two the even one."""
    word = struct.unpack("<I", f32(x))[0] >> 16
    around = [(abs(struct.unpack("<f", struct.pack("<I", w << 16))[0] - x), w & 1, w) for w in (word, word + 1)]
    return min(around)[2]


class Average(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def model(self, name, tensors, note="{}"):
        folder = self.folder / name
        folder.mkdir()
        checkpoint.write_file(folder / "model.safetensors", tensors)
        (folder / "config.json").write_text(note)
        return folder

    def between(self, a, b, share):
        average.average(a, b, self.folder / "out", share)
        return {name: (dtype, shape, data) for name, dtype, shape, data in checkpoint.tensors(self.folder / "out")}

    def test_lies_where_share_says_with_the_side_files_of_the_second(self):
        a = self.model("a", [("w", "F32", [2], f32(1, -4)), ("v", "BF16", [1], struct.pack("<H", 0x4000))], "a")
        b = self.model("b", [("v", "F32", [1], f32(6)), ("w", "F32", [2], f32(3, 4))], "b")
        got = self.between(a, b, 0.75)
        self.assertEqual(got, {"w": ("BF16", [2], struct.pack("<2H", 0x4020, 0x4000)), "v": ("BF16", [1], struct.pack("<H", 0x40A0))})  # 2.5, 2; 5
        self.assertEqual((self.folder / "out" / "config.json").read_text(), "b")

    def test_rounds_to_the_nearest_halves_to_even(self):
        rng = random.Random(3)
        values = [math.ldexp(rng.uniform(-2, 2), rng.randrange(-20, 20)) for _ in range(500)] + [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8]
        m = self.model("m", [("w", "F32", [len(values)], f32(*values))])
        data = self.between(m, m, 0.5)["w"][2]
        exact = struct.unpack(f"<{len(values)}f", f32(*values))
        self.assertEqual(list(struct.unpack(f"<{len(values)}H", data)), [nearest(x) for x in exact])

    def test_what_does_not_fit_is_named_and_nothing_is_left(self):
        a = self.model("a", [("w", "F32", [2], f32(1, 2)), ("u", "F32", [1], f32(1))])
        for name, tensors, what in (("b", [("w", "F32", [1, 2], f32(1, 2))], "no tensor w of shape"), ("c", [("x", "F32", [2], f32(1, 2))], "no tensor x"),
                                    ("d", [("w", "F32", [2], f32(1, 2))], "no tensor u"), ("e", [("w", "F16", [2], b"1234")], "type F16")):
            b = self.model(name, tensors)
            with self.assertRaisesRegex(SystemExit, what):
                average.average(a, b, self.folder / "out", 0.5)
            self.assertEqual(list(self.folder.glob("out*")), [])


if __name__ == "__main__":
    unittest.main()
