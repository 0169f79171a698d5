#!/usr/bin/env python3
"""The bundled example: a tiny Qwen3-VL checkpoint with random weights, pictures, a clip and messages.

    example.py --out examples --golden tests/tiny

Also writes example_golden.safetensors: what AutoProcessor and the model (fp32, eager) make of the messages.
Ids of the clip follow the released form (each frame pair is "<s seconds>" and its own vision markers, in
place of the markers of the template); transformers 5.23 leaves the outer markers in.
"""
import argparse
import copy
import json
import os
import shutil
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # the same merges every time

import torch
import transformers as T
from PIL import Image

import pictures
from common import mrope_positions, randomise, versions, write_json, write_safetensors
from models import greedy
from tokenizer import write_tokenizer

VOCAB, HIDDEN, MAX_LENGTH, STEPS = 1024, 128, 8192, 32
MIN_MARGIN = 2e-3  # logit distance between the chosen token and the next best at every greedy step
MIN_DISTINCT = 8
IMAGE_SIZE = VIDEO_SIZE = dict(longest_edge=262144, shortest_edge=4096)

MESSAGES = {
    "describe": [("image", "chelsea.jpg"), ("text", "Describe this image.")],
    "compare": [("image", "shapes_a.png"), ("image", "shapes_b.png"),
                ("text", "Compare these two pictures and tell me what's different.")],
    "chart": [("image", "chart.png"), ("text", "Which bar is the highest? Please answer with a single letter.")],
    "words": [("image", "words.png"), ("text", "Read the words in the picture.")],
    "video": [("video", "square.mp4"), ("text", "What happens in the video?")],
    "text": [("text", "What is a balance? Answer in one short sentence.")],
}


def config(ids):
    text = dict(attention_bias=False, attention_dropout=0.0, bos_token_id=ids["<|endoftext|>"], dtype="bfloat16",
                eos_token_id=ids["<|im_end|>"], head_dim=32, hidden_act="silu", hidden_size=HIDDEN,
                initializer_range=0.02, intermediate_size=3 * HIDDEN, max_position_embeddings=MAX_LENGTH,
                model_type="qwen3_vl_text", num_attention_heads=4, num_hidden_layers=4, num_key_value_heads=2,
                rms_norm_eps=1e-6, rope_scaling=dict(mrope_interleaved=True, mrope_section=[6, 5, 5],
                                                     rope_type="default"),
                rope_theta=5000000, tie_word_embeddings=True, use_cache=True, vocab_size=VOCAB)
    vision = dict(deepstack_visual_indexes=[0, 1, 2], depth=4, hidden_act="gelu_pytorch_tanh", hidden_size=64,
                  in_channels=3, initializer_range=0.02, intermediate_size=128, model_type="qwen3_vl", num_heads=2,
                  num_position_embeddings=256, out_hidden_size=HIDDEN, patch_size=16, spatial_merge_size=2,
                  temporal_patch_size=2)
    return dict(architectures=["Qwen3VLForConditionalGeneration"], image_token_id=ids["<|image_pad|>"],
                model_type="qwen3_vl", text_config=text, tie_word_embeddings=True, transformers_version="4.57.0",
                video_token_id=ids["<|video_pad|>"], vision_config=vision, vision_end_token_id=ids["<|vision_end|>"],
                vision_start_token_id=ids["<|vision_start|>"])


