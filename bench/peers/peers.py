#!/usr/bin/env python3
"""statera beside llama.cpp, OpenVINO GenAI and torch: the same shapes, random weights, all in turn in every round; one table with ratios.

    python3 bench/peers/peers.py setup  WORK                                  environments, and llama.cpp from source (network, a compiler)
    python3 bench/peers/peers.py models WORK --program build/release/statera  weights, converted and quantized for each
    python3 bench/peers/peers.py run    WORK --program build/release/statera --json peers.json --markdown peers.md
                                        [--rounds 5] [--threads 2] [--pp 512] [--tg 64] [--side 448] [--only statera llama.cpp ...]

WORK lies outside the repository and comes to hold some 30 GB; delete it when done. Steps that are done are not done again; what a peer needs and
lacks leaves that peer out, and the table says so. Not part of the tests: it takes an hour, most of it setup.
Shapes: text = `statera init qwen2.5-1.5b` (28 layers of 1536, tied head), vision = `statera init qwen2-vl-2b` (32 layers of 1280).
Every case is a process of its own that warms up and then measures; in every round another one begins. --figures leaves out the others.
  prefill  tokens a second of a prompt of --pp tokens       decode  of --tg tokens behind it, greedy
  vision   ms to encode a picture of --side x --side        first   ms from pixels to the first token of the answer
  quantize GB of bf16 weights a second from the page cache to a file of 4 bits (RTN, groups of 128; llama.cpp: Q4_0), start and checks included
  others   cores that other processes kept busy meanwhile: near 0, or the row counts not
Ratios are over statera's case of the same bits: 4 with a head of 8 (llama.cpp takes 6 for a tied head, OpenVINO 8), 8, or 16. Towers: OpenVINO's has
weights of 8 bits, llama.cpp's is in 16 bits whatever the language model's; both against statera's W8A8 tower, and 16 bits against 16 bits besides.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from process import measured, spread

VERSIONS = {
    "torch": ["torch==2.15.0", "torchvision", "transformers==5.23.0", "torchao==0.18.0"],
    "gguf": ["torch==2.15.0", "torchvision", "transformers==4.57.6", "gguf", "sentencepiece", "protobuf"],
    "openvino": ["openvino-genai==2026.4.1.0", "numpy", "pillow"],
    "export": ["optimum-intel[openvino]==2.2.0", "transformers==4.57.6", "nncf", "torchvision", "pillow"],
}
LLAMA = "llama-cpp-python==0.3.36"  # its source package carries llama.cpp under vendor/
TEXT, VISION = "qwen2.5-1.5b", "qwen2-vl-2b"
STATERA_4, STATERA_8, STATERA_16 = "statera W4 g128", "statera W8A8", "statera bf16"


def run(*command, **kw):
    print("+", " ".join(map(str, command)), flush=True)
    subprocess.run([str(c) for c in command], check=True, **kw)


def python_of(work, env):
    return work / f"env-{env}" / "bin" / "python"


def once(marker, make):
    """make() unless an earlier run came to its end."""
    if not marker.exists():
        make()
        marker.touch()


# ---- setup ---------------------------------------------------------------------------------------------------------------------------

def make_environment(work, env):
    shutil.rmtree(work / f"env-{env}", ignore_errors=True)
    run(sys.executable, "-m", "venv", work / f"env-{env}")
    run(python_of(work, env), "-m", "pip", "install", "-q", *VERSIONS[env])


def build_llama(work, jobs):
    download, build = work / "llama-download", work / "llama-build"
    if not list(download.glob("*.tar.gz")):
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", download, LLAMA)
    with tarfile.open(next(download.glob("*.tar.gz"))) as archive:
        archive.extractall(work / "llama-source", filter="data")
    source = llama_source(work)
    run("cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF")
    run("cmake", "--build", build, "-j", jobs, "--target", "llama-bench", "llama-quantize", "llama-mtmd-cli")


def llama_source(work):
    return next((work / "llama-source").glob("*/vendor/llama.cpp"))


def setup(args):
    args.work.mkdir(parents=True, exist_ok=True)
    failed = []
    steps = {env: (lambda env=env: make_environment(args.work, env)) for env in VERSIONS}
    steps["llama"] = lambda: build_llama(args.work, args.jobs)
    for name in args.only or steps:
        try:
            once(args.work / f"setup-{name}.done", steps[name])
        except (subprocess.CalledProcessError, OSError, StopIteration) as e:
            failed.append(f"{name}: {e!r}")
    for line in failed:
        print("failed:", line, file=sys.stderr)
    raise SystemExit(1 if failed else 0)


# ---- models --------------------------------------------------------------------------------------------------------------------------

def make_checkpoint(args, preset):
    folder = args.work / preset
    run(args.program, "init", preset, "--out", folder, "--overwrite")
    run(python_of(args.work, "gguf"), HERE / "companions.py", folder)


def make_gguf(args):
    work, out = args.work, args.work / "gguf"
    out.mkdir(exist_ok=True)
    convert = [python_of(work, "gguf"), HERE / "to_gguf.py", llama_source(work)]
    run(*convert, work / TEXT, "--outfile", out / "text-bf16.gguf", "--outtype", "bf16")
    run(*convert, work / VISION, "--outfile", out / "vl-bf16.gguf", "--outtype", "bf16")
    run(*convert, work / VISION, "--outfile", out / "mmproj.gguf", "--outtype", "bf16", "--mmproj")
    quantize = work / "llama-build" / "bin" / "llama-quantize"
    for name in ("text", "vl"):
        for kind in ("Q4_0", "Q4_K_M", "Q8_0") if name == "text" else ("Q4_0", "Q4_K_M"):
            run(quantize, out / f"{name}-bf16.gguf", out / f"{name}-{kind}.gguf", kind)


def make_openvino(args):
    work = args.work
    for preset, task in ((TEXT, "text-generation-with-past"), (VISION, "image-text-to-text")):
        run(work / "env-export" / "bin" / "optimum-cli", "export", "openvino", "--model", work / preset, "--task", task, "--weight-format", "int4", "--group-size",
            128, "--ratio", "1.0", work / f"openvino-{preset}", env={**os.environ, "TOKENIZERS_PARALLELISM": "false"})


def models(args):
    failed = []
    for name, make in ((TEXT, lambda: make_checkpoint(args, TEXT)), (VISION, lambda: make_checkpoint(args, VISION)), ("gguf", lambda: make_gguf(args)),
                       ("openvino", lambda: make_openvino(args))):
        try:
            once(args.work / f"models-{name}.done", make)
        except (subprocess.CalledProcessError, OSError, StopIteration) as e:
            failed.append(f"{name}: {e!r}")
    for line in failed:
        print("failed:", line, file=sys.stderr)
    raise SystemExit(1 if failed else 0)


# ---- run -----------------------------------------------------------------------------------------------------------------------------

class Cases:
    """name -> a function that runs the case once and returns its figures; None: what it needs is not there."""

    def __init__(self, args):
        self.args, self.work = args, args.work
        self.text, self.image = bool({"prefill", "decode"} & set(args.figures)), bool({"vision", "first"} & set(args.figures))
        self.env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false",
                    "CUDA_VISIBLE_DEVICES": "", "GGML_CUDA_DISABLE": "1"}
        four, eight = ["--w-bits", 4, "--w-group", 128], ["--w-bits", 8, "--a-bits", 8, "--quantize-head"]
        tower = ["--quantize-vision", "--quantize-projector"]
        vino, vision = ["DYNAMIC_QUANTIZATION_GROUP_SIZE=128"], self.work / f"openvino-{VISION}"
        self.all = {
            STATERA_4: self.statera([*four, "--head-bits", 8], tower, rounds=four),
            "statera W4 g128, head 16": self.statera(four, None),
            STATERA_8: self.statera(eight, tower),
            STATERA_16: self.statera([], []),
            "llama.cpp Q4_0": self.llama("Q4_0", [], True),
            "llama.cpp Q4_K_M": self.llama("Q4_K_M", [], True),
            "llama.cpp Q4_K_M --repack 0": self.llama("Q4_K_M", ["--repack", "0"], False),
            "llama.cpp Q8_0": self.llama("Q8_0", [], False),
            "llama.cpp BF16": self.llama("bf16", [], True),
            "OpenVINO int4 g128": self.openvino([], vision),
            "OpenVINO int4 g128, dynamic 128": self.openvino(vino, vision),
            "torch fp32": self.torch("fp32", True),
            "torch bf16": self.torch("bf16", True),
        }

    def statera(self, bits, tower, rounds=None):
        """tower: flags for the vision tower, None: the language model alone; rounds: flags of statera quantize, None: it is not measured."""
        a = self.args

        def one(preset, image, flags):
            text, m = measured([a.program, "bench", "--preset", preset, *flags, "--pp", a.pp, "--tg", a.tg, "--image", image, "--repeats", 3, "--threads", a.threads,
                                "--json", "--progress", "off"], self.env)
            return json.loads(text), m

        def case():
            out = {"others": 0.0, "memory": 0}
            if self.text:
                report, m = one(TEXT, "none", bits)
                out.update(m, prefill=report["prefill"]["tokens_per_second"]["median"], decode=report["decode"]["tokens_per_second"]["median"],
                           share={k: report[k]["share_of_limit"] for k in ("prefill", "decode")}, limits=report["limits"], memory=report["peak_memory_bytes"])
            if self.image and tower is not None:
                report, m = one(VISION, f"{a.side}x{a.side}", [*bits, *tower])
                out["vision"], out["first"] = (1e3 * report[k]["seconds"]["median"] for k in ("vision", "first_token"))
                out["others"], out["memory"] = max(out["others"], m["others"]), max(out["memory"], report["peak_memory_bytes"])
            if "quantize" in a.figures and rounds:
                self.rounding(out, (self.work / TEXT).glob("*.safetensors"), [a.program, "quantize", self.work / TEXT, "--method", "rtn", *rounds, "--out",
                                                                              self.work / "rounded", "--overwrite", "--threads", a.threads, "--progress", "off"])
            return out
        return case if a.program.exists() else None

    def rounding(self, out, files, command):
        """Adds how fast `command` quantizes `files`, which are brought into the page cache."""
        read = 0
        for file in files:
            with open(file, "rb", buffering=0) as f:
                while piece := f.read(1 << 24):
                    read += len(piece)
        _, m = measured(command, self.env)
        out["quantize"], out["others"] = read / m["total"] / 1e9, max(out["others"], m["others"])

    def llama(self, kind, flags, vision):
        a, bin, gguf = self.args, self.work / "llama-build" / "bin", self.work / "gguf"

        def case():
            out = {"others": 0.0, "memory": 0}
            for key, tokens in (("prefill", ["-p", a.pp, "-n", 0]), ("decode", ["-p", 0, "-n", a.tg, "-d", a.pp])) if self.text else ():
                text, m = measured([bin / "llama-bench", "-m", gguf / f"text-{kind}.gguf", "-t", a.threads, *tokens, "-r", 3, "-o", "json", *flags], self.env)
                out.update({**m, key: spread(json.loads(text)[0]["samples_ts"])["median"], "memory": m["rss"], "others": max(out["others"], m["others"])})
            if "quantize" in a.figures and kind.startswith("Q4") and not flags:
                source = gguf / "text-bf16.gguf"
                self.rounding(out, [source], [bin / "llama-quantize", source, self.work / "rounded.gguf", kind, a.threads])
            if self.image and vision:
                text, m = measured([bin / "llama-mtmd-cli", "-m", gguf / f"vl-{kind}.gguf", "--mmproj", gguf / "mmproj.gguf", "--image", self.picture(), "-p", "hi",
                                    "-n", 1, "-t", a.threads, "--temp", 0, "-c", 4096, "--perf", "-lv", 4], self.env, errors_too=True)
                encode = re.search(r"(?:encoding done|encoded) in ([0-9.]+) ms", text)
                prompt = re.search(r"prompt eval time = *([0-9.]+) ms", text)  # from the picture's encoding on
                out["vision"], out["first"] = float(encode[1]), float(prompt[1])
                out["others"], out["memory"] = max(out["others"], m["others"]), max(out["memory"], m["rss"])
            return out
        ready = (gguf / f"text-{kind}.gguf").exists() and (bin / "llama-bench").exists()
        return case if ready else None

    def openvino(self, properties, vision):
        def case():
            out = {"others": 0.0, "memory": 0}
            wanted = [(self.work / f"openvino-{TEXT}", [self.args.pp, self.args.tg])] if self.text else []
            wanted += [(vision, [self.args.side, "picture"])] if self.image and vision.exists() else []
            for model, what in wanted:
                text, m = measured([python_of(self.work, "openvino"), HERE / "in_openvino.py", model, self.args.threads, *what, *properties], self.env)
                out.update(json.loads(text.splitlines()[-1]), others=max(out["others"], m["others"]), memory=max(out["memory"], m["rss"]))
            return out
        return case if (self.work / f"openvino-{TEXT}").exists() and python_of(self.work, "openvino").exists() else None

    def torch(self, dtype, vision):
        def case():
            side = self.args.side if vision and self.image else 0  # text it measures always
            command = [python_of(self.work, "torch"), HERE / "in_torch.py", dtype, self.args.threads, self.args.pp, self.args.tg, side]
            text, m = measured(command, self.env)
            return {**m, **json.loads(text.splitlines()[-1]), "memory": m["rss"]}
        return case if python_of(self.work, "torch").exists() else None

    def picture(self):
        """A BMP of fixed noise."""
        path, side = self.work / f"picture-{self.args.side}.bmp", self.args.side
        row = (3 * side + 3) // 4 * 4
        size = 54 + row * side
        value, pixels = 1, bytearray(row * side)
        for i in range(len(pixels)):
            value = value * 1103515245 + 12345 & 0x7FFFFFFF
            pixels[i] = value >> 16 & 255
        header = b"BM" + size.to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little") + side.to_bytes(4, "little") * 2
        path.write_bytes(header + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24) + pixels)
        return path


FIGURES = {"prefill": ("prefill tok/s", True), "decode": ("decode tok/s", True), "vision": ("vision ms", False), "first": ("first token ms", False),
           "quantize": ("quantize GB/s", True)}


def base_of(case, key):
    """statera's case that another's figure is compared with."""
    if any(t in case for t in ("bf16", "BF16", "fp32")):
        return STATERA_16
    return STATERA_8 if "Q8_0" in case or key == "vision" else STATERA_4


def table(results, missing, args):
    """Markdown: medians with the least and the largest, and ratios over statera's case of the same bits (above 1: statera is better)."""
    lines = [f"Medians of {args.rounds} rounds (least to largest), {args.threads} threads, prompt of {args.pp} tokens, {args.tg} decoded, picture of {args.side} x {args.side}.",
             "In brackets: how many times as fast statera's case of the same bits is.", "",
             "| case | " + " | ".join(title for title, _ in FIGURES.values()) + " | peak memory | others |", "|---" * (len(FIGURES) + 3) + "|"]
    median = lambda case, key: spread([r[key] for r in results[case] if key in r])["median"] if any(key in r for r in results.get(case, [])) else None
    for case, runs in results.items():
        cells = []
        for key, (_, more_is_better) in FIGURES.items():
            values = [r[key] for r in runs if key in r]
            if not values:
                cells.append("")
                continue
            s, ours = spread(values), median(base_of(case, key), key)
            ratio = "" if case.startswith("statera") or not ours else f" [{(ours / s['median'] if more_is_better else s['median'] / ours):.2f}]"
            cells.append(f"{s['median']:.4g} ({s['min']:.4g} to {s['max']:.4g}){ratio}")
        lines.append(f"| {case} | " + " | ".join(cells) + f" | {max(r['memory'] for r in runs) / 2**30:.2f} GiB | {max(r['others'] for r in runs):.2f} |")
    lines += ["", *(f"{case}: left out, {why}." for case, why in missing.items())]
    limits = next((r["limits"] for runs in results.values() for r in runs if "limits" in r), None)
    if limits:
        read = limits["read_bytes_per_second"]["all_threads"]["max"] / 1e9
        peaks = ", ".join(f"{k} {v['all_threads']['max'] / 1e9:.0f}" for k, v in limits["operations_per_second"].items())
        lines += ["", f"Limits of the machine in the same run: read {read:.1f} GB/s; {peaks} (10^9 operations/s)."]
    return "\n".join(lines) + "\n"


