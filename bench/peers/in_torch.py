"""Run inside torch's environment by peers.py: one line of JSON. Weights are drawn in memory.

    in_torch.py fp32|bf16 THREADS PP TG SIDE     SIDE 0: no vision tower
"""
import json
import statistics
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import transformers

REPEATS = 3
TEXT = dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, vocab_size=151936,
            max_position_embeddings=32768, rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=151643, eos_token_id=151645)
TOWER = dict(depth=32, embed_dim=1280, hidden_size=1536, num_heads=16, mlp_ratio=4, patch_size=14, spatial_merge_size=2, temporal_patch_size=2)


def clock(f):
    begin = time.perf_counter()
    out = f()
    return time.perf_counter() - begin, out


def text_once(model, pp, tg):
    cache = transformers.DynamicCache(config=model.config)
    ids = torch.randint(0, model.config.vocab_size, (1, pp))
    step = lambda x: model(x, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:].argmax(-1)
    first, token = clock(lambda: step(ids))
    begin = time.perf_counter()
    for _ in range(tg):
        token = step(token)
    return {"prefill": pp / first, "decode": tg / (time.perf_counter() - begin)}


def main():
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1]]
    threads, pp, tg, side = map(int, sys.argv[2:6])
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT)).eval()
    text_once(model, pp, 2)
    runs = [text_once(model, pp, tg) for _ in range(REPEATS)]
    out = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
    del model
    if side:
        from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
        from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
        tower = Qwen2VisionTransformerPretrainedModel(Qwen2VLVisionConfig(**TOWER)).eval()
        grid = round(side / 28) * 2
        patches, sizes = torch.randn(grid * grid, 3 * 2 * 14 * 14), torch.tensor([[1, grid, grid]])
        tower(patches, sizes)
        out["vision"] = 1e3 * statistics.median(clock(lambda: tower(patches, sizes))[0] for _ in range(REPEATS))
    print(json.dumps(out), flush=True)


main()
