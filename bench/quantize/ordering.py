#!/usr/bin/env python3
"""Do the methods' errors order as their theory says, on tiny models with outlier channels?

    python bench/quantize/ordering.py build/release/statera [--factor 32] [--channels 4] [--seeds 0 1 2] [--json FILE]

Takes the bundled tiny checkpoint, injects outlier channels that change no logit (tools/outliers/inject.py), calibrates on the bundled
messages, and prints for each seed:
    gptq < rtn           relative error of every layer's output on the calibration rows, W3 groups of 32 (report: output_error)
    smoothquant < rtn    the same at W8A8, with activations rounded; smoothquant moves what norms feed, so o and down are listed apart
    mbq <= awq           mbq's weighted loss of the ratio that each chose, for every scale group
and KL divergence from the floating model on other messages (held_out.jsonl), which no method minimises and which is therefore only shown.
Ends with 1 when an ordering of the means, or any group of the last, is the other way round. Standard library only.
"""
import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HERE / "tools" / "outliers"))
import inject

MODEL = HERE / "examples" / "tiny-qwen3-vl"
CALIBRATION, HELD_OUT = HERE / "examples" / "calibration" / "messages.jsonl", Path(__file__).with_name("held_out.jsonl")
W3, W8A8 = ("--w-bits", 3, "--w-group", 32), ("--w-bits", 8, "--w-group", -1, "--a-bits", 8)


class Program:
    def __init__(self, binary, work):
        self.binary, self.work = binary, work

    def call(self, *args):
        r = subprocess.run([str(a) for a in (self.binary, *args, "--json")], capture_output=True, text=True)
        if r.returncode:
            raise SystemExit(f"{' '.join(map(str, args))}: {r.stderr.strip()[-400:]}")
        return json.loads(r.stdout)

    def quantize(self, model, method, flags):
        """The report, with the divergence on the held-out messages added."""
        out = self.work / "quantized"
        data = [] if method == "rtn" else ["--data", CALIBRATION, "--search-tokens", 0, "--propagate", "original"]
        report = self.call("quantize", model, "--out", out, "--overwrite", "--method", method, *flags, *data)
        report["held_out"] = self.call("compare", model, out, "--data", HELD_OUT)
        return report


def mean(xs):
    return math.exp(sum(map(math.log, xs)) / len(xs))


def layer_ratios(report, picked=lambda name: True):
    return [l["output_error"] / l["rtn_output_error"] for l in report["layers"] if l.get("rtn_output_error") and picked(l["name"])]


def show(label, ratios, better):
    print(f"  {label:38s} ratio {mean(ratios):.3f} (worst {max(ratios):.3f})  {sum(r < 1 for r in ratios)} of {len(ratios)} layers better"
          f"  {'ok' if better else 'OTHER WAY ROUND'}", flush=True)
    return dict(ratio=mean(ratios), worst=max(ratios), better=sum(r < 1 for r in ratios), layers=len(ratios))


def one(program, model):
    result, wrong = {}, 0
    rtn, gptq = program.quantize(model, "rtn", W3), program.quantize(model, "gptq", W3)
    ratios = layer_ratios(gptq)
    wrong += mean(ratios) >= 1
    result["gptq/rtn"] = show("gptq / rtn, W3", ratios, mean(ratios) < 1)

    rtn8, smooth = program.quantize(model, "rtn", W8A8), program.quantize(model, "smoothquant", W8A8)
    behind_norms = lambda name: not name.endswith(("o_proj", "down_proj"))
    ratios = layer_ratios(smooth, behind_norms)
    wrong += mean(ratios) >= 1
    result["smoothquant/rtn"] = show("smoothquant / rtn, W8A8, behind norms", ratios, mean(ratios) < 1)
    others = layer_ratios(smooth, lambda name: not behind_norms(name))
    result["smoothquant/rtn others"] = show("    o and down, not smoothed", others, True)

    awq, mbq = program.quantize(model, "awq", W3), program.quantize(model, "mbq", W3)
    chosen = {(s["block"], s["group"]): s for s in awq["scales"]}
    ratios = []
    for s in mbq["scales"]:
        other = chosen[s["block"], s["group"]]
        at = round(other["ratio"] * len(s["losses"]))
        ratios.append(min(s["losses"]) / s["losses"][at])
    differ = sum(s["ratio"] != chosen[s["block"], s["group"]]["ratio"] for s in mbq["scales"])
    wrong += max(ratios) > 1
    print(f"  {'mbq / awq, mbq weighted loss':38s} ratio {mean(ratios):.4f} (best {min(ratios):.4f}, worst {max(ratios):.4f})"
          f"  {differ} of {len(ratios)} groups at other ratios  {'ok' if max(ratios) <= 1 else 'OTHER WAY ROUND'}")
    plain = [min(s["losses"]) / s["losses"][0] for s in mbq["scales"]]
    print(f"  {'    mbq / rtn, the same loss':38s} ratio {mean(plain):.4f} (best {min(plain):.4f})")
    result["mbq/awq"] = dict(ratio=mean(ratios), best=min(ratios), worst=max(ratios), other_ratios=differ, groups=len(ratios), mbq_over_rtn=mean(plain))
    reports = {"rtn W3": rtn, "gptq W3": gptq, "awq W3": awq, "mbq W3": mbq, "rtn W8A8": rtn8, "smoothquant W8A8": smooth}
    result["held_out_kl"] = {k: r["held_out"]["kl_mean"] for k, r in reports.items()}
    print("  held-out KL: " + ", ".join(f"{k} {v:.3g}" for k, v in result["held_out_kl"].items()), flush=True)
    return result, wrong


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program", type=Path)
    ap.add_argument("--model", type=Path, default=MODEL)
    ap.add_argument("--factor", type=float, default=32)
    ap.add_argument("--channels", type=int, default=4)
    ap.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ap.add_argument("--json", type=Path, help="figures as JSON")
    args = ap.parse_args()
    results, wrong = {}, 0
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as work:
            model = Path(work) / "outliers"
            inject.make(args.model, model, args.factor, args.channels, seed=seed, program=args.program)
            print(f"seed {seed}: {args.channels} channels x {args.factor:g} per place, logits equal", flush=True)
            results[seed], bad = one(Program(args.program, Path(work)), model)
            wrong += bad
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    raise SystemExit(min(wrong, 1))


if __name__ == "__main__":
    main()
