"""How results look as text, HTML, LaTeX and Markdown; every result has all four."""

from __future__ import annotations

import html.parser

import matplotlib.mathtext
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scalefit as sf
from scalefit._values import Note
from scalefit.display import (
    Display,
    Displayable,
    latex_name,
    latex_number,
    latex_text,
    to_html,
    to_latex,
    to_markdown,
    to_text,
)

DISPLAY = Display(
    "Sweep <b>",
    (("runs", "12"), ("source & more", "a<b>.csv")),
    pd.DataFrame({"lr": ["1e-3", "<script>"], "loss": ["3.2", "2"]}),
    (Note("seeds", "two <runs>"), Note("units", "doubtful & odd", caution=True)),
)


def test_text_lines_up_labels_and_columns_and_marks_cautions():
    assert to_text(DISPLAY).splitlines() == [
        "Sweep <b>",
        "  runs           12",
        "  source & more  a<b>.csv",
        "",
        "  lr        loss",
        "  1e-3       3.2",
        "  <script>     2",
        "",
        "  - two <runs>",
        "  ! doubtful & odd",
    ]


def test_html_escapes_everything_that_came_from_data():
    page = to_html(DISPLAY)
    for raw in ("<script>", "two <runs>", "a<b>.csv", "Sweep <b>", "source & more", "doubtful & odd"):
        assert raw not in page
    for escaped in ("&lt;script&gt;", "two &lt;runs&gt;", "a&lt;b&gt;.csv", "source &amp; more"):
        assert escaped in page
    assert page.count("<b title='caution'>!</b>") == 1
    assert page.count("<table") == page.count("</table>") == 2


def test_an_empty_display_is_its_title():
    assert to_text(Display("Fit")) == "Fit"
    assert (
        to_html(Display("Fit", table=pd.DataFrame()))
        == "<div class='scalefit'><div style='font-weight:600'>Fit</div></div>"
    )


def test_numbers_are_set_to_the_right_and_words_to_the_left():
    shown = Display(
        "x", (), pd.DataFrame({"name": ["a", "b"], "value": ["0.3(1)", "-2e-05"], "status": ["free", "fixed"]})
    )
    assert to_text(shown).splitlines()[2:] == [
        "  name   value  status",
        "  a     0.3(1)  free",
        "  b     -2e-05  fixed",
    ]
    assert r"\begin{tabular}{lrl}" in to_latex(shown)
    assert "|:---|---:|:---|" in to_markdown(shown)


class Page(html.parser.HTMLParser):
    """Collects the tags of a page and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_becomes_markup(title, cell):
    page = Page()
    shown = Display(title, ((title, cell),), pd.DataFrame({"a": [cell]}), (Note("n", cell, caution=True),))
    page.feed(to_html(shown))
    page.close()
    assert page.open == []
    assert set(page.tags) <= {"div", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "b"}
    lines = to_markdown(shown).split("\n")
    assert sum(line.startswith("|") for line in lines) == 3


@given(st.text(max_size=60))
def test_latex_text_has_no_bare_special_sign(text):
    rest = latex_text(text)
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}", r"\textgreater{}"):
        rest = rest.replace(known, "")
    rest = rest.replace(r"\textbar{}", "")
    for sign in "&%$#_{}":
        rest = rest.replace(f"\\{sign}", "")
    assert not set(rest) & set("\\&%$#_{}~^<>|")


@pytest.mark.parametrize(
    "name", ["alpha", "alpha_B", "E_min", "B_crit", "N", "eta", "d", "e_0", "S_c", "log_lr_stderr"]
)
def test_names_and_numbers_are_mathematics_that_can_be_set(name):
    parser = matplotlib.mathtext.MathTextParser("path")
    parser.parse(f"${latex_name(name)}$")
    for text in ("0.347(15)", "3.20(4)e-06", "-1.00(12)e+06", "inf", "-2"):
        found = latex_number(text)
        assert found is not None
        parser.parse(found)
    assert latex_number("7B") is None
    assert latex_number("> 1.43e+03") is None


RESULTS = {
    "sweep": lambda sweep: sweep,
    "optima": lambda sweep: sf.find_optima(sweep),
    "fit": lambda sweep: sf.fit("lr_power_batch", sf.find_optima(sweep)),
    "draws": lambda sweep: sf.bootstrap(sf.fit("lr_power_batch", sf.find_optima(sweep)), n=50),
    "comparison": lambda sweep: sf.compare([sf.fit("chinchilla", sweep.cells), sf.fit("loss_tokens", sweep.cells)]),
    "surface": lambda sweep: sf.fit_surface(sweep),
    "backtest": lambda sweep: sf.backtest(sweep, "largest params"),
    "forecast": lambda sweep: sf.extrapolate(sf.fit_surface(sweep), params=1e5, tokens=1e6),
    "tradeoff": lambda sweep: sf.fit_tradeoff(sf.tradeoff_points(sweep, targets=[2.0])),
    "curves": lambda sweep: sf.load_curves("tiny-lm"),
    "sensitivity": lambda sweep: sf.lr_sensitivity(sweep),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_shows_itself_in_all_four_ways(kind):
    result = RESULTS[kind](sf.load_dataset("tiny-lm"))
    assert isinstance(result, Displayable)
    page = Page()
    page.feed(result._repr_html_())
    assert page.open == []
    assert page.tags.count("table") >= 1
    assert result.to_markdown().startswith("**")
    table = result.to_latex(label="tab:x")
    assert table.count(r"\begin{table}") == table.count(r"\end{table}") == 1
    assert r"\label{tab:x}" in table
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
    assert repr(result).splitlines()[0]


def test_a_fit_brings_its_law_to_the_paper():
    fit = sf.fit("chinchilla", sf.load_dataset("tiny-lm").cells)
    text = fit.to_latex()
    assert fit.law.to_latex() in text
    assert r"$\alpha$ &" in text
    assert "fitted to 28 rows" in text
