"""Run inside OpenVINO GenAI's environment by peers.py: one line of JSON.

    in_openvino.py MODEL THREADS PP TG [KEY=VALUE ...]        prefill of PP random tokens, TG greedy ones behind them
    in_openvino.py MODEL THREADS SIDE picture [KEY=VALUE ...] a picture of SIDE x SIDE pixels: its encoding and the first token
Prompts and pictures are new each time: a cache of prefixes would hide the prefill.
"""
import json
import statistics
import sys

import numpy as np
import openvino as ov
import openvino_genai as genai

REPEATS = 3


def main():
    model, threads, size, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    properties = {"INFERENCE_NUM_THREADS": threads}
    for pair in sys.argv[5:]:
        key, value = pair.split("=", 1)
        properties[key] = int(value) if value.isdigit() else value
    rng = np.random.default_rng(0)
    config = genai.GenerationConfig()
    config.ignore_eos, config.do_sample = True, False
    if what == "picture":
        config.max_new_tokens = 2
        pipeline = genai.VLMPipeline(model, "CPU", **properties)

        def once():
            pixels = ov.Tensor(rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8))
            m = pipeline.generate(f"describe {rng.integers(1e6)}", images=[pixels], generation_config=config).perf_metrics
            return {"vision": m.get_prepare_embeddings_duration().mean, "first": m.get_ttft().mean}
    else:
        config.max_new_tokens = int(what) + 1
        pipeline = genai.LLMPipeline(model, "CPU", **properties)

        def once():
            ids = rng.integers(300, 9000, (1, size)).astype(np.int64)
            m = pipeline.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), generation_config=config).perf_metrics
            return {"prefill": 1e3 * size / m.get_ttft().mean, "decode": 1e3 / m.get_tpot().mean}
    once()
    runs = [once() for _ in range(REPEATS)]
    print(json.dumps({key: statistics.median(r[key] for r in runs) for key in runs[0]}), flush=True)


main()
