"""The material of tiny-moe: train.jsonl and validation.jsonl (conversations in the proportion of a mixture) and eval/DOMAIN.jsonl (exact
questions for `statera eval --tasks vqa --prompt '{question}'`). Standard library only; the same seed gives the same bytes.

    python tools/examples/text_world.py --out DIR --train 200000 --eval 300
"""
import argparse
from pathlib import Path

from common import draw_until, is_held_out, read_weights, shares, stream, write_lines
from text_domains import DOMAINS, WHOLE

HERE = Path(__file__).parent
MOST_TURNS = 3


def message(role, content):
    return {"role": role, "content": content}


def item(domain, rng, held_out):
    """(content, question, answer) of the wanted side of the split."""
    return draw_until(rng, DOMAINS[domain], lambda made: is_held_out(made[0]) == held_out)


def turns(domain, rng, held_out):
    """Questions with their answers: one to three of a domain, or a whole conversation."""
    if domain in WHOLE:
        return draw_until(rng, WHOLE[domain], lambda made: is_held_out(made[0]) == held_out)[1]
    return [item(domain, rng, held_out)[1:] for _ in range(rng.randrange(1, MOST_TURNS + 1))]


def conversation(domain, seed, index, held_out):
    """held_out: for validation."""
    rng = stream(seed, "validation" if held_out else "train", domain, index)
    messages = []
    for question, answer in turns(domain, rng, held_out):
        messages += [message("user", question), message("assistant", answer)]
    return {"domain": domain, "messages": messages}


def training(seed, count, weights, held_out=False):
    """`count` conversations, domains mixed."""
    order = [domain for domain, n in shares(count, weights).items() for _ in range(n)]
    stream(seed, "order").shuffle(order)
    seen = dict.fromkeys(weights, 0)
    for domain in order:
        yield conversation(domain, seed, seen[domain], held_out)
        seen[domain] += 1


def evaluation(seed, domain, count):
    """`count` different questions whose content training never holds."""
    rng, seen = stream(seed, "eval", domain), set()
    while len(seen) < count:
        content, question, answer = draw_until(rng, DOMAINS[domain], lambda made: is_held_out(made[0]) and made[0] not in seen)
        seen.add(content)
        yield {"id": f"{domain}-{len(seen)}", "question": question, "answers": [answer]}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--train", type=int, default=200000, help="conversations of train.jsonl")
    ap.add_argument("--validation", type=int, default=1000, help="conversations of validation.jsonl")
    ap.add_argument("--eval", type=int, default=300, help="questions of each domain")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--mixture", default=HERE / "tiny-moe" / "mixture.yaml")
    args = ap.parse_args()
    out, weights = Path(args.out), read_weights(args.mixture, (*DOMAINS, *WHOLE))
    write_lines(out / "train.jsonl", training(args.seed, args.train, weights))
    write_lines(out / "validation.jsonl", training(args.seed, args.validation, weights, held_out=True))
    for domain in DOMAINS:
        write_lines(out / "eval" / f"{domain}.jsonl", evaluation(args.seed, domain, args.eval))


if __name__ == "__main__":
    main()
