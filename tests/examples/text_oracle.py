"""Works out the answers of tiny-moe's questions from their words alone: another way than tools/examples/text_domains.py takes."""
import contextlib
import io
import re


def run(program):
    """What a program of the world prints. They are made by our own grammar."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {"__builtins__": {"range": range, "print": print, "len": len, "sum": sum, "max": max, "sorted": sorted}})  # noqa: S102
    return out.getvalue().strip()


def arithmetic(q):
    if m := re.fullmatch(r"Which is larger, (\d+) or (\d+)\?", q):
        return m[1] if int(m[1]) > int(m[2]) else m[2]
    for pattern, op in ((r"Add (\d+) and (\d+)\.", "+"), (r"Multiply (\d+) by (\d+)\.", "*"), (r"Divide (\d+) by (\d+)\.", "/")):
        if m := re.fullmatch(pattern, q):
            return str(eval(f"{m[1]} {op.replace('/', '//')} {m[2]}"))  # noqa: S307
    if m := re.fullmatch(r"Subtract (\d+) from (\d+)\.", q):
        return str(int(m[2]) - int(m[1]))
    m = re.search(r"\d[\d +*/-]*\d", q)
    if "/" in m[0]:
        a, b = map(int, m[0].split("/"))
        assert a % b == 0
        return str(a // b)
    return str(eval(m[0]))  # noqa: S307


def insertion_sorted(items):
    out = []
    for item in items:
        at = 0
        while at < len(out) and out[at] < item:
            at += 1
        out.insert(at, item)
    return out


def sorting(q):
    head, _, tail = q.partition(": ")
    if head in ("Sort", "Sort the numbers", "Order from small to large"):
        return " ".join(map(str, insertion_sorted(list(map(int, tail.split())))))
    if head in ("Sort from large to small", "Order from large to small"):
        return " ".join(map(str, insertion_sorted(list(map(int, tail.split())))[::-1]))
    if head in ("Sort the words", "Put in alphabetical order"):
        return " ".join(insertion_sorted(tail.split()))
    if head == "Reverse the list":
        return " ".join(tail.split()[::-1])
    if m := re.fullmatch(r"How often is (\w+) in the list\? (.*)", q):
        return str(len([w for w in m[2].split() if w == m[1]]))
    if m := re.fullmatch(r"At which place in the list is (\w+)\? (.*)", q):
        return str([w for w in m[2].split()].index(m[1]) + 1)
    m = re.fullmatch(r"What is the (largest|smallest) of ([\d ]+)\?", q)
    return str(insertion_sorted(list(map(int, m[2].split())))[-1 if m[1] == "largest" else 0])


def code_output(wish):
    """What a wished-for program has to print."""
    if m := re.fullmatch(r"prints the numbers from (\d+) to (\d+)", wish):
        return "\n".join(str(i) for i in range(int(m[1]), int(m[2]) + 1))
    if m := re.fullmatch(r"prints the (sum|largest) of \[(\d+), (\d+), (\d+)\]", wish):
        items = insertion_sorted(list(map(int, m.groups()[1:])))
        return str(items[-1] if m[1] == "largest" else items[0] + items[1] + items[2])
    if m := re.fullmatch(r"prints (\w+) (\d+) times", wish):
        if not m[1].isdigit():
            return "\n".join([m[1]] * int(m[2]))
    if m := re.fullmatch(r"prints the length of (\w+)", wish):
        return str(sum(1 for _ in m[1]))
    if m := re.fullmatch(r"prints (\[.*\]) sorted", wish):
        return str(insertion_sorted([int(x) for x in m[1][1:-1].split(",")]))
    m = re.fullmatch(r"prints (\d+) times (\d+)", wish)
    return str(int(m[1]) * int(m[2]))


def code(q, a):
    """Whether the answer is right."""
    if m := re.fullmatch(r"Write Python that (.*)\.", q):
        return run(a) == code_output(m[1])
    return run(q.partition("\n")[2]) == a


def stories(q):
    where, owner, apples = {}, {}, {}
    *lines, question = re.findall(r"[^.?]+[.?]", q)
    for line in map(str.strip, lines):
        if m := re.fullmatch(r"(\w+) had an? \w+ (\w+)\.", line):
            owner[m[2]] = m[1]
        elif m := re.fullmatch(r"(\w+) (?:went|walked|ran) to the (\w+)\.", line):
            where[m[1]] = m[2]
        elif m := re.fullmatch(r"(\w+) (?:gave|handed) the (\w+) to (\w+)\.", line):
            assert owner[m[2]] == m[1], line
            owner[m[2]] = m[3]
        elif m := re.fullmatch(r"(\w+) picked (\d) apples?\.", line):
            apples[m[1]] = apples.get(m[1], 0) + int(m[2])
    m = re.fullmatch(r"(?:Who has the (\w+) now|Where is (\w+)|How many apples did (\w+) pick)\?", question.strip())
    return owner[m[1]] if m[1] else where[m[2]] if m[2] else str(apples[m[3]])


def brackets(q):
    if m := re.fullmatch(r"Rewrite ([ab](?: [ab])*) with ([ab ]+) -> ([ab ]+)\.", q):
        word, old, new = (part.split() for part in m.groups())
        while (at := next((i for i in range(len(word)) if word[i:i + len(old)] == old), None)) is not None:
            word[at:at + len(old)] = new
        return " ".join(word)
    if m := re.fullmatch(r"Close the brackets: (.*)", q):
        return m[1][::-1].translate(str.maketrans("([{", ")]}"))
    word = "".join(re.findall(r"[()\[\]{}]", q))
    if q.startswith("How deep"):
        return deepest(word)
    while (shorter := re.sub(r"\(\)|\[\]|\{\}", "", word)) != word:  # every innermost pair goes; what stays was not balanced
        word = shorter
    return "no" if word else "yes"


def deepest(word):
    return str(max(len(re.findall(r"[(\[{]", word[:i])) - len(re.findall(r"[)\]}]", word[:i])) for i in range(len(word) + 1)))


def right(domain, question, answer):
    if domain == "code":
        return code(question, answer)
    return {"arithmetic": arithmetic, "sorting": sorting, "stories": stories, "brackets": brackets}[domain](question) == answer
