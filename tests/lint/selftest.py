"""Proves that each lint fails on a planted violation and passes without it: small trees in a temporary folder, one per case."""
import os
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
LINTS = os.path.join(HERE, "..", "..", "tools", "lint")
CHARTER = "// What this file is.\n"
README_OK = "# x\n```sh\nscripts/demo.sh\nscripts/test.sh\nstatera chat MODEL\n```\n"
LONG_BODY = "int f() {\n" + "  g();\n" * 70 + "  return 0;\n}\n"

# lint -> (a tree that passes, [(what is planted, {path: text}, words the message must hold)])
CASES = {
    "includes": ({"src/base/a.h": CHARTER, "src/nn/b.h": CHARTER + '#include "base/a.h"\n#include <ATen/core/Tensor.h>\n',
                  "src/models/x.h": CHARTER, "src/models/m.cpp": CHARTER + '#include "models/x.h"\n#include "nn/b.h"\n',
                  "src/api/load.h": CHARTER + '#include "base/a.h"\n', "src/cli/chat.cpp": CHARTER + '#include "api/load.h"\n',
                  "src/kernels/dot/dot.h": CHARTER, "src/base/json.cpp": CHARTER + "#include <nlohmann/json.hpp>\n",
                  "src/CMakeLists.txt": "statera_layer(nn TORCH DEPS base LIBS x)\n"}, [
        ("a lower layer includes a higher one", {"src/base/c.cpp": CHARTER + '#include "nn/b.h"\n'}, "base may include"),
        ("a sibling layer", {"src/run/c.cpp": CHARTER + '#include "models/x.h"\n'}, "generated table"),
        ("a table folder from api", {"src/api/c.cpp": CHARTER + '#include "models/x.h"\n'}, "generated table"),
        ("the program past api", {"src/cli/c.cpp": CHARTER + '#include "nn/b.h"\n'}, "cli may include"),
        ("an end-to-end test past api", {"tests/e2e/c_test.cpp": CHARTER + '#include "nn/b.h"\n'}, "end-to-end"),
        ("torch in text", {"src/text/c.cpp": CHARTER + "#include <ATen/core/Tensor.h>\n"}, "no torch in text"),
        ("torch in an api header", {"src/api/c.h": CHARTER + "#include <c10/util/Half.h>\n"}, "no torch in headers of api"),
        ("torch through an api header", {"src/api/c.h": CHARTER + '#include "nn/b.h"\n'}, "reaches torch"),
        ("an umbrella header", {"src/nn/c.cpp": CHARTER + "#include <torch/torch.h>\n"}, "umbrella"),
        ("a wrapped library elsewhere", {"src/base/c.cpp": CHARTER + "#include <nlohmann/json.hpp>\n"}, "behind its facade"),
        ("a second user of vips", {"src/image/c.cpp": CHARTER + "#include <vips/vips.h>\n", "src/image/d.cpp": CHARTER + "#include <vips/vips.h>\n"}, "used in 2 files"),
        ("a relative include", {"src/nn/c.cpp": CHARTER + '#include "b.h"\n'}, "no file under src/"),
        ("a library header in an ISA file", {"src/kernels/dot/dot.avx2.cpp": CHARTER + "#include <algorithm>\n"}, "ISA file"),
        ("a foreign header in an ISA file", {"src/kernels/cpu.h": CHARTER, "src/kernels/dot/dot.avx2.cpp": CHARTER + '#include "kernels/cpu.h"\n'}, "ISA file"),
        ("DEPS against the table", {"src/CMakeLists.txt": "statera_layer(base DEPS nn)\n"}, "does not allow"),
    ]),
    "sizes": ({"src/base/a.cpp": CHARTER + "int f() { return 0; }\n", "src/base/README.md": "base\n",
               "src/base/l.cpp": CHARTER + "// long: one pass of the algorithm\n" + LONG_BODY}, [
        ("a long file", {"src/base/b.cpp": CHARTER + "\n" * 600}, "601 lines"),
        ("a long header", {"src/base/b.h": CHARTER + "\n" * 200}, "201 lines"),
        ("a long ISA kernel", {"src/kernels/d/d.avx2.cpp": CHARTER + "\n" * 700, "src/kernels/README.md": "k\n"}, "701 lines"),
        ("a long function", {"src/base/b.cpp": CHARTER + "namespace statera {\nstruct A {\n  int x;\n" + LONG_BODY + "};\n}\n"}, "function of 73 lines"),
        ("a long function after odd literals", {"src/base/b.cpp": CHARTER + 'const char* k = R"({{{)"; const char c = \'{\';  // {\n' + LONG_BODY}, "function of 73 lines"),
        ("a long Python function", {"tools/x.py": '"""x"""\ndef f():\n' + "    g()\n" * 70}, "function of 71 lines"),
        ("a reason that is none", {"src/base/b.cpp": CHARTER + "// long:\n" + LONG_BODY}, "function of 73 lines"),
        ("no charter comment", {"src/base/b.cpp": "int f();\n"}, "opens with no"),
        ("a long README", {"src/base/README.md": "x\n" * 31}, "31 lines"),
        ("a layer without README", {"src/nn/b.cpp": CHARTER}, "no README"),
        ("too many long files", {f"src/base/f{i}.cpp": CHARTER + "\n" * 400 for i in range(9)}, "90th percentile"),
    ]),
    "text": ({"src/base/a.cpp": CHARTER + 'const char* k = "build/x /tmp/y ~/models/z";\n'}, [
        ("a machine path", {"docs/a.md": "see /wo" "rk/main\n"}, "absolute machine path"),
        ("a home folder", {"docs/a.md": "see /ho" "me/someone/x\n"}, "absolute machine path"),
        ("a registry address", {"rust/config.toml": 'registry = "https://github.com/x/crates.io-in' 'dex"\n'}, "registry address"),
        ("a token", {"a.txt": "hf" "_" + "aB3" * 12 + "\n"}, "credential"),
        ("a password", {"a.json": '{"pass' 'word": "abcdefghij0123456789"}\n'}, "credential"),
        ("an unfinished note", {"src/base/b.cpp": CHARTER + "// TO" "DO later\n"}, "unfinished"),
        ("a large file", {"examples/x.bin": "\0" * ((4 << 20) + 1)}, "at most 4194304"),
        ("a large tree", {f"examples/x{i}.bin": "\0" * (4 << 20) for i in range(11)}, "the tracked tree"),
    ]),
    "readme": ({"README.md": README_OK, "scripts/demo.sh": "#!x\n", "scripts/test.sh": "#!x\n", "src/cli/chat.cpp": CHARTER}, [
        ("a missing script", {"README.md": README_OK.replace("```\n", "") + "scripts/other.sh\n```\n"}, "does not exist"),
        ("no test command", {"README.md": README_OK.replace("scripts/test.sh\n", "")}, "do not show scripts/test.sh"),
        ("an unknown command", {"README.md": README_OK.replace("statera chat", "statera talk")}, "no command 'talk'"),
        ("a tick too many", {"README.md": README_OK + "## What works\n| llama | ✓ |\n"}, "llama is ticked"),
        ("a model without a row", {"src/models/llama.cpp": CHARTER}, "no row for llama"),
        ("a dead link", {"docs/a.md": "[x](b.md)\n"}, "link to b.md"),
    ]),
}


