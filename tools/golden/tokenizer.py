"""A small byte-level BPE tokenizer of the Qwen kind, trained on corpus.txt.

Same normaliser, pre-tokenizer, decoder and special tokens as Qwen2 to Qwen3-VL; other ids.
"""
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from common import write_json

HERE = Path(__file__).parent
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
           "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
# added, but ordinary text to a decoder that skips special tokens
PLAIN = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
         "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
BPE_SIZE = 984


def train():
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=BPE_SIZE, min_frequency=1, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    # the role names are words of every conversation
    lines = (HERE / "corpus.txt").read_text().splitlines(keepends=True) + ["user\nassistant\nsystem\n"] * 4
    tokenizer.train_from_iterator(lines, trainer)
    assert tokenizer.get_vocab_size() == BPE_SIZE, tokenizer.get_vocab_size()
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    tokenizer.add_special_tokens([AddedToken(t, special=True, **flags) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, **flags) for t in PLAIN])
    return tokenizer


def write_tokenizer(folder, max_length):
    """tokenizer.json, tokenizer_config.json, chat_template.jinja.

    Returns the ids of the added tokens and the set of ids that occur in the corpus.
    """
    tokenizer = train()
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {t: tokenizer.token_to_id(t) for t in SPECIAL + PLAIN}
    added = {str(i): dict(content=t, lstrip=False, normalized=False, rstrip=False, single_word=False,
                          special=t in SPECIAL) for t, i in ids.items()}
    write_json(folder / "tokenizer_config.json", dict(
        add_bos_token=False, add_prefix_space=False, added_tokens_decoder=added,
        additional_special_tokens=SPECIAL[1:], bos_token=None, clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>", errors="replace", model_max_length=max_length, pad_token="<|endoftext|>",
        split_special_tokens=False, tokenizer_class="Qwen2Tokenizer", unk_token=None))
    (folder / "chat_template.jinja").write_text((HERE / "chat_template.jinja").read_text())
    return ids, set(tokenizer.encode((HERE / "corpus.txt").read_text()).ids)
