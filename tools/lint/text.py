"""What no tracked file may hold: machine paths, registry addresses, credentials, unfinished notes in src/; and how large the
tracked tree may be."""
import os
import re

from common import finish, parse_root, project_files, read_text

TREE_CAP, FILE_CAP = 40 << 20, 4 << 20
# Written in pieces so that this file does not find itself.
FORBIDDEN = [
    ("absolute machine path", re.compile(r"(?<![\w.~$}/-])/(?:wo" r"rk|ro" r"ot|home/[a-z]\w*|Users/\w+)/")),
    ("registry address", re.compile("|".join(["crates[.]io-in" "dex", "(?:static|index)[.]crates[.]" "io", "pypi[.]" "org", "files[.]pytho" "nhosted",
                                               "deb[.]debi" "an[.]org", "registry[.]npm" "js", "download[.]pyto" "rch[.]org", "proxy[.]gol" "ang[.]org"]))),
    ("credential", re.compile(r"\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{32,}|\bAKIA[0-9A-Z]{16}\b"
                              r"|-----BEGIN [A-Z ]*PRIVATE " r"KEY-----|(?i:password|secret|api_?key|access_?token)[\"']?\s*[:=]\s*[\"'][A-Za-z0-9/+_-]{16,}[\"']")),
]
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
# Vocabularies are data: their entries may look like anything.
VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt")


def is_text(root, name):
    with open(os.path.join(root, name), "rb") as stream:
        return b"\0" not in stream.read(8192)


def check_lines(root, name):
    findings = []
    rules = FORBIDDEN + ([("unfinished note", UNFINISHED)] if name.startswith(("src/", "rust/")) else [])
    for number, line in enumerate(read_text(root, name).split("\n"), 1):
        for what, pattern in rules:
            match = pattern.search(line)
            if match:
                findings.append(f"{name}:{number}: {what}: {match[0][:60]}")
    return findings


def main():
    root = parse_root(__doc__).root
    findings, total = [], 0
    files = project_files(root, tracked_only=True)
    for name in files:
        size = os.path.getsize(os.path.join(root, name))
        total += size
        if size > FILE_CAP:
            findings.append(f"{name}: {size} bytes, at most {FILE_CAP}")
        elif is_text(root, name) and not name.endswith(VOCABULARIES):
            findings += check_lines(root, name)
    if total > TREE_CAP:
        findings.append(f"the tracked tree: {total} bytes, at most {TREE_CAP}")
    finish("text", findings, f"{len(files)} tracked files, {total / 2**20:.1f} MiB")


main()
