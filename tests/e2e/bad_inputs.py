"""Bad input of every kind: one clear line that names the file and the reason, a non-zero exit code, nothing left behind."""
import json
import os
import struct
import sys
import zlib

from support import EXAMPLE, PICTURES, TINY, Checks, copy_model, read_header, write_safetensors

c = Checks(sys.argv[1])
counter = 0


def model(name="llama"):
    """A fresh writable copy of a tiny checkpoint."""
    global counter
    counter += 1
    return copy_model(TINY / name if name != "example" else EXAMPLE, c.work / f"model{counter}")


def with_weights(header, data=b"", header_size=None):
    m = model()
    write_safetensors(m / "model.safetensors", header, data, header_size)
    return m


def load(name, m, *says):
    """A command that needs the weights."""
    c.bad(name, "logits", m, "--inputs", TINY / "llama" / "golden.safetensors", "--out", c.work / "out.safetensors", says=says)


# ---- weight files
T = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
file = "model.safetensors"
load("an empty weight file", with_weights(b"", b"", 0), file)
m = model()
(m / file).write_bytes(b"")
load("a weight file of no bytes", m, file)
m = model()
(m / file).write_bytes(b"\x01\x02\x03")
load("a weight file shorter than its length field", m, file)
load("a header longer than the file", with_weights(b"{}", b"", 1 << 40), file)
load("a header of the largest length", with_weights(b"{}", b"", (1 << 64) - 1), file)
load("a header that is no JSON", with_weights(b"{not json"), file)
load("a header that is an array", with_weights(b"[]"), file)
load("a header nested a hundred thousand deep", with_weights(b"[" * 100000), file)
load("a tensor without shape", with_weights({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, b"\0" * 8), file)
load("a tensor without dtype", with_weights({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8), file)
load("an unknown dtype", with_weights({"a": {**T, "dtype": "F33"}}, b"\0" * 8), file, "F33")
load("negative offsets", with_weights({"a": {**T, "data_offsets": [-8, 0]}}, b"\0" * 8), file)
load("offsets that run backwards", with_weights({"a": {**T, "data_offsets": [8, 0]}}, b"\0" * 8), file)
load("offsets beyond the file", with_weights({"a": {**T, "data_offsets": [0, 1 << 50]}}, b"\0" * 8), file)
load("a shape that does not fit its bytes", with_weights({"a": {**T, "shape": [3]}}, b"\0" * 8), file)
load("a negative shape", with_weights({"a": {**T, "shape": [-2, -1]}}, b"\0" * 8), file)
load("a shape that overflows", with_weights({"a": {**T, "shape": [1 << 40, 1 << 40]}}, b"\0" * 8), file)
load("overlapping tensors", with_weights({"a": T, "b": {**T, "data_offsets": [4, 12]}}, b"\0" * 12), file)
load("a hole between tensors", with_weights({"a": T, "b": {**T, "data_offsets": [12, 20]}}, b"\0" * 20), file)
load("bytes after the last tensor", with_weights({"a": T}, b"\0" * 100), file)
m = model()
whole = (m / file).read_bytes()
(m / file).write_bytes(whole[: len(whole) * 2 // 3])
load("a truncated weight file", m, file)
m = model()
header, n = read_header(m / file)
header["model.norm.weight"]["dtype"] = "I16"
text = json.dumps(header).encode()
(m / file).write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + n:])
load("integer weights where floats belong", m, "model.norm.weight")
m = model()
header, n = read_header(m / file)
header["model.norm.weight"]["shape"] = [32, 2]
text = json.dumps(header).encode()
(m / file).write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + n:])
load("a weight of the wrong shape", m, "model.norm.weight", "[32, 2]")
m = model()
header, n = read_header(m / file)
header["model.layers.0.renamed.weight"] = header.pop("model.layers.0.input_layernorm.weight")
text = json.dumps(header).encode()
(m / file).write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + n:])
load("a missing weight", m, "model.layers.0.input_layernorm.weight")
m = model()
(m / file).unlink()
load("no weight file", m, str(m))
m = model()
(m / file).unlink()
(m / file).mkdir()
load("a directory in place of the weights", m)
m = model()
(m / file).unlink()
os.symlink(m / file, m / file)
load("a link to itself", m)
m = model()
(m / file).unlink()
(m / "pytorch_model.bin").write_bytes(b"\x80\x02")
load("pickled weights only", m, "pytorch_model.bin")

# ---- shards
index = "model.safetensors.index.json"


def sharded(change):
    m = model("llama_sharded")
    j = json.loads((m / index).read_text())
    change(m, j)
    if (m / index).exists():
        (m / index).write_text(json.dumps(j))
    return m


def first_shard(j):
    return sorted(set(j["weight_map"].values()))[0]


