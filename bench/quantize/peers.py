#!/usr/bin/env python3
"""One block of Qwen2-VL-2B's text shape through statera, llm-compressor and GPTQModel: seconds and peak memory, W4 groups of 128.

    python -m venv P/llmc  && P/llmc/bin/pip install llmcompressor==0.14.0.1      (outside the repository; they exclude each other)
    python -m venv P/gptqm && P/gptqm/bin/pip install gptqmodel==7.7.0
    python bench/quantize/peers.py all WORK --program build/release/statera --llmc P/llmc/bin/python --gptqm P/gptqm/bin/python
                                   [--samples 64] [--length 512] [--rounds 3] [--threads 2] [--methods gptq awq] [--tiny] [--json FILE]

`all` writes the checkpoint (one decoder block, random bf16 weights, 1024 numbers as vocabulary) and the calibration text (random numbers, the
same tokens for all) with P/llmc, then runs the tools in turn, beginning with another one in every round, each in a process of its own.
  total   wall seconds of the process: start, loading, quantizing, and for statera writing and checking the files
  work    wall seconds of the quantizing call alone, as the tool's own clock around it says; statera's holds writing and checking, too
  cpu     user and system seconds;  RSS  peak of the process;  others  cores that other processes kept busy meanwhile: near 0 or it counts not
`make WORK` and `llmc|gptqm METHOD WORK` are its parts. Shown: median of the rounds, and the least and largest `work`.
Weights are fp32 while the peers compute (bf16 is slower on CPUs without its instructions, and statera accumulates in fp32, too), but for
GPTQModel's awq, which takes 16 bits only. Its `work` holds packing into layers, llm-compressor's does not; neither writes files.
"""
import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measuring import measured

SHAPES = {False: dict(hidden_size=1536, intermediate_size=8960, num_attention_heads=12, num_key_value_heads=2),
          True: dict(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2)}
VOCAB = 1024


# ---- in a peer's environment ---------------------------------------------------------------------------------------------------------

def make(work, samples, length, tiny):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[tiny], num_hidden_layers=1, vocab_size=VOCAB, tie_word_embeddings=False, max_position_embeddings=4096,
                         rms_norm_eps=1e-6, bos_token_id=0, eos_token_id=1)
    model = Qwen2ForCausalLM(config)
    model.model.embed_tokens.weight.data *= 50  # of the size of real hidden states, so that no method meets degenerate inputs
    model.to(torch.bfloat16).save_pretrained(work / "model")
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCAB)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1").save_pretrained(work / "model")
    ids = torch.randint(2, VOCAB, (samples, length), generator=torch.Generator().manual_seed(1)).tolist()
    with open(work / "text.jsonl", "w") as f:
        f.writelines(json.dumps({"text": " ".join(map(str, row))}) + "\n" for row in ids)


def rows_of(work):
    return [[int(t) for t in json.loads(line)["text"].split()] for line in (work / "text.jsonl").read_text().splitlines()]


def llmc(method, work):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from llmcompressor import __version__, oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    if not torch.cuda.is_available():  # 0.14.0.1's AWQ pins memory on machines without a GPU, too
        torch.Tensor.pin_memory = lambda self, *a, **k: self
    rows = rows_of(work)
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
    if method == "gptq":
        from llmcompressor.modifiers.gptq import GPTQModifier
        recipe = GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"])
    elif method == "awq":
        from llmcompressor.modifiers.transform.awq import AWQModifier
        recipe = [AWQModifier(), QuantizationModifier(targets=["Linear"], scheme="W4A16", ignore=["lm_head"])]
    else:
        recipe = QuantizationModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"])
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()
    begin = time.time()
    oneshot(model=model, processor=AutoTokenizer.from_pretrained(work / "model"), dataset=data, recipe=recipe, max_seq_length=len(rows[0]),
            num_calibration_samples=len(rows))
    return time.time() - begin, f"llmcompressor {__version__}"


def gptqm(method, work):
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # 7.7.0 takes half the cores and does not start with one
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from gptqmodel.version import __version__
    # act_group_aware permutes columns and is left off, as in the other two
    more = dict(act_group_aware=False) if method == "gptq" else dict(format="gemm")
    config = QuantizeConfig(bits=4, group_size=128, sym=True, desc_act=False, method=method, device="cpu", **more)
    dtype = torch.float32 if method == "gptq" else torch.bfloat16  # its awq layers are packed from 16 bits only
    data = [{"input_ids": r, "attention_mask": [1] * len(r)} for r in rows_of(work)]
    model = GPTQModel.load(str(work / "model"), config, dtype=dtype)
    begin = time.time()
    model.quantize(data, batch_size=1)
    return time.time() - begin, f"GPTQModel {__version__}"


