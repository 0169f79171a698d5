"""Short stories from a grammar, each with a question about who, what, where or how many. Standard library only."""
NAMES = "Anna Ben Clara David Emma Finn Grace Hugo Ida Jonas Kate Leo Mia Noah Olga Paul".split()
THINGS = "ball book cup hat key lamp map ring shoe stone toy spoon".split()
PLACES = "garden kitchen market park river school tower forest".split()
ADJECTIVES = "small old red blue shiny heavy new strange".split()
OPENINGS = ("It was a quiet morning.", "One day it rained.", "The sun was shining.", "Long ago there was a small town.", "It was late.")
NOTED = 0.5  # share of crowds of which only the end is noted
MOODS = "happy tired curious brave sad".split()


def had(rng, state, lines, thing):
    who = rng.choice(state["people"])
    state["owner"][thing] = who
    adjective = rng.choice(ADJECTIVES)
    lines.append(f"{who} had {'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {thing}.")


def move(rng, state, lines, who):
    where = rng.choice(PLACES)
    state["place"][who] = where
    lines.append(rng.choice(("{} went to the {}.", "{} walked to the {}.", "{} ran to the {}.")).format(who, where))


def give(rng, state, lines):
    thing = rng.choice(list(state["owner"]))
    giver = state["owner"][thing]
    taker = rng.choice([p for p in state["people"] if p != giver])
    state["owner"][thing] = taker
    lines.append(rng.choice(("{} gave the {} to {}.", "{} handed the {} to {}.")).format(giver, thing, taker))


def eat(rng, state, lines, who):
    n = rng.randrange(1, 4)
    state["apples"][who] = state["apples"].get(who, 0) + n
    lines.append(f"{who} picked {n} apple{'s' if n > 1 else ''}.")


def feel(rng, state, lines, who):
    lines.append(f"{who} was {rng.choice(MOODS)}.")


def questions(state):
    """Everything that can be asked about the end of the story: (question, answer)."""
    options = []
    for thing, who in state["owner"].items():
        options.append((f"Who has the {thing} now?", who))
    for who, where in state["place"].items():
        options.append((f"Where is {who}?", where))
    for who, n in state["apples"].items():
        options.append((f"How many apples did {who} pick?", str(n)))
    return options


def tell(rng, most_people, most_things, most_events):
    """(text, state at its end)."""
    people = rng.sample(NAMES, rng.randrange(2, most_people + 1))
    state = {"people": people, "owner": {}, "place": {}, "apples": {}}
    lines = [rng.choice(OPENINGS)] if rng.random() < 0.5 else []
    for thing in rng.sample(THINGS, rng.randrange(1, most_things + 1)):
        had(rng, state, lines, thing)
    for _ in range(rng.randrange(2, most_events + 1)):
        event = rng.choice((move, move, give, give, eat, feel))
        event(rng, state, lines, *(() if event is give else (rng.choice(state["people"]),)))
    return " ".join(lines), state


def story(rng):
    """(text, question, answer)."""
    text, state = tell(rng, most_people=3, most_things=2, most_events=5)
    return text, *rng.choice(questions(state))


def asked_through(rng):
    """(text, turns) for training: a story that may be longer and of more people, with every question about it in any order."""
    text, state = tell(rng, most_people=6, most_things=4, most_events=12)
    return text, shuffled(rng, questions(state))


def shuffled(rng, items):
    return rng.sample(items, len(items))


def crowd(rng):
    """(text, what of the state it is about, that) of many people or things, told or only noted: in these, naming whoever or wherever came last
    is seldom right."""
    kind = rng.choice(("place", "owner", "apples"))
    state, lines = {"people": rng.sample(NAMES, rng.randrange(4, 9)), "owner": {}, "place": {}, "apples": {}}, []
    if kind == "owner":
        for thing in rng.sample(THINGS, rng.randrange(4, 8)):
            had(rng, state, lines, thing)
        for _ in range(rng.randrange(4)):
            give(rng, state, lines)
    else:
        event = move if kind == "place" else eat
        for who in shuffled(rng, state["people"]) + [None] * rng.randrange(4):
            event(rng, state, lines, who or rng.choice(state["people"]))
    if rng.random() < NOTED:
        lines = [", ".join(f"{key} {value}" for key, value in state[kind].items()) + "."]
    return " ".join(lines), kind, state


def enumerated(items):
    return ", ".join(items[:-1]) + " and " + items[-1]


def asked_at_once(rng):
    """(text, turns) of a crowd: one question about all of them."""
    text, kind, state = crowd(rng)
    told = shuffled(rng, list(state[kind].items()))
    named = enumerated([f"the {key}" if kind == "owner" else key for key, _ in told])
    question = {"place": "Where are {}?", "owner": "Who has {} now?", "apples": "How many apples did {} pick?"}[kind]
    return text, [(question.format(named), ", ".join(f"{key} {value}" for key, value in told))]


def asked_in_turn(rng):
    """(text, turns) of a crowd: a question about each of them."""
    text, kind, state = crowd(rng)
    return text, shuffled(rng, questions({**dict.fromkeys(("owner", "place", "apples"), {}), kind: state[kind]}))
