#!/usr/bin/env python3
"""Tiny random Hugging Face checkpoints with goldens: fp32, eager attention, one thread.

    models.py --out tests/tiny [--only NAME ...] [--seed N]

Each folder holds config.json and weights as released checkpoints spell them ("hub"), and per golden file
the inputs by their forward names, hidden_<i> and logits. golden.safetensors also holds greedy (64 tokens
after the prompt) and, for text models, a ragged batch computed one prompt at a time. Folders with
same_as.json hold the same weights in another layout (re-saved names and keys, f16, f32, shards); their
golden is the one of the folder named there. Running it again writes the same bytes.
"""
import argparse
import copy
import json
import shutil
import tempfile
from pathlib import Path

import torch
import transformers as T
from safetensors.torch import load_file

from common import mrope_positions, randomise, versions, write_json, write_safetensors

V, H, HEADS, KV, LAYERS, FF = 256, 64, 4, 2, 2, 96
IMG, VID, VSTART, VEND = 250, 251, 252, 253
PROMPT = [5, 9, 100, 17, 249, 33, 7, 61, 4, 180]
RAGGED = [[11, 40, 8], [3, 77, 150, 21, 9, 240, 66, 13, 101, 5, 88, 7, 19], [120, 6, 31, 202, 15, 90, 44]]
MIN_MARGIN = 2e-3  # logit distance between the chosen token and the next best at every greedy step
MIN_DISTINCT = 8   # an answer that repeats one token would hide a wrong position


def text(model_type, architecture, **kw):
    """config.json of a text model, with the keys of released checkpoints."""
    base = dict(architectures=[architecture], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=H,
                initializer_range=0.02, intermediate_size=FF, max_position_embeddings=512, model_type=model_type,
                num_attention_heads=HEADS, num_hidden_layers=LAYERS, num_key_value_heads=KV, rms_norm_eps=1e-6,
                rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True, vocab_size=V)
    return {**base, **kw}


def llama(**kw):
    return text("llama", "LlamaForCausalLM", **{"rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False,
                                                "rope_scaling": None, **kw})


def flat_vl(model_type, architecture, vision, **kw):
    """Qwen2-VL and Qwen2.5-VL were released with the text keys at the top level."""
    return text(model_type, architecture, vision_config=vision, image_token_id=IMG, video_token_id=VID,
                vision_start_token_id=VSTART, vision_end_token_id=VEND, vision_token_id=254, rope_theta=1e6,
                rope_scaling=dict(type="mrope", mrope_section=[2, 3, 3]), sliding_window=512, max_window_layers=2,
                use_sliding_window=False, **kw)


def experts(count, chosen, width, **kw):
    """What the Qwen families say of their experts."""
    return dict(num_experts=count, num_experts_per_tok=chosen, moe_intermediate_size=width, decoder_sparse_step=1, mlp_only_layers=[],
                output_router_logits=False, router_aux_loss_coef=0.001, **kw)


def nested_vl(model_type, architecture, **kw):
    inner = text(f"{model_type}_text", "", head_dim=16, rope_theta=5e6, attention_bias=False, tie_word_embeddings=True,
                 rope_scaling=dict(mrope_interleaved=True, mrope_section=[4, 2, 2], rope_type="default"), **kw)
    del inner["architectures"], inner["torch_dtype"]
    inner["dtype"] = "bfloat16"
    vision = dict(deepstack_visual_indexes=[0, 1], depth=3, hidden_act="gelu_pytorch_tanh", hidden_size=24,
                  in_channels=3, initializer_range=0.02, intermediate_size=40, model_type=model_type, num_heads=2,
                  num_position_embeddings=36, out_hidden_size=H, patch_size=8, spatial_merge_size=2,
                  temporal_patch_size=2)
    return dict(architectures=[architecture], image_token_id=IMG, model_type=model_type,
                text_config=inner, tie_word_embeddings=True, video_token_id=VID, vision_config=vision,
                vision_end_token_id=VEND, vision_start_token_id=VSTART)


Q2V = dict(depth=2, embed_dim=32, mlp_ratio=2, num_heads=2, in_chans=3, hidden_size=H, patch_size=14,
           spatial_merge_size=2, spatial_patch_size=14, temporal_patch_size=2)
Q25V = dict(depth=3, hidden_act="silu", hidden_size=32, intermediate_size=48, num_heads=2, in_chans=3,
            out_hidden_size=H, patch_size=8, spatial_merge_size=2, spatial_patch_size=8, window_size=32,
            fullatt_block_indexes=[1], tokens_per_second=2, temporal_patch_size=2)
LONG = dict(type="longrope", short_factor=[1 + 0.05 * i for i in range(8)], long_factor=[1 + 0.5 * i for i in range(8)])

