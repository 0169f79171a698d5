"""Who may include whom: the layer table of docs/architecture.md, torch only where tensors belong, each wrapped library in its
one file, no umbrella torch header. Also compares the table with the DEPS of src/CMakeLists.txt."""
import os
import re

from common import finish, parse_root, project_files, read_text

# Direct dependencies; a layer may include these and, through them, theirs.
LAYERS = {
    "base": [], "kernels": [], "text": ["base"], "image": ["base"],
    "nn": ["base", "kernels"], "ckpt": ["base", "nn"], "models": ["nn", "text", "image"],
    "run": ["nn", "text", "image"], "data": ["base"], "quant": ["nn", "run", "ckpt", "data"], "train": ["nn", "run"],
    "eval": ["run", "data"], "api": ["base", "run", "quant", "ckpt", "models", "train", "eval"],
    "cli": ["api"], "server": ["api"],
}
# These see api/ and base/ only, not what api/ itself is made of.
OUTER = {"cli", "server"}
TORCH_FREE = {"base", "kernels", "text", "data", "cli", "server"}
# Reached through generated tables: included by files of the same folder only.
TABLE_FOLDERS = ["models/", "ckpt/formats/", "quant/methods/", "eval/tasks/"]
UMBRELLA = re.compile(r"^(torch/(torch|all|extension|script|types)\.h|ATen/(ATen|Functions|NativeFunctions|Operators|Ops|ops/.*_(native|compositeexplicitautograd_dispatch))\.h)$")
TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
# (header pattern, folder or file its user lies in, how many files may use it, what it is)
WRAPPED = [
    (re.compile(r"^nlohmann/"), r"^src/base/json\.cpp$", 1, "nlohmann-json"),
    (re.compile(r"^spdlog/"), r"^src/base/log\.cpp$", 1, "spdlog"),
    (re.compile(r"^yaml-cpp/"), r"^src/.*\.cpp$", 1, "yaml-cpp"),
    (re.compile(r"^regex$"), r"^src/.*\.cpp$", 1, "<regex>"),
    (re.compile(r"^vips/"), r"^src/image/.*\.cpp$", 1, "libvips"),
    (re.compile(r"^lib(av|sw)\w+/"), r"^src/image/.*\.cpp$", 2, "FFmpeg"),
    (re.compile(r"^curl/"), r"^src/image/.*\.cpp$", 1, "libcurl"),
    (re.compile(r"^zstd\.h$"), r"^src/data/.*\.cpp$", 1, "zstd"),
    (re.compile(r"^(arrow|parquet)/"), r"^src/data/parquet_rows\.cpp$", 1, "Arrow"),
    (re.compile(r"^torch/csrc/distributed/"), r"^src/train/rendezvous\.cpp$", 1, "c10d"),
    (re.compile(r"^httplib\.h$"), r"^src/server/.*\.cpp$", 1, "cpp-httplib"),
    (re.compile(r"^CLI/"), r"^src/cli/support/", 99, "CLI11"),
    (re.compile(r"^gtest/|^gmock/"), r"(_test\.(cpp|h)$)|^tests/", 9999, "GoogleTest"),
    (re.compile(r"^benchmark/"), r"(_bench\.cpp$)|^bench/", 9999, "Google Benchmark"),
]
ISA_FILE = re.compile(r"\.(avx2|avxvnni|avx512|avx512bf16|amx)\.cpp$")
# <utility> for std::integer_sequence, a type without code; the symbol lint sees what else would come of it.
ISA_SHARED = "kernels/amx_config.h"
ISA_HEADERS = {"cstdint", "cstddef", "immintrin.h", "utility"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.M)


def closure(layer):
    """Every layer that `layer` may include, itself among them."""
    seen, todo = set(), [layer]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += LAYERS[name]
    return seen


def allowed_layers(layer):
    return {layer, "api", "base"} if layer in OUTER else closure(layer)


def read_includes(root):
    """path -> [(line, quoted, header)] of every C++ file of src/, tests/ and bench/."""
    found = {}
    for name in project_files(root):
        if name.endswith((".cpp", ".h")) and name.startswith(("src/", "tests/", "bench/")):
            text = read_text(root, name)
            found[name] = [(text.count("\n", 0, m.start()) + 1, m[1] == '"', m[2]) for m in INCLUDE.finditer(text)]
    return found


