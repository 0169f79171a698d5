"""What the end-to-end tests share: running the program, reading and writing safetensors, and counting checks."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "tiny-qwen3-vl"
PICTURES = ROOT / "examples" / "pictures"
TINY = ROOT / "tests" / "tiny"


class Checks:
    """Counts named checks; the last line of output says how many passed and failed."""

    def __init__(self, program):
        self.program = str(program)
        self.passed = 0
        self.failures = []
        self.work = Path(tempfile.mkdtemp(prefix="statera_e2e_"))

    def run(self, *args, stdin=None, timeout=120, env=None):
        return subprocess.run([self.program, *map(str, args)], input=stdin, capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, **(env or {})}, cwd=ROOT)

    def check(self, name, ok, detail=""):
        if ok:
            self.passed += 1
        else:
            self.failures.append(name)
            print(f"FAILED {name}: {detail}", flush=True)

    def good(self, name, *args, **kw):
        r = self.run(*args, **kw)
        self.check(name, r.returncode == 0, f"exit {r.returncode}: {r.stderr.strip()[-500:]}")
        return r

    def bad(self, name, *args, says=(), **kw):
        """The command fails with a non-zero code and exactly one line on stderr, holding every text of `says`."""
        r = self.run(*args, **kw)
        lines = [line for line in r.stderr.splitlines() if line.strip()]
        problem = ""
        if r.returncode == 0:
            problem = "exit code 0"
        elif r.returncode < 0 or r.returncode in (70, 134, 139):
            problem = f"exit code {r.returncode}"
        elif len(lines) != 1:
            problem = f"{len(lines)} lines"
        else:
            missing = [text for text in says if text not in lines[0]]
            if missing:
                problem = f"does not say {missing}"
        self.check(name, not problem, f"{problem}: {r.stderr.strip()[:600]}")
        return r

    def finish(self):
        shutil.rmtree(self.work, ignore_errors=True)
        print(f"{self.passed} passed, {len(self.failures)} failed")
        sys.exit(1 if self.failures else 0)


def read_header(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(n)), n


def tensor_bytes(path, name):
    header, n = read_header(path)
    begin, end = header[name]["data_offsets"]
    with open(path, "rb") as f:
        f.seek(8 + n + begin)
        return header[name], f.read(end - begin)


def floats(path, name):
    info, raw = tensor_bytes(path, name)
    assert info["dtype"] == "F32", info
    return info["shape"], struct.unpack(f"<{len(raw) // 4}f", raw)


def integers(path, name):
    info, raw = tensor_bytes(path, name)
    assert info["dtype"] == "I64", info
    return info["shape"], list(struct.unpack(f"<{len(raw) // 8}q", raw))


def write_safetensors(path, header, data=b"", header_size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text) if header_size is None else header_size))
        f.write(text)
        f.write(data)


def copy_model(source, target):
    shutil.copytree(source, target)
    for path in Path(target).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Path(target)
