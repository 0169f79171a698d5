"""docs/accuracy.md from the results of table.py. Standard library only; text in, text out."""
from score import mean, paired, percent

KINDS = {"plain": "The weights as trained", "outliers": "With outlier channels everywhere", "norms": "With outlier channels behind norms"}
SHOWN = (("Weights only: 4 bits", "w4"), ("Weights only: 3 bits", "w3"), ("8-bit activations", "a8"))
LABELS = {"rtn": "RTN", "awq": "AWQ", "gptq": "GPTQ", "mbq": "MBQ", "smoothquant": "SmoothQuant"}

HEAD = """# Accuracy

What each way of quantizing costs the trained example models, by task. Written by `bench/accuracy/table.py`; do not edit.

Every variant is a checkpoint that `statera quantize` wrote and `statera eval` ran as it is: packed weights, integer activations where it has them. Language
blocks are quantized; vision tower, projectors, embeddings and head stay in bf16. Weights alone are rounded in groups of {group} with zero points (models this small have
no room for groups of 128), weights under 8-bit activations to one symmetric scale per row. Scores are per cent with standard errors over questions. All variants
answer the same questions, so differences are surer than two scores beside each other look: *against bf16* is the mean difference over all questions, pair by
pair, with its own standard error; *against RTN* the same beside round-to-nearest of the same bits. *With outlier channels* is the same function, logit by logit, with some channels {factor:g} times as large between
two operations, as large models have them and small ones do not ([how](../tools/outliers/inject.py)): for weights alone wherever that is possible, for 8-bit activations
behind norms, which is what SmoothQuant divides; scales per token have no answer to them in front of `o_proj` and `down_proj`.
"""


def label(variant):
    method, _, bits = variant.partition("-")
    return f"{LABELS[method]} {bits.upper()}" if bits else variant


def row(name, cells):
    return "| " + " | ".join([name, *cells]) + " |"


def table(runs, variants):
    """Tasks by variants, and what the whole comes to."""
    base, runs = runs["bf16"], {v: runs[v] for v in ("bf16", *variants)}
    lines = [row("task", [label(v) for v in runs]), "|---" * (len(runs) + 1) + "|"]
    for r in base["rows"]:
        same = {v: next((x for x in run["rows"] if x["file"] == r["file"]), None) for v, run in runs.items()}
        lines.append(row(f"{r['task']}, {r['split']}" if r["split"] else r["task"], [percent(x) if x else "" for x in same.values()]))
    splits = list(dict.fromkeys(r["split"] for r in base["rows"]))
    for s in splits:
        lines.append(row(f"mean, {s}" if s else "mean", [percent(mean([x for x in run["rows"] if x["split"] == s])) for run in runs.values()]))
    lines.append(row("against bf16", [""] + [percent(paired(run, base)) for v, run in runs.items() if v != "bf16"]))
    rtn = {v: "rtn-" + v.partition("-")[2] for v in runs}
    lines.append(row("against RTN", [percent(paired(run, runs[rtn[v]])) if rtn[v] in runs and rtn[v] != v else "" for v, run in runs.items()]))
    lines.append(row("stored bits per weight", ["16"] + [f"{run['bits_per_weight']:.2f}" for v, run in runs.items() if v != "bf16"]))
    return "\n".join(lines)


def belongs(variant, ending):
    return variant.endswith(ending) and (ending == "a8" or not variant.endswith("a8"))


def kind_section(title, runs):
    out = [f"### {title}\n"]
    if "bf16" not in runs:
        raise SystemExit(f"{title}: bf16 has not been measured")
    for name, ending in SHOWN:
        if variants := [v for v in runs if belongs(v, ending)]:
            out.append(f"**{name}**\n\n{table(runs, variants)}\n")
    return "\n".join(out)


def model_section(results):
    s, runs = results["settings"], results["runs"]
    limits = {r["limit"] for r in runs.values()}
    out = [f"## {s['model']}\n",
           f"{results['parameters'] / 1e6:.2f} million parameters, weights `{s['weights_sha256'][:16]}` (SHA-256 over the tensors). Calibrated on {s['samples']} items of "
           f"`{s['data']}` (`{s['data_sha256'][:16]}`), seed {s['seed']}; outliers: {s['channels']} channels at each place, factor {s['factor']:g}, the same seed. "
           f"{s['program']}, commit {results['commit']}; {results['machine']}.\n",
           f"    {results['command']}\n"]
    if limits != {0}:
        out.append(f"**Not all questions**: {', '.join(f'the first {n}' if n else 'all' for n in sorted(limits))} of each file.\n")
    if missing := [v for v in results["variants"] if not any(f"{kind}/{v}" in runs for kind in KINDS)]:
        out.append(f"Not measured: {', '.join(map(label, missing))}.\n")
    for kind, title in KINDS.items():
        of_kind = {name.partition("/")[2]: r for name, r in runs.items() if name.startswith(kind + "/")}
        if of_kind:
            out.append(kind_section(title, {v: of_kind[v] for v in results["variants"] if v in of_kind}))
    return "\n".join(out)


def sections_of(page):
    """(head, name -> section) of a page that write() made."""
    head, *sections = page.split("\n## ")
    return head, {section.partition("\n")[0]: "## " + section.rstrip("\n") + "\n" for section in sections}


def write(results, before=""):
    """The page, with the sections of `before` for models that no result is about; settings that hold for the whole page must be those of `before`."""
    first = results[0]["settings"]
    head = HEAD.format(group=first["group"], factor=first["factor"])
    old_head, sections = sections_of(before)
    if sections and old_head != head:
        raise SystemExit("the page is about other settings; write it with the results of every model")
    sections.update((r["settings"]["model"], model_section(r)) for r in results)
    return "\n".join([head, *sections.values()])
