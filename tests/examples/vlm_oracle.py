"""Works out the answers of tiny-vlm's questions from the question's words and the scene: another way than tools/examples/questions.py
takes. Objects are looked up by the words that name them; places come from corners, not centres.
"""
import json
import re

SHAPES = "circle square triangle star diamond cross ring heart".split()
COLORS = "red green blue yellow orange purple pink black".split()
SHAPE, COLOR = "|".join(SHAPES), "|".join(COLORS)


class Doubtful(Exception):
    """The words name no single object."""


def matching(objects, words):
    """Objects with every shape and colour that the words name; a plural counts as its singular."""
    words = re.sub(r"crosses", "cross", words)
    named = re.findall(rf"\b({COLOR}|{SHAPE})s?\b", words) + re.findall(rf"\b(?:{COLOR}) (\w)$", words)
    return [o for o in objects if all(n in (o["shape"], o["color"]) for n in named)]


def one(objects, words):
    found = matching(objects, words)
    if len(found) != 1:
        raise Doubtful(words)
    return found[0]


def corners(o, scenes):
    points = scenes.outline(o["shape"], o["size"], o["angle"])
    xs, ys = sorted(x for x, _ in points), sorted(y for _, y in points)
    return xs[0] + o["x"], ys[0] + o["y"], xs[-1] + o["x"], ys[-1] + o["y"]


def direction(a, b):
    dx, dy = a["x"] - b["x"], a["y"] - b["y"]
    return ("left", "right")[dx > 0] if abs(dx) > abs(dy) else ("above", "below")[dy > 0]


def objects_answer(q, a, scene, scenes):
    """Whether a is right for a question about a scene of objects."""
    objects = scene["objects"]
    if re.match(r"Describe|What is in the picture|What do you see", q):
        return caption_is_right(a, objects)
    if re.match(r"Locate|Give the box|.*Answer with a box", q):
        return boxes_are_right(q, a, scene, scenes)
    if q.startswith(("How many", "Count")):
        if re.search(r"objects are there|things are in", q) and not re.search(COLOR, q):
            return a == str(len(objects))
        return a == str(len(matching(objects, q)))
    if m := re.match(rf"Is the (.*?) (left of|right of|above|below) the (.*)\?", q):
        truth = direction(one(objects, m[1]), one(objects, m[3])) == m[2].split()[0]
        return a == ("yes" if truth else "no")
    if m := re.match(r"Where is the (.*) from the (.*)\?|On which side of the (.*) is the (.*)\?", q):
        subject, other = (m[1], m[2]) if m[1] else (m[4], m[3])
        return a == direction(one(objects, subject), one(objects, other))
    if q.startswith(("Is there", "Do you see")):
        return a == ("yes" if matching(objects, q) else "no")
    if m := re.fullmatch(r"there is no (\w+)", a):
        return m[1] in q and not matching(objects, m[1])
    o = one(objects, q)
    return a == (o["color"] if "color" in q.lower() else o["shape"])


def caption_is_right(a, objects):
    named = re.findall(rf"an? ({COLOR}) ({SHAPE})", a)
    if len(named) != len(objects) or sorted(named) != sorted((o["color"], o["shape"]) for o in objects):
        return False
    if len(named) == 2:
        way = re.search(r"left of|above|$", a)[0].partition(" ")[0]
        pairs = [(p, q) for p in objects for q in objects if p is not q and [(o["color"], o["shape"]) for o in (p, q)] == named]
        return any(direction(p, q) == way for p, q in pairs)
    return named == [(o["color"], o["shape"]) for o in sorted(objects, key=lambda o: o["x"])]


def boxes_are_right(q, a, scene, scenes):
    listed, wanted = json.loads(a), matching(scene["objects"], q)
    if len(listed) != len(wanted):
        return False
    left = list(wanted)
    for entry in listed:
        hit = [o for o in left if entry["label"] == f"{o['color']} {o['shape']}" and all(
            abs(v - 1000 * c / s) <= 0.51 for v, c, s in zip(entry["bbox_2d"], corners(o, scenes), (scene["w"], scene["h"]) * 2))]
        if not hit:
            return False
        left.remove(hit[0])
    return True


def grid_answer(q, scene):
    cells = scene["cells"]
    if m := re.match(r"In which row and column is the (.*)\?", q):
        c = one(cells, m[1])
        return f"row {c['row']}, column {c['column']}"
    if m := re.match(r"How many objects are in row (\d)", q):
        return str(len([c for c in cells if c["row"] == int(m[1])]))
    if m := re.match(r"What is in row (\d), column (\d)", q):
        row, column = int(m[1]), int(m[2])
    else:
        m = re.match(r"What is in the (\w+) (\w+) cell", q)
        row = {"top": 1, "bottom": scene["rows"], "middle": 2}[m[1]]
        column = {"left": 1, "right": scene["columns"], "middle": 2}[m[2]]
    found = [c for c in cells if (c["row"], c["column"]) == (row, column)]
    return f"{found[0]['color']} {found[0]['shape']}" if found else "nothing"


