"""Pages opened and worked in a real browser, where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the pages in")

DRIVER = """
<script>
"use strict";
window.addEventListener("load", () => {
  const rows = () => [...document.querySelectorAll("tbody tr")].filter(row => !row.hidden);
  const names = () => rows().map(row => row.cells[0].textContent);
  const head = title => [...document.querySelectorAll("th button")].find(button => button.textContent === title);
  const choose = (id, value) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(id === "filter" ? "input" : "change"));
  };
  const seen = {};
  STEPS
  document.title = JSON.stringify(seen);
});
</script>
"""
"""Hands for the index of a refit; what is seen goes out as the title of the page."""


def visit(path: Path, *options: str) -> tuple[str, str]:
    """Open a page in Chromium; return its document and what the console said."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    result = subprocess.run([*command, *options, path.as_uri()], capture_output=True, text=True, timeout=120)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return result.stdout, "\n".join(console)


def drive(page: str, steps: str, place: Path, *options: str) -> dict[str, Any]:
    """Take steps on an index and return what was seen; the console must keep silent."""
    place.write_text(page.replace("</body>", f"{DRIVER.replace('STEPS', steps)}</body>"))
    document, console = visit(place, *options)
    place.unlink()
    assert console == ""
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1]))
