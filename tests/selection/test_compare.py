"""Laws compared on cells they have not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from optima_samples import grid, optima, steplaw_cells

from scalefit.errors import FitError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.selection.choose_law import choose_law
from scalefit.selection.compare import Comparison, compare, jackknife
from scalefit.solvers.losses import Huber


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return optima(grid(4, 4), seed=3)


@pytest.fixture(scope="module")
def fits(table) -> list[Fit]:
    return [fit(law, table) for law in ("lr_quadratic", "lr_power", "lr_curved")]


def naive(law: object, table: pd.DataFrame, held: pd.Series, loss: object = None) -> np.ndarray:
    """Weighted squared errors of the rows held out, by fitting anew."""
    weights = table.get("w")
    kept = ~held
    again = fit(law, table[kept], loss=loss, weights=None if weights is None else weights[kept].to_numpy())
    error = np.log(table["lr"]) - np.log(again.law(again.values, table))
    return ((1 if weights is None else weights) * error**2)[held].to_numpy()


def naive_leave_out(law: object, table: pd.DataFrame, loss: object = None) -> float:
    cells = table.groupby(["params", "tokens"]).ngroup()
    total = sum(naive(law, table, cells == cell, loss).sum() for cell in range(cells.max() + 1))
    return float(np.sqrt(total / table.get("w", pd.Series(1.0, index=table.index)).sum()))


@pytest.mark.parametrize("law", ["lr_power", "lr_curved", "lr_quadratic"])
def test_held_out_errors_are_those_of_fitting_anew(law):
    table = pd.concat([optima(grid(4, 4), seed=1), optima(grid(4, 4).iloc[:7], seed=2)], ignore_index=True)
    table["w"] = np.random.default_rng(5).uniform(0.5, 2.0, len(table))
    row = compare([fit(law, table, weights="w")]).table.iloc[0]
    assert row["leave_out"] == pytest.approx(naive_leave_out(law, table), rel=1e-10)
    squares = []
    for name in ("params", "tokens"):
        held = table[name] == table[name].max()
        squares.append((naive(law, table, held).sum(), table["w"][held].sum()))
        assert row[f"grow_{name}"] == pytest.approx(np.sqrt(squares[-1][0] / squares[-1][1]), rel=1e-10)
    left = naive_leave_out(law, table) ** 2 * table["w"].sum(), table["w"].sum()
    total = np.sum([left, *squares], axis=0)
    assert row["error"] == pytest.approx(np.sqrt(total[0] / total[1]), rel=1e-10)


def test_held_out_errors_of_a_robust_fit_are_those_of_fitting_anew(table):
    loss = Huber(0.1)
    row = compare([fit("lr_power", table, loss=loss)]).table.iloc[0]
    assert row["leave_out"] == pytest.approx(naive_leave_out("lr_power", table, loss), rel=1e-6)


def test_held_out_errors_of_a_nonlinear_law_are_those_of_fitting_anew():
    table = grid(4, 4)
    rng = np.random.default_rng(0)
    table["loss"] = (1.7 + 400 / table["params"] ** 0.34 + 410 / table["tokens"] ** 0.28) * np.exp(
        0.003 * rng.standard_normal(16)
    )
    found = compare([fit("chinchilla", table)]).table.iloc[0]
    squares = []
    for row in range(16):
        again = fit("chinchilla", table.drop(index=row))
        squares.append(np.log(table["loss"][row] / again.law(again.values, table.iloc[[row]])[0]) ** 2)
    assert found["leave_out"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)


def test_a_refit_whose_term_runs_to_zero_still_predicts():
    """On the smaller sizes the floor vanishes; the prediction is that of fitting anew, not lost."""
    table = grid(5, 4).assign(loss=lambda t: 40 / t["params"] ** 0.15 + 400 / t["tokens"] ** 0.3)
    wobble = 0.002 * np.random.default_rng(8).standard_normal(len(table))
    top = table["params"] == table["params"].max()
    table["loss"] *= np.exp(wobble + np.where(top, 0.02, 0.0))  # flattens out at the top: a floor appears
    full = fit("chinchilla", table)
    assert full.status.name == "CONVERGED"
    again = fit("chinchilla", table[~top])
    assert again.status.name == "AT_BOUND"
    error = np.log(table["loss"] / again.law(again.values, table))[top]
    row = compare([full]).table.iloc[0]
    assert row["lost"] == 0
    assert row["grow_params"] == pytest.approx(np.sqrt((error**2).mean()), rel=0.02)


def test_the_standard_error_of_a_growth_is_a_jackknife_of_fitting_anew(table):
    row = compare([fit("lr_power", table)]).table.iloc[0]
    top = table["params"].max()
    without = []
    for cell in range(len(table)):
        rest = table.drop(index=cell)
        without.append(np.sqrt(naive("lr_power", rest, rest["params"] == top).mean()))
    assert row["grow_params_stderr"] == pytest.approx(jackknife(np.array(without)), rel=1e-9)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=12)
    without = (values.sum() - values) / 11
    assert jackknife(without) == pytest.approx(values.std(ddof=1) / np.sqrt(12))
    assert np.isnan(jackknife(np.array([1.0])))


def spread_and_stderr(cells: pd.DataFrame, sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the true spread of (error, straight minus curved) and the root mean square of their standard errors."""
    values, squares = [], []
    for k in range(sweeps):
        drawn = optima(cells, [9, k])
        rows = compare([fit(law, drawn) for law in ("lr_power", "lr_curved")]).table.set_index("law")
        values.append([rows["error"]["lr_power"], rows["error"]["lr_power"] - rows["error"]["lr_curved"]])
        squares.append([rows["error_stderr"]["lr_power"] ** 2, rows["behind_stderr"].max() ** 2])
    return np.std(values, axis=0), np.sqrt(np.mean(squares, axis=0))


