"""Each kernel file <op>.<isa>.cpp became instructions of its set and of no larger one: also where no machine at hand can run it, it is
what it says. Needs --build, and objdump: without it the exit status is 77, skipped."""
import os
import re
import shutil
import subprocess
import sys

from common import ISA_SOURCE, finish, object_of, parse_root, project_files, read_text

# set -> (what its objects must hold, what they must not)
RULES = {
    "scalar": (r"\bret", r"%[yz]mm|%tmm"),
    "avx2": (r"%ymm", r"%zmm|%tmm"),
    "avxvnni": (r"\{vex\} vpdpbusd ", r"%zmm|%tmm|%ymm(1[6-9]|2\d|3[01])"),
    "avx512": (r"%zmm", r"%tmm"),
    "avx512bf16": (r"\bvdpbf16ps ", r"%tmm"),
    "amx": (r"\btileloadd ", None),
}
TILE_PRODUCT = re.compile(r"\b_tile_(dp\w+)\(")


def check(root, build):
    sources = [name for name in project_files(root) if ISA_SOURCE.search(name)]
    findings = []
    for name in sources:
        path = object_of(build, "statera_kernels", name)
        if not path:
            findings.append(f"{name}: no object in the build folder (build statera_kernels first)")
            continue
        code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, check=True, text=True).stdout
        must, must_not = RULES[ISA_SOURCE.search(name)[1]]
        wanted = [must] + [rf"\bt{product} " for product in sorted(set(TILE_PRODUCT.findall(read_text(root, name))))]
        findings += [f"{name}: no instruction matches {pattern}" for pattern in wanted if not re.search(pattern, code)]
        larger = re.search(must_not, code) if must_not else None
        if larger:
            findings.append(f"{name}: holds {larger[0]}, of a larger set")
    return sources, findings


def main():
    options = parse_root(__doc__, ("--build", "the build folder"))
    if not options.build:
        raise SystemExit("instructions: --build FOLDER is needed")
    if not shutil.which("objdump"):
        print("instructions: skipped, there is no objdump here (binutils)")
        sys.exit(77)
    sources, findings = check(options.root, os.path.abspath(options.build))
    finish("instructions", findings, f"{len(sources)} ISA objects hold what their set is for")


main()