def chart_answer(q, scene):
    value = {b["label"]: b["value"] for b in scene["bars"]}
    if m := re.match(r"What is the value of (\w)|How much is (\w)", q):
        return str(value[m[1] or m[2]])
    if m := re.match(r"Which bar is the (highest|lowest)", q):
        return sorted(value, key=value.get)[-1 if m[1] == "highest" else 0]
    if q.startswith("How many bars"):
        return str(len(value))
    if m := re.match(r"What color is bar (\w)", q):
        return next(b["color"] for b in scene["bars"] if b["label"] == m[1])
    if m := re.match(r"What are (\w) and (\w) together", q):
        return str(value[m[1]] + value[m[2]])
    m = re.match(r"Is (\w) higher than (\w)", q)
    return "yes" if value[m[1]] > value[m[2]] else "no"


def table_answer(q, scene):
    number = {(row[0], name): row[1 + i] for row in scene["rows"] for i, name in enumerate(scene["columns"])}
    if m := re.match(r"What is the number of (\w+) for (\w+)|How many (\w+) has (\w+)", q):
        return str(number[m[2] or m[4], m[1] or m[3]])
    if q.startswith("How many people"):
        return str(len({who for who, _ in number}))
    m = re.match(r"Who has the (most|least) (\w+)", q)
    ranked = sorted((v, who) for (who, name), v in number.items() if name == m[2])
    return ranked[-1 if m[1] == "most" else 0][1]


def compare_answer(q, scene):
    first, second = ([{k: o[k] for k in ("shape", "color", "x", "y")} for o in p["objects"]] for p in scene["pictures"])
    if m := re.match(r"Do both pictures show the same (\w+)", q):
        return "yes" if {o[m[1]] for o in first} == {o[m[1]] for o in second} else "no"
    if q.startswith("Which picture has more"):
        return ("neither", "the first", "the second")[(len(first) > len(second)) - (len(first) < len(second))]
    gone, new = [o for o in first if o not in second], [o for o in second if o not in first]
    name = lambda o: f"{o['color']} {o['shape']}"
    if not gone and not new:
        return "nothing"
    if not gone:
        return f"a{'n' if name(new[0])[0] == 'o' else ''} {name(new[0])} was added"
    if not new:
        return f"the {name(gone[0])} is gone"
    return f"the {name(gone[0])} moved" if name(gone[0]) == name(new[0]) else f"the {name(gone[0])} became {new[0]['color']}"


def motion_answer(q, scene):
    frames = [p["objects"] for p in scene["pictures"]]
    tracks = {f"{o['color']} {o['shape']}": [(f[i]["x"], f[i]["y"]) for f in frames] for i, o in enumerate(frames[0])}
    ways = {}
    for who, track in tracks.items():
        dx, dy = track[-1][0] - track[0][0], track[-1][1] - track[0][1]
        if abs(dx) + abs(dy) > 1:
            ways[who] = ("left", "right")[dx > 0] if abs(dx) > abs(dy) else ("up", "down")[dy > 0]
    if re.match(r"(What|Which object) moves", q):
        return next(iter(ways), "nothing")
    m = re.match(r"Which way does the (.*) move|Where does the (.*) go", q)
    return ways.get(m[1] or m[2], "nowhere")


def told_whole(scene, answer):
    """Whether a description holds everything of a grid, a chart or a table, in order."""
    parts = [part.split() for part in re.split(r"[;,:]", answer)]
    if scene["kind"] == "chart":
        return [[b["label"], b["color"], str(b["value"])] for b in scene["bars"]] == parts
    if scene["kind"] == "table":
        return [list(map(str, row)) for row in [scene["columns"], *scene["rows"]]] == parts
    wanted = []
    for row in range(scene["rows"]):
        wanted.append(["row", str(row + 1)])
        for column in range(scene["columns"]):
            found = [[c["color"], c["shape"]] for c in scene["cells"] if (c["row"] - 1, c["column"] - 1) == (row, column)]
            wanted.append(found[0] if found else ["nothing"])
    return wanted == parts


def right(scene, question, answer, scenes):
    kind = scene["kind"]
    if kind == "shapes":
        try:
            return objects_answer(question, answer, scene, scenes)
        except (Doubtful, ValueError, TypeError):  # no single object of that name; no JSON or no words where they should be
            return False
    if kind == "text":
        spelled = question in ("Spell it.", "Read it letter by letter.")
        return answer == (" ".join(scene["text"]) if spelled else scene["text"])
    if question in ("Describe the grid.", "Read the chart.", "Read the table."):
        return told_whole(scene, answer)
    read = {"grid": grid_answer, "chart": chart_answer, "table": table_answer, "pair": compare_answer, "clip": motion_answer}[kind]
    return read(question, scene) == answer
