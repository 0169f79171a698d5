"""The five text domains of tiny-moe. Each makes (content, question, answer): `content` decides between training and evaluation, and the
answer can be worked out from the question alone (tests/examples/text_oracle.py does so in another way). Standard library only.
"""
from stories import asked_at_once, asked_in_turn, asked_through, story

WORDS = ("apple bear cloud door eagle fish grass house island jar kite lamp moon nest ocean pear queen river stone tree umbrella "
         "village window yard zebra bread candle dust engine farm garden hill ink juice king leaf map night oven paper road sand tower "
         "valley water box cat dog egg fog gate hat ice jug key log mud net oak pig rope sun top van wall").split()


def pick(rng, *choices):
    return rng.choice(choices)


# ---- arithmetic
def arithmetic(rng):
    kind = pick(rng, "+", "+", "-", "-", "*", "/", "two", "larger")
    if kind == "larger":
        a, b = rng.sample(range(1000), 2)
        return f"larger {min(a, b)} {max(a, b)}", f"Which is larger, {a} or {b}?", str(max(a, b))
    if kind == "two":
        a, b, c = (rng.randrange(1, 50) for _ in range(3))
        first, second = pick(rng, "+-", "++", "-+", "*+", "*-")
        if first == "*":
            a, b = rng.randrange(2, 10), rng.randrange(2, 10)
        value = a * b if first == "*" else a + b if first == "+" else a - b
        value = value + c if second == "+" else value - c
        return (f"{a}{first}{b}{second}{c}", pick(rng, f"What is {a} {first} {b} {second} {c}?", f"{a} {first} {b} {second} {c} = ?"), str(value))
    top = pick(rng, 10, 100, 1000)
    a, b = rng.randrange(top), rng.randrange(top)
    if kind == "-":
        a, b = max(a, b), min(a, b)
    if kind == "*":
        a, b = rng.randrange(2, 100), rng.randrange(2, 13)
    if kind == "/":
        b = rng.randrange(2, 13)
        a = b * rng.randrange(1, 50)
    value = a + b if kind == "+" else a - b if kind == "-" else a * b if kind == "*" else a // b
    said = {"+": f"Add {a} and {b}.", "-": f"Subtract {b} from {a}.", "*": f"Multiply {a} by {b}.", "/": f"Divide {a} by {b}."}[kind]
    question = pick(rng, f"What is {a} {kind} {b}?", f"{a} {kind} {b} = ?", f"Compute {a} {kind} {b}.", said)
    first, second = (min(a, b), max(a, b)) if kind in "+*" else (a, b)  # 3 + 4 and 4 + 3 are the same content
    return f"{first}{kind}{second}", question, str(value)


# ---- sorting
def sorting(rng):
    kind = pick(rng, "numbers", "numbers", "down", "words", "reverse", "largest", "smallest", "count", "position")
    if kind == "words":
        items = rng.sample(WORDS, rng.randrange(3, 6))
        return "words " + " ".join(items), pick(rng, "Sort the words: {}", "Put in alphabetical order: {}").format(" ".join(items)), " ".join(sorted(items))
    if kind in ("reverse", "count", "position"):
        pool = rng.sample(WORDS, 3 if kind == "count" else 7)
        items = [rng.choice(pool) for _ in range(rng.randrange(4, 8))] if kind == "count" else pool[:rng.randrange(3, 6)]
        line, one = " ".join(items), rng.choice(items)
        if kind == "reverse":
            return "reverse " + line, f"Reverse the list: {line}", " ".join(reversed(items))
        if kind == "count":
            return f"count {one} {line}", f"How often is {one} in the list? {line}", str(items.count(one))
        return f"position {one} {line}", f"At which place in the list is {one}? {line}", str(items.index(one) + 1)
    items = rng.sample(range(100), rng.randrange(3, 8))
    line = " ".join(map(str, items))
    question, answer = {
        "numbers": (pick(rng, "Sort: {}", "Sort the numbers: {}", "Order from small to large: {}"), " ".join(map(str, sorted(items)))),
        "down": (pick(rng, "Sort from large to small: {}", "Order from large to small: {}"), " ".join(map(str, sorted(items, reverse=True)))),
        "largest": ("What is the largest of {}?", str(max(items))), "smallest": ("What is the smallest of {}?", str(min(items)))}[kind]
    return f"{kind} {line}", question.format(line), answer


