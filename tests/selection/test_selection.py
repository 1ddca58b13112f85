"""Laws compared on cells they have not seen, and the choice between them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad

from scalefit.errors import FitError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.optima.find_optima import find_optima
from scalefit.selection.choose_law import Choice, choose_law
from scalefit.selection.compare import Comparison, akaike_weights, compare, jackknife
from scalefit.selection.criteria import criteria, log_likelihood
from scalefit.simulation import simulate_sweep
from scalefit.solvers.losses import Huber, SoftL1, Squared
from scalefit.sweep import Sweep

STEPLAW = (
    "214.7 4, 214.7 11.4, 214.7 20, 214.7 100, 268.4 5, 268.4 14.2, 268.4 25, 268.4 80, 429.5 8, 429.5 22.7, 429.5 40, "
    "429.5 50, 536.9 10, 536.9 28.4, 536.9 50, 1073.7 20, 1073.7 56.9"
)
"""The 17 cells of the Step Law dense sweep, in millions of parameters and billions of tokens."""

CARS = (
    "4 4 7 7 8 9 10 10 10 11 11 12 12 12 12 13 13 13 13 14 14 14 14 15 15 15 16 16 17 17 17 18 18 18 18 19 19 19 20 20 "
    "20 20 20 22 23 24 24 24 24 25",
    "2 10 4 22 16 10 18 26 34 17 28 14 20 24 28 26 34 34 46 26 36 60 80 20 26 54 32 40 32 40 50 42 56 76 84 36 46 68 "
    "32 48 52 56 64 66 54 70 92 93 120 85",
)
"""Speed and stopping distance of cars (Ezekiel 1930), as in R's data set `cars`."""


def steplaw_cells() -> pd.DataFrame:
    pairs = [tuple(map(float, text.split())) for text in STEPLAW.split(",")]
    return pd.DataFrame(pairs, columns=["params", "tokens"]) * [1e6, 1e9]


def grid(sizes: int, budgets: int) -> pd.DataFrame:
    levels = np.geomspace(6e7, 1.07e9, sizes), np.geomspace(2e9, 1e11, budgets)
    return pd.DataFrame([(n, d) for n in levels[0] for d in levels[1]], columns=["params", "tokens"])


def optima(cells: pd.DataFrame, seed: object, interaction: float = 0.0, noise: float = 0.2) -> pd.DataFrame:
    """Draw optima from a law linear in logs, but for an interaction about the middle of the cells."""
    n, d = np.log(cells["params"]), np.log(cells["tokens"])
    log_lr = 0.6 - 0.71 * n + 0.31 * d + interaction * (n - n.mean()) * (d - d.mean())
    return cells.assign(lr=np.exp(log_lr + noise * np.random.default_rng(seed).standard_normal(len(cells))))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return optima(grid(4, 4), seed=3)


@pytest.fixture(scope="module")
def fits(table) -> list[Fit]:
    return [fit(law, table) for law in ("lr_quadratic", "lr_power", "lr_curved")]


# ---------------------------------------------------------------- criteria


def test_information_criteria_of_a_textbook_regression():
    speed, dist = (np.array(text.split(), dtype=float) for text in CARS)
    found = criteria(fit("dist = a + b * speed", {"speed": speed, "dist": dist}))
    assert found.aicc == pytest.approx(419.1569 + 2 * 3 * 4 / 46, abs=1e-4)  # R: AIC(lm(dist ~ speed, cars))
    assert found.bic == pytest.approx(424.8929, abs=1e-4)
    assert found.log_likelihood == pytest.approx(-206.5784, abs=1e-4)


def test_weights_are_inverse_variances_in_the_likelihood():
    r, w = np.array([0.3, -1.0, 0.2, 2.0]), np.array([1.0, 4.0, 0.5, 2.0])
    variance = (w @ r**2) / 4
    density = np.sqrt(w / (2 * np.pi * variance)) * np.exp(-w * r**2 / (2 * variance))
    assert log_likelihood(Squared(), r, w) == pytest.approx(np.log(density).sum())
    assert log_likelihood(Squared(), r, 7 * w) == pytest.approx(np.log(density).sum())


