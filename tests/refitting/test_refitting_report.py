"""Reports and the index: complete, self-contained, and working in a real browser."""

from __future__ import annotations

import html.parser
import json
import re
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from browsing import browser, drive, visit
from refitting_samples import QUICK, runs, write_sweeps

from scalefit.errors import FitError
from scalefit.optima.optimum_estimators import Basin
from scalefit.plots.plot_optima import basins
from scalefit.refitting._refit import refit
from scalefit.refitting.report import draw, inline
from scalefit.refitting.settings import Analysis
from scalefit.refitting.study import study_sweep
from scalefit.refitting.summary import write_index
from scalefit.simulation import Design, simulate_sweep
from scalefit.sweep import Sweep

WIDE = Design(params=(1e7, 1e8, 1e9), tokens=(1e9, 1.6e10), lr_levels=5, batch_levels=5)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of three sweeps, one of which moved, and a file that failed."""
    folder = tmp_path_factory.mktemp("pages")
    write_sweeps(folder / "in", 2)
    simulate_sweep(design=WIDE, seed=3).dropna().to_csv(folder / "in" / "wide.csv", index=False)
    (folder / "in" / "bad.csv").write_text("broken <b>bold</b>\n1\n")
    refit(folder / "in", folder / "out", config=QUICK, jobs=1)
    table = runs()
    table["lr"] *= (table["params"] / 1e8) ** 0.4
    table.to_csv(folder / "in" / "sweep0.csv", index=False)
    refit(folder / "in", folder / "out", config=QUICK, jobs=1)
    return folder / "out"


class Page(html.parser.HTMLParser):
    """Collects what a page refers to, its ids and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", ["index.html", "wide/report.html", "sweep0/report.html"])
def test_a_page_loads_nothing_and_its_names_do_not_clash(out, name):
    text = (out / name).read_text()
    page = Page(text)
    assert not [
        link for link in page.links if not link.startswith("#") and not (out / name).parent.joinpath(link).exists()
    ]
    assert "Content-Security-Policy" in text
    assert not re.search(r"@import|url\((?!#)", text)
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    for link in re.findall(r"url\(#([^)]+)\)", text) + [link[1:] for link in page.links if link.startswith("#")]:
        assert link in page.ids


def test_a_report_shows_everything(out):
    text = " ".join(Page((out / "wide" / "report.html").read_text()).text.split())
    for part in ("Choice of", "Fit of", "Backtest", "Trade-off", "Surface", "Optima over lr, batch", "Bootstrap of"):
        assert part in text
    record = json.loads((out / "wide" / "record.json").read_text())
    assert record["sha256"] in text
    assert f"scalefit refit {record['source']} --out results --config scalefit.toml" in text
    assert "draws = 20" in text


def test_every_caveat_is_on_the_page_once(out, tmp_path):
    table = simulate_sweep(design=WIDE, seed=3).dropna()
    result = study_sweep(Sweep.from_frame(table, source="x"), Analysis(draws=20))
    cautions = [note.text for note in result.notes if note.caution]
    assert len(cautions) >= 3
    text = " ".join(Page((out / "wide" / "report.html").read_text()).text.split())
    for caution in cautions:
        shown = " ".join(caution.split())
        assert text.count(shown) == 1, shown


def test_the_command_of_a_report_gives_the_same_laws(out, tmp_path):
    page = Page((out / "sweep1" / "report.html").read_text()).text
    settings = page[page.index("[fit]") : page.index("scalefit 0.")]
    (tmp_path / "scalefit.toml").write_text(settings)
    source = json.loads((out / "sweep1" / "record.json").read_text())["source"]
    refit(source, tmp_path / "results", config=tmp_path / "scalefit.toml", jobs=1)
    again, first = (folder / "sweep1" / "fit.json" for folder in (tmp_path / "results", out))
    assert again.read_bytes() == first.read_bytes()


def test_pictures_are_the_same_every_time_and_leave_nothing_open(out):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    table = simulate_sweep(design=replace(WIDE, tokens=(1e9, 4e9, 1.6e10)), seed=3).dropna()
    result = study_sweep(Sweep.from_frame(table), Analysis(draws=0))
    first, notes = draw(result)
    assert notes == []
    drawn = {"laws-lr", "laws-batch", "laws-loss", "prediction-backtest", "tradeoff-hyperbolas", "surface-largest"}
    assert drawn <= set(first)
    assert draw(result)[0] == first
    assert pyplot.get_fignums() == before
    for kinds in first.values():
        assert kinds["pdf"].startswith(b"%PDF")
        assert b"CreationDate" not in kinds["pdf"]
        assert b"/Type3" not in kinds["pdf"]
        assert b"<dc:date>" not in kinds["svg"]
        assert max(map(len, kinds.values())) < 150_000