load("a missing shard", sharded(lambda m, j: (m / first_shard(j)).unlink()), "safetensors")
load("a shard name that leaves the folder", sharded(lambda m, j: j["weight_map"].update({"lm_head.weight": "../x.safetensors"})), "../x.safetensors")
load("an absolute shard name", sharded(lambda m, j: j["weight_map"].update({"lm_head.weight": "/etc/passwd"})), "/etc/passwd")
load("an index that names a tensor no shard holds", sharded(lambda m, j: j["weight_map"].update({"model.ghost.weight": first_shard(j)})), "model.ghost.weight")
load("an index without weight_map", sharded(lambda m, j: j.pop("weight_map")), "weight_map")
m = model("llama_sharded")
(m / index).write_text('{"weight_map": ')
load("a broken index", m, index)

# ---- config.json


def config(change, base="llama"):
    m = model(base)
    j = json.loads((m / "config.json").read_text())
    change(j)
    (m / "config.json").write_text(json.dumps(j))
    return m


load("an unknown model_type", config(lambda j: j.update(model_type="qwen9")), "qwen9")
load("no model_type", config(lambda j: j.pop("model_type")), "model_type")
load("a missing hidden_size", config(lambda j: j.pop("hidden_size")), "hidden_size")
load("a hidden_size that is text", config(lambda j: j.update(hidden_size="64")), "hidden_size")
load("an absurd number of layers", config(lambda j: j.update(num_hidden_layers=-3)), "num_hidden_layers")
load("heads that do not divide", config(lambda j: j.update(num_key_value_heads=3)), "num_key_value_heads")
load("an unknown activation", config(lambda j: j.update(hidden_act="magic")), "magic")
load("an unknown rope scaling", config(lambda j: j.update(rope_scaling={"type": "magic"})), "magic")
load("a config whose sizes do not fit the weights", config(lambda j: j.update(intermediate_size=97)), "97")
load("an unknown quantization", config(lambda j: j.update(quantization_config={"quant_method": "magic"})), "magic")
m = model()
(m / "config.json").write_text("{")
load("a broken config", m, "config.json")
m = model()
(m / "config.json").unlink()
load("no config", m, "config.json")
c.bad("no such folder", "inspect", c.work / "nowhere", says=["nowhere"])
c.bad("a file in place of a folder", "inspect", PICTURES / "chart.png", says=["chart.png"])

# ---- pictures and messages
out = c.work / "p.safetensors"


def messages(name, content, *says, flags=()):
    path = c.work / "messages.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    c.bad(name, "preprocess", EXAMPLE, "--messages", path, "--out", out, *flags, says=says)


def picture(name, data, *says, suffix="png"):
    path = c.work / f"bad.{suffix}"
    path.write_bytes(data)
    messages(name, [{"role": "user", "content": [{"type": "image", "image": str(path)}]}], *says)


def png(width, height):
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = lambda kind, d: struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


picture("text as a picture", b"this is no picture", "bad.png")
picture("an empty picture", b"", "bad.png")
picture("half a JPEG header", b"\xff\xd8\xff\xe0", "bad.jpg", suffix="jpg")
picture("a decompression bomb", png(60000, 60000), "bad.png")
picture("a PNG with no pixels to speak of", png(100, 100)[:60], "bad.png")
picture("a picture 250 times as wide as high", (PICTURES / "chart.png").read_bytes()[:200], "bad.png")
image = lambda source: [{"role": "user", "content": [{"type": "image", "image": source}]}]
messages("a missing picture", image("nowhere.png"), "nowhere.png")
messages("a folder as picture", image(str(PICTURES)))
messages("a data URL without base64", image("data:image/png,abc"))
messages("a data URL of rubbish", image("data:image/png;base64,!!!!"))
messages("a URL inside a message file", image("http://127.0.0.1:9/x.png"), "--allow-urls")
messages("a private address even when allowed", image("http://127.0.0.1:9/x.png"), "127.0.0.1", flags=["--allow-urls"])
messages("text as a video", [{"role": "user", "content": [{"type": "video", "video": str(c.work / "messages.json")}]}])
messages("broken message JSON", '[{"role": ', "messages.json")
messages("messages that are a number", "5", "messages.json")
messages("a message without role", [{"content": "x"}], "role")
messages("an unknown role", [{"role": "wizard", "content": "x"}], "wizard")
messages("content that is a number", [{"role": "user", "content": 5}])
messages("an image item without a source", [{"role": "user", "content": [{"type": "image"}]}])
c.bad("a picture for a text model", "logits", TINY / "llama", "--inputs", TINY / "qwen3_vl" / "golden.safetensors", "--out", out)

