"""Scenes of tiny-vlm: what a picture holds, as plain dictionaries. Standard library only; draw.py turns them into pixels, questions.py
into questions.

A scene has kind, w, h (multiples of 16), background [r, g, b], mess (see `mess`), and by kind
    shapes  objects: [{shape, color, rgb, x, y, size, angle}], centres and diameters in pixels
    grid    rows, columns, cells: [{row, column, shape, color, rgb}], counted from 1; a shape may be a letter, in a font
    text    text, font, points, x, y, step, pitch, rgb: of spaced text (pitch > 0) each letter stands in the middle of a square of that side
    chart   bars: [{label, value, color, rgb}], lying, lines
    table   columns: names, rows: [[name, number, ...]]
    pair    pictures: [scene, scene], change
    clip    pictures: [scene, ...], moving, way
"""
import math

PATCH = 8
SHAPES = "circle square triangle star diamond cross ring heart".split()
COLORS = {"red": (214, 40, 40), "green": (40, 150, 60), "blue": (40, 80, 205), "yellow": (245, 205, 40), "orange": (245, 130, 30),
          "purple": (125, 50, 165), "pink": (245, 140, 190), "black": (25, 25, 25)}
BACKGROUNDS = ((255, 255, 255), (232, 232, 232), (250, 244, 225), (222, 236, 250))
# Pairs, and a font below, that are never seen in training nor in clean evaluation.
UNSEEN = {("star", "green"), ("heart", "blue"), ("cross", "orange"), ("ring", "purple"), ("triangle", "pink"), ("diamond", "red")}
SIZES = ((64, 64), (80, 64), (64, 80), (80, 80), (96, 80), (80, 96))
ROOMY = ((80, 80), (96, 80), (80, 96))
COLUMN_NAMES, ROW_NAMES = "age days hits miles points wins".split(), "Ann Ben Cleo Dan Eva Finn Gus Hal".split()
WORDS = ("apple bank bear bell bird blue boat bread bus cafe cake car cat chair city clock cloud coat corn cup desk dog door duck "
         "eagle east exit farm fast fire fish flag food fork frog game gate girl gold green hand help hill home horse hotel house ice "
         "iron jam key king kite lake lamp leaf left lemon light lion lock love map milk moon music north oak open park pear pen pizza "
         "pull push queen rain red right ring river road rock room rose sale salt sand school sea shop sign silver snow south star stop "
         "sugar sun table taxi tea train tree truck wall water west wind wolf wood zoo").split()
FONTS = ("sans", "bold", "mono", "serif", "pillow")
UNSEEN_FONT = "serif_bold"
LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ123456789"  # without those that look like others
DARK = "red green blue purple black".split()


def jitter(rng, rgb, by):
    return [max(0, min(255, c + rng.randrange(-by, by + 1))) for c in rgb]


def mess(rng, hard):
    """What disturbs a picture: share of speckled pixels, light falling from one side, grey strokes; and the seed they are drawn with."""
    if not hard:
        return None
    return {"speckle": rng.choice((0, 0.01, 0.02, 0.03)), "light": rng.choice((0, 0.15, 0.3)), "strokes": rng.randrange(0, 5),
            "seed": rng.randrange(1 << 30)}


def canvas(rng, kind, hard, sizes=SIZES, **more):
    w, h = rng.choice(sizes)
    return {"kind": kind, "w": w, "h": h, "background": list(rng.choice(BACKGROUNDS)), "mess": mess(rng, hard), **more}


def dressed(rng, hard, seen_only=True):
    """A shape and a colour with its rgb; near shades in hard scenes."""
    while True:
        shape, color = rng.choice(SHAPES), rng.choice(list(COLORS))
        if not seen_only or (shape, color) not in UNSEEN:
            return {"shape": shape, "color": color, "rgb": jitter(rng, COLORS[color], 22 if hard else 6)}


