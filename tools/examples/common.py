"""What both worlds share: a generator of random numbers for each item, the split into training and evaluation by content, and files.

Standard library only. Item i of a run depends on (seed, name, i) and on nothing else.
"""
import hashlib
import json
import os
import random
from pathlib import Path

HELD_OUT = 8  # one content in so many belongs to evaluation


def stream(*parts):
    """The random numbers that belong to a name; random.Random seeds itself from text by SHA-512, the same in every Python 3."""
    return random.Random("/".join(map(str, parts)))


def is_held_out(content):
    """Whether this content (a text, or anything JSON can hold) is for evaluation only, whatever the seed."""
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % HELD_OUT == 0


def draw_until(rng, make, accept, tries=10000):
    """The first make(rng) that accept() takes."""
    for _ in range(tries):
        item = make(rng)
        if item is not None and accept(item):
            return item
    raise RuntimeError("the space is too small: nothing acceptable in %d tries" % tries)


def shares(total, weights):
    """Integers in the proportion of `weights` (name -> number) that add up to `total`; the largest remainders are rounded up."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    out = {name: int(value) for name, value in exact.items()}
    for name in sorted(weights, key=lambda n: (out[n] - exact[n], n))[:total - sum(out.values())]:
        out[name] += 1
    return out


def read_weights(path, known):
    """`name: number` lines of a flat YAML file; comments and blank lines are skipped."""
    out = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or name.strip() not in known:
            raise SystemExit(f"{path}: line {number}: expected one of {', '.join(sorted(known))} and a number")
        out[name.strip()] = float(value)
    if not out:
        raise SystemExit(f"{path}: holds no weights")
    return out


def write_lines(path, items):
    """JSONL, complete or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as stream_:
        for item in items:
            stream_.write(json.dumps(item, ensure_ascii=False) + "\n")
    os.replace(temporary, path)
