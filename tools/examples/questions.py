"""Questions about scenes and their answers, for each task of tiny-vlm. Standard library only.

A maker takes (rng, scene) and gives (question, answer), or None where the scene does not allow one without doubt. Answers are read off
the scene here; tests/examples/worlds.py works each out again from question and scene in another way.
"""
import json

import scenes
from scenes import SHAPES, extent


def named(o):
    return f"{o['color']} {o['shape']}"


def single(objects, key):
    """The objects whose key(o) no other shares."""
    keys = [key(o) for o in objects]
    return [o for o, k in zip(objects, keys) if keys.count(k) == 1]


def shape(rng, scene):
    found = single(scene["objects"], lambda o: o["color"])
    if not found:
        return None
    o = rng.choice(found)
    question = rng.choice(("What shape is the {} object?", "Which shape is {}?", "What is the shape of the {} one?"))
    return question.format(o["color"]), o["shape"]


def color(rng, scene):
    found = single(scene["objects"], lambda o: o["shape"])
    if not found:
        return None
    o = rng.choice(found)
    return rng.choice(("What color is the {}?", "Which color does the {} have?", "What is the color of the {}?")).format(o["shape"]), o["color"]


def plural(shape_name):
    return shape_name + ("es" if shape_name == "cross" else "s")


def count(rng, scene):
    objects = scene["objects"]
    o = rng.choice(objects)
    kind = rng.choice(("shape", "shape", "color", "both", "all", "none"))
    if kind == "all":
        return rng.choice(("How many objects are there?", "How many things are in the picture?")), str(len(objects))
    wanted = {"shape": o["shape"], "color": o["color"]}
    if kind == "none":
        wanted["shape"] = rng.choice(SHAPES)
    if kind == "both":
        text = f"{o['color']} {plural(o['shape'])}"
    elif kind == "color":
        text = f"{o['color']} objects"
    else:
        text = plural(wanted["shape"])
    keys = {"shape": ("shape",), "none": ("shape",), "color": ("color",), "both": ("shape", "color")}[kind]
    n = sum(all(p[k] == wanted[k] for k in keys) for p in objects)
    return rng.choice(("How many {} are there?", "Count the {}.", "How many {} do you see?")).format(text), str(n)


def side(a, b):
    """Where a lies from b, where that is plain; else None."""
    dx, dy = a["x"] - b["x"], a["y"] - b["y"]
    if abs(dx) >= 8 and abs(dx) >= 1.6 * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) >= 8 and abs(dy) >= 1.6 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def spoken(where):
    return {"left": "left of", "right": "right of"}.get(where, where)


def relation(rng, scene):
    found = single(scene["objects"], named)
    if len(found) < 2:
        return None
    a, b = rng.sample(found, 2)
    where = side(a, b)
    if not where:
        return None
    if rng.random() < 0.5:
        return rng.choice(("Where is the {0} from the {1}?", "On which side of the {1} is the {0}?")).format(named(a), named(b)), where
    asked = where if rng.random() < 0.5 else {"left": "right", "right": "left", "above": "below", "below": "above"}[where]
    return f"Is the {named(a)} {spoken(asked)} the {named(b)}?", "yes" if asked == where else "no"


def article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def caption(rng, scene):
    question = rng.choice(("Describe the picture.", "What is in the picture?", "What do you see?"))
    objects = sorted(scene["objects"], key=lambda o: (o["x"], o["y"]))
    if len(objects) == 1:
        return question, article(named(objects[0]))
    if len(objects) == 2:
        a, b = objects
        where = side(a, b)
        if where in ("above", "below") and a["y"] > b["y"]:
            a, b, where = b, a, "above"
        return (question, f"{article(named(a))} {spoken(where)} {article(named(b))}") if where else None
    if len(objects) > 4 or any(q["x"] - p["x"] < 4 for p, q in zip(objects, objects[1:])):
        return None
    return question, "from left to right: " + ", ".join(article(named(o)) for o in objects)


def absent(rng, scene):
    """Half of the questions are about what is there, so that refusing is no habit."""
    there = {o["shape"] for o in scene["objects"]}
    missing = [s for s in SHAPES if s not in there]
    if rng.random() < 0.5:
        name = rng.choice(sorted(there)) if rng.random() < 0.5 else rng.choice(missing)
        return rng.choice(("Is there a {}?", "Do you see a {}?")).format(name), "yes" if name in there else "no"
    if rng.random() < 0.3:
        return color(rng, scene)
    name = rng.choice(missing)
    return rng.choice(("What color is the {}?", "Which color does the {} have?", "What is the color of the {}?")).format(name), f"there is no {name}"


def box_of(o, scene):
    """Left, top, right, bottom in thousandths of the picture, as Qwen3-VL writes them."""
    left, top, right, bottom = extent(o)
    return [round(1000 * left / scene["w"]), round(1000 * top / scene["h"]), round(1000 * right / scene["w"]), round(1000 * bottom / scene["h"])]


def boxes(objects, scene):
    return json.dumps([{"bbox_2d": box_of(o, scene), "label": named(o)} for o in objects])


def box(rng, scene):
    objects = scene["objects"]
    if rng.random() < 0.7:
        found = single(objects, named)
        if not found:
            return None
        o = rng.choice(found)
        return rng.choice(("Locate the {}.", "Give the box of the {}.", "Where is the {}? Answer with a box.")).format(named(o)), boxes([o], scene)
    name = rng.choice(objects)["shape"]
    found = sorted((o for o in objects if o["shape"] == name), key=lambda o: (extent(o)[0], extent(o)[1]))
    return f"Locate every {name}.", boxes(found, scene) if len(found) <= 3 else None


