"""tools/outliers/inject.py: for every layout of a block the outlier variant gives the same logits, bit for bit, and what cannot is refused."""
import json
import os
import subprocess
import sys

from support import ROOT, TINY, Checks, copy_model, read_header, tensor_bytes, write_safetensors

sys.path.insert(0, str(ROOT / "tools" / "outliers"))
sys.dont_write_bytecode = True
import inject  # noqa: E402

c = Checks(sys.argv[1])
W = c.work
# Grouped heads, biases, fused layers, experts of their own and in one tensor (both layouts), shared experts, several files, vision towers.
MODELS = ("llama_sharded", "qwen2_moe", "mixtral", "phi3", "qwen3_moe_native", "qwen3_vl", "qwen3_vl_moe", "qwen3_vl_moe_native")
INPUTS = ("input_ids", "pixel_values", "image_grid_thw", "mm_token_type_ids")


def logits(model, name, inputs):
    out = W / "logits.safetensors"
    c.good(f"logits of {name}", "logits", model, "--inputs", inputs, "--out", out)
    return tensor_bytes(out, "logits")[1]


def inputs_of(name):
    """The inputs among a tiny checkpoint's stored results (other layouts of a checkpoint share them), as a file of their own."""
    golden = TINY / name.removesuffix("_native").removesuffix("_sharded") / "golden.safetensors"
    header, data = {}, b""
    for key in INPUTS:
        if key in read_header(golden)[0]:
            info, raw = tensor_bytes(golden, key)
            header[key] = {**info, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    write_safetensors(W / "inputs.safetensors", header, data)
    return W / "inputs.safetensors"


def values(folder, name):
    for path in sorted(folder.glob("*.safetensors")):
        if not path.name.startswith("golden") and name in (header := read_header(path)[0]):
            raw, size = tensor_bytes(path, name)[1], inject.SIZES[header[name]["dtype"]]
            return [inject.decode(raw[i:i + size], header[name]["dtype"]) for i in range(0, len(raw), size)]
    return []


def refused(name, says, *args):
    r = subprocess.run([sys.executable, str(ROOT / "tools" / "outliers" / "inject.py"), *map(str, args)], capture_output=True, text=True,
                       env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    c.check(name, r.returncode != 0 and says in r.stderr and r.stderr.count("\n") == 1, f"{r.returncode} {r.stderr.strip()[-300:]}")


for name in MODELS:
    chosen = inject.make(TINY / name, W / name, 32, 3, seed=1)
    for block, places in chosen.items():
        for place, channels in places.items():
            if place.endswith("norm"):
                before, after = (values(folder, f"{block}.{place}.weight") for folder in (TINY / name, W / name))
                c.check(f"{name}: {block}.{place} has its outliers", [i for i, (a, b) in enumerate(zip(before, after)) if a != b] == channels and
                        all(after[i] == 32 * before[i] for i in channels), channels)
    inputs = inputs_of(name)
    c.check(f"{name}: logits are equal", logits(TINY / name, name, inputs) == logits(W / name, f"{name} with outliers", inputs))
    apart = inject.make(TINY / name, W / f"{name}_again", 32, 3, seed=1)
    c.check(f"{name}: the same seed, the same bytes", apart == chosen and
            all((W / name / f.name).read_bytes() == f.read_bytes() for f in (W / f"{name}_again").iterdir()))

# A wrong reader would show: outliers that nothing takes back change the logits.
checkpoint = inject.Checkpoint(copy_model(W / "qwen3_moe_native", W / "torn"))
checkpoint.tensors["model.layers.1.mlp.experts.down_proj"].scale("down", {0: [0], 2: [0]}, 32)
checkpoint.close()
inputs = inputs_of("qwen3_moe_native")
c.check("the comparison can fail", logits(TINY / "qwen3_moe_native", "source", inputs) != logits(W / "torn", "torn", inputs))

example = ROOT / "examples" / "tiny-qwen3-vl"
inject.make(example, W / "example", 16, 4, where=("norm",), program=c.program)
c.check("the program finds the bundled checkpoint's logits equal", (W / "example" / "model.safetensors").exists())

refused("no power of two", "no power of two", example, W / "x", "--factor", "24")
refused("an existing folder", "exists", example, W / "example")
refused("what leaves the range", "leave the range of F16", TINY / "llama_linear_f16", W / "x")
odd = copy_model(TINY / "qwen2", W / "odd")
header, n = read_header(odd / "model.safetensors")
raw = (odd / "model.safetensors").read_bytes()[8 + n:]
header["model.layers.0.mlp.extra.weight"] = header["model.layers.0.mlp.up_proj.weight"]
write_safetensors(odd / "model.safetensors", header, raw)
refused("a tensor that is not known", "model.layers.0.mlp.extra.weight is not handled", odd, W / "x")
c.check("nothing is left of refused runs", not [f for f in W.iterdir() if f.name.startswith("x")])

c.finish()
