"""Each kernel file <op>.<isa>.cpp exports exactly one strong symbol and no weak one. A weak symbol compiled with AVX-512 flags
could be the copy that the linker keeps for everybody: an illegal instruction on older machines. The same of their twins
<op>.<isa>_test.cpp, but for the count. Needs --build."""
import os
import re
import subprocess

from common import ISA_SOURCE, finish, object_of, parse_root, project_files

TWIN = re.compile(r"^src/kernels/.*\.(avxvnni|amx)_test\.cpp$")


def exported(path):
    """(strong, weak) external symbols that the object defines."""
    listed = subprocess.run(["nm", "--defined-only", "--extern-only", "--format=posix", path], capture_output=True, check=True, text=True).stdout
    pairs = [line.split()[:2] for line in listed.splitlines() if line.strip()]
    strong = [name for name, kind in pairs if kind in "TDRBSGC"]
    return strong, [name for name, kind in pairs if kind not in "TDRBSGC"]


def check(root, build):
    sources = [name for name in project_files(root) if ISA_SOURCE.search(name) or TWIN.search(name)]
    findings = []
    for name in sources:
        target = "test_kernels" if TWIN.search(name) else "statera_kernels"
        path = object_of(build, target, name)
        if not path:
            findings.append(f"{name}: no object in the build folder (build {target} first)")
            continue
        strong, weak = exported(path)
        if len(strong) != 1 and not TWIN.search(name):
            findings.append(f"{name}: exports {len(strong)} strong symbols, must be 1: {' '.join(strong)}")
        if weak:
            findings.append(f"{name}: exports weak symbols: {' '.join(weak)}")
    return sources, findings


def main():
    options = parse_root(__doc__, ("--build", "the build folder"))
    if not options.build:
        raise SystemExit("symbols: --build FOLDER is needed")
    sources, findings = check(options.root, os.path.abspath(options.build))
    finish("symbols", findings, f"{len(sources)} ISA objects export one symbol each")


main()