def test_likelihood_of_a_robust_loss_is_a_density_between_normal_and_laplace():
    rng = np.random.default_rng(0)
    r, ones = rng.standard_t(3, size=80), np.ones(80)
    laplace = -80 * (np.log(2 * np.abs(r).mean()) + 1)
    normal = log_likelihood(Squared(), r, ones)
    for loss in (Huber, SoftL1):
        assert log_likelihood(loss(1e-4), r, ones) == pytest.approx(laplace, abs=0.02)
        assert log_likelihood(loss(1e4), r, ones) == pytest.approx(normal, abs=1e-3)
        assert log_likelihood(loss(1.0), r, ones) > normal  # heavy tails


@pytest.mark.parametrize("loss", [Huber(0.7), SoftL1(0.7)])
def test_density_of_a_robust_loss_integrates_to_one(loss):
    """The likelihood of one residual, at the precision that is best for it and others."""
    r, w = np.array([0.1, -0.4, 1.5, 0.9]), np.array([1.0, 2.0, 1.0, 0.5])

    def cost(tau: float) -> float:
        areas = [quad(lambda x, v=v: np.exp(-tau * v * loss.value(np.array(x))), -60, 60, limit=200)[0] for v in w]
        return tau * float(w @ loss.value(r)) + float(np.log(areas).sum())

    assert log_likelihood(loss, r, w) == pytest.approx(max(-cost(tau) for tau in np.geomspace(0.3, 30, 300)), abs=1e-3)


def test_akaike_weights_are_shares():
    found = akaike_weights(np.array([10.0, 12.0, np.nan]))
    assert found[:2].sum() == pytest.approx(1.0)
    assert found[0] / found[1] == pytest.approx(np.e)
    assert np.isnan(found[2])
    assert np.isnan(akaike_weights(np.array([np.nan]))).all()


def test_an_exact_fit_has_no_criteria():
    exact = criteria(fit("L = c * N**a", {"params": [1e7, 1e8, 1e9], "loss": [4.0, 2.0, 1.0]}))
    assert np.isnan([exact.aicc, exact.bic]).all()


# ---------------------------------------------------------------- held-out errors


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


# ---------------------------------------------------------------- compare


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


def test_a_direction_that_no_law_can_learn_is_dropped_and_told_of():
    pairs = optima(grid(2, 6), seed=0)
    found = compare([fit("lr_power", pairs)])
    assert list(found.growths) == ["tokens"]
    assert found.table["lost"].iloc[0] == 0
    assert "no_growth" in [note.code for note in found.notes]
    assert choose_law(pairs).fit.law.name == "lr_power"


def test_a_fixed_law_can_be_compared_and_is_doubted(table):
    import lmfit

    params = lmfit.Parameters()
    for name, value in {"c": 1.8, "a": -0.71, "b": 0.31}.items():
        params.add(name, value=value, vary=False)
    fixed = fit("lr_power", table, params=params)
    found = compare([fixed])
    assert found.table["leave_out"].iloc[0] == pytest.approx(np.sqrt((fixed.residuals**2).mean()))
    assert found.table["parameters"].iloc[0] == 0
    assert "fixed" in [note.code for note in found.notes]


def test_faces_tell_the_rule_and_escape(fits):
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


# ---------------------------------------------------------------- choose


def shares(cells: pd.DataFrame, interaction: float, sweeps: int) -> Counter[str]:
    chosen = (choose_law(optima(cells, [7, k], interaction)).fit.law.name for k in range(sweeps))
    return Counter(chosen)


