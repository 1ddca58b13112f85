"""The documentation names everything public, links to pages that exist, and builds without a warning."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scalefit
from scalefit import plots, simulation, theory

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def listed(module: str) -> set[str]:
    """Return the names that the reference lists from a module."""
    text = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"currentmodule:: {module}\n(.*?)```", text, re.DOTALL)
    return {name for block in blocks for name in re.findall(r"^   (\w+)$", block, re.MULTILINE)}


def test_the_reference_lists_every_public_name():
    modules = {"laws", "plots", "simulation", "theory"}  # listed by their own names
    assert listed("scalefit") == set(scalefit.__all__) - modules
    assert listed("scalefit.plots") == set(plots.__all__)
    assert listed("scalefit.simulation") == set(simulation.__all__)
    assert listed("scalefit.theory") == set(theory.__all__)


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(\w+)$", index, re.MULTILINE))
    assert {page.stem for page in PAGES} - {"index"} == listed


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason='needs pip install ".[docs]"')
def test_the_site_builds_without_a_warning(tmp_path):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-d",
        str(tmp_path / "doctrees"),
        "docs",
        str(tmp_path / "site"),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    assert (tmp_path / "site" / "reference" / "api" / "scalefit.fit.html").exists()
