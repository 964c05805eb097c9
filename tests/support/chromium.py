"""A page in a headless Chromium, in a frame of any width, and what a script in it reports."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROGRAM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium, which is not installed here")
WRAPPER = """<!doctype html><body style="margin: 0"><pre id="result"></pre>
<script>addEventListener("message", event => { document.getElementById("result").textContent = JSON.stringify(event.data); });</script>
<iframe src="copy.html" style="border: 0; width: %dpx; height: %dpx"></iframe>"""
PROBE = """<script>
const problems = [];
addEventListener("error", event => problems.push(event.message));
addEventListener("unhandledrejection", event => problems.push(String(event.reason)));
addEventListener("load", () => setTimeout(() => {
  const report = (() => { %s })();
  const requests = performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:"));
  parent.postMessage({ problems, requests, report }, "*");
}, 100));
</script>"""


class Visit(NamedTuple):
    """What a page did."""

    report: Any  # what the script returned
    problems: list[str]  # exceptions
    requests: list[str]  # of the network or the disk
    console: list[str]  # warnings and errors on the console


def visit(page: Path, script: str, folder: Path, width: int = 1280, height: int = 1600, dark: bool = False) -> Visit:
    """Load a copy of the page in a frame of this size, in the light or dark scheme, and run the body of a function in it."""
    folder.mkdir(parents=True, exist_ok=True)
    html = page.read_text()
    (folder / "copy.html").write_text(html.replace("<head>", "<head>" + PROBE % script, 1))
    (folder / "wrapper.html").write_text(WRAPPER % (width, height))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"]
    flags += [f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=8000", "--dump-dom"]
    flags += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    place = (folder / "wrapper.html").resolve().as_uri()
    done = subprocess.run(
        [str(PROGRAM), *flags, place], capture_output=True, text=True, timeout=170, env={**os.environ, "HOME": str(folder)}, check=False
    )
    result = re.search(r'<pre id="result">(.+?)</pre>', done.stdout, re.DOTALL)
    assert result, f"the page reported nothing: {done.stdout[-500:]} {done.stderr[-500:]}"
    told = json.loads(unescape(result[1]))
    return Visit(told["report"], told["problems"], told["requests"], re.findall(r"CONSOLE.*", done.stderr))