# ---- small programs
def traced(rng):
    """A program and what it prints."""
    a, b, c = rng.randrange(1, 10), rng.randrange(2, 7), rng.randrange(1, 10)
    x, i = rng.sample("abknxyz", 2)
    word = rng.choice(WORDS)
    items = rng.sample(range(20), rng.randrange(3, 6))
    at = rng.randrange(len(items))
    return pick(
        rng,
        (f"{x} = {a}\nfor {i} in range({b}):\n    {x} = {x} + {c}\nprint({x})", a + b * c),
        (f"{x} = {a}\nfor {i} in range({b}):\n    {x} = {x} + {i}\nprint({x})", a + sum(range(b))),
        (f"{x} = {a}\nif {x} > {c}:\n    {x} = {x} - {c}\nelse:\n    {x} = {x} + {c}\nprint({x})", a - c if a > c else a + c),
        (f"{x} = {items}\nprint({x}[{at}])", items[at]),
        (f"{x} = {items}\nprint(len({x}))", len(items)),
        (f"{x} = {items}\nprint(sum({x}))", sum(items)),
        (f"{x} = \"{word}\"\nprint({x}[0])", word[0]),
        (f"{x} = \"{word}\"\nprint({x}[::-1])", word[::-1]),
        (f"{x} = \"{word}\"\nprint(len({x}) * {c})", len(word) * c),
        (f"def f({x}):\n    return {x} * {b} + {c}\nprint(f({a}))", a * b + c),
        (f"{x} = {a}\n{i} = {c}\n{x}, {i} = {i}, {x}\nprint({x} - {i})", c - a),
        (f"{x} = {a * 8}\nwhile {x} > {c}:\n    {x} = {x} // 2\nprint({x})", halved(a * 8, c)))


def halved(x, least):
    while x > least:
        x //= 2
    return x


def written(rng):
    """A wish and the program for it."""
    a, b = rng.randrange(0, 10), rng.randrange(2, 12)
    items = rng.sample(range(50), 3)
    word = rng.choice(WORDS)
    return pick(
        rng,
        (f"prints the numbers from {a} to {a + b}", f"for i in range({a}, {a + b + 1}):\n    print(i)"),
        (f"prints the sum of {items}", f"print(sum({items}))"), (f"prints the largest of {items}", f"print(max({items}))"),
        (f"prints {word} {b} times", f"for i in range({b}):\n    print(\"{word}\")"),
        (f"prints the length of {word}", f"print(len(\"{word}\"))"),
        (f"prints {items} sorted", f"print(sorted({items}))"), (f"prints {a} times {b}", f"print({a} * {b})"))


def code(rng):
    if rng.random() < 0.25:
        wish, program = written(rng)
        return "write " + wish, f"Write Python that {wish}.", program
    program, value = traced(rng)
    return "trace " + program, pick(rng, "What does this print?\n{}", "What is the output?\n{}").format(program), str(value)


# ---- stories
def stories(rng):
    text, question, answer = story(rng)
    return "story " + text, f"{text} {question}", answer


def whole(make):
    """A maker of (content, turns): a story and questions about it one behind the other."""
    def conversation(rng):
        text, ((question, answer), *more) = make(rng)
        return "story " + text, [(f"{text} {question}", answer), *more]
    return conversation


# ---- a formal language, rare in training
PAIRS = {"(": ")", "[": "]", "{": "}"}


def apart(word):
    """Signs one by one, as the tokenizer leaves digits: it would join others as chance has made them frequent."""
    return " ".join(word)


def balanced(rng, pairs):
    """A balanced word of that many pairs."""
    if pairs == 0:
        return ""
    inside = rng.randrange(pairs)
    left = rng.choice("([{")
    return left + balanced(rng, inside) + PAIRS[left] + balanced(rng, pairs - 1 - inside)


def is_balanced(word):
    stack = []
    for c in word:
        if c in PAIRS:
            stack.append(PAIRS[c])
        elif not stack or stack.pop() != c:
            return False
    return not stack


def depth(word):
    level = deepest = 0
    for c in word:
        level += 1 if c in PAIRS else -1
        deepest = max(deepest, level)
    return deepest


RULES = (("ab", "ba"), ("aa", "b"), ("ba", "a"), ("bb", "a"), ("abb", "b"))


def rewritten(word, rule):
    """The rule applied to the leftmost match until there is none."""
    while rule[0] in word:
        word = word.replace(rule[0], rule[1], 1)
    return word


def brackets(rng):
    kind = pick(rng, "balanced", "balanced", "close", "depth", "rewrite", "rewrite")
    if kind == "rewrite":
        word, rule = "".join(rng.choice("ab") for _ in range(rng.randrange(3, 9))), rng.choice(RULES)
        return f"rewrite {word} {rule}", f"Rewrite {apart(word)} with {apart(rule[0])} -> {apart(rule[1])}.", apart(rewritten(word, rule))
    word = balanced(rng, rng.randrange(2, 7))
    if kind == "depth":
        return f"depth {word}", f"How deep is {apart(word)} nested?", str(depth(word))
    if kind == "close":
        opened = "".join(rng.choice("([{") for _ in range(rng.randrange(2, 7)))
        return f"close {opened}", f"Close the brackets: {apart(opened)}", apart(PAIRS[c] for c in reversed(opened))
    if rng.random() < 0.5:
        at = rng.randrange(len(word))
        word = word[:at] + rng.choice("()[]{}") + word[at + 1:]
    return f"balanced {word}", f"Is {apart(word)} balanced?", "yes" if is_balanced(word) else "no"


DOMAINS = {"arithmetic": arithmetic, "sorting": sorting, "code": code, "stories": stories, "brackets": brackets}
# For training only, as whole conversations: who is meant in a story is not learnt from single questions about few people (README.md).
WHOLE = {"stories_through": whole(asked_through), "crowds_at_once": whole(asked_at_once), "crowds_in_turn": whole(asked_in_turn)}