def outline(shape, size, angle=0.0):
    """Corners around (0, 0); `size` is the larger side of the unrotated shape. A ring is a circle with a hole (see draw.py)."""
    r = size / 2
    around = lambda n, radii, turn: [(radii[i % len(radii)] * math.cos(turn + 2 * math.pi * i / n),
                                      radii[i % len(radii)] * math.sin(turn + 2 * math.pi * i / n)) for i in range(n)]
    if shape in ("circle", "ring"):
        points = around(48, (r,), 0)
    elif shape == "square":
        points = [(-r, -r), (r, -r), (r, r), (-r, r)]
    elif shape == "triangle":
        points = [(0, -r), (r, r), (-r, r)]
    elif shape == "diamond":
        points = [(0, -r), (0.62 * r, 0), (0, r), (-0.62 * r, 0)]
    elif shape == "star":
        points = around(10, (r, 0.42 * r), -math.pi / 2)
    elif shape == "cross":
        t = 0.34 * r
        points = [(-t, -r), (t, -r), (t, -t), (r, -t), (r, t), (t, t), (t, r), (-t, r), (-t, t), (-r, t), (-r, -t), (-t, -t)]
    else:  # heart
        turns = [2 * math.pi * i / 48 for i in range(48)]
        points = [(r * math.sin(t) ** 3, -r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16) for t in turns]
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return [(x * c - y * s, x * s + y * c) for x, y in points]


def extent(o):
    """(left, top, right, bottom) of an object in pixels."""
    points = outline(o["shape"], o["size"], o["angle"])
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return o["x"] + min(xs), o["y"] + min(ys), o["x"] + max(xs), o["y"] + max(ys)


def apart(a, b, gap=3):
    (l1, t1, r1, b1), (l2, t2, r2, b2) = extent(a), extent(b)
    return r1 + gap <= l2 or r2 + gap <= l1 or b1 + gap <= t2 or b2 + gap <= t1


def somewhere(rng, scene, hard):
    """A place for a centre; in clean scenes on corners of the model's patches, so that a shape cuts them in few ways."""
    if hard:
        return rng.randrange(8, scene["w"] - 8), rng.randrange(8, scene["h"] - 8)
    return PATCH * rng.randrange(1, scene["w"] // PATCH), PATCH * rng.randrange(1, scene["h"] // PATCH)


def placed(rng, scene, o, hard):
    """The object with size, angle and a free place, or None."""
    o["angle"] = rng.randrange(-18, 19) if hard else 0
    o["size"] = rng.randrange(12, 18) if hard else rng.choice((16, 20, 24, 28))
    for _ in range(40):
        o["x"], o["y"] = somewhere(rng, scene, hard)
        left, top, right, bottom = extent(o)
        if left >= 2 and top >= 2 and right <= scene["w"] - 2 and bottom <= scene["h"] - 2 and all(apart(o, p) for p in scene["objects"]):
            return o
    return None


def shapes(rng, hard, count=None, seen_only=True):
    scene = canvas(rng, "shapes", hard, objects=[])
    for _ in range(count or rng.choice((1, 1, 2, 2, 3, 3, 4, 5))):
        o = placed(rng, scene, dressed(rng, hard, seen_only), hard)
        if o:
            scene["objects"].append(o)
    return scene if scene["objects"] else None


def crowd(rng, hard, seen_only=True):
    """A few kinds of objects, many times: for counting."""
    scene = canvas(rng, "shapes", hard, ROOMY, objects=[])
    kinds = [dressed(rng, hard, seen_only) for _ in range(rng.choice((1, 2, 2)))]
    for _ in range(rng.randrange(1, 8)):
        o = placed(rng, scene, dict(rng.choice(kinds)), hard)
        if o:
            scene["objects"].append(o)
    return scene if scene["objects"] else None


def letter(rng, hard):
    """A letter or digit as a thing in a cell: its shape is its name."""
    color = rng.choice(DARK)
    return {"shape": rng.choice(LETTERS), "color": color, "rgb": jitter(rng, COLORS[color], 22 if hard else 6), "font": rng.choice(FONTS)}


def grid(rng, hard, seen_only=True):
    rows, columns = rng.choice(((2, 2), (2, 3), (3, 2), (3, 3), (3, 3)))
    scene = canvas(rng, "grid", hard, ROOMY, rows=rows, columns=columns, cells=[])
    places = [(r + 1, c + 1) for r in range(rows) for c in range(columns)]
    letters = rng.random() < 0.5
    for row, column in rng.sample(places, rng.randrange(2, len(places) + 1)):
        thing = letter(rng, hard) if letters else dressed(rng, hard, seen_only)
        scene["cells"].append({"row": row, "column": column, **thing})
    return scene


def text(rng, hard, line, seen_only=True):
    """One line of text somewhere in the picture."""
    scene = canvas(rng, "text", hard, ((96, 32), (112, 32)), text=line)
    longest = int(1.45 * (scene["w"] - 12) / max(len(line), 3))  # letters are up to 0.7 of a point wide
    scene["points"] = max(11, min(longest, 15 if hard else 18) - rng.choice(range(4) if hard else (0, 2, 4)))
    scene["font"] = rng.choice(FONTS) if seen_only else UNSEEN_FONT
    scene["x"], scene["y"] = rng.random(), rng.random()  # share of the free room left of and above it
    scene["step"] = 1 if hard else PATCH  # where it begins is a multiple of this
    scene["pitch"] = 2 * PATCH if not hard and rng.random() < 0.4 and 2 * PATCH * len(line) <= scene["w"] else 0
    scene["rgb"] = jitter(rng, rng.choice(((0, 0, 0), (40, 40, 40), (150, 20, 20), (20, 50, 150), (20, 100, 40))), 10)
    return scene


def word(rng, hard, seen_only=True):
    made = "".join(rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randrange(1, 4))) + rng.choice(("", "n", "r", "s", "t"))
    line = rng.choice(WORDS) if rng.random() < 0.5 else made
    return text(rng, hard, rng.choice((line, line.upper(), line.capitalize())), seen_only)


