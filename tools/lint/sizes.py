"""How long things are: file caps, the 90th percentile of source files, functions, folder READMEs; and that every source file
opens with its charter comment. A function of an algorithm may be longer where `// long: <reason>` stands right above it."""
import ast
import re
import statistics

from common import ISA_SOURCE, finish, parse_root, project_files, read_text

FILE_CAP, HEADER_CAP, ISA_CAP, README_CAP, FUNCTION_CAP, P90_CAP = 600, 200, 700, 30, 60, 350
CODE = (".cpp", ".h", ".rs", ".py", ".sh", ".cmake", ".ts")
TYPE_HEAD = re.compile(r"^(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b(?!.*\)\s*(?:const|noexcept|->.*)?\s*$)", re.S)


def blank_out(text):
    """C++ text with comments, literals and preprocessor lines replaced by spaces; line structure kept."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"([^()\s\\]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*',
        re.S | re.M)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def cpp_functions(text):
    """(first line, last line) of each function body's definition, by counting braces at namespace and class scope."""
    code = blank_out(text)
    found, scopes, head_start, opaque = [], [], 0, None
    for at, char in enumerate(code):
        if opaque is not None:  # inside a function body or an initialiser: only the depth matters
            depth, first, counted = opaque
            depth += (char == "{") - (char == "}")
            if depth == 0:
                if counted:
                    found.append((first, code.count("\n", 0, at) + 1))
                opaque, head_start = None, at + 1
            else:
                opaque = (depth, first, counted)
        elif char == "{":
            head = re.sub(r"\b(?:public|private|protected)\s*:", lambda m: " " * len(m[0]), code[head_start:at])
            lead = len(head) - len(head.lstrip())
            first = code.count("\n", 0, head_start + lead) + 1
            head = head.strip()
            if re.match(r"^(inline\s+)?namespace\b|^extern\s*$", head) or TYPE_HEAD.match(head):
                scopes.append(head)
                head_start = at + 1
            else:
                opaque = (1, first, "(" in head or not head)
        elif char == "}":
            if scopes:
                scopes.pop()
            head_start = at + 1
        elif char == ";":
            head_start = at + 1
    return found


def excused(lines, first):
    """Whether the comment block right above line `first` (1-based) holds `// long: <reason>`."""
    at = first - 2
    while at >= 0 and lines[at].strip().startswith("//"):
        if re.search(r"//\s*long:\s*\S.{7,}", lines[at]):
            return True
        at -= 1
    return False


def check_functions(name, text):
    if name.endswith(".py"):
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
        spans = [(node.lineno, node.end_lineno) for node in nodes]
    elif name.endswith((".cpp", ".h")):
        spans = cpp_functions(text)
    else:
        return []
    lines = text.split("\n")
    return [f"{name}:{first}: function of {last - first + 1} lines, at most {FUNCTION_CAP} (or `// long: <reason>` above it)"
            for first, last in spans if last - first + 1 > FUNCTION_CAP and not excused(lines, first)]


def check_file(name, text):
    count = text.count("\n")
    cap = HEADER_CAP if name.endswith(".h") else ISA_CAP if ISA_SOURCE.search(name) else FILE_CAP
    findings = [f"{name}: {count} lines, at most {cap}"] if count > cap else []
    opening = ("//", "/*") if name.startswith("rust/") else "//"  # its header is C, too
    if name.endswith((".cpp", ".h", ".rs")) and not text.startswith(opening):
        findings.append(f"{name}:1: opens with no // comment that says what the file is")
    if name.endswith(".py") and not text.startswith(('"""', "#")):
        findings.append(f"{name}:1: opens with no docstring or comment that says what the file is")
    return findings + check_functions(name, text)


def check_readmes(root, files):
    findings = []
    for name in files:
        if name.startswith("src/") and name.endswith("README.md"):
            count = read_text(root, name).count("\n")
            if count > README_CAP:
                findings.append(f"{name}: {count} lines, at most {README_CAP}")
    layers = {name.split("/")[1] for name in files if name.startswith("src/") and name.endswith((".cpp", ".h"))}
    return findings + [f"src/{layer}: has no README.md" for layer in sorted(layers) if f"src/{layer}/README.md" not in files]


def main():
    root = parse_root(__doc__).root
    files = project_files(root)
    findings, counts = check_readmes(root, files), []
    for name in files:
        if name.endswith(CODE) and not name.startswith("examples/"):
            text = read_text(root, name)
            findings += check_file(name, text)
            if name.startswith("src/") and name.endswith((".cpp", ".h")):
                counts.append(text.count("\n"))
    counts.sort()
    p90 = counts[int(0.9 * (len(counts) - 1))] if counts else 0
    if p90 > P90_CAP:
        findings.append(f"src: the 90th percentile of file lengths is {p90} lines, at most {P90_CAP}")
    summary = f"{len(counts)} source files, median {statistics.median(counts) if counts else 0:.0f} lines, p90 {p90}, longest {counts[-1] if counts else 0}"
    finish("sizes", findings, summary)


main()