CONFIGS = {
    "llama": llama(),
    "llama_rope3": llama(rope_theta=5e5, tie_word_embeddings=True, head_dim=24, rope_scaling=dict(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64,
        rope_type="llama3")),
    "llama_linear": llama(num_hidden_layers=1, rope_scaling=dict(type="linear", factor=4.0)),
    "llama_dynamic": llama(num_hidden_layers=1, max_position_embeddings=8,
                           rope_scaling=dict(type="dynamic", factor=2.0)),
    "llama_yarn": llama(attention_bias=True, mlp_bias=True, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=128)),
    "mistral": text("mistral", "MistralForCausalLM", rms_norm_eps=1e-5, sliding_window=4),
    "qwen2": text("qwen2", "Qwen2ForCausalLM", rope_theta=1e6, sliding_window=512, use_sliding_window=False,
                  max_window_layers=2),
    "qwen3": text("qwen3", "Qwen3ForCausalLM", rope_theta=1e6, head_dim=32, tie_word_embeddings=True,
                  attention_bias=False, rope_scaling=None, sliding_window=None, use_sliding_window=False,
                  max_window_layers=2),
    "phi3": text("phi3", "Phi3ForCausalLM", rms_norm_eps=1e-5, rope_scaling=None, sliding_window=None,
                 num_key_value_heads=HEADS, original_max_position_embeddings=512, pad_token_id=0),
    # 10 tokens > 8: the long factors; the 3- and 7-token prompts of the batch take the short ones
    "phi3_longrope": text("phi3", "Phi3ForCausalLM", rms_norm_eps=1e-5, rope_scaling=LONG, sliding_window=512,
                          original_max_position_embeddings=8, pad_token_id=0),
    "qwen2_vl": flat_vl("qwen2_vl", "Qwen2VLForConditionalGeneration", Q2V, tie_word_embeddings=True),
    "qwen2_5_vl": flat_vl("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", Q25V),
    "qwen3_vl": nested_vl("qwen3_vl", "Qwen3VLForConditionalGeneration"),
    "qwen3_moe": text("qwen3_moe", "Qwen3MoeForCausalLM", rope_theta=1e6, head_dim=24, attention_bias=False, rope_scaling=None,
                      sliding_window=None, use_sliding_window=False, max_window_layers=2, **experts(6, 2, 48, norm_topk_prob=True)),
    # the first layer dense, one shared expert, weights as the softmax gives them
    "qwen2_moe": text("qwen2_moe", "Qwen2MoeForCausalLM", rope_theta=1e6, sliding_window=512, use_sliding_window=False, max_window_layers=2,
                      shared_expert_intermediate_size=80, **{**experts(5, 3, 48, norm_topk_prob=False), "mlp_only_layers": [0]}),
    "mixtral": text("mixtral", "MixtralForCausalLM", rms_norm_eps=1e-5, rope_theta=1e6, intermediate_size=48, num_local_experts=4,
                    num_experts_per_tok=2, output_router_logits=False, router_aux_loss_coef=0.02, sliding_window=None),
    "qwen3_vl_moe": nested_vl("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", **experts(4, 2, 48, norm_topk_prob=True)),
}
# same weights, other layout: folder -> (source, what)
COPIES = {
    "llama_rope3_native": ("llama_rope3", "native"), "qwen2_vl_native": ("qwen2_vl", "native"),
    "qwen2_5_vl_native": ("qwen2_5_vl", "native"), "qwen3_vl_native": ("qwen3_vl", "native"),
    "llama_linear_f16": ("llama_linear", "f16"), "llama_linear_f32": ("llama_linear", "f32"),
    "llama_sharded": ("llama", "sharded"),
    # a block's experts in one tensor, outputs as rows; the release of qwen3_vl_moe has inputs as rows
    "qwen3_moe_native": ("qwen3_moe", "native"), "qwen3_vl_moe_native": ("qwen3_vl_moe", "native"),
}
SECONDS = [0.75]  # second_per_grid_ts of the Qwen2.5-VL video: t offsets 0, 1, 3