def number(rng, hard, seen_only=True):
    digits = rng.randrange(1, 6)
    line = rng.choice((str(rng.randrange(10 ** digits)), str(rng.randrange(10 ** digits)), f"{rng.randrange(24)}:{rng.randrange(60):02}",
                       f"{rng.randrange(100)}.{rng.randrange(10)}", f"{rng.randrange(1, 100)}%"))
    return text(rng, hard, line, seen_only)


def chart(rng, hard):
    labels = rng.choice(("ABCDE", "PQRST", "XYZUV", "12345"))[:rng.randrange(2, 6 if hard else 5)]
    scene = canvas(rng, "chart", hard, ((96, 96), (112, 96)), lying=hard and rng.random() < 0.5, lines=not hard or rng.random() < 0.5)
    colors = rng.sample(list(COLORS), len(labels)) if rng.random() < 0.7 else [rng.choice(list(COLORS))] * len(labels)
    scene["bars"] = [{"label": label, "value": rng.randrange(1, 11), "color": color, "rgb": jitter(rng, COLORS[color], 12 if hard else 5)}
                     for label, color in zip(labels, colors)]
    return scene


def table(rng, hard):
    scene = canvas(rng, "table", hard, ((144, 64), (144, 80)), columns=rng.sample(COLUMN_NAMES, 2 if not hard else rng.randrange(1, 3)))
    names = rng.sample(ROW_NAMES, rng.randrange(2, 5 if scene["h"] == 80 else 4))
    scene["rows"] = [[name] + [rng.randrange(100) for _ in scene["columns"]] for name in names]
    return scene