def test_basins_of_the_largest_cells_are_drawn_with_their_curves(monkeypatch):
    from scalefit import plots

    shown = []
    monkeypatch.setattr(plots, "basins", lambda *given, ax: shown.append(given) or basins(*given, ax=ax))
    design = Design(params=(1e7, 1e8), tokens=(1e9, 2e9, 4e9, 8e9, 1.6e10), lr_levels=8, batch_levels=1)
    table = simulate_sweep(design=design, seed=1).dropna()
    pictures, notes = draw(study_sweep(Sweep.from_frame(table), Analysis(draws=0)))
    assert notes == []
    assert {"optima-largest"} <= set(pictures)
    [(sweep, optima)] = shown
    assert sweep.levels("params").tolist() == [1e8]
    assert len(sweep.levels("tokens")) == 5
    assert optima.method == Basin(), "what a study remembers is no part of its results, and hides the curve's shape"
    everything = simulate_sweep(design=replace(design, params=(1e8,)), seed=1).dropna()
    draw(study_sweep(Sweep.from_frame(everything), Analysis(draws=0)))
    assert len(shown[1][0].levels("tokens")) == 5, "few cells are all drawn"


def test_a_picture_that_cannot_be_costs_only_itself(monkeypatch):
    from scalefit import plots

    def refused(*_, **__):
        raise FitError("no regret to show")

    monkeypatch.setattr(plots, "backtest", refused)
    pictures, notes = draw(study_sweep(Sweep.from_frame(runs()), Analysis(draws=0)))
    assert "laws-lr" in pictures
    assert "prediction-backtest" not in pictures
    assert [note.text for note in notes] == ["no picture of prediction-backtest: no regret to show"]

    def broken(*_, **__):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(plots, "backtest", broken)
    with pytest.raises(ZeroDivisionError):
        draw(study_sweep(Sweep.from_frame(runs()), Analysis(draws=0)))


def test_names_in_several_pictures_are_kept_apart():
    body = '<g id="{0}a"/><use xlink:href="#{0}a"/><g clip-path="url(#{0}a)"/></svg>'
    svg = f'<?xml version="1.0"?>\n<svg><metadata>x</metadata>{body.format("")}'
    assert inline(svg, "p") == f"<svg>{body.format('p-')}"


def test_an_index_of_nothing_is_a_page():
    empty = pd.DataFrame(columns=["name", "status", "n_runs", "n_cells", "n_cautions", "moved", "error", "report"])
    assert "0 done, 0 failed" in write_index(empty)


STEPS = """
  seen.all = names();
  head("name").click(); seen.up = names();
  head("name").click(); seen.down = names();
  head("lr: a").click(); seen.number = names();
  head("lr: a").click(); seen.numberDown = names();
  choose("filter", "WEEP1"); seen.filtered = names(); seen.told = document.getElementById("shown").textContent;
  choose("filter", ""); choose("status", "failed"); seen.failed = names();
  choose("status", "moved"); seen.moved = names();
  choose("status", ""); seen.again = names();
  seen.requests = performance.getEntriesByType("resource").length;
"""


@browser
def test_sorting_and_filtering_work_in_a_browser(out):
    seen = drive((out / "index.html").read_text(), STEPS, out / "driven.html")
    exponents = pd.read_parquet(out / "summary.parquet").set_index("name")["lr: a"].dropna().sort_values()
    assert seen["all"] == seen["up"] == ["bad", "sweep0", "sweep1", "wide"]
    assert seen["down"] == seen["up"][::-1]
    assert seen["number"] == [*exponents.index, "bad"]
    assert seen["numberDown"] == [*exponents.index[::-1], "bad"], "rows without a number stay last"
    assert seen["filtered"] == ["sweep1"]
    assert seen["told"] == "1 of 4 shown"
    assert seen["failed"] == ["bad"]
    assert seen["moved"] == ["sweep0"]
    assert sorted(seen["again"]) == seen["up"]
    assert seen["requests"] == 0


@browser
def test_the_console_would_be_heard(tmp_path):
    (tmp_path / "page.html").write_text("<script>undefined.x</script>")
    assert "TypeError" in visit(tmp_path / "page.html")[1]


@browser
def test_a_report_opens_without_a_word_from_the_console(out):
    document, console = visit(out / "wide" / "report.html")
    assert console == ""
    assert document.count("<svg") == len(list((out / "wide" / "figures").glob("*.svg")))


@browser
@pytest.mark.parametrize(("scheme", "paper"), [("1", (255, 255, 255)), ("0", (20, 23, 27))], ids=["light", "dark"])
def test_pages_follow_light_and_dark(out, tmp_path, scheme, paper):
    from matplotlib import image

    for name in ("index.html", "wide/report.html"):
        shot = tmp_path / "shot.png"
        visit(out / name, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}")
        corner = (image.imread(shot)[2, 2, :3] * 255).round().astype(int)
        assert tuple(corner) == paper
