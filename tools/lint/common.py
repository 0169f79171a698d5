"""What the lints share: the files of the tree, and how findings are printed. Standard library only."""
import argparse
import os
import re
import subprocess
import sys

SKIPPED = {".git", "build", ".venv", "node_modules", "target", "__pycache__", ".cache", ".ccache"}
ISA_SOURCE = re.compile(r"^src/kernels/.*\.(scalar|avx2|avxvnni|avx512|avx512bf16|amx)\.cpp$")


def project_files(root, tracked_only=False):
    """Paths relative to root, sorted: what git tracks (and has not ignored), or a walk where there is no repository."""
    if os.path.exists(os.path.join(root, ".git")):
        command = ["git", "-C", root, "-c", "safe.directory=*", "ls-files", "-z", "--cached"]
        if not tracked_only:
            command += ["--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape")
        names = {name for name in listed.split("\0") if name}
    else:
        names = set()
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name not in SKIPPED]
            names.update(os.path.relpath(os.path.join(folder, name), root) for name in files)
    return sorted(name for name in names if os.path.isfile(os.path.join(root, name)))


def read_text(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as stream:
        return stream.read()


def parse_root(description, *extra):
    """The command line every lint has: --root, plus (flag, help) pairs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    for flag, text in extra:
        parser.add_argument(flag, help=text)
    options = parser.parse_args()
    options.root = os.path.abspath(options.root)
    return options


def object_of(build, target, name):
    """The object file of src/<...>.cpp in a build folder; None where it is missing."""
    path = os.path.join(build, "src/CMakeFiles", target + ".dir", os.path.relpath(name, "src") + ".o")
    return path if os.path.exists(path) else None


def finish(name, findings, summary):
    """Prints one line per finding, or the summary; the exit status for the caller."""
    for finding in findings:
        print(finding)
    print(f"{name}: {len(findings)} finding(s)" if findings else f"{name}: {summary}")
    sys.exit(1 if findings else 0)
