"""Pictures: what they show, that nothing in them overlaps, and what they refuse."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import plot_samples as samples
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from plot_overlaps import overlaps, texts
from plot_samples import BATCHES, PICTURES, SIZES

import scalefit as sf
from scalefit import plots
from scalefit._values import Observations
from scalefit.batch_size.fit_tradeoff import fit_tradeoff
from scalefit.plots.axes import spread
from scalefit.plots.law_lines import slice_of
from scalefit.plots.scales import count, label_of, log_axis, power, widen, write_value


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def written(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text().strip()]


@pytest.mark.slow
@pytest.mark.parametrize("width", [2.625, "double"])
@pytest.mark.parametrize("name", PICTURES)
def test_no_label_overlaps_another_or_is_cut_off_at_other_widths(name, width):
    with plots.style(width=width):
        fig = PICTURES[name]().figure
        assert len(texts(fig)) > 4
        assert overlaps(fig) == []
        assert min(t.get_fontsize() for t in texts(fig)) >= 7


@pytest.mark.parametrize("width", ["single", "double"])
def test_panels_do_not_reach_into_each_other(width):
    names = ["law", "surface", "backtest", "published"] if width == "double" else ["law", "draws"]
    columns = 2 if width == "double" else 1
    with plots.style(width=width):
        fig, axes = plots.figure_grid(2, columns)
        for name, ax in zip(names, axes.flat, strict=True):
            assert PICTURES[name](ax) is ax
        assert overlaps(fig) == []
        assert [written(ax)[0] for ax in axes.flat] == list("abcd")[: len(names)]


def test_overlaps_are_noticed():
    fig, ax = pyplot.subplots()
    ax.text(0.5, 0.5, "one", transform=ax.transAxes)
    ax.text(0.51, 0.5, "two", transform=ax.transAxes)
    assert ("one", "two") in overlaps(fig)
    ax.text(1.2, 0.5, "far away", transform=ax.transAxes)
    assert ("far away", "the edge of the figure") in overlaps(fig)


@pytest.mark.parametrize("name", PICTURES)
def test_axes_come_in_and_go_out(name):
    ax = Figure().subplots()
    open_before = pyplot.get_fignums()
    assert PICTURES[name](ax) is ax
    assert pyplot.get_fignums() == open_before
    assert ax.get_xlabel()
    assert ax.get_ylabel() or name == "backtest"


def test_basins_show_runs_curve_optimum_and_what_diverged():
    own = samples.cell(BATCHES[0])
    found = sf.find_optima(own, over="lr")
    ax = plots.basins(own, found)
    row = found.table.iloc[0]
    curve = next(line for line in ax.lines if len(line.get_xdata()) == 300)
    x, y = curve.get_xdata(), curve.get_ydata()
    lowest = np.nanargmin(y)
    assert x[lowest] == pytest.approx(row["lr"], rel=0.02)
    assert y[lowest] == pytest.approx(row["loss"], abs=1e-5)
    runs = own.table
    near = runs[runs["loss"] < row["loss"] * 1.005]
    assert len(near) >= 3
    fitted = np.interp(np.log(near["lr"]), np.log(x), y)
    np.testing.assert_allclose(fitted, near["loss"], atol=0.006)
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    assert stars[0].get_xdata()[0] == row["lr"]
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == runs["diverged"].sum() > 0
    assert "diverged" in {text.get_text() for text in ax.get_legend().get_texts()}


def test_basins_take_optima_of_the_whole_sweep_for_a_part_of_it():
    part = samples.cell().where("batch < 600000")
    ax = plots.basins(part, samples.optima())
    whole = samples.optima().table
    cells = whole[np.isclose(whole["params"], SIZES[1]) & np.isclose(whole["tokens"], 8e9) & (whole["batch"] < 6e5)]
    stars = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(sorted(stars), sorted(cells["lr"]))
    with pytest.raises(sf.SweepError, match="no cell at"):
        plots.basins(samples.sweep().where("params < 2e8 and batch < 40000"), sf.find_optima(part, over="lr"))


def test_methods_without_a_curve_get_none_and_too_many_cells_are_refused():
    own = samples.cell(BATCHES[2])
    ax = plots.basins(own, sf.find_optima(own, over="lr", method=sf.GridMinimum()))
    assert max(len(line.get_xdata()) for line in ax.lines) < 50
    with pytest.raises(sf.SweepError, match="84 cells"):
        plots.basins(samples.sweep())
    with pytest.raises(sf.SweepError, match="over batch"):
        plots.basins(own, sf.find_optima(samples.cell(), over="batch", by=("params", "tokens", "lr")))


def test_surface_contours_cost_what_they_say():
    ax = PICTURES["surface"]()
    contours = next(c for c in ax.collections if hasattr(c, "levels"))
    assert list(contours.levels) == [0.0025, 0.005, 0.01, 0.02]
    best = samples.surface().optimum(params=SIZES[1], tokens=8e9).iloc[0]
    place = {"params": SIZES[1], "tokens": 8e9}
    bottom = samples.surface().loss(lr=best["lr"], batch=best["batch"], **place)[()]
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        lr, batch = path.vertices.T
        excess = samples.surface().loss(lr=lr, batch=batch, **place) / bottom - 1
        np.testing.assert_allclose(excess, level, rtol=0.06)
    with pytest.raises(sf.SweepError, match="no runs at"):
        plots.surface(samples.surface(), samples.sweep(), params=1e12, tokens=8e9)
    with pytest.raises(sf.SweepError, match="rising"):
        plots.surface(samples.surface(), params=1e8, tokens=8e9, levels=(0.02, 0.01))


def test_a_law_moves_its_points_by_their_residuals():
    ax, fit = plots.law(samples.law(), "params"), samples.law()
    marks = next(line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == fit.n)
    means = {name: np.exp(np.log(fit.rows[name]).mean()) for name in ("tokens", "batch")}
    line = fit.law(fit.values, {"params": marks.get_xdata(), **{k: np.full(fit.n, v) for k, v in means.items()}})
    np.testing.assert_allclose(np.log(marks.get_ydata() / line), fit.residuals, atol=1e-12)
    assert "at $D$ = 8B" in ax.get_legend().get_title().get_text()


def test_a_law_shows_held_out_points_and_goes_dashed_beyond_the_data():
    ax = PICTURES["law"]()
    held = [line for line in ax.lines if line.get_marker() == "D" and line.get_color() == "#e8a317"]
    assert len(held[0].get_xdata()) == len(samples.points(1, beyond=True))
    solid = next(line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 20)
    assert SIZES[0] * 0.999 <= solid.get_xdata().min()
    assert solid.get_xdata().max() <= SIZES[-1] * 1.001
    assert ax.get_xlim()[1] > 1.6e10
    assert "held out" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_lines_by_level_carry_its_name():
    ax = PICTURES["law_by"]()
    assert written(ax) == ["$B$ 66k", "$B$ 262k", "$B$ 1M"]
    heights = [text.get_position()[1] for text in ax.texts if text.get_text().strip()]
    assert heights == sorted(heights)


@pytest.mark.parametrize(
    "arguments",
    [{"along": "loss"}, {"along": "params", "by": "params"}, {"at": {"depth": 3.0}}, {"along": "N", "at": {"N": 1e9}}],
    ids=str,
)
def test_an_input_the_law_lacks_is_refused(arguments):
    with pytest.raises(sf.LawError, match="each once"):
        plots.law(samples.law(), **arguments)


def test_held_out_rows_need_the_columns_of_the_law():
    with pytest.raises(sf.LawError, match="missing batch"):
        plots.law(samples.law(), heldout=samples.points().drop(columns="batch"))
    renamed = samples.points(1, beyond=True).rename(columns={"params": "N", "lr": "eta"})
    assert plots.law(samples.law(), "params", heldout=renamed)


def test_optima_give_held_out_rows_and_a_picture():
    table = plots.law(sf.fit("lr_power_batch", samples.optima()), "batch", heldout=samples.optima())
    assert table.get_xlabel() == "batch size $B$ (tokens)"
    ax = plots.optima(samples.optima(), "batch", "tokens")
    drawn = sum(len(line.get_xdata()) for line in ax.lines)
    status = samples.optima().table["status"].value_counts()
    assert drawn == status["interior"] + 2 * status.get("edge", 0)
    with pytest.raises(sf.SweepError, match="not loss"):
        plots.optima(samples.optima(), "loss")
    with pytest.raises(sf.SweepError, match="over lr, not"):
        plots.optima(samples.optima(), of="batch")


def test_bounds_are_open_marks_with_an_arrow():
    cut = samples.cell(BATCHES[2]).where("lr < 5e-4")
    found = sf.find_optima(cut, over="lr", by=("batch",), method=sf.GridMinimum())
    assert found.table["status"].tolist() == ["edge"]
    ax = plots.optima(found, "batch")
    marks = {line.get_marker() for line in ax.lines if len(line.get_xdata())}
    assert r"$\uparrow$" in marks
    assert "a bound" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_compare_names_the_laws_and_refuses_another_target():
    ax = PICTURES["compare"]()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SGD", "surge"]
    with pytest.raises(sf.LawError, match="not for lr"):
        plots.compare({"lr": samples.law(), "loss": samples.loss_law()}, along="params")
    with pytest.raises(sf.LawError, match="one to eight"):
        plots.compare([])


def test_published_laws_are_evaluated_where_ones_own_is():
    ax = PICTURES["published"]()
    named = set(written(ax))
    assert named == {"at $D$ = 8B", "this fit", "steplaw2025", "oellm2026", "porian2024"}
    tokens = np.exp(np.log(samples.power().rows["tokens"]).mean())
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 160]
    law = sf.laws.get_published("steplaw2025_lr").law
    values = sf.laws.get_published("steplaw2025_lr").values
    x = drawn[-1].get_xdata()
    expected = law(values, {"params": x, "tokens": np.full(x.shape, tokens)})
    assert any(np.allclose(line.get_ydata(), expected) for line in drawn)
    with pytest.raises(sf.LawError, match="not a law for lr"):
        plots.published(samples.power(), ["steplaw2025_bs"])
    with pytest.raises(sf.LawError, match="needs batch"):
        plots.published(samples.power(), ["filatov2025_lr"])


def test_residuals_are_those_of_the_fit():
    ax, fit = PICTURES["residuals"](), samples.law()
    shown = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() in ("o", "x")])
    np.testing.assert_allclose(np.sort(shown), np.sort(100 * np.expm1(fit.residuals)))
    assert plots.residuals(fit, "prediction").get_xlabel().startswith("learning rate")


def test_a_forecast_shows_its_points_intervals_and_reach():
    forecast = sf.extrapolate(samples.power(), params=[5e9, 2e10, 7e10], tokens=3e11)
    ax = plots.forecast(forecast, along="params")
    marks = next(line for line in ax.lines if line.get_color() == "#e8a317")
    np.testing.assert_allclose(marks.get_ydata(), forecast.table["lr"])
    bars = next(c for c in ax.collections if isinstance(c, LineCollection))
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, forecast.table[["lr_lo", "lr_hi"]])
    assert written(ax) == [r"9.4$\times$", r"10$\times$", r"35$\times$"]
    with pytest.raises(sf.LawError, match="is of lr"):
        plots.forecast(forecast, "batch")


def test_a_backtest_ranks_its_entrants_from_the_top():
    ax, summary = PICTURES["backtest"](), samples.report().summary()
    order = [
        label.get_text() for _, label in sorted(zip(ax.get_yticks(), ax.get_yticklabels(), strict=True), reverse=True)
    ]
    assert order == list(summary["entrant"])
    means = next(line for line in ax.lines if line.get_marker() == "D")
    np.testing.assert_allclose(np.asarray(means.get_xdata(), dtype=float), summary["regret_pct"])
    assert len(plots.backtest(samples.report(), entrants=2).get_yticks()) == 2
    with pytest.raises(sf.SweepError, match="expected 1 to"):
        plots.backtest(samples.report(), entrants=0)


def test_the_ellipse_is_that_of_the_covariance():
    draws = sf.bootstrap(samples.power(), n=400, by="parametric")
    ax = plots.draws(draws, "a", "b", level=0.95)
    ellipse = ax.patches[0]
    inside = ellipse.get_path().contains_points(
        ellipse.get_patch_transform().inverted().transform(draws.table[["a", "b"]])
    )
    assert 0.88 < inside.mean() < 0.98
    assert ax.get_xlabel() == "exponent of $N$ ($a$)"
    with pytest.raises(sf.LawError, match="no parameter z"):
        plots.draws(draws, "z")
    with pytest.raises(sf.LawError, match="has the parameters"):
        plots.draws(draws, published=["kaplan2020_bcrit"])


def test_isoflop_minima_are_minima():
    ax, fit = plots.isoflops(samples.loss_law(), [1e19, 1e20, 1e21]), samples.loss_law()
    v = fit.values
    power_of_c = v["beta"] / (v["alpha"] + v["beta"])
    scale = (v["alpha"] * v["A"] / (v["beta"] * v["B"])) ** (1 / (v["alpha"] + v["beta"]))
    minima = next(line for line in ax.lines if line.get_linewidth() == 1.4)
    best = minima.get_xdata()[np.isfinite(minima.get_xdata())]
    first, last = (scale * (c / 6) ** power_of_c for c in (1e19, 1e21))
    assert best.min() == pytest.approx(first, rel=0.01)
    assert best.max() == pytest.approx(last, rel=0.01)
    with pytest.raises(sf.LawError, match="loss in params and tokens"):
        plots.isoflops(samples.law())
    with pytest.raises(sf.LawError, match="positive budgets"):
        plots.isoflops(samples.loss_law(), [1e19, -1])


def test_axes_speak_of_the_data_unit():
    assert label_of("tokens", "images") == "training images $D$"
    assert label_of("loss") == "loss $L$ (nats/token)"
    assert label_of("loss", "images") == "loss $L$ (nats)"
    assert label_of("depth") == "depth"
    assert label_of("lr", best=True).startswith("optimal learning rate")
    assert write_value("tokens", 1.4e12) == "1.4T"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (64, "64"), (1024, "1k"), (999_500, "1M"), (7e9, "7B"), (1e12, "1T"), (268e6, "268M")],
)
def test_counts_read_as_the_field_writes_them(value, text):
    assert count(value) == text


def test_powers_read_well():
    assert [power(v) for v in (1e-3, 3e-4, 0.5, 1.0)] == ["$10^{-3}$", r"$3{\times}10^{-4}$", "0.5", "1"]


@pytest.mark.parametrize("span", [(1e7, 1e12), (9e7, 2.2e9), (2.1e9, 3.4e9), (0.9, 1.1), (30, 5e6), (1e9, 1.02e9)])
@pytest.mark.parametrize("inches", [1.3, 5.0])
@pytest.mark.parametrize("name", ["tokens", "lr"])
def test_ticks_are_as_many_as_have_room(span, inches, name):
    with plots.style(width=inches, height=2):
        fig, ax = pyplot.subplots()
        log_axis(ax, "x", name)
        ax.set_xlim(*span)
        shown = [t for t in texts(fig) if t in ax.get_xticklabels()]
        assert 2 <= len(shown) <= 7
        assert len({t.get_text() for t in shown}) == len(shown)
        assert not [pair for pair in overlaps(fig) if "the edge of the figure" not in pair]


def test_wide_axes_have_more_ticks_than_narrow_ones():
    counts = []
    for inches in (1.3, 6.75):
        with plots.style(width=inches, height=2):
            fig, ax = pyplot.subplots()
            log_axis(ax, "x", "tokens")
            ax.set_xlim(1e8, 1e11)
            fig.draw_without_rendering()
            counts.append(len(ax.get_xticks()))
    assert counts[0] < counts[1]


def test_spread_keeps_order_and_gaps():
    places = np.random.default_rng(0).uniform(size=9)
    moved = spread(places, 0.12)
    assert np.array_equal(np.argsort(moved), np.argsort(places))
    assert np.diff(np.sort(moved)).min() > 0.12 - 1e-12
    np.testing.assert_allclose(spread(np.array([0.1, 0.9]), 0.2), [0.1, 0.9])


def test_slices_hold_the_mean_and_follow_the_levels():
    cut = slice_of(samples.law(), None, "batch", {"D": 1e10})
    assert (cut.along, cut.by, dict(cut.fixed)) == ("params", "batch", {"tokens": 1e10})
    assert list(cut.levels) == [2.0**16, 2.0**18, 2.0**20]
    assert cut.line_of(pd.DataFrame({"batch": [7e4, 9e5]})).tolist() == [0, 2]
    assert widen([3.0]) == pytest.approx((1.5, 6.0))


def test_a_grid_needs_a_panel():
    with pytest.raises(sf.ScalefitError, match="at least one row"):
        plots.figure_grid(0, 2)


def test_hyperbolas_pass_through_the_critical_batch():
    ax, table = PICTURES["tradeoff"](), samples.trade().table
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose([s.get_xdata()[0] for s in stars], 2 * table["S_min"])
    np.testing.assert_allclose([s.get_ydata()[0] for s in stars], 2 * table["E_min"])
    solid = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 20]
    for line, (_, row) in zip(solid, table.iterrows(), strict=True):
        product = (line.get_xdata() / row["S_min"] - 1) * (line.get_ydata() / row["E_min"] - 1)
        np.testing.assert_allclose(product, 1, rtol=1e-6)
    shown = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() in ("o", "s", "D", 6))
    assert shown == len(samples.trade().points)
    one = plots.tradeoff(samples.trade(), target=3.0)
    assert len([line for line in one.lines if line.get_marker() == "*"]) == 1
    with pytest.raises(sf.SweepError, match="no fit"):
        plots.tradeoff(samples.trade(), target=1.0)
    with pytest.raises(sf.SweepError, match="differ by target"):
        plots.tradeoff(samples.trade(), depth=3)


def test_without_steps_the_trade_off_is_over_the_batch():
    table = pd.DataFrame({"batch": 2.0 ** np.arange(5, 13)})
    table["epochs"] = 3 * (1 + table["batch"] / 900)
    ax = plots.tradeoff(fit_tradeoff(table, data_unit="images", examples_unit="epochs"))
    assert ax.get_xlabel() == "batch size $B$ (images)"
    assert ax.get_ylabel() == "data to the target $E$ (epochs)"


def test_critical_batch_rises_as_the_loss_falls_beside_kaplans_line():
    ax = PICTURES["bcrit"]()
    assert ax.get_xlim()[0] > ax.get_xlim()[1]
    line = next(line for line in ax.lines if line.get_color() == "#9a7fb8")
    np.testing.assert_allclose(line.get_ydata(), 2e8 / line.get_xdata() ** (1 / 0.21), rtol=1e-12)
    points = next(line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()))
    np.testing.assert_allclose(points.get_ydata(), samples.trade().table["B_crit"])
    assert set(written(ax)) == {"this fit", "kaplan2020"}
    with pytest.raises(sf.SweepError, match="or both"):
        plots.bcrit()
    with pytest.raises(sf.LawError, match="in the loss alone"):
        plots.bcrit(samples.trade(), samples.law())


def test_a_critical_batch_that_is_a_bound_has_an_arrow():
    small = samples.trade().points.query("batch < 140000 and status == 'point'")
    trade = fit_tradeoff(small[["target", "batch", "examples"]])
    unknown = ~trade.table["identified"]
    assert unknown.any()
    ax = plots.bcrit(trade, published=())
    arrows = [len(line.get_xdata()) for line in ax.lines if line.get_marker() in (r"$\uparrow$", r"$\downarrow$")]
    ends = trade.table.loc[unknown, ["B_crit_lo", "B_crit_hi"]].to_numpy()
    assert sum(arrows) == (np.isfinite(ends) & (ends > 0)).sum() > 0


def test_curves_mark_where_targets_are_reached_and_what_diverged():
    ax, curves = PICTURES["curves"](), samples.training()
    reached = curves.tokens_to_target([2.9, 2.6]).query("status == 'reached'")
    drawn = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() in ("o", "s", "D")])
    np.testing.assert_allclose(np.sort(drawn), np.sort(reached["tokens"]))
    crosses = next(line for line in ax.lines if line.get_marker() == "x")
    assert len(crosses.get_xdata()) == curves.runs["diverged"].sum() == 1
    assert written(ax) == ["$L$ = 2.9", "$L$ = 2.6"]
    with pytest.raises(sf.SweepError, match="no such column"):
        plots.curves(curves, by="depth")


def test_rows_that_are_bounds_are_open_with_an_arrow():
    table = samples.points()
    side = np.where(table["params"] > 1e9, -1, 0)
    fit = sf.fit("lr_power_batch", Observations(table, censored=side))
    assert fit.is_bound.sum() == (side != 0).sum() > 0
    for ax in (plots.law(fit, "params"), plots.residuals(fit)):
        down = [line for line in ax.lines if line.get_marker() == r"$\downarrow$"]
        assert sum(len(line.get_xdata()) for line in down) == fit.is_bound.sum()


def test_a_law_of_inputs_without_a_logarithm_is_refused():
    table = pd.DataFrame({"depth": [-1.0, 0.0, 1.0, 2.0, 3.0], "loss": [3.0, 2.8, 2.7, 2.65, 2.61]})
    with pytest.raises(sf.LawError, match="logarithmic"):
        plots.law(sf.fit("L = a + b * depth", table))


def test_other_data_than_tokens_are_named_and_kept_from_published_laws():
    table = samples.points()[["batch", "lr"]].assign(tokens=1e6, loss=2.0)
    runs = sf.Sweep.from_frame(table, data_unit="images")
    fit = sf.fit("eta = c * B**g", Observations(table, data_unit="images"))
    assert plots.law(fit).get_xlabel() == "batch size $B$ (images)"
    assert plots.basins(runs, sf.find_optima(runs, over="lr", by=())).get_ylabel() == "loss $L$ (nats)"
    with pytest.raises(sf.LawError, match="counts images"):
        plots.published(fit, ["steplaw2025_lr"])
    critical = Observations(pd.DataFrame({"loss": [3.0, 2.5, 2.0], "B_crit": [1e3, 2e3, 5e3]}), data_unit="images")
    own = sf.fit("B_crit = B_star / L**(1/alpha_B)", critical)
    assert written(plots.bcrit(fit=own)) == ["this fit"]
    with pytest.raises(sf.LawError, match="the data are images"):
        plots.bcrit(fit=own, published=["kaplan2020_bcrit"])


def test_a_held_input_that_no_law_has_is_refused():
    with pytest.raises(sf.LawError, match="has the input depth"):
        plots.compare(samples.by_batch(), at={"depth": 3.0})
    with pytest.raises(sf.LawError, match="has the input depth"):
        plots.published(samples.power(), ["steplaw2025_lr"], at={"depth": 3.0})
    ax = plots.published(samples.power(), ["filatov2025_lr"], "params", at={"batch": 2.0**20})
    assert "$B$ = 1M" in " ".join(written(ax))


def test_cells_may_be_told_apart_by_words():
    lr = 1e-3 * 2.0 ** np.arange(-3, 4)
    parts = [
        pd.DataFrame({"lr": lr, "params": 1e8, "optimizer": name, "loss": 3 + 0.03 * np.log(lr / best) ** 2})
        for name, best in (("adamw", 1e-3), ("sgd", 2e-3))
    ]
    runs = sf.Sweep.from_frame(pd.concat(parts, ignore_index=True))
    ax = plots.basins(runs, sf.find_optima(runs, over="lr", by="optimizer"))
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["adamw", "sgd"]


def test_predictions_without_an_interval_are_drawn_without_a_bar():
    exact = sf.fit("eta = c * N**a", pd.DataFrame({"params": [1e8, 1e9], "lr": [2e-3, 1e-3]}))
    ax = plots.forecast(sf.extrapolate(exact, params=1e10))
    ax.figure.draw_without_rendering()
    assert np.isfinite(ax.get_ylim()).all()
    assert written(ax) == [r"10$\times$"]


def test_panels_may_be_of_several_widths_or_in_parts_of_a_figure():
    with plots.style(width="double"):
        fig, axes = plots.figure_grid(1, 2, width_ratios=[2, 1])
        PICTURES["basins"](axes[0, 0])
        PICTURES["law_by"](axes[0, 1])
        assert overlaps(fig) == []
        parts = pyplot.figure(layout="constrained").subfigures(1, 2)
        for part, name in zip(parts, ["tradeoff", "bcrit"], strict=True):
            PICTURES[name](part.subplots())
        assert overlaps(parts[0].figure) == []