def test_straight_truth_is_called_straight_and_a_bent_one_bent():
    assert shares(steplaw_cells(), 0.0, 60)["lr_power"] >= 54
    assert shares(grid(5, 8), 0.08, 40)["lr_curved"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("cells", [steplaw_cells(), grid(5, 8)], ids=["steplaw", "grid"])
def test_straight_truth_is_called_straight_in_500_sweeps(cells):
    assert shares(cells, 0.0, 500)["lr_power"] >= 450


@pytest.mark.slow
@pytest.mark.parametrize("interaction", [0.08, -0.08])
def test_bent_truth_is_called_bent_in_500_sweeps(interaction):
    found = shares(grid(5, 8), interaction, 500)
    assert found["lr_curved"] > 250
    assert found["lr_quadratic"] < 25


def test_the_choice_keeps_the_rule(table):
    for seed in range(12):
        chosen = choose_law(optima(steplaw_cells(), seed))
        rows = chosen.comparison.table.set_index("law")
        own = rows.loc[chosen.fit.law.name]
        assert own["behind"] <= own["behind_stderr"]
        simpler = rows[rows["parameters"] < own["parameters"]]
        assert (simpler["behind"] > simpler["behind_stderr"]).all()
        assert chosen.fit.law.name in chosen.reason


def test_a_strong_bend_is_found_and_explained():
    chosen = choose_law(optima(grid(5, 8), seed=1, interaction=0.3, noise=0.05))
    assert isinstance(chosen, Choice)
    assert chosen.fit.law.name == "lr_curved"
    assert "lr_power" in chosen.reason
    assert "more than one standard error" in chosen.reason
    assert chosen.reason in repr(chosen)
    assert "lr_curved" in chosen._repr_html_()


def test_candidates_follow_what_the_data_vary():
    cells = grid(4, 4)
    tokens_only = cells.drop_duplicates("tokens").assign(lr=[4e-3, 3e-3, 2.4e-3, 1.7e-3])
    assert choose_law(tokens_only).fit.law.formula == "eta = c * D**b"
    params_only = pd.DataFrame({"params": np.geomspace(1e7, 1e9, 7)})
    params_only["batch"] = 20 * params_only["params"] ** 0.4 * [1, 1.1, 0.95, 1.05, 1, 0.9, 1.1]
    assert choose_law(params_only).fit.law.formula == "B = c * N**a"


def test_sweeps_and_optima_are_taken_as_they_are():
    runs = simulate_sweep(seed=1)
    sweep = Sweep.from_frame(runs.assign(diverged=runs["loss"].isna()))
    both = find_optima(sweep, over=("lr", "batch"))
    assert choose_law(both, target="batch").fit.law.target == "B"
    per_batch = choose_law(find_optima(sweep, over="lr"))
    assert per_batch.fit.law.name == "lr_power_batch"
    assert choose_law(sweep.cells, target="loss", laws=["chinchilla", "loss_params"]).fit.law.name == "chinchilla"
    with pytest.raises(FitError, match="target="):
        choose_law(both)


def test_laws_that_cannot_be_fitted_are_told_of(table):
    chosen = choose_law(table, laws=["lr_power", "lr_power_batch"])
    assert [note.code for note in chosen.notes] == ["not_fitted"]
    assert "only law" in chosen.reason


@pytest.mark.parametrize(
    ("data", "laws", "told"),
    [
        (lambda t: t, "lr_power", "laws="),
        (lambda t: t, [], "no law"),
        (lambda t: t.assign(params=1e8, tokens=1e9), "auto", "none of params and tokens"),
        (lambda t: t[["params"]], "auto", "none of lr, batch and loss"),
        (lambda t: t, ["lr_power_batch"], "none of the laws"),
        (lambda t: t.iloc[:4], ["lr_quadratic"], "none of the laws"),
        (lambda t: t.iloc[[0, 5, 10]], "auto", "none of the laws|none can be judged"),
        (lambda t: 3, "auto", "expected optima"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(table, data, laws, told):
    with pytest.raises(FitError, match=told):
        choose_law(data(table), laws=laws)
