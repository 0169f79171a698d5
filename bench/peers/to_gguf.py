"""Run by peers.py: llama.cpp's converter for a checkpoint with the stand-in tokenizer, whose pre-tokenizer it cannot know by its hash.

    to_gguf.py LLAMA_SOURCE CHECKPOINT [arguments of convert_hf_to_gguf.py]
"""
import runpy
import sys

source = sys.argv[1]
sys.path[:0] = [source, source + "/gguf-py"]
from conversion import base

base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = [source + "/convert_hf_to_gguf.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
