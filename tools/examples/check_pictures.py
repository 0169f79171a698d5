"""What the pictures of tiny-vlm look like, checked against their scenes; needs Pillow, so it is run by hand, not by ctest.

    python tools/examples/check_pictures.py
"""
import io
import sys
import unittest

from PIL import Image, ImageChops

import draw
import scenes
import vlm_items
from common import stream
from questions import TASKS

PER_TASK = 25


def rendered(scene):
    return draw.render(scene)


def away(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


class Pictures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = {}
        for task in TASKS:
            for hard in (False, True):
                cls.made[task, hard] = [vlm_items.make_item(task, stream("check", task, hard, i), hard, held_out=True, unseen=hard) for i in range(PER_TASK)]

    def pictures(self, hard=None, kind=None):
        for (_, is_hard), made in self.made.items():
            for scene, _, _ in made:
                for picture in scenes.pictures_of(scene):
                    if hard in (None, is_hard) and kind in (None, picture["kind"]):
                        yield picture

    def test_the_same_scene_gives_the_same_bytes(self):
        for picture in self.pictures():
            self.assertEqual(draw.png(picture), draw.png(picture))

    def test_the_stored_picture_is_nearly_the_drawn_one(self):
        for picture in self.pictures(hard=False):
            stored = Image.open(io.BytesIO(draw.png(picture))).convert("RGB")
            self.assertEqual(stored.size, (picture["w"], picture["h"]))
            worst = max(high for _, high in ImageChops.difference(stored, rendered(picture)).getextrema())
            self.assertLessEqual(worst, 40)

    def test_objects_have_their_colour_at_their_place(self):
        for picture in self.pictures(hard=False, kind="shapes"):
            image = rendered(picture)
            for o in picture["objects"]:
                x, y = (o["x"] + 0.39 * o["size"], o["y"]) if o["shape"] == "ring" else (o["x"], o["y"])
                self.assertLessEqual(away(image.getpixel((int(x), int(y))), o["rgb"]), 3, o)

    def test_a_box_holds_its_object_and_no_more(self):
        for picture in self.pictures(hard=False, kind="shapes"):
            for o in picture["objects"]:
                image = rendered(dict(picture, objects=[o]))
                blank = Image.new("RGB", image.size, tuple(picture["background"]))
                # Half of the smoothed edge counts.
                found = ImageChops.difference(image, blank).convert("L").point(lambda v: 255 if v > 12 else 0).getbbox()
                for side, drawn in zip(scenes.extent(o), found):
                    self.assertLessEqual(abs(side - drawn), 3, o)

    def test_text_is_whole(self):
        for picture in self.pictures(kind="text"):
            if picture["pitch"]:
                continue
            wide = dict(picture, w=picture["w"] + 64, mess=None)
            drawn = [ImageChops.difference(rendered(p), Image.new("RGB", (p["w"], p["h"]), tuple(p["background"]))).getbbox()
                     for p in (dict(picture, mess=None), dict(wide, x=0))]
            self.assertEqual(drawn[0][2] - drawn[0][0], drawn[1][2] - drawn[1][0], picture["text"])
            self.assertTrue(drawn[0][0] > 0 and drawn[0][1] > 0 and drawn[0][2] < picture["w"] and drawn[0][3] < picture["h"], picture["text"])

    def test_spaced_letters_stand_in_squares_of_their_own(self):
        seen = 0
        for picture in self.pictures(hard=False, kind="text"):
            pitch, image = picture["pitch"], rendered(picture)
            if not pitch:
                continue
            seen += 1
            blank = Image.new("RGB", image.size, tuple(picture["background"]))
            inked = [ImageChops.difference(image, blank).crop((x, y, x + pitch, y + pitch)).getbbox() is not None
                     for y in range(0, picture["h"], pitch) for x in range(0, picture["w"], pitch)]
            self.assertEqual(sum(inked), len(picture["text"]), picture)
        self.assertGreater(seen, 3)

    def test_bars_are_as_high_as_they_say(self):
        for picture in self.pictures(hard=False, kind="chart"):
            image, n = rendered(picture), len(picture["bars"])
            for i, bar in enumerate(picture["bars"]):
                x = int(20 + (i + 0.5) * (picture["w"] - 28) / n)
                column = [image.getpixel((x, y)) for y in range(8, picture["h"] - 18)]
                high = sum(away(p, bar["rgb"]) <= 3 for p in column)
                self.assertLessEqual(abs(high - bar["value"] * (picture["h"] - 26) / 10), 3, bar)

    def test_a_hard_picture_is_disturbed(self):
        changed = sum(rendered(p).tobytes() != rendered(dict(p, mess=None)).tobytes() for p in self.pictures(hard=True))
        self.assertGreater(changed, 0.9 * sum(1 for _ in self.pictures(hard=True)))


if __name__ == "__main__":
    sys.exit(unittest.main())