def test_standard_errors_are_as_large_as_the_spread():
    spread, stderr = spread_and_stderr(steplaw_cells(), 60)
    assert (stderr / spread > 0.8).all()
    assert (stderr / spread < [1.3, 2.0]).all()


@pytest.mark.slow
def test_standard_errors_are_as_large_as_the_spread_in_250_sweeps():
    for cells in (steplaw_cells(), grid(5, 8)):
        spread, stderr = spread_and_stderr(cells, 250)
        assert (stderr / spread > 0.9).all()
        assert (stderr / spread < [1.15, 1.8]).all()


def test_rows_of_a_cell_are_left_out_together():
    """A law with a level for every cell would look perfect if runs of the same cell stayed behind."""
    cells = pd.concat([optima(grid(3, 3), seed=1, noise=0.3)] * 3, ignore_index=True)
    row = compare([fit("lr_power", cells)]).table.iloc[0]
    alone = compare([fit("lr_power", cells.iloc[:9])]).table.iloc[0]
    assert row["leave_out"] == pytest.approx(alone["leave_out"], rel=1e-9)
    assert row["leave_out_stderr"] == pytest.approx(alone["leave_out_stderr"], rel=1e-9)


def test_parameters_that_are_held_stay_held(table):
    import lmfit

    params = lmfit.Parameters()
    params.add("b", value=0.31, vary=False)
    row = compare([fit("lr_power", table, params=params)]).table.iloc[0]
    assert row["parameters"] == 2
    rest = table.assign(lr=table["lr"] / table["tokens"] ** 0.31)
    other = compare([fit("eta = c * N**a", rest)]).table.iloc[0]
    assert row["leave_out"] == pytest.approx(other["leave_out"], rel=1e-9)


def test_ranked_by_held_out_error_not_by_the_fit(fits):
    table = compare(fits).table
    assert list(table["law"]) == ["lr_power", "lr_curved", "lr_quadratic"]
    assert (np.diff(table["error"]) > 0).all()
    assert fits[0].objective < fits[1].objective  # the quadratic fits best
    assert table["behind"].iloc[0] == table["behind_stderr"].iloc[0] == 0.0
    assert table["behind"].to_numpy() == pytest.approx(table["error"] - table["error"].iloc[0])
    assert compare(fits).best.law.name == "lr_power"


def test_the_difference_is_more_certain_than_the_errors(fits):
    row = compare(fits).table.iloc[1]
    assert 0 < row["behind_stderr"] < row["error_stderr"]


def test_order_of_rows_and_of_fits_changes_nothing(table, fits):
    plain = compare(fits).table
    shuffled = table.sample(frac=1, random_state=1)
    mixed = [fit(f.law, shuffled if k else table) for k, f in enumerate(fits)]
    for other in (mixed, mixed[::-1], fits[::-1]):
        pd.testing.assert_frame_equal(compare(other).table, plain, rtol=1e-12)


