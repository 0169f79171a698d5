"""Writes src/text/testdata: two tiny tokenizers with the ids and texts that Python gives, and chat templates as rendered by
transformers. Run by hand: python tools/golden/text.py (needs tokenizers, transformers, jinja2). Deterministic."""

import json
import pathlib

import jinja2
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.utils.chat_template_utils import render_jinja_template

DATA = pathlib.Path(__file__).resolve().parents[2] / "src/text/testdata"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
NOT_SPECIAL = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
CORPUS = [
    "Describe the picture in one sentence. What is in the picture? There is a cat on the table, and the cat is sleeping.",
    "The quick brown fox jumps over the lazy dog. It's what they've said; we'll see if I'm right, he'd know.",
    "def main():\n    for i in range(10):\n        print(i)\n\n    return 0\n",
    "系统 图片 里有什么？这是一只猫。 你好，世界！ 你好 你好 图片 图片",
    "Grüße aus München, café, naïve, façade. Привет, мир! Привет. こんにちは世界 안녕하세요",
    "😀 😃 😄 👍 👍🏽 👨‍👩‍👧 1234567890 3.14159",
] * 4
TEXTS = [
    "", " ", "a", "Hi", "Hello, world!", "Describe this picture.", "  two leading spaces", "trailing spaces   ", "a  b   c    d",
    "tab\tand\ttabs\t\t", "line\nline\n\nline\r\n\r\nend\n", "\n\n   \n", "    indented\n        more", "It's we've I'LL he'd don'T 'S",
    "1234567890", "3.14159 and 1e-5", "x1y2z3", "snake_case camelCase kebab-case", "!!! ??? ... --- ***\n", "你好，世界！", "图片里有什么？",
    "こんにちは世界", "안녕하세요", "Привет, мир!", "Grüße", "cafe\u0301 e\u0301 A\u030a \u1e9b\u0323", "\u212b \ufb01 \u2126", "नमस्ते दुनिया", "שלום עולם", "مرحبا",
    "😀", "👍🏽", "👨‍👩‍👧 family", "a😀b😃c", "\U0001F1E9\U0001F1EA flag", "\u200b\u200d\ufeff", "\u00a0nbsp\u2003em\u3000ideographic",
    "<|im_start|>user\nHi<|im_end|>\n", "text<|image_pad|>text", "<|im_start", "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", " <think> a </think> ", "<|endoftext|><|endoftext|>", "\x00\x01\x7f", "\ufffd real", "ǅ Ⅷ ½ ² ①", "end\u2028sep\u2029",
]


def train_byte_level():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False, min_frequency=2)
    t.train_from_iterator(CORPUS, trainer)
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    t.add_tokens([AddedToken(s, special=False, normalized=False) for s in NOT_SPECIAL])
    return t


def train_sentencepiece_like():
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=names, show_progress=False, max_token_length=8)
    t.train_from_iterator(CORPUS[:2], trainer)
    saved = json.loads(t.to_str())
    saved["added_tokens"] = saved["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(saved))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return t


def save(directory, tokenizer, config):
    directory.mkdir(parents=True, exist_ok=True)
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (directory / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def tokenizer_cases(directory):
    t = transformers.PreTrainedTokenizerFast.from_pretrained(directory)
    cases = []
    for text in TEXTS:
        ids = t.encode(text, add_special_tokens=True)
        cases.append({
            "text": text, "ids": ids, "plain_ids": t.encode(text, add_special_tokens=False),
            "decoded": t.decode(ids, skip_special_tokens=True), "decoded_all": t.decode(ids, skip_special_tokens=False)})
    return {"vocab_size": len(t), "bos_id": t.bos_token_id, "eos_id": t.eos_token_id, "pad_id": t.pad_token_id, "cases": cases}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "Weather \"now\" <b>für</b> 东京 & more",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": []}, "days": {"type": "number", "default": 1.0}},
                   "required": ["city"]}}}
IMAGE, VIDEO = {"type": "image", "image": "a.png"}, {"type": "video", "video": ["1.png", "2.png"]}


