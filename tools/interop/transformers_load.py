"""Do checkpoints that statera writes load in transformers, with the same logits?

Run by hand in an environment with torch, transformers, compressed-tensors and safetensors:
    python tools/interop/transformers_load.py build/release/statera [--only NAME ...]
For every tiny checkpoint and a spread of settings: quantize with the program, compute logits with it, load the result with
transformers (which decompresses it) and compare. The tolerance is 2e-3 absolute in fp32; 0.05 with int8 activations, where the row's
largest value lies on a tie by definition (x / (max / 127.5) = -127.5), so the last bit of x decides between two codes;
static scales have no such ties.
compressed-tensors 0.20.0 cannot load asymmetric pack-quantized files, its own included (zero points are not packed on meta tensors).
"""
import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import torch
import transformers as T
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "tiny"
SETTINGS = {
    "w4 g32 sym": ["--w-bits", "4", "--w-group", "32"],
    "w4 g32 asym": ["--w-bits", "4", "--w-group", "32", "--asym"],
    "w4 channel": ["--w-bits", "4", "--w-group", "-1"],
    "w8 channel": ["--w-bits", "8", "--w-group", "-1"],
    "w3 g32 sym": ["--w-bits", "3", "--w-group", "32"],
    "w2 g32 asym": ["--w-bits", "2", "--w-group", "32", "--asym"],
    "w8a8": ["--w-bits", "8", "--w-group", "-1", "--a-bits", "8"],
}
# Scales found on samples need a tokenizer, which of these models only the example has.
STATIC = {"w8a8 static": SETTINGS["w8a8"] + ["--a-static"]}
MODELS = ["llama", "llama_rope3", "mistral", "qwen2", "qwen3", "phi3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "example"]
INPUTS = ("input_ids", "pixel_values", "image_grid_thw", "mm_token_type_ids")


def run(*args):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {r.stderr.strip()}")


def one(program, name, flags, work):
    out, logits = work / "q", work / "logits.safetensors"
    example = name == "example"
    run(program, "quantize", ROOT / "examples/tiny-qwen3-vl" if example else TINY / name, "--out", out, "--method", "rtn", *flags)
    golden = TINY / "example_golden.safetensors" if example else TINY / name / "golden.safetensors"
    prefix = "text." if example else ""  # of the example's prompts the one without pictures
    inputs = {k.removeprefix(prefix): v for k, v in load_file(golden).items() if k.startswith(prefix) and k.removeprefix(prefix) in INPUTS}
    save_file(inputs, work / "inputs.safetensors")
    run(program, "logits", out, "--inputs", work / "inputs.safetensors", "--out", logits)
    ours = load_file(logits)["logits"]
    kind = json.loads((out / "config.json").read_text())["architectures"][0]
    model = getattr(T, kind).from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        theirs = model(**inputs).logits
    return (ours.reshape(theirs.shape) - theirs).abs().max().item()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program")
    ap.add_argument("--only", nargs="*", default=MODELS)
    args = ap.parse_args()
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    failed = 0
    for name in args.only:
        for label, flags in (STATIC if name == "example" else SETTINGS).items():
            with tempfile.TemporaryDirectory() as work:
                try:
                    d = one(args.program, name, flags, Path(work))
                    ok = d < (0.05 if "a8" in label else 2e-3)
                    print(f"{name:12s} {label:12s} {'ok  ' if ok else 'FAR '} {d:.2e}", flush=True)
                except Exception as error:  # report it and go on
                    ok = False
                    print(f"{name:12s} {label:12s} FAIL {str(error)[:300]}", flush=True)
                failed += not ok
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    main()
