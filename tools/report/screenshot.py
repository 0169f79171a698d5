#!/usr/bin/env python3
"""Opens a report.html in headless Chromium, fails on anything the page writes to the console, saves a picture. Standard library only.

usage: screenshot.py REPORT.html OUT.png [--dark] [--width 1200] [--height 3600]
Exit code 77: no Chromium is installed (Debian: chromium).
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_BROWSER = 77


def browser():
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def shoot(report, out, dark=False, width=1200, height=3600):
    """Returns a list of problems, empty when the page is fine."""
    with tempfile.TemporaryDirectory(prefix="statera_browser_") as profile:
        run = subprocess.run([browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}",
                              "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                              f"--window-size={width},{height}", f"--screenshot={pathlib.Path(out).resolve()}", pathlib.Path(report).resolve().as_uri()],
                             capture_output=True, text=True, timeout=120)
    problems = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    if run.returncode != 0:
        problems.append(f"{browser()} ended with {run.returncode}: {run.stderr.strip()[-300:]}")
    elif not pathlib.Path(out).is_file() or pathlib.Path(out).stat().st_size < 10_000:
        problems.append(f"{out}: no picture, or an empty one")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report")
    parser.add_argument("out")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=3600)
    options = parser.parse_args()
    if not browser():
        print("no Chromium is installed (Debian: chromium); looked for " + ", ".join(BROWSERS))
        return NO_BROWSER
    problems = shoot(options.report, options.out, options.dark, options.width, options.height)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