def text(t):
    return {"type": "text", "text": t}


CONVERSATIONS = {
    "hi": [{"role": "user", "content": "Hi"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "system_list": [{"role": "system", "content": [text("Be "), text("brief.")]}, {"role": "user", "content": [text("Hi")]}],
    "late_system": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "late"}, {"role": "user", "content": "again"}],
    "image": [{"role": "user", "content": [IMAGE, text("What is this?")]}],
    "untyped": [{"role": "user", "content": [{"image_url": "x"}, {"video": "v"}, {"text": "both"}, {"image": "y", "video": "v"}]}],
    "many": [{"role": "user", "content": [IMAGE, VIDEO, text("A"), IMAGE]}, {"role": "assistant", "content": "B"},
             {"role": "user", "content": [VIDEO, text("C"), IMAGE]}],
    "tools": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": [IMAGE, text("Weather?")]},
              {"role": "assistant", "content": "", "tool_calls": [call("weather", city="東京", days=2), call("weather", city="O'Fallon")]},
              {"role": "tool", "content": "sunny"}, {"role": "tool", "content": [IMAGE, text("map")]},
              {"role": "assistant", "content": "Look.", "tool_calls": [{"name": "weather", "arguments": "{\"city\": 1}"}]},
              {"role": "tool", "content": "rain"}, {"role": "user", "content": [IMAGE, text("Thanks")]}],
}
FEATURES = {
    "plain": [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}],
    "full": [{"role": "system", "content": "  Sys "}, {"role": "user", "content": "<r>x</r>"},
             {"role": "user", "content": [text("a"), {"type": "image"}, text("b")]}, {"role": "assistant", "content": {"k": 1, "l": "m"}},
             {"role": "assistant", "content": "c", "tool_calls": [{"name": "f", "arguments": {"z": 1, "a": [1.5, None, True, "é"], "m": {}}}]},
             {"role": "user", "content": "last"}, {"role": "skip", "content": "s"}, {"role": "user", "content": "cut"}, {"role": "user", "content": "never"}],
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def render(template, messages, tools=None, add_generation_prompt=True, **extra):
    source = (DATA / template).read_text(encoding="utf-8")
    rendered, _ = render_jinja_template(
        conversations=[messages], tools=tools, chat_template=source, add_generation_prompt=add_generation_prompt, **TOKENS, **extra)
    return {"template": template, "messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt,
            "extra": extra, "text": rendered[0]}


def template_cases():
    cases = []
    for template in ("chatml_default_system.jinja", "chatml_vision.jinja"):
        for name, messages in CONVERSATIONS.items():
            if name == "tools" and template.startswith("chatml_default"):
                continue
            cases.append(render(template, messages))
            cases.append(render(template, messages, add_generation_prompt=False, add_vision_id=True))
            if template == "chatml_vision.jinja":
                cases.append(render(template, messages, tools=[WEATHER, WEATHER], add_vision_id=True))
    for messages in FEATURES.values():
        cases.append(render("features.jinja", messages))
        cases.append(render("features.jinja", messages, add_generation_prompt=False, custom_flag=True))
    return cases


def main():
    byte_level = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                  "additional_special_tokens": SPECIAL[1:3], "clean_up_tokenization_spaces": False}
    pieces = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": {"content": "<s>", "__type": "AddedToken"}, "eos_token": "</s>",
              "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    save(DATA / "byte_level", train_byte_level(), byte_level)
    save(DATA / "pieces", train_sentencepiece_like(), pieces)
    versions = {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__, "jinja2": jinja2.__version__}
    for name, content in (("tokenizer_golden", {k: tokenizer_cases(DATA / k) for k in ("byte_level", "pieces")}),
                          ("template_golden", {"tokens": TOKENS, "cases": template_cases()})):
        out = json.dumps({"versions": versions, **content}, ensure_ascii=True, separators=(",", ":"))
        (DATA / f"{name}.json").write_text(out + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
