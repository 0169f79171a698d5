#!/usr/bin/env python3
"""What each way of quantizing costs a trained model, task by task: makes docs/accuracy.md. Standard library only.

    python3 bench/accuracy/table.py run PROGRAM MODEL WORK [--eval MODEL/eval] [--data MODEL/calibration.jsonl] [--limit N] [--only NAME ...]
                                    [--weights plain outliers norms] [--factor 256] [--channels 24] [--samples 128] [--seed 0]
    python3 bench/accuracy/table.py write PAGE.md WORK ...

`run` takes MODEL as it is and with outlier channels that change no logit (tools/outliers/inject.py), quantizes it in every way below with the
program, and has every result answer every question of EVAL (tools/examples/score.py), one after the other. Weights alone are quantized with outliers at
every place (`outliers`), those under 8-bit activations with outliers behind norms (`norms`). WORK keeps all of it: what is there already is not made
again, a killed run goes on, and other settings over the same WORK are refused. `write` puts one or more WORKs on the page and leaves what it says of
other models.
--limit takes the first N questions of each file, --only some of the variants: a later run without them completes the rest.
"""
import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "examples"), str(ROOT / "tools" / "outliers")]
import inject  # noqa: E402
import score  # noqa: E402
from checkpoint import parameters, sha256_of, weights_sha256  # noqa: E402
from page import write  # noqa: E402

GROUP = 32  # divides every width of the example models (96 to 512); larger groups do not


def weights_only(method, bits):
    return ["--method", method, "--w-bits", bits, "--w-group", GROUP, "--asym"]


def with_activations(method, bits):
    return ["--method", method, "--w-bits", bits, "--w-group", -1, "--sym", "--a-bits", 8]


VARIANTS = {"bf16": None}
for b in (4, 3):
    VARIANTS |= {f"{m}-w{b}": weights_only(m, b) for m in ("rtn", "awq", "gptq", "mbq")}
for b in (8, 4):
    VARIANTS |= {f"{m}-w{b}a8": with_activations(m, b) for m in ("rtn", "smoothquant")}
# Where outlier channels are put. SmoothQuant divides what norms make; per-token scales have no answer to outliers in front of o and down.
KINDS = {"plain": (), "outliers": inject.PLACES, "norms": ("norm",)}


def variants_of(config):
    """mbq balances pictures against answers: models without eyes have nothing to balance."""
    return [v for v in VARIANTS if "vision_config" in config or not v.startswith("mbq")]


def belongs(kind, variant):
    """Whether a variant is asked for with this kind of weights."""
    return kind == "plain" or variant == "bf16" or (kind == "norms") == variant.endswith("a8")


def settings_of(args):
    """What must stay the same for WORK to be gone on with."""
    files = {f.name: sha256_of(f) for f in sorted(args.eval.iterdir()) if f.is_file()}
    return {"model": args.model.name, "weights_sha256": weights_sha256(args.model), "program": score.version(args.program), "data": args.data.name,
            "data_sha256": sha256_of(args.data), "samples": args.samples, "seed": args.seed, "factor": args.factor, "channels": args.channels, "group": GROUP,
            "eval": files}


def open_work(args):
    """results.json of WORK, begun where there is none."""
    path, settings = args.work / "results.json", settings_of(args)
    if not path.exists():
        config = json.loads((args.model / "config.json").read_text())
        results = {"settings": settings, "parameters": parameters(args.model), "variants": variants_of(config), "runs": {}}
        args.work.mkdir(parents=True, exist_ok=True)
        save(args.work, results)
    results = json.loads(path.read_text())
    different = [k for k in settings if results["settings"].get(k) != settings[k]]
    if different:
        raise SystemExit(f"{path}: made with another {different[0]}; take another folder")
    return results


def save(work, results):
    temporary = work / "results.json.tmp"
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.rename(work / "results.json")


def source_of(args, kind):
    """The folder of the plain model, or one with outliers, which is made where it is not there yet."""
    if not KINDS[kind]:
        return args.model
    out = args.work / kind / "model"
    if not out.exists():
        inject.make(args.model, out, args.factor, args.channels, KINDS[kind], args.seed, args.program)
    return out