@torch.no_grad()
def checkpoint(folder, seed):
    ids, used = write_tokenizer(folder, MAX_LENGTH)
    write_json(folder / "config.json", config(ids))
    write_json(folder / "generation_config.json", dict(
        bos_token_id=ids["<|endoftext|>"], do_sample=True, eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"], repetition_penalty=1.0, temperature=0.7, top_k=20, top_p=0.8,
        transformers_version="4.57.0"))
    shared = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3, merge_size=2, patch_size=16,
                  processor_class="Qwen3VLProcessor", temporal_patch_size=2)
    write_json(folder / "preprocessor_config.json", dict(
        size=IMAGE_SIZE, image_processor_type="Qwen2VLImageProcessorFast", **shared))
    write_json(folder / "video_preprocessor_config.json", dict(
        size=VIDEO_SIZE, video_processor_type="Qwen3VLVideoProcessor", **shared))
    auto = T.AutoConfig.from_pretrained(folder)
    model = T.Qwen3VLForConditionalGeneration(auto).float()
    randomise(model, seed)
    # sharper attention, as trained models have: with random weights alone the answers repeat one word
    for name, p in model.named_parameters():
        if name.endswith("self_attn.q_norm.weight"):
            p.data *= 2
    # tokens the corpus never uses get small rows, as training would leave them: the (tied) head then answers
    # with words, not with stray bytes and markers
    unused = torch.tensor([i for i in range(VOCAB) if i not in used])
    model.model.language_model.embed_tokens.weight.data[unused] *= 0.25
    weights = {k: v.bfloat16() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    write_safetensors(folder / "model.safetensors", weights, {"format": "pt"})


def messages(folder):
    """Media paths are relative to the message file."""
    for name, parts in MESSAGES.items():
        content = [{"type": kind, kind: value if kind == "text" else f"../pictures/{value}"} for kind, value in parts]
        write_json(folder / f"{name}.json", [dict(role="user", content=content)])


def timestamps(indices, fps, pair=2):
    times = [i / fps for i in indices]
    times += [times[-1]] * (-len(times) % pair)
    return [(times[i] + times[i + pair - 1]) / 2 for i in range(0, len(times), pair)]


def released_video_text(prompt, grid, indices, fps):
    """The template's marker triple becomes one timed block per frame pair."""
    t, h, w = grid
    block = "".join(f"<{s:.1f} seconds><|vision_start|>{'<|video_pad|>' * (h * w // 4)}<|vision_end|>"
                    for s in timestamps(indices, fps))
    triple = "<|vision_start|><|video_pad|><|vision_end|>"
    assert prompt.count(triple) == 1 and len(timestamps(indices, fps)) == t
    return prompt.replace(triple, block)


def as_bytes(pixels):
    """Normalised pixels back to the u8 they came from; exact: value = (u8 - 127.5) / 127.5 in fp32."""
    u8 = (pixels * 127.5 + 127.5).round().to(torch.uint8)
    assert torch.equal((u8.float() - 127.5) / 127.5, pixels)
    return u8


def golden_case(model, processor, folder, name):
    content = json.loads((folder / "messages" / f"{name}.json").read_text())
    prompt = processor.apply_chat_template(content, tokenize=False, add_generation_prompt=True)
    media = {k: [folder / "pictures" / v for kind, v in MESSAGES[name] if kind == k] for k in ("image", "video")}
    inputs, meta, tokens = {}, {f"{name}.prompt": prompt}, processor.tokenizer
    if media["video"]:
        frames, fps = pictures.read_clip(media["video"][0])
        video = processor.video_processor(
            [torch.from_numpy(frames)], return_metadata=True, return_tensors="pt",
            video_metadata=[dict(total_num_frames=len(frames), fps=fps, duration=len(frames) / fps)])
        indices = [int(i) for i in video["video_metadata"][0].frames_indices]
        inputs = {k: video[k] for k in ("pixel_values_videos", "video_grid_thw")}
        text = released_video_text(prompt, inputs["video_grid_thw"][0].tolist(), indices, fps)
        ids = torch.tensor([tokens(text)["input_ids"]])
        meta[f"{name}.frames_indices"] = indices
    else:
        images = [Image.open(p) for p in media["image"]] or None
        batch = processor(text=[prompt], images=images, return_tensors="pt")
        inputs = {k: batch[k] for k in ("pixel_values", "image_grid_thw") if k in batch}
        ids = batch["input_ids"]
    kinds = (ids == processor.image_token_id).int() + 2 * (ids == processor.video_token_id).int()
    grids = {k: inputs[k] for k in ("image_grid_thw", "video_grid_thw") if k in inputs}
    position_ids, _ = copy.deepcopy(model).model.get_rope_index(ids, mm_token_type_ids=kinds, **grids)
    ours = mrope_positions("qwen3_vl", ids, processor.image_token_id, processor.video_token_id,
                           *(grids[k].tolist() if k in grids else () for k in ("image_grid_thw", "video_grid_thw")))
    assert torch.equal(position_ids, ours)
    run = copy.deepcopy(model)(input_ids=ids, mm_token_type_ids=kinds, position_ids=position_ids, **inputs)
    answer, margin = greedy(model, dict(input_ids=ids, mm_token_type_ids=kinds, **inputs), STEPS)
    meta.update({f"{name}.answer": processor.tokenizer.decode(answer), f"{name}.greedy_margin": f"{margin:.5f}"})
    out = dict(input_ids=ids, position_ids=position_ids, last_logits=run.logits[0, -1], greedy=answer, **grids)
    for key in ("pixel_values", "pixel_values_videos"):
        if key in inputs:
            u8 = as_bytes(inputs[key])
            # a photograph has many patches: every eighth row stands for all
            rows = torch.arange(0, len(u8), 8 if len(u8) > 128 else 1)
            out.update({f"{key}_u8": u8[rows], f"{key}_rows": rows})
    return {f"{name}.{k}": v for k, v in out.items()}, meta, margin


@torch.no_grad()
def golden(folder, path, seed):
    """False if a greedy answer hangs on a near tie or repeats itself throughout."""
    model = T.AutoModelForImageTextToText.from_pretrained(
        folder / "tiny-qwen3-vl", dtype=torch.float32, attn_implementation="eager").eval()
    processor = T.AutoProcessor.from_pretrained(folder / "tiny-qwen3-vl")
    tensors, meta = {}, {}
    for name in ("describe", "compare", "video", "text"):
        more, texts, margin = golden_case(model, processor, folder, name)
        if margin < MIN_MARGIN or len(set(more[f"{name}.greedy"].tolist())) < MIN_DISTINCT:
            return False
        tensors.update(more)
        meta.update(texts)
        print(f"seed {seed} {name:10s}", {k: list(v.shape) for k, v in more.items()}, texts[f"{name}.answer"])
    write_safetensors(path, tensors, versions(
        seed=seed, dtype="float32", attention="eager", pixels="(u8 - 127.5) / 127.5 in float32", **meta))
    return True


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, type=Path)
    ap.add_argument("--golden", required=True, type=Path)
    args = ap.parse_args()
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in ("tiny-qwen3-vl", "pictures", "messages"):
        shutil.rmtree(args.out / name, ignore_errors=True)
        (args.out / name).mkdir(parents=True)
    pictures.photographs(args.out / "pictures")
    pictures.drawings(args.out / "pictures")
    pictures.clip(args.out / "pictures")
    messages(args.out / "messages")
    for seed in range(1, 100):
        checkpoint(args.out / "tiny-qwen3-vl", seed)
        if golden(args.out, args.golden / "example_golden.safetensors", seed):
            return
    raise SystemExit("no seed gives varied answers without near ties")


if __name__ == "__main__":
    main()