def run_all(args):
    cases = Cases(args).all
    wanted = [name for name in cases if not args.only or any(name.startswith(o) for o in args.only)]
    missing = {name: "setup or models lack what it needs" for name in wanted if cases[name] is None}
    ready = [name for name in wanted if cases[name]]
    results = {}
    for r in range(args.rounds):
        for name in ready[r % max(1, len(ready)):] + ready[:r % max(1, len(ready))]:
            try:
                one = cases[name]()
            except (RuntimeError, KeyError, TypeError, ValueError, IndexError) as e:
                missing[name] = f"failed: {str(e).splitlines()[-1] if str(e) else e!r}"
                print(f"round {r} {name}: {missing[name]}", file=sys.stderr, flush=True)
                continue
            if any(k in one for k in args.figures):
                results.setdefault(name, []).append(one)
            print(f"round {r} {name}: " + ", ".join(f"{k} {one[k]:.4g}" for k in FIGURES if k in one) + f", others {one['others']:.2f}", flush=True)
            if args.json:
                args.json.write_text(json.dumps({"versions": VERSIONS, "llama": LLAMA, "threads": args.threads, "pp": args.pp, "tg": args.tg, "side": args.side,
                                                 "runs": results, "left_out": missing}, indent=1) + "\n")
    text = table({name: results[name] for name in ready if name in results}, missing, args)
    print("\n" + text)
    if args.markdown:
        args.markdown.write_text(text)
    raise SystemExit(0 if results and not missing else 1)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="part", required=True)
    parts = {name: sub.add_parser(name) for name in ("setup", "models", "run")}
    for p in parts.values():
        p.add_argument("work", type=Path)
    parts["setup"].add_argument("--jobs", type=int, default=os.cpu_count())
    parts["setup"].add_argument("--only", nargs="+", choices=[*VERSIONS, "llama"])
    for name in ("models", "run"):
        parts[name].add_argument("--program", type=Path, required=True)
    p = parts["run"]
    for flag, value in (("--rounds", 5), ("--threads", 2), ("--pp", 512), ("--tg", 64), ("--side", 448)):
        p.add_argument(flag, type=int, default=value)
    p.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    p.add_argument("--only", nargs="+", help="cases whose names begin so")
    p.add_argument("--json", type=Path)
    p.add_argument("--markdown", type=Path)
    args = ap.parse_args()
    args.work = args.work.resolve()
    {"setup": setup, "models": models, "run": run_all}[args.part](args)


if __name__ == "__main__":
    main()