ROWS = {2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
COLUMNS = {2: ("left", "right"), 3: ("left", "middle", "right")}


def grid(rng, scene):
    cells = scene["cells"]
    kind = rng.choice(("place", "place", "what", "words", "row"))
    if kind == "place":
        found = single(cells, named)
        if not found:
            return None
        c = rng.choice(found)
        return f"In which row and column is the {named(c)}?", f"row {c['row']}, column {c['column']}"
    if kind == "row":
        row = rng.randrange(1, scene["rows"] + 1)
        return f"How many objects are in row {row}?", str(sum(c["row"] == row for c in cells))
    row, column = rng.randrange(1, scene["rows"] + 1), rng.randrange(1, scene["columns"] + 1)
    here = [c for c in cells if c["row"] == row and c["column"] == column]
    answer = named(here[0]) if here else "nothing"
    if kind == "what":
        return f"What is in row {row}, column {column}?", answer
    return f"What is in the {ROWS[scene['rows']][row - 1]} {COLUMNS[scene['columns']][column - 1]} cell?", answer


def word(rng, scene):
    return rng.choice(("What does it say?", "Read the word.", "What is written here?")), scene["text"]


def number(rng, scene):
    return rng.choice(("Which number is shown?", "Read the number.", "What is written here?")), scene["text"]


def chart(rng, scene):
    bars = scene["bars"]
    a, b = rng.sample(bars, 2)
    values = [x["value"] for x in bars]
    kind = rng.choice(("value", "value", "value", "most", "least", "count", "than", "color", "sum"))
    if kind == "value":
        return rng.choice(("What is the value of {}?", "How much is {}?")).format(a["label"]), str(a["value"])
    if kind in ("most", "least"):
        best = max(values) if kind == "most" else min(values)
        if values.count(best) > 1:
            return None
        return f"Which bar is the {'highest' if kind == 'most' else 'lowest'}?", bars[values.index(best)]["label"]
    if kind == "count":
        return "How many bars are there?", str(len(bars))
    if kind == "color":
        return f"What color is bar {a['label']}?", a["color"]
    if kind == "sum":
        return f"What are {a['label']} and {b['label']} together?", str(a["value"] + b["value"])
    return (f"Is {a['label']} higher than {b['label']}?", "yes" if a["value"] > b["value"] else "no") if a["value"] != b["value"] else None


def table(rng, scene):
    at = rng.randrange(len(scene["columns"]))
    name, row = scene["columns"][at], rng.choice(scene["rows"])
    values = [r[at + 1] for r in scene["rows"]]
    kind = rng.choice(("cell", "cell", "cell", "most", "least", "rows"))
    if kind == "cell":
        return rng.choice(("What is the number of {1} for {0}?", "How many {1} has {0}?")).format(row[0], name), str(row[at + 1])
    if kind == "rows":
        return "How many people are in the table?", str(len(values))
    best = max(values) if kind == "most" else min(values)
    if values.count(best) > 1:
        return None
    return f"Who has the {'most' if kind == 'most' else 'least'} {name}?", scene["rows"][values.index(best)][0]


def compare(rng, scene):
    first, second = (p["objects"] for p in scene["pictures"])
    if len(first) == len(second) == 1 and rng.random() < 0.5:
        key = rng.choice(("shape", "color"))
        return f"Do both pictures show the same {key}?", "yes" if first[0][key] == second[0][key] else "no"
    if rng.random() < 0.3:
        answer = "the first" if len(first) > len(second) else "the second" if len(second) > len(first) else "neither"
        return "Which picture has more objects?", answer
    o = first[scene["which"]] if scene["change"] != "added" else second[-1]
    answer = {"none": "nothing", "moved": f"the {named(o)} moved", "added": f"{article(named(o))} was added", "gone": f"the {named(o)} is gone",
              "color": f"the {named(o)} became {second[min(scene['which'], len(second) - 1)]['color']}"}.get(scene["change"])
    if answer is None or len(single(first, named)) < len(first):
        return None
    return rng.choice(("What changed?", "What is different in the second picture?")), answer


def motion(rng, scene):
    o = scene["pictures"][0]["objects"][scene["moving"]]
    if len(single(scene["pictures"][0]["objects"], named)) < len(scene["pictures"][0]["objects"]):
        return None
    if rng.random() < 0.3 and len(scene["pictures"][0]["objects"]) > 1:
        return rng.choice(("What moves?", "Which object moves?")), named(o) if scene["way"] != "nowhere" else "nothing"
    return rng.choice(("Which way does the {} move?", "Where does the {} go?")).format(named(o)), scene["way"]


# task: (scene maker, question maker); how answers are judged is in tiny-vlm/tasks.json
TASKS = {
    "shape": (scenes.shapes, shape), "color": (scenes.shapes, color), "count": (scenes.crowd, count),
    "relation": (scenes.shapes, relation), "grid": (scenes.grid, grid),
    "word": (scenes.word, word),
    "number": (scenes.number, number),
    "chart": (scenes.chart, chart), "table": (scenes.table, table), "compare": (scenes.pair, compare),
    "motion": (scenes.clip, motion), "caption": (scenes.shapes, caption), "absent": (scenes.shapes, absent),
    "box": (scenes.shapes, box)}
# What may also be asked about a scene of objects in the same conversation.
ABOUT_OBJECTS = {"shape": shape, "color": color, "count": count, "relation": relation, "caption": caption, "absent": absent, "box": box}
