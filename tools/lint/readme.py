"""README.md tells the truth: its first screen names scripts that exist and can run, its links lead somewhere, every `statera`
command and flag it shows is one the program knows (flags only with --program), and its table of models has a row for each file
of src/models/ and no tick for a model that has none."""
import os
import re
import shlex
import subprocess

from common import finish, parse_root, project_files, read_text

FIRST_SCREEN = 40
REQUIRED = ("scripts/demo.sh", "scripts/test.sh")


def shell_lines(text):
    """(line number, command) of the fenced sh blocks; continued lines joined, comments dropped."""
    found, fenced, pending = [], False, ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("```"):
            fenced = line.strip() in ("```sh", "```bash", "```shell") and not fenced
            continue
        if not fenced:
            continue
        line = pending + line.strip()
        pending = ""
        if line.endswith("\\"):
            pending = line[:-1]
        elif line and not line.startswith("#"):
            found.append((number, line))
    return found


def check_script(root, number, word):
    path = os.path.join(root, word)
    if not os.path.isfile(path):
        return [f"README.md:{number}: {word} does not exist"]
    return [] if os.access(path, os.X_OK) else [f"README.md:{number}: {word} is not executable"]


def check_command(root, program, number, words):
    """`statera COMMAND ...`: a file of src/cli/, and flags that its --help shows."""
    command = words[1] if len(words) > 1 else ""
    if not os.path.isfile(os.path.join(root, f"src/cli/{command.replace('-', '_')}.cpp")):
        return [f"README.md:{number}: statera has no command {command!r} in src/cli"]
    if not program:
        return []
    run = subprocess.run([program, command, "--help"], capture_output=True, text=True)
    if run.returncode != 0:
        return [f"README.md:{number}: statera {command} --help ends with status {run.returncode}"]
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    return [f"README.md:{number}: statera {command} has no {flag}" for flag in flags if not re.search(re.escape(flag) + r"(?![\w-])", run.stdout)]


def check_links(root, name, text):
    findings = []
    for match in re.finditer(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        if not re.match(r"[a-z]+:", match[1]) and not os.path.exists(os.path.join(root, os.path.dirname(name), match[1])):
            findings.append(f"{name}: link to {match[1]}, which does not exist")
    return findings


def check_models(root, files, text):
    """Rows `| model_type | ... |` of the table under "What works" against the files of src/models/."""
    have = {name[len("src/models/"):-4] for name in files if re.match(r"src/models/[^/]+(?<!_test)(?<!_bench)(?<!_fuzz)\.cpp$", name)}
    rows = dict(re.findall(r"^\| *`?([a-z0-9_]+)`? *\|(.*)$", text.partition("## What works")[2], re.M))
    findings = [f"README.md: the table has no row for {name} (src/models/{name}.cpp)" for name in sorted(have - rows.keys())]
    return findings + [f"README.md: {name} is ticked, but there is no src/models/{name}.cpp" for name, row in rows.items() if "✓" in row and name not in have]


def main():
    options = parse_root(__doc__, ("--program", "the statera program, to ask for its flags"))
    root = options.root
    text = read_text(root, "README.md")
    commands = shell_lines(text)
    first = [line for number, line in commands if number <= FIRST_SCREEN]
    findings = [f"README.md: the first {FIRST_SCREEN} lines do not show {script}" for script in REQUIRED if not any(script in line for line in first)]
    for number, line in commands:
        words = shlex.split(line, comments=True)
        if words and words[0].endswith(".sh"):
            findings += check_script(root, number, words[0])
        elif words and os.path.basename(words[0]) == "statera":
            findings += check_command(root, options.program, number, words)
    files = project_files(root)
    findings += check_models(root, files, text)
    pages = [name for name in files if name.endswith(".md") and (name.startswith("docs/") or "/" not in name)]
    for name in pages:
        findings += check_links(root, name, read_text(root, name))
    finish("readme", findings, f"{len(commands)} commands and the links of {len(pages)} pages hold")


main()