def test_rows_without_weight_count_for_nothing(table, fits):
    padded = pd.concat([table, table.iloc[:3].assign(lr=9.0, params=5e9)], ignore_index=True)
    weights = np.repeat([1.0, 0.0], [len(table), 3])
    again = compare([fit(f.law, padded, weights=weights) for f in fits])
    pd.testing.assert_frame_equal(again.table, compare(fits).table, rtol=1e-9)
    assert again.growths == compare(fits).growths


def test_the_unit_of_weights_changes_nothing(table, fits):
    heavy = [fit(f.law, table, weights=np.full(len(table), 50.0)) for f in fits]
    pd.testing.assert_frame_equal(compare(heavy).table, compare(fits).table, rtol=1e-9)


def test_growth_holds_out_a_tenth_and_two_cells():
    cells = pd.DataFrame({"tokens": np.geomspace(1e9, 4e10, 6)}).assign(params=1e8)
    found = compare([fit("eta = c * D**b", optima(cells, seed=1))])
    assert found.growths["tokens"][0] == 2
    assert found.growths["tokens"][1] == pytest.approx(40 ** (2 / 5))
    assert "grow_params" not in found.table


def test_a_law_that_the_smaller_cells_do_not_identify_comes_last():
    pairs = optima(grid(2, 6), seed=0)  # below the larger size there is one size only
    table = compare([fit(law, pairs) for law in ("lr_power", "eta = c * D**b")])
    assert list(table.table["lost"]) == [0, 1]
    assert table.table["law"].iloc[0] == "eta = c * D**b"
    assert "lost" in [note.code for note in table.notes]


def test_a_direction_that_no_law_can_learn_is_dropped_and_noted():
    pairs = optima(grid(2, 6), seed=0)
    found = compare([fit("lr_power", pairs)])
    assert list(found.growths) == ["tokens"]
    assert found.table["lost"].iloc[0] == 0
    assert "no_growth" in [note.code for note in found.notes]
    assert choose_law(pairs).fit.law.name == "lr_power"


def test_a_fixed_law_can_be_compared_and_gets_a_caution(table):
    import lmfit

    params = lmfit.Parameters()
    for name, value in {"c": 1.8, "a": -0.71, "b": 0.31}.items():
        params.add(name, value=value, vary=False)
    fixed = fit("lr_power", table, params=params)
    found = compare([fixed])
    assert found.table["leave_out"].iloc[0] == pytest.approx(np.sqrt((fixed.residuals**2).mean()))
    assert found.table["parameters"].iloc[0] == 0
    assert "fixed" in [note.code for note in found.notes]


def test_displays_show_the_rule_and_escape(fits):
    found = compare(fits)
    assert isinstance(found, Comparison)
    assert "ranked by error" in repr(found)
    assert "lr_curved" in found._repr_html_()
    assert "log eta" in repr(found)


def test_same_law_with_two_losses_has_two_names_and_a_stated_likelihood(table):
    found = compare([fit("lr_power", table), fit("lr_power", table, loss=Huber(0.05))])
    assert len(set(found.table["law"])) == 2
    assert any(note.code == "likelihood" and "exp(-tau rho(r))" in note.text for note in found.notes)
    assert np.isfinite(found.table["aicc"]).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: [fit("lr_power", t), fit("L = c * N**a", t.rename(columns={"lr": "loss"}))], "same target"),
        (lambda t: [fit("lr_power", t), fit("lr_power", t, space="plain")], "plain space"),
        (lambda t: [fit("lr_power", t), fit("lr_power", t.iloc[:-1])], "16 rows and .* to 15"),
        (lambda t: [fit("lr_power", t), fit("lr_power", t.assign(lr=t["lr"] * 1.01))], "differ in lr"),
        (lambda t: [fit("lr_power", t), fit("lr_power", t.assign(params=t["params"] * 2))], "differ in params"),
        (lambda t: [fit("lr_power", t), fit("lr_power", t, weights=np.arange(1, 17))], "different weights"),
        (lambda t: [], "empty list"),
        (lambda t: fit("lr_power", t), "found Fit"),
        (lambda t: ["lr_power"], "found str"),
    ],
)
def test_what_cannot_be_compared_is_refused(table, change, told):
    with pytest.raises(FitError, match=told):
        compare(change(table))