def check_project_include(name, layer, header, all_includes):
    """A header of our own: spelled from src/, of an allowed layer, not of a table folder."""
    if name.startswith("tests/") and "tests/" + header in all_includes:
        return None
    if "src/" + header not in all_includes:
        if header == "statera_text.h" and layer == "text":
            return None
        return f'"{header}" is no file under src/ (includes are spelled from there)'
    for folder in TABLE_FOLDERS:
        if header.startswith(folder) and not name.startswith("src/" + folder):
            return f'"{header}": {folder} is reached through its generated table, never included'
    target = header.split("/")[0]
    if name.startswith("tests/e2e/") and target not in {"api", "base"}:
        return f'"{header}": end-to-end tests include api/ and base/ only'
    if layer and target not in allowed_layers(layer):
        return f'"{header}": {layer} may include {", ".join(sorted(allowed_layers(layer) - {layer})) or "no other layer"} only'
    return None


# Headers that the .cpp files of api/ share among themselves; users of api/ never include them.
API_INTERNAL = {"src/api/loaded.h", "src/api/adapter_files.h", "src/api/bench_model.h", "src/api/finetune_data.h", "src/api/finetune_files.h", "src/api/random_model.h"}


def is_torch_free(name, layer):
    return layer in TORCH_FREE or (layer == "api" and name.endswith(".h") and name not in API_INTERNAL)


def check_foreign_include(name, layer, header):
    """A header of a library: torch, or one that has its own file."""
    if UMBRELLA.match(header):
        return f"<{header}> is an umbrella header: include ATen/core/Tensor.h and ATen/ops/<operator>.h"
    if TORCH.match(header) and is_torch_free(name, layer):
        return f"<{header}>: no torch in {'headers of api' if layer == 'api' else layer}"
    if layer == "kernels" and header.startswith(("fmt/", "spdlog/")):
        return f"<{header}>: kernels use the standard library only"
    for pattern, place, _, what in WRAPPED:
        if pattern.match(header) and not re.search(place, name):
            return f"<{header}>: {what} is used behind its facade only ({place})"
    return None


def check_isa_file(name, quoted, header):
    folder = "/".join(name.split("/")[1:-1]) + "/"
    if quoted and not header.startswith(folder) and header != ISA_SHARED:
        return f'"{header}": an ISA file includes only headers of its own folder, and {ISA_SHARED}'
    if not quoted and header not in ISA_HEADERS:
        return f"<{header}>: an ISA file includes only {', '.join(sorted(ISA_HEADERS))} (other headers bring weak symbols)"
    return None


def reaches_torch(name, all_includes):
    """The chain of our headers by which `name` reaches a torch header, or None."""
    seen, todo = {name}, [(name, [])]
    while todo:
        current, chain = todo.pop()
        for _, quoted, header in all_includes[current]:
            if TORCH.match(header):
                return chain + [header]
            path = "src/" + header
            if path in all_includes and path not in seen:
                seen.add(path)
                todo.append((path, chain + [header]))
    return None


def check_file(name, all_includes):
    parts = name.split("/")
    layer = parts[1] if parts[0] == "src" and len(parts) > 2 else None
    if layer and layer not in LAYERS:
        return [f"{name}: unknown layer {layer} (tools/lint/includes.py holds the table)"]
    findings = []
    for line, quoted, header in all_includes[name]:
        problems = [check_foreign_include(name, layer, header)]
        if quoted and not TORCH.match(header):
            problems.append(check_project_include(name, layer, header, all_includes))
        if layer == "kernels" and ISA_FILE.search(name):
            problems.append(check_isa_file(name, quoted, header))
        findings += [f"{name}:{line}: {problem}" for problem in problems if problem]
    if is_torch_free(name, layer):
        chain = reaches_torch(name, all_includes)
        if chain and len(chain) > 1:
            findings.append(f"{name}: reaches torch through {' -> '.join(chain)}")
    return findings


def check_single_users(all_includes):
    findings = []
    for pattern, _, most, what in WRAPPED:
        users = sorted(name for name, found in all_includes.items() if any(pattern.match(h) for _, _, h in found))
        if len(users) > most:
            findings.append(f"{what} is used in {len(users)} files, at most {most}: {', '.join(users)}")
    return findings


def check_cmake_table(root):
    """DEPS of src/CMakeLists.txt may name no layer that the table does not allow."""
    path = "src/CMakeLists.txt"
    if not os.path.exists(os.path.join(root, path)):
        return []
    findings = []
    for match in re.finditer(r"^statera_layer\((\w+)([^)]*)\)", read_text(root, path), re.M):
        layer = match[1]
        deps = re.search(r"\bDEPS((?:\s+[a-z_]+)+)", match[2])
        for dep in deps[1].split() if deps else []:
            if layer not in LAYERS or dep not in closure(layer):
                findings.append(f"{path}: {layer} depends on {dep}, which the layer table does not allow")
    return findings


def main():
    root = parse_root(__doc__).root
    all_includes = read_includes(root)
    findings = check_cmake_table(root) + check_single_users(all_includes)
    for name in sorted(all_includes):
        findings += check_file(name, all_includes)
    finish("includes", findings, f"{len(all_includes)} files follow the layer table")


main()
