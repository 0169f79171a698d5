"""Short stories from a grammar, each with a question about who, what, where or how many. Standard library only."""
NAMES = "Anna Ben Clara David Emma Finn Grace Hugo Ida Jonas Kate Leo Mia Noah Olga Paul".split()
THINGS = "ball book cup hat key lamp map ring shoe stone toy spoon".split()
PLACES = "garden kitchen market park river school tower forest".split()
ADJECTIVES = "small old red blue shiny heavy new strange".split()
OPENINGS = ("It was a quiet morning.", "One day it rained.", "The sun was shining.", "Long ago there was a small town.", "It was late.")
MOODS = "happy tired curious brave sad".split()


def move(rng, state, lines):
    who, where = rng.choice(state["people"]), rng.choice(PLACES)
    state["place"][who] = where
    lines.append(rng.choice(("{} went to the {}.", "{} walked to the {}.", "{} ran to the {}.")).format(who, where))


def give(rng, state, lines):
    thing = rng.choice(list(state["owner"]))
    giver = state["owner"][thing]
    taker = rng.choice([p for p in state["people"] if p != giver])
    state["owner"][thing] = taker
    lines.append(rng.choice(("{} gave the {} to {}.", "{} handed the {} to {}.")).format(giver, thing, taker))


def eat(rng, state, lines):
    who, n = rng.choice(state["people"]), rng.randrange(1, 4)
    state["apples"][who] = state["apples"].get(who, 0) + n
    lines.append(f"{who} picked {n} apple{'s' if n > 1 else ''}.")


def feel(rng, state, lines):
    who = rng.choice(state["people"])
    lines.append(f"{who} was {rng.choice(MOODS)}.")


def ask(rng, state):
    """A question about the end of the story, and its answer."""
    options = []
    for thing, who in state["owner"].items():
        options.append((f"Who has the {thing} now?", who))
    for who, where in state["place"].items():
        options.append((f"Where is {who}?", where))
    for who, n in state["apples"].items():
        options.append((f"How many apples did {who} pick?", str(n)))
    return rng.choice(options)


def story(rng):
    """(text, question, answer)."""
    people = rng.sample(NAMES, rng.randrange(2, 4))
    state = {"people": people, "owner": {}, "place": {}, "apples": {}}
    lines = [rng.choice(OPENINGS)] if rng.random() < 0.5 else []
    for thing in rng.sample(THINGS, rng.randrange(1, 3)):
        who = rng.choice(people)
        state["owner"][thing] = who
        adjective = rng.choice(ADJECTIVES)
        lines.append(f"{who} had {'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {thing}.")
    for _ in range(rng.randrange(2, 6)):
        rng.choice((move, move, give, give, eat, feel))(rng, state, lines)
    question, answer = ask(rng, state)
    return " ".join(lines), question, answer