def pair(rng, hard, seen_only=True):
    """Two pictures of one size: the second is the first with a change, or another picture of one object."""
    first = shapes(rng, hard, rng.choice((1, 1, 2, 3)), seen_only)
    if not first:
        return None
    change = rng.choice(("none", "color", "added", "gone", "moved", "other"))
    second = dict(first, objects=[dict(o) for o in first["objects"]], mess=mess(rng, hard))
    which = rng.randrange(len(second["objects"]))
    if change == "color":
        o = second["objects"][which]
        new = dressed(rng, hard, seen_only)
        if new["color"] == o["color"] or seen_only and (o["shape"], new["color"]) in UNSEEN:
            return None
        o["color"], o["rgb"] = new["color"], new["rgb"]
    elif change == "added":
        o = placed(rng, second, dressed(rng, hard, seen_only), hard)
        if not o:
            return None
        second["objects"].append(o)
    elif change == "gone":
        if len(second["objects"]) < 2:
            return None
        del second["objects"][which]
    elif change == "moved":
        o = second["objects"].pop(which)
        there = placed(rng, second, dict(o), hard)
        if not there or math.hypot(there["x"] - o["x"], there["y"] - o["y"]) < 16:
            return None
        there.update(size=o["size"], angle=o["angle"])
        left, top, right, bottom = extent(there)
        if min(left, top) < 1 or right > first["w"] - 1 or bottom > first["h"] - 1 or not all(apart(there, p) for p in second["objects"]):
            return None
        second["objects"].insert(which, there)
    elif change == "other":
        if len(first["objects"]) > 1:
            return None
        second["objects"] = []
        o = placed(rng, second, dressed(rng, hard, seen_only), hard)
        if not o:
            return None
        second["objects"].append(o)
    return {"kind": "pair", "w": first["w"], "h": first["h"], "pictures": [first, second], "change": change, "which": which}


WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}


def moved_by(o, dx, dy):
    return dict(o, x=round(o["x"] + dx, 2), y=round(o["y"] + dy, 2))


def clip(rng, hard, seen_only=True):
    """4 or 6 pictures of one object that moves, among others that do not."""
    n, way = rng.choice((4, 4, 4, 6)), rng.choice(list(WAYS))
    base = canvas(rng, "shapes", hard, ((64, 64), (80, 64), (64, 80)), objects=[])
    for _ in range(rng.choice((1, 1, 2, 3)) if hard else rng.choice((1, 1, 2))):
        o = placed(rng, base, dressed(rng, hard, seen_only), hard)
        if o:
            base["objects"].append(o)
    if not base["objects"]:
        return None
    step = rng.randrange(20 if hard else 24, 36) / (n - 1)
    shifts = [(WAYS[way][0] * step * (i - (n - 1) / 2), WAYS[way][1] * step * (i - (n - 1) / 2)) for i in range(n)]
    first, *still = base["objects"]

    def free(o):
        left, top, right, bottom = extent(o)
        return left >= 1 and top >= 1 and right <= base["w"] - 1 and bottom <= base["h"] - 1 and all(apart(o, p, 2) for p in still)
    for _ in range(200):  # as likely to find room on the move as standing still
        track = [moved_by(first, *shift) for shift in shifts]
        if all(map(free, track)):
            pictures = [dict(base, objects=[o] + still, mess=mess(rng, hard)) for o in track]
            return {"kind": "clip", "w": base["w"], "h": base["h"], "pictures": pictures, "moving": 0, "way": way}
        x, y = somewhere(rng, base, hard)
        first = dict(first, x=x, y=y)
    return None


def pictures_of(scene):
    return scene["pictures"] if "pictures" in scene else [scene]


def content_of(scene):
    """What decides between training and evaluation: what there is to read, not how it is drawn; for objects, where they are."""
    kind = scene["kind"]
    if kind == "text":
        return "text " + scene["text"].lower()
    if kind == "chart":
        return ["chart"] + [[b["label"], b["value"]] for b in scene["bars"]]
    if kind == "table":
        return ["table", scene["rows"]]
    if kind == "grid":
        return ["grid"] + sorted([c["row"], c["column"], c["shape"], c["color"]] for c in scene["cells"])
    return [kind] + [[[o["shape"], o["color"], o["x"], o["y"], o["size"]] for o in p["objects"]] for p in pictures_of(scene)]


def holds_unseen(scene):
    """Whether it has a pair of shape and colour, or a font, that training never shows."""
    things = [o for p in pictures_of(scene) for o in p.get("objects", p.get("cells", []))]
    return scene.get("font") == UNSEEN_FONT or any((o["shape"], o["color"]) in UNSEEN for o in things)