# ---- the whole -----------------------------------------------------------------------------------------------------------------------

def last_json(text):
    return json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("{\"work\"")))


def run_all(args):
    work, here = args.work, Path(__file__).resolve()
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads), "TQDM_DISABLE": "1",
           "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    work.mkdir(parents=True, exist_ok=True)
    shape = ["--samples", args.samples, "--length", args.length] + ["--tiny"] * args.tiny
    measured([args.llmc, here, "make", work, *shape], env)
    runs = {}

    def statera(method):
        text, m = measured([args.program, "quantize", work / "model", "--out", work / "out", "--overwrite", "--method", method, "--w-bits", 4, "--w-group",
                            128, "--data", work / "text.jsonl", "--n-samples", args.samples, "--max-seq-len", args.length, "--threads", args.threads,
                            "--json"], env)
        report = json.loads(text)
        got = report["data"]["tokens"] if method != "rtn" else args.samples * args.length
        if got != args.samples * args.length:
            raise RuntimeError(f"statera saw {got} tokens")
        return {**m, "work": report["this_run"]["seconds"], "version": "statera", "phases": report["this_run"].get("phase_seconds")}

    def peer(python, name):
        def run(method):
            text, m = measured([python, here, name, method, work], env)
            return {**m, **last_json(text)}
        return run

    tools = {"statera": statera, "llmc": peer(args.llmc, "llmc")}
    if args.gptqm:
        tools["gptqm"] = peer(args.gptqm, "gptqm")
    for r in range(args.rounds):
        for method in args.methods:
            names = list(tools)
            for name in names[r % len(names):] + names[:r % len(names)]:
                try:
                    one = tools[name](method)
                except RuntimeError as e:
                    print(f"{name} {method}: failed: {e}", file=sys.stderr, flush=True)
                    continue
                runs.setdefault((name, method), []).append(one)
                print(f"  round {r} {name} {method}: work {one['work']:.1f} s, RSS {one['rss'] / 2**30:.2f} GiB, others {one['others']:.2f}", flush=True)
    print(f"\n{args.samples} x {args.length} tokens, {args.threads} threads, one block {SHAPES[args.tiny]}")
    print("tool                      method   work s (least-largest)   total s   cpu s   peak GiB   others")
    for (name, method), ones in runs.items():
        mid = {k: statistics.median(o[k] for o in ones) for k in ("work", "total", "cpu", "rss", "others")}
        spread = f"{min(o['work'] for o in ones):.1f}-{max(o['work'] for o in ones):.1f}"
        print(f"{ones[0]['version']:25s} {method:6s} {mid['work']:8.1f} ({spread})".ljust(58)
              + f"{mid['total']:9.1f} {mid['cpu']:7.1f} {mid['rss'] / 2**30:10.2f} {mid['others']:8.2f}")
    if args.json:
        args.json.write_text(json.dumps([dict(tool=n, method=m, runs=o) for (n, m), o in runs.items()], indent=1) + "\n")
    raise SystemExit(0 if len(runs) == len(tools) * len(args.methods) else 1)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="part", required=True)
    for name in ("make", "all"):
        p = sub.add_parser(name)
        p.add_argument("work", type=Path)
        p.add_argument("--samples", type=int, default=64)
        p.add_argument("--length", type=int, default=512)
        p.add_argument("--tiny", action="store_true", help="a small block, to try the script")
    p.add_argument("--program", type=Path, required=True)
    p.add_argument("--llmc", required=True, help="python of the environment with llmcompressor")
    p.add_argument("--gptqm", help="python of the environment with gptqmodel; left out when not given")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--methods", nargs="+", default=["gptq", "awq"], choices=["gptq", "awq", "rtn"])
    p.add_argument("--json", type=Path)
    for name in ("llmc", "gptqm"):
        p = sub.add_parser(name)
        p.add_argument("method")
        p.add_argument("work", type=Path)
    args = ap.parse_args()
    if args.part == "make":
        make(args.work, args.samples, args.length, args.tiny)
    elif args.part == "all":
        run_all(args)
    else:
        import torch
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
        seconds, version = (llmc if args.part == "llmc" else gptqm)(args.method, args.work)
        print(json.dumps({"work": seconds, "version": version, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
