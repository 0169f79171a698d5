"""Run by peers.py: a stand-in tokenizer of the Qwen2 size, a chat template and a processor config beside the random weights of a checkpoint.

    companions.py CHECKPOINT
The tokenizer has the byte alphabet, pairs of printable characters and entries that no text reaches, up to the real count.
"""
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = 151643
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>",
           "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
            "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PROCESSOR = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor", "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
             "min_pixels": 3136, "max_pixels": 12845056, "size": {"shortest_edge": 3136, "longest_edge": 12845056}, "do_resize": True, "do_rescale": True,
             "do_normalize": True, "do_convert_rgb": True, "rescale_factor": 1 / 255, "resample": 3,
             "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = {c: i for i, c in enumerate(alphabet)}, []
    for a in alphabet[:94]:
        for b in alphabet[:94]:
            vocabulary[a + b] = len(vocabulary)
            merges.append((a, b))
    while len(vocabulary) < WORDS:
        vocabulary[f"\u0120fill{len(vocabulary)}"] = len(vocabulary)
    t = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE)


def main():
    folder = Path(sys.argv[1])
    tokenizer().save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.update(tokenizer_class="Qwen2Tokenizer", chat_template=TEMPLATE)
    path.write_text(json.dumps(config, indent=1))
    if "vision_config" in json.loads((folder / "config.json").read_text()):
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=1))


main()
