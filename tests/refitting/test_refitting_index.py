"""The index tells every sweep from every other, sorts every number, and stays in shape whatever a sweep is called."""

from __future__ import annotations

import math

import pytest
from browsing import browser, drive

from scalefit.refitting.output_folder import REPORT, Record
from scalefit.refitting.study import Finding
from scalefit.refitting.summary import summarize, write_index

LONG = {"x" * 100: 0.5, "a-sweep-of-" * 9 + "a": 0.25}
VALUES = {"low": -math.inf, "small": -0.5, "none": math.nan, "large": 0.75, "high": math.inf} | LONG


def record(name: str, value: float) -> Record:
    formula = f"eta = c * N**a{' * 1.0' * 100 if name == 'large' else ''}"
    findings = (Finding("lr: a", value, 0.125, formula),)
    return Record(name, f"/in/{name[:6]}/runs.csv", "runs.csv", "", "", "", 30, 6, 0, findings, outputs={REPORT: 1})


def page() -> str:
    failures = {
        "/d1/twice.csv": {"name": "twice", "error": "broken"},
        '/d2/"><b>.csv': {"name": "twice", "error": "broken"},
    }
    records = [record(name, value) for name, value in VALUES.items()]
    return write_index(summarize(records, failures, {"/in/small/runs.csv"}))


def test_a_sweep_is_told_from_another_of_its_name_by_where_it_came_from():
    text = page()
    assert '<a href="low/report.html" title="/in/low/runs.csv">low</a>' in text
    assert '<span title="/d1/twice.csv">twice</span>' in text
    assert '<span title="/d2/&#34;&gt;&lt;b&gt;.csv">twice</span>' in text


def test_a_file_that_is_gone_is_counted():
    assert "6 done, 2 failed, 1 whose file is gone, 0 moved" in page()
    assert "1 done, 0 failed, 0 moved" in write_index(summarize([record("a", 1.0)], {}))


STEPS = """
  const box = name => rows().find(row => row.cells[0].textContent === name).cells[0];
  seen.widths = rows().map(row => row.cells[0].offsetWidth);
  seen.laws = rows().map(row => row.querySelector("td.law")).filter(cell => cell).map(cell => cell.offsetWidth);
  seen.heights = Object.fromEntries(names().map(name => [name, box(name).firstElementChild.offsetHeight]));
  head("lr: a").click(); seen.up = names();
  head("lr: a").click(); seen.down = names();
  choose("filter", "/D1/"); seen.path = names();
  choose("filter", ""); choose("status", "gone"); seen.gone = names();
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    place = tmp_path_factory.mktemp("index") / "driven.html"
    return drive(page(), STEPS, place, "--window-size=900,900")


@browser
def test_infinities_are_sorted_and_what_is_missing_stays_last(seen):
    order = sorted((name for name in VALUES if name != "none"), key=VALUES.get)
    assert seen["up"][:-3] == order
    assert seen["down"][:-3] == order[::-1]
    assert sorted(seen["up"][-3:]) == sorted(seen["down"][-3:]) == ["none", "twice", "twice"]


@browser
def test_the_filter_finds_a_path_and_the_status_gone(seen):
    assert seen["path"] == ["twice"]
    assert seen["gone"] == ["small"]


@browser
def test_a_long_name_is_wrapped_and_a_short_one_is_not(seen):
    assert max(seen["widths"]) < 320, "so that in a narrow window there is room for numbers"
    line = seen["heights"]["low"]
    assert all(seen["heights"][name] > 1.5 * line for name in LONG)
    assert all(height == line for name, height in seen["heights"].items() if name not in LONG)


@browser
def test_a_long_formula_is_wrapped(seen):
    assert max(seen["laws"]) < 450