def vision_ids(blocks):
    """blocks: (placeholder id, grid) in order of appearance -> input ids with text around them."""
    ids = [5, 7]
    for pad, (t, h, w) in blocks:
        ids += [VSTART] + [pad] * (t * h * w // 4) + [VEND, 6]
    return torch.tensor([ids + [7, 8, 30]])


def vision_inputs(config, images=(), videos=(), order=None):
    """Inputs by their forward names. order: letters i and v; a Qwen3-VL video is one block per frame."""
    v = config["vision_config"]
    gen = torch.Generator().manual_seed(7)
    width = 3 * v["temporal_patch_size"] * v["patch_size"] ** 2
    split = config["model_type"].startswith("qwen3_vl")
    blocks, left = [], dict(i=list(images), v=list(videos))
    for letter in order or "i" * len(images) + "v" * len(videos):
        grid = left[letter].pop(0)
        if letter == "v" and split:
            blocks += [(VID, (1, *grid[1:]))] * grid[0]
        else:
            blocks.append((IMG if letter == "i" else VID, grid))
    ids = vision_ids(blocks)
    out = dict(input_ids=ids, mm_token_type_ids=(ids == IMG).int() + 2 * (ids == VID).int())
    # eighths in [-2, 2): exact in every float format
    pixels = lambda grids: torch.randint(-16, 16, (sum(t * h * w for t, h, w in grids), width), generator=gen) / 8.0
    if images:
        out.update(pixel_values=pixels(images), image_grid_thw=torch.tensor(images))
    if videos:
        out.update(pixel_values_videos=pixels(videos), video_grid_thw=torch.tensor(videos))
    return out


def cases(name, config):
    """Golden file stem -> inputs."""
    if "vision_config" not in config:
        return {"golden": dict(input_ids=torch.tensor([PROMPT]))}
    out = {"golden": vision_inputs(config, images=[(1, 6, 4), (1, 4, 8)]),
           "golden_video": vision_inputs(config, videos=[(3, 2, 4)])}
    if config["model_type"] == "qwen2_5_vl":
        out["golden_video"]["second_per_grid_ts"] = torch.tensor(SECONDS)
    if name.startswith("qwen3_vl"):
        out["golden_mixed"] = vision_inputs(config, images=[(1, 4, 4), (1, 2, 6)], videos=[(2, 4, 2)], order="ivi")
    return out


def hub_tensors(model_type, key, value):
    """Names and values of the release for a parameter in memory."""
    if model_type in ("qwen2_vl", "qwen2_5_vl"):
        key = key.replace("model.visual.", "visual.", 1).replace("model.language_model.", "model.", 1)
    prefix, _, kind = key.rpartition(".experts.")
    if model_type == "mixtral":
        key, prefix = key.replace(".mlp.", ".block_sparse_moe."), prefix.replace(".mlp", ".block_sparse_moe")
    if kind not in ("gate_up_proj", "down_proj"):
        return {key: value}
    if model_type == "qwen3_vl_moe":
        return {key: value.transpose(1, 2)}  # inputs as rows
    gate, up, down = ("w1", "w3", "w2") if model_type == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    out = {}
    for e, matrix in enumerate(value):  # [2I, H]: gate, then up; or [H, I]
        parts = {down: matrix} if kind == "down_proj" else dict(zip((gate, up), matrix.chunk(2)))
        out.update({f"{prefix}.experts.{e}.{name}.weight": part for name, part in parts.items()})
    return out


def stored(model, config):
    tied = config["tie_word_embeddings"]
    return {k: v for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}


def fresh(model):
    """Dynamic RoPE keeps state between calls: every run gets its own copy."""
    return copy.deepcopy(model)


def greedy(model, inputs, steps=64):
    """(tokens, smallest margin) by generate() with its cache, end tokens disabled."""
    model = fresh(model)
    model.generation_config = T.GenerationConfig(max_new_tokens=steps, do_sample=False, use_cache=True)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    out = model.generate(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]),
                         output_logits=True, return_dict_in_generate=True)
    tokens = out.sequences[0, inputs["input_ids"].shape[1]:]
    assert len(tokens) == steps
    best = torch.stack([l[0] for l in out.logits]).topk(2, dim=-1).values
    return tokens, (best[:, 0] - best[:, 1]).min().item()


def positions_for(model, config, inputs):
    """(explicit position_ids or None, rule). Explicit only where transformers 5.23 advances otherwise."""
    if "mm_token_type_ids" not in inputs:
        return None, "transformers"
    grids = lambda key: inputs[key].tolist() if key in inputs else ()
    ours = mrope_positions(config["model_type"], inputs["input_ids"], IMG, VID, grids("image_grid_thw"),
                           grids("video_grid_thw"), SECONDS if "second_per_grid_ts" in inputs else ())
    theirs, _ = fresh(model).model.get_rope_index(**{k: v for k, v in inputs.items() if not k.startswith("pixel")})
    if "video_grid_thw" in inputs and not config["model_type"].startswith("qwen3_vl"):
        return ours, "max of the three rows + 1 after a vision block, passed explicitly"
    assert torch.equal(ours, theirs), config["model_type"]
    return None, "transformers"


