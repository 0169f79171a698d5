"""report.html of a real run: well-formed and complete in itself; and in headless Chromium, light and dark, without a word on the console.
Exit code 77 (skipped) when only the browser is missing."""
import html.parser
import shutil
import sys

from support import EXAMPLE, ROOT, Checks

sys.path.insert(0, str(ROOT / "tools" / "report"))
import screenshot  # noqa: E402

VOID = {"meta", "link", "br", "path", "rect", "circle"}


class Tags(html.parser.HTMLParser):
    """Every element is closed by its own tag; nothing is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.problems = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("script", "img", "iframe", "object") or any(k in ("src", "onload", "onclick") or (k == "href" and not v.startswith("data:")) for k, v in attrs):
            self.problems.append(f"{self.getpos()}: <{tag} {attrs}>")
        if tag in ("meta", "link", "br"):
            self.open.pop()

    def handle_startendtag(self, tag, attrs):
        if tag not in VOID:
            self.problems.append(f"{self.getpos()}: <{tag}/>")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"{self.getpos()}: </{tag}>")


c = Checks(sys.argv[1])
skipped = screenshot.browser() is None
for method in ("gptq", "mbq", "rtn"):
    data = [] if method == "rtn" else ["--n-samples", "6", "--max-seq-len", "160", "--search-tokens", "256"]
    c.good(f"quantize by {method}", "quantize", EXAMPLE, "--out", c.work / method, "--method", method, "--w-group", "64", *data)
    page = c.work / method / "report.html"
    tags = Tags()
    tags.feed(page.read_text())
    c.check(f"{method}: well-formed, nothing fetched", not tags.problems and not tags.open, str(tags.problems or tags.open)[:500])
    for dark in () if skipped else (False, True):
        problems = screenshot.shoot(page, c.work / f"{method}_{dark}.png", dark)
        c.check(f"{method}: shown without a word on the console, dark {dark}", not problems, str(problems)[:500])
if skipped and not c.failures:
    shutil.rmtree(c.work, ignore_errors=True)
    print("no Chromium is installed (Debian: chromium): the pages were parsed, not shown")
    sys.exit(screenshot.NO_BROWSER)
c.finish()
