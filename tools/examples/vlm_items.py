"""The items of tiny-vlm's world before anything is drawn: scene, question, answer, on either side of the split. Standard library only."""
import json

import scenes
from common import draw_until, is_held_out, shares, stream
from descriptions import DESCRIPTIONS
from questions import ABOUT_OBJECTS, TASKS

FPS = 2.0  # of clips: how many of their pictures make a second
# Scenes with something that training never shows: a pair of shape and colour, a font.
WITH_UNSEEN = (scenes.shapes, scenes.crowd, scenes.grid, scenes.pair, scenes.clip, scenes.word, scenes.number)
HARD = 0.3  # share of hard drawings in training
MOST_MORE = {"shapes": 6, "grid": 4, "chart": 4, "table": 4, "pair": 1, "clip": 1}  # questions asked besides the first
# Shares of the scenes that are also told whole; behind the questions, which could be answered from it without looking (letters half the time before).
DESCRIBED = {"shapes": 0.15, "grid": 0.5, "text": 0.7, "chart": 0.5, "table": 0.5}
LONG = ("caption", "box")  # so many tokens an answer that, asked as often as others, they would be most of what training looks at
SHORT = "\nAnswer the question using a single word or phrase."  # what `statera eval` adds by default


def make_item(task, rng, hard, held_out, unseen=False, taken=()):
    """(scene, question, answer) on the wanted side of the split."""
    maker, ask = TASKS[task]
    more = {"seen_only": not unseen} if maker in WITH_UNSEEN else {}

    def make(rng):
        scene = maker(rng, hard, **more)
        if scene is None or is_held_out(scenes.content_of(scene)) != held_out:
            return None
        made = ask(rng, scene)
        return made and made[1] is not None and (scene, *made) or None
    return draw_until(rng, make, lambda made: key_of(made) not in taken)


def key_of(made):
    """What must not occur twice in an evaluation set."""
    return json.dumps([scenes.content_of(made[0]), made[1]], sort_keys=True)


def more_about(task, scene, rng):
    """Another question about the scene and its answer, or None."""
    if scene["kind"] != "shapes":
        return TASKS[task][1](rng, scene)
    other = rng.choice(list(ABOUT_OBJECTS))
    return None if other in LONG and rng.random() > 0.15 else ABOUT_OBJECTS[other](rng, scene)


def training_item(task, seed, index, held_out=False):
    """A scene, clean or hard, and one to eight questions with answers about it; held_out: one for validation."""
    rng = stream(seed, "validation" if held_out else "train", task, index)
    scene, question, answer = make_item(task, rng, rng.random() < HARD, held_out)
    asked = {question: answer}
    for _ in range(rng.randrange(0, MOST_MORE.get(scene["kind"], 0) + 1)):
        made = more_about(task, scene, rng)
        if made and made[1] is not None:
            asked.setdefault(*made)
    short = rng.random() < 0.25
    turns = [(q + SHORT if short and a and len(a) < 20 else q, a) for q, a in asked.items()]
    whole = description(scene, rng) if rng.random() < DESCRIBED.get(scene["kind"], 0) else None
    if whole and whole[0] not in asked:
        turns.insert(0 if scene["kind"] == "text" and rng.random() < 0.5 else len(turns), whole)
    return scene, turns


def description(scene, rng):
    """Question and answer that tell the scene whole; None where nothing does."""
    made = DESCRIPTIONS[scene["kind"]](rng, scene)
    return made if made and made[1] is not None else None


def training_line(task, scene, turns, names):
    """LLaVA's form for pictures; messages for clips, where a list of frames has no form in LLaVA's."""
    if scene["kind"] == "clip":
        messages = [{"role": role, "content": said} for turn in turns for role, said in zip(("user", "assistant"), turn)]
        messages[0]["content"] = [{"type": "video", "video": names, "sample_fps": FPS}, {"type": "text", "text": turns[0][0]}]
        return {"task": task, "messages": messages}
    marks = "<image>\n" * len(names)
    said = []
    for i, (question, answer) in enumerate(turns):
        said += [{"from": "human", "value": (marks if i == 0 else "") + question}, {"from": "gpt", "value": answer}]
    return {"task": task, "image": names if len(names) > 1 else names[0], "conversations": said}


def training_order(seed, count, weights):
    """(task, how many of it came before) of each training conversation."""
    order = [task for task, n in shares(count, weights).items() for _ in range(n)]
    stream(seed, "order").shuffle(order)
    seen = dict.fromkeys(weights, 0)
    for task in order:
        yield task, seen[task]
        seen[task] += 1


def evaluation_items(task, split, seed, count):
    """`count` different (scene, question, answer); every second one of the hard split holds what training never shows."""
    taken, hard = set(), split == "hard"
    for index in range(count):
        rng = stream(seed, "eval", task, split, index)
        unseen = hard and index % 2 == 1 and TASKS[task][0] in WITH_UNSEEN
        while True:
            made = make_item(task, rng, hard, held_out=True, unseen=unseen, taken=taken)
            if not unseen or scenes.holds_unseen(made[0]):
                break
        taken.add(key_of(made))
        yield made