def plant(folder, files):
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        if name.endswith(".sh"):
            os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


def run_lint(lint, folder, *extra):
    done = subprocess.run([sys.executable, os.path.join(LINTS, lint + ".py"), "--root", folder, *extra], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def expect(failures, what, outcome, status, words):
    if outcome[0] != status or words not in outcome[1]:
        failures.append(f"{what}: expected status {status} and {words!r}, got {outcome[0]}:\n{outcome[1]}")


def run_table(failures):
    count = 0
    for lint, (clean, cases) in CASES.items():
        for what, files, words in [("the clean tree", {}, "")] + cases:
            with tempfile.TemporaryDirectory() as folder:
                plant(folder, {**clean, **files})
                expect(failures, f"{lint}: {what}", run_lint(lint, folder), 1 if files else 0, words)
            count += 1
    return count


def run_readme_flags(failures):
    """A stand-in program whose help lists one flag: README may show that one and no other."""
    for flag, status, words in [("--image F", 0, ""), ("--picture F", 1, "has no --picture")]:
        with tempfile.TemporaryDirectory() as folder:
            plant(folder, {**CASES["readme"][0], "README.md": README_OK.replace("chat MODEL", "chat MODEL " + flag),
                           "program.sh": "#!/bin/sh\necho '  --image FILE'\n"})
            expect(failures, f"readme: {flag}", run_lint("readme", folder, "--program", os.path.join(folder, "program.sh")), status, words)
    return 2


def run_symbols(failures, compiler):
    """Real objects: one strong symbol passes; a second one, a weak one and a missing object do not."""
    cases = [("one symbol", "extern \"C\" void f() {}\nstatic void g() {}\n", 0, "1 ISA objects"),
             ("two symbols", "extern \"C\" void f() {}\nextern \"C\" void h() {}\n", 1, "2 strong symbols"),
             ("no symbol", "static int x;\n", 1, "0 strong symbols"),
             ("a weak symbol", "inline int w(int x) { return x; }\nint (*volatile p)(int);\nvoid f() { p = w; }\n", 1, "weak symbols"),
             ("no object", None, 1, "no object")]
    for what, code, status, words in cases:
        expect_of_object(failures, compiler, "symbols", what, "avx2", code, status, words)
    expect_of_object(failures, compiler, "symbols", "a weak symbol in a twin", "amx_test", cases[3][1], 1, "weak symbols")
    return len(cases) + 1


def run_instructions(failures, compiler):
    """Real objects: what an instruction set is for must be there, and nothing of a larger one."""
    if not shutil.which("objdump"):
        print("selftest: the instructions lint skipped, there is no objdump here")
        return 0
    tile = "void _tile_dpbsud(int, int, int);\nvoid f() { asm(\"tileloadd (%rax,%rbx,1), %tmm1\\n\"); asm(\"PRODUCT %tmm2, %tmm1, %tmm0\"); }\nvoid g() { _tile_dpbsud(0, 1, 2); }\n"
    cases = [("AVX-VNNI", "avxvnni", "void f() { asm(\"{vex} vpdpbusd %ymm1, %ymm2, %ymm3\"); }\n", 0, "1 ISA objects"),
             ("AVX-512's encoding", "avxvnni", "void f() { asm(\"{evex} vpdpbusd %ymm1, %ymm2, %ymm3\"); }\n", 1, "no instruction matches"),
             ("a wide register", "avxvnni", "void f() { asm(\"{vex} vpdpbusd %ymm1, %ymm2, %ymm3\\n vpaddd %zmm1, %zmm2, %zmm3\"); }\n", 1, "holds %zmm"),
             ("tiles", "amx", tile.replace("PRODUCT", "tdpbsud"), 0, "1 ISA objects"),
             ("another product", "amx", tile.replace("PRODUCT", "tdpbssd"), 1, "tdpbsud"),
             ("no object", "amx", None, 1, "no object")]
    for what, isa, code, status, words in cases:
        expect_of_object(failures, compiler, "instructions", what, isa, code, status, words)
    return len(cases)


def expect_of_object(failures, compiler, lint, what, isa, code, status, words):
    """Runs a lint on a tree of one kernel file and its object; code None: without the object."""
    source, target = f"src/kernels/dot/dot.{isa}.cpp", "test_kernels" if isa.endswith("_test") else "statera_kernels"
    with tempfile.TemporaryDirectory() as folder:
        plant(folder, {source: CHARTER + (code or "")})
        objects = os.path.join(folder, f"build/src/CMakeFiles/{target}.dir/kernels/dot")
        os.makedirs(objects)
        if code is not None:
            subprocess.run([compiler, "-c", os.path.join(folder, source), "-o", os.path.join(objects, f"dot.{isa}.cpp.o")], check=True)
        expect(failures, f"{lint}: {what}", run_lint(lint, folder, "--build", os.path.join(folder, "build")), status, words)


def main():
    failures = []
    compiler = shutil.which(os.environ.get("CXX", "g++")) or "c++"
    count = run_table(failures) + run_readme_flags(failures) + run_symbols(failures, compiler) + run_instructions(failures, compiler)
    for failure in failures:
        print(failure)
    print(f"selftest: {len(failures)} of {count} cases wrong" if failures else f"selftest: {count} cases")
    sys.exit(1 if failures else 0)


main()
