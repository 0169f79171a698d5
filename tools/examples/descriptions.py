"""A picture told whole, for the beginning of training: question and answer of every kind of scene but pairs and clips. Standard library
only. Answers are long, so each picture says what every part of it is; no task asks for them, but for the captions of objects.
"""
from questions import caption, named


def shapes(rng, scene):
    return caption(rng, scene)


def grid(rng, scene):
    here = {(c["row"], c["column"]): named(c) for c in scene["cells"]}
    rows = ((here.get((row, column), "nothing") for column in range(1, scene["columns"] + 1)) for row in range(1, scene["rows"] + 1))
    return "Describe the grid.", "; ".join(f"row {i}: " + ", ".join(row) for i, row in enumerate(rows, 1))


def spelled(rng, scene):
    """Letter by letter: words are few tokens, and which letters a token holds has to be learnt, too."""
    return rng.choice(("Spell it.", "Read it letter by letter.")), " ".join(scene["text"])


def text(rng, scene):
    return spelled(rng, scene) if scene["pitch"] or rng.random() < 0.7 else (rng.choice(("What does it say?", "What is written here?")), scene["text"])


def chart(rng, scene):
    return "Read the chart.", ", ".join(f"{b['label']} {b['color']} {b['value']}" for b in scene["bars"])


def table(rng, scene):
    rows = [scene["columns"]] + scene["rows"]
    return "Read the table.", "; ".join(" ".join(map(str, row)) for row in rows)


DESCRIPTIONS = {"shapes": shapes, "grid": grid, "text": text, "chart": chart, "table": table}