def quantized(args, source, out, flags):
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        data = [] if "rtn" in flags else ["--data", args.data, "--n-samples", args.samples]
        score.run(args.program, "quantize", source, "--out", out, "--seed", args.seed, *flags, *data)
    return json.loads((out / "report.json").read_text())


def one(args, kind, variant):
    """Scores of one variant, with every answer's own score for comparisons question by question."""
    source, folder = source_of(args, kind), args.work / kind / variant
    made = {}
    if VARIANTS[variant]:
        report = quantized(args, source, folder / "model", VARIANTS[variant])
        made = {"flags": " ".join(map(str, VARIANTS[variant])), "bits_per_weight": report["bits_per_weight"], "result_bytes": report["result_bytes"]}
    scores = score.score(args.program, folder / "model" if made else source, args.eval, folder / "scores", args.limit)
    return {**made, "limit": args.limit, "rows": scores["rows"], "answers": score.answers_of(folder / "scores", scores["rows"])}


def run(args):
    results = open_work(args)
    unknown = [v for v in args.only or () if v not in results["variants"]]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: none of {', '.join(results['variants'])}")
    for kind in args.weights:
        for variant in results["variants"]:
            name = f"{kind}/{variant}"
            if not belongs(kind, variant) or args.only and variant not in args.only:
                continue
            if results["runs"].get(name, {}).get("limit") != args.limit:
                results["runs"][name] = one(args, kind, variant)
                results["command"] = command_of(args)
                results["machine"] = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
                results["commit"] = commit()
                save(args.work, results)
            check_same_function(results["runs"])
            print(f"{name:28s} {score.percent(score.mean(results['runs'][name]['rows']))}", flush=True)


def check_same_function(runs):
    """Outlier channels change no logit, so they must change no answer."""
    exact = [runs[name] for kind in KINDS if (name := f"{kind}/bf16") in runs]
    if any(a["limit"] == exact[0]["limit"] and a["answers"] != exact[0]["answers"] for a in exact):
        raise SystemExit("the model with outliers scores otherwise than the plain one")


def commit():
    r = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return r.stdout.strip() or "unknown"


def command_of(args):
    """As it could be typed in the repository: folders of this machine become their names."""
    inside = lambda p: str(p.resolve().relative_to(ROOT)) if p.resolve().is_relative_to(ROOT) else p.name
    more = [f"--{k} {getattr(args, k)}" for k in ("factor", "channels", "samples", "seed")] + [f"--limit {args.limit}"] * bool(args.limit)
    return f"python3 bench/accuracy/table.py run {inside(args.program)} {inside(args.model)} {args.work.name} " + " ".join(more)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="part", required=True)
    p = sub.add_parser("run")
    p.add_argument("program", type=Path)
    p.add_argument("model", type=Path)
    p.add_argument("work", type=Path)
    p.add_argument("--eval", type=Path, help="questions and tasks.json; MODEL/eval when not given")
    p.add_argument("--data", type=Path, help="calibration items; MODEL/calibration.jsonl when not given")
    p.add_argument("--limit", type=int, default=0)
    p.add_argument("--only", nargs="+", metavar="NAME", help=", ".join(VARIANTS))
    p.add_argument("--weights", nargs="+", choices=list(KINDS), default=list(KINDS))
    p.add_argument("--factor", type=float, default=256)
    p.add_argument("--channels", type=int, default=24)
    p.add_argument("--samples", type=int, default=128)
    p.add_argument("--seed", type=int, default=0)
    p = sub.add_parser("write")
    p.add_argument("page", type=Path)
    p.add_argument("works", nargs="+", type=Path)
    args = ap.parse_args()
    if args.part == "write":
        results = [json.loads((w / "results.json").read_text()) for w in args.works]
        args.page.write_text(write(results, args.page.read_text() if args.page.exists() else ""))
        return
    args.eval, args.data = args.eval or args.model / "eval", args.data or args.model / "calibration.jsonl"
    run(args)


if __name__ == "__main__":
    main()