def golden_tensors(model, config, inputs, main):
    position_ids, rule = positions_for(model, config, inputs)
    inputs = {**inputs, **({"position_ids": position_ids} if position_ids is not None else {})}
    run = fresh(model)(**inputs, output_hidden_states=True, use_cache=False)
    out = {**inputs, **{f"hidden_{i}": h for i, h in enumerate(run.hidden_states)}, "logits": run.logits}
    meta = dict(positions=rule)
    if main:
        out["greedy"], margin = greedy(model, inputs)
        meta["greedy_margin"] = f"{margin:.5f}"
        dull = len(set(out["greedy"].tolist())) < MIN_DISTINCT
        special = {IMG, VID, VSTART, VEND} if len(inputs) > 1 else set()
        if dull or margin < MIN_MARGIN or special & set(out["greedy"].tolist()):
            return None, None
    if main and len(inputs) == 1:
        logits = [fresh(model)(input_ids=torch.tensor([p]), use_cache=False).logits[0] for p in RAGGED]
        out.update(batch_input_ids=torch.tensor(sum(RAGGED, [])), batch_lengths=torch.tensor([len(p) for p in RAGGED]),
                   batch_logits=torch.cat(logits))
    return out, meta


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    cls = getattr(T, (config.get("architectures") or [None])[0])
    model, info = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                      output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], (folder, info)
    return model.eval()


@torch.no_grad()
def build(name, out, first_seed=1):
    config, folder = CONFIGS[name], out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    cls = getattr(T, config["architectures"][0])
    auto = T.AutoConfig.from_pretrained(folder)
    auto._attn_implementation = "eager"
    auto._experts_implementation = "eager"
    model = cls(auto).float().eval()
    for seed in range(first_seed, first_seed + 100):  # the first seed whose greedy answer is varied and hangs on no near tie
        randomise(model, seed)
        files = {}
        for stem, inputs in cases(name, config).items():
            files[stem] = golden_tensors(model, config, inputs, stem == "golden")
            if files[stem][0] is None:
                break
        else:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a varied answer without near ties")
    weights = {}
    for key, value in stored(model, config).items():
        weights.update(hub_tensors(config["model_type"], key, value.bfloat16()))
    write_safetensors(folder / "model.safetensors", weights, {"format": "pt"})
    for stem, (tensors, meta) in files.items():
        assert torch.isfinite(tensors["logits"]).all()
        write_safetensors(folder / f"{stem}.safetensors", tensors, versions(
            seed=seed, model=name, dtype="float32", attention="eager", **meta))
    again = load(folder)
    golden = files["golden"][0]
    drift = (again(**cases(name, config)["golden"]).logits - golden["logits"]).abs().max().item()
    assert drift < 1e-5, (name, drift)
    unique = len(set(golden["greedy"].tolist()))
    return f"seed {seed} margin {files['golden'][1]['greedy_margin']} distinct {unique} drift {drift:.1e}"


def write_shards(folder, tensors, count):
    names = sorted(tensors)
    files, index = {}, {}
    for i, name in enumerate(names):
        file = f"model-{i * count // len(names) + 1:05d}-of-{count:05d}.safetensors"
        files.setdefault(file, {})[name] = tensors[name]
        index[name] = file
    for file, part in files.items():
        write_safetensors(folder / file, part, {"format": "pt"})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(folder / "model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=index))


@torch.no_grad()
def build_copy(name, out):
    source, what = COPIES[name]
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = load_file(out / source / "model.safetensors")
    config = json.loads((out / source / "config.json").read_text())
    if what == "native":
        model = load(out / source)
        with tempfile.TemporaryDirectory() as tmp:
            model.to(torch.bfloat16).save_pretrained(tmp, save_original_format=False)
            config = json.loads((Path(tmp) / "config.json").read_text())
            weights = load_file(Path(tmp) / "model.safetensors")
    elif what in ("f16", "f32"):
        dtype = dict(f16=torch.float16, f32=torch.float32)[what]
        assert all(torch.equal(w.to(dtype).float(), w.float()) for w in weights.values())
        weights = {k: w.to(dtype) for k, w in weights.items()}
        config["torch_dtype"] = str(dtype).removeprefix("torch.")
    write_json(folder / "config.json", config)
    write_json(folder / "same_as.json", dict(same_as=source, differs=what))
    if what == "sharded":
        write_shards(folder, weights, 3)
    else:
        write_safetensors(folder / "model.safetensors", weights, {"format": "pt"})
    golden = load_file(out / source / "golden.safetensors")
    inputs = {k: golden[k] for k in cases(source, CONFIGS[source])["golden"]}
    drift = (load(folder)(**inputs).logits - golden["logits"]).abs().max().item()
    assert drift < 1e-5, (name, drift)
    return f"same as {source} ({what}) drift {drift:.1e}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, type=Path)
    ap.add_argument("--only", nargs="*", default=[*CONFIGS, *COPIES])
    ap.add_argument("--seed", type=int, default=1, help="where the search for a seed starts")
    args = ap.parse_args()
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.only:
        done = build(name, args.out, args.seed) if name in CONFIGS else build_copy(name, args.out)
        print(f"{name:20s} {done}", flush=True)


if __name__ == "__main__":
    main()