# ---- requests and flags
path = c.work / "requests.jsonl"
path.write_text('{"prompt": "x"}\n{"prompt": \n')
c.bad("a broken request line", "generate", EXAMPLE, "--input", path, "--output", c.work / "a.jsonl", says=["requests.jsonl", "2"])
c.bad("no such request file", "generate", EXAMPLE, "--input", c.work / "none.jsonl", "--output", c.work / "a.jsonl", says=["none.jsonl"])
c.bad("an unknown command", "quantise", EXAMPLE, says=["quantize"])
c.bad("an unknown flag", "quantize", EXAMPLE, "--out", c.work / "q", "--w-bit", "4", says=["--w-bits"])
c.bad("nine bits", "quantize", EXAMPLE, "--out", c.work / "q", "--w-bits", "9", says=["9"])
c.bad("a group that does not divide", "quantize", EXAMPLE, "--out", c.work / "q", "--w-group", "96", says=["96"])
c.bad("an unknown method", "quantize", EXAMPLE, "--out", c.work / "q", "--method", "rtm", says=["rtn"])
c.bad("a malformed pattern", "quantize", EXAMPLE, "--out", c.work / "q", "--ignore", "(", says=["("])
c.bad("no output folder", "quantize", EXAMPLE)

# ---- calibration files
table = TINY.parent / "golden" / "parquet"


def calibrate(name, path, *says):
    c.bad(name, "quantize", EXAMPLE, "--out", c.work / "q", "--method", "gptq", "--data", path, says=says)


def parquet(content):
    path = c.work / "x.parquet"
    path.write_bytes(content)
    return path


calibrate("a Parquet file that is none", parquet(b'{"text": "x"}'), "x.parquet", "no Parquet file")
calibrate("a Parquet file without its end", parquet((table / "messages.parquet").read_bytes()[:-50]), "x.parquet", "ends in the middle")
calibrate("a Parquet file without its rows", parquet(b"PAR1" + (table / "messages.parquet").read_bytes()[1000:]), "x.parquet")
calibrate("a Parquet file that claims too many rows", parquet((table / "lying_rows.bin").read_bytes()), "x.parquet", "1000000000000000 rows")
calibrate("a Parquet file without text", table / "texts.parquet", "texts.parquet", "PATH:FIELD", "body")
calibrate("a column that is not there", f"{table / 'texts.parquet'}:bodi", "texts.parquet", 'did you mean "body"')
calibrate("a column of numbers", f"{table / 'texts.parquet'}:number", "texts.parquet", "int64")

# ---- more of quantize
(c.work / "full").mkdir()
(c.work / "full" / "x").write_text("mine")
c.bad("an output folder in use", "quantize", EXAMPLE, "--out", c.work / "full", says=["full"])
c.check("the folder in use is untouched", (c.work / "full" / "x").read_text() == "mine")
c.bad("an unwritable place", "quantize", EXAMPLE, "--out", "/proc/statera", says=["/proc"])
c.bad("an unknown form of keys and values", "chat", EXAMPLE, "--prompt", "Hello", "--kv-cache", "int4", says=["int4", "int8"])
c.bad("bench of nothing", "bench", says=["--preset"])
c.bad("bench of an unknown preset", "bench", "--preset", "qwen2-vl-3b", says=["qwen2-vl-2b"])
c.bad("bench of a picture for a text model", "bench", TINY / "llama", "--pp", "4", "--tg", "1", "--image", "64x64", says=["text only"])
c.bad("bench with groups that do not divide", "bench", EXAMPLE, "--w-bits", "4", "--w-group", "96", says=["--w-group", "96"])
c.bad("bench beyond the context", "bench", EXAMPLE, "--pp", "100000", says=["100065", "8192"])
c.bad("a trace for a folder that is not there", "bench", EXAMPLE, "--trace", c.work / "nowhere" / "t.json", says=["nowhere"])
c.bad("an unknown preset", "init", "qwen2-vl-3b", "--out", c.work / "i", says=["qwen2-vl-2b"])
c.bad("threads out of range", "inspect", EXAMPLE, "--threads", "0", says=["threads"])
c.bad("an unknown instruction set", "logits", TINY / "llama", "--inputs", TINY / "llama" / "golden.safetensors", "--out", out, env={"STATERA_ISA": "sse9"}, says=["sse9"])
nan = model("example")
header, n = read_header(nan / file)
raw = bytearray((nan / file).read_bytes())
name = "model.language_model.layers.0.mlp.up_proj.weight"
raw[8 + n + header[name]["data_offsets"][0]:][:2]
at = 8 + n + header[name]["data_offsets"][0]
raw[at:at + 2] = b"\xc0\x7f"
(nan / file).write_bytes(raw)
c.bad("a NaN among the weights", "quantize", nan, "--out", c.work / "nan", "--w-bits", "4", "--w-group", "128", says=[name])
c.check("nothing was left under the output names", not any((c.work / x).exists() for x in ("q", "nan", "i", "out.safetensors", "p.safetensors")))
c.finish()
