"""A picture function given the wrong result says which result it needs and how to get it."""

from __future__ import annotations

import matplotlib
import pytest

matplotlib.use("Agg")

from plot_samples import cell, points, surface

import scalefit as sf
from scalefit import plots


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("basins", "Sweep"),
        ("optima", "Optima"),
        ("law", "Fit"),
        ("residuals", "Fit"),
        ("isoflops", "Fit"),
        ("draws", "Draws"),
        ("forecast", "Forecast"),
        ("backtest", "Backtest"),
        ("tradeoff", "Tradeoff"),
        ("bcrit", "Tradeoff"),
        ("curves", "Curves"),
    ],
)
def test_another_result_is_refused(name, wanted):
    with pytest.raises(sf.ScalefitError, match=f"plots.{name} expected a {wanted}, found Surface"):
        getattr(plots, name)(surface())


def test_the_refusal_says_where_the_fits_are():
    table = points()
    with pytest.raises(sf.ScalefitError, match=r"plots\.compare\(average\.fits\)"):
        plots.law(sf.average_laws(table, target="lr"))
    with pytest.raises(sf.ScalefitError, match=r"surface\.lr_fit"):
        plots.law(surface())
    with pytest.raises(sf.ScalefitError, match="found str"):
        plots.compare("lr_power")


def test_surface_and_published_check_too():
    with pytest.raises(sf.ScalefitError, match=r"sf\.fit_surface"):
        plots.surface(cell(), params=1e8, tokens=2e9)
    with pytest.raises(sf.ScalefitError, match=r"sf\.fit\("):
        plots.published(cell(), ["steplaw2025_lr"])


def test_two_fits_of_one_law_need_names():
    table = points()
    fits = [sf.fit("lr_power", part) for part in (table.iloc[::2], table.iloc[1::2])]
    with pytest.raises(sf.LawError, match="name each"):
        plots.compare(fits, along="params")
    ax = plots.compare({"even": fits[0], "odd": fits[1]}, along="params")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["even", "odd"]
