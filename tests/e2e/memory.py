"""--max-ram is a contract: too little is refused before work and the least that holds is named; that least runs, stays below itself, and gives
the same bytes as any other limit."""
import hashlib
import json
import re
import sys

from support import EXAMPLE, Checks

c = Checks(sys.argv[1])
W = c.work


def digests(folder):
    """Of every file; of the report what does not belong to one run."""
    out = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "report.html"):
        data = path.read_bytes()
        if path.name == "report.json":
            report = json.loads(data)
            del report["this_run"]
            report.pop("expected_ram", None)
            data = json.dumps(report).encode()
        out[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return out


def least(name, *args):
    """What the refusal of args names; nothing is left behind."""
    before = sorted(p.name for p in W.iterdir())
    r = c.bad(name, *args, says=["--max-ram allows", "the smallest that holds is --max-ram "])
    c.check(f"{name}: nothing is left", sorted(p.name for p in W.iterdir()) == before)
    found = re.search(r"the smallest that holds is --max-ram (\d+)\b", r.stderr)
    return int(found[1]) if found else 0


for method in ("gptq", "awq", "mbq"):
    run = ["quantize", EXAMPLE, "--method", method, "--w-bits", "4", "--w-group", "32", "--n-samples", "6", "--max-seq-len", "256", "--out"]
    smallest = least(f"{method} within 1 MB", *run, W / "none", "--max-ram", "1MB")
    c.check(f"{method}: the least is the same a byte below it", least(f"{method}, a byte less", *run, W / "none", "--max-ram", smallest - 1) == smallest > 0)
    results = {}
    for label, limit in (("least", smallest), ("twice", 2 * smallest), ("plenty", "64GB"), ("none", None)):
        out = W / f"{method}-{label}"
        r = c.good(f"{method}, {label}", *run, out, "--json", *(["--max-ram", limit] if limit else []))
        if r.returncode == 0:
            results[label] = digests(out)
        if label == "least" and r.returncode == 0:
            peak = json.loads(r.stdout)["this_run"]["peak_rss"]
            c.check(f"{method}: the peak stays below the limit", peak <= smallest, f"{peak} of {smallest}")
    c.check(f"{method}: a checkpoint and its report were compared", {"model.safetensors", "report.json", "statera.json"} <= set(results.get("least", {})))
    for label, found in results.items():
        c.check(f"{method}: the same bytes with {label}", found == results.get("least"), [k for k in found if found[k] != results.get("least", {}).get(k)])
c.finish()
