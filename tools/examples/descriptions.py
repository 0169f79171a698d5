"""A picture told whole: question and answer of every kind of scene but pairs and clips. Standard library only. Each such answer says what
every part of its picture is; no task asks for them, but for the captions of objects. Training begins with those of grids.
"""
from questions import caption, named


def shapes(rng, scene):
    return caption(rng, scene)


def grid(rng, scene):
    here = {(c["row"], c["column"]): named(c) for c in scene["cells"]}
    rows = ((here.get((row, column), "nothing") for column in range(1, scene["columns"] + 1)) for row in range(1, scene["rows"] + 1))
    return "Describe the grid.", "; ".join(f"row {i}: " + ", ".join(row) for i, row in enumerate(rows, 1))


def text(rng, scene):
    """Letter by letter: words are few tokens, and which letters a token holds has to be learnt, too."""
    return rng.choice(("Spell it.", "Read it letter by letter.")), " ".join(scene["text"])


def chart(rng, scene):
    return "Read the chart.", ", ".join(f"{b['label']} {b['color']} {b['value']}" for b in scene["bars"])


def table(rng, scene):
    rows = [scene["columns"]] + scene["rows"]
    return "Read the table.", "; ".join(" ".join(map(str, row)) for row in rows)


DESCRIPTIONS = {"shapes": shapes, "grid": grid, "text": text, "chart": chart, "table": table}
