"""Right values worked out here once more, by hand, where a fault planted in the code went unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

import scalefit as sf


def fieller(over: float, under: float, covariance: np.ndarray, quantile: float) -> tuple[float, float]:
    """Return the ratios r at which over - r under is `quantile` of its own errors from 0; covariance of both."""

    def excess(r: float) -> float:
        weights = np.array([1.0, -r])
        return float((over - r * under) ** 2 - quantile**2 * weights @ covariance @ weights)

    # a parabola in r, by three of its points
    parabola = np.polyfit([-1.0, 0.0, 1.0], [excess(r) for r in (-1.0, 0.0, 1.0)], 2)
    low, high = sorted(np.roots(parabola).real)
    return float(low), float(high)


def line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and intercept of a straight line with their covariance."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    coefficient = inverse @ design.T @ y
    rest = y - design @ coefficient
    return coefficient, inverse * (rest @ rest) / (len(x) - 2)


# In units of 1e4 so that the plain normal equations are well conditioned.
BATCHES = np.geomspace(1.0, 64.0, 7)
STEPS = (1 + 8.0 / BATCHES) * np.exp([0.05, -0.08, 0.03, 0.06, -0.05, -0.04, 0.07])
QUANTILE = t.ppf(0.95, len(BATCHES) - 2)


def estimated(method: object) -> pd.Series:
    table = pd.DataFrame({"batch": 1e4 * BATCHES, "steps": 1e3 * STEPS})
    return sf.fit_tradeoff(table, method=method, small_batches="keep", level=0.9).table.iloc[0]


def test_intervals_of_the_line_in_steps_are_fiellers() -> None:
    (b, a), covariance = line(1 / BATCHES, STEPS)
    found = estimated(sf.StepsLine())
    assert found["B_crit"] == pytest.approx(1e4 * b / a, rel=1e-9)
    low, high = fieller(b, a, covariance, QUANTILE)
    assert [found["B_crit_lo"], found["B_crit_hi"]] == pytest.approx([1e4 * low, 1e4 * high], rel=1e-9)
    half = QUANTILE * np.sqrt(np.diag(covariance))
    assert [found["E_min_lo"], found["E_min_hi"]] == pytest.approx([1e7 * (b - half[0]), 1e7 * (b + half[0])], rel=1e-9)
    assert [found["S_min_lo"], found["S_min_hi"]] == pytest.approx([1e3 * (a - half[1]), 1e3 * (a + half[1])], rel=1e-9)


def test_intervals_of_the_line_in_inverse_steps_are_fiellers() -> None:
    """1/S = 1/S_min - B_noise/E: E_min is the ratio of minus the slope to the intercept."""
    (slope, inverse), covariance = line(1 / (BATCHES * STEPS), 1 / STEPS)
    found = estimated(sf.InverseSteps())
    assert found["E_min"] == pytest.approx(1e7 * -slope / inverse, rel=1e-9)
    turned = covariance * np.array([[1.0, -1.0], [-1.0, 1.0]])  # of (-slope, intercept)
    low, high = fieller(-slope, inverse, turned, QUANTILE)
    assert [found["E_min_lo"], found["E_min_hi"]] == pytest.approx([1e7 * low, 1e7 * high], rel=1e-9)
    half = QUANTILE * np.sqrt(np.diag(covariance))
    expected = [1e4 * (-slope - half[0]), 1e4 * (-slope + half[0])]
    assert [found["B_crit_lo"], found["B_crit_hi"]] == pytest.approx(expected, rel=1e-9)
    expected = [1e3 / (inverse + half[1]), 1e3 / (inverse - half[1])]
    assert [found["S_min_lo"], found["S_min_hi"]] == pytest.approx(expected, rel=1e-9)


def test_equally_good_crossings_are_joined_by_their_geometric_mean() -> None:
    """Above, below, above, below the target: both falls put three of four points on the right side."""
    tokens, loss = np.array([1e3, 1e4, 1e6, 8e7]), np.array([3.4, 2.9, 3.1, 2.5])
    curves = sf.read_curves(pd.DataFrame({"run": "a", "tokens": tokens, "loss": loss}))
    share = np.log(loss[[0, 2]] / 3.0) / np.log(loss[[0, 2]] / loss[[1, 3]])
    first, last = tokens[[0, 2]] * (tokens[[1, 3]] / tokens[[0, 2]]) ** share
    for crossing, expected in (("first", first), ("last", last), ("monotone", np.sqrt(first * last))):
        found = curves.tokens_to_target([3.0], crossing=crossing).iloc[0]
        assert found["status"] == "reached"
        assert found["tokens"] == pytest.approx(expected, rel=1e-12), crossing
    assert curves.tokens_to_target([3.0])["tokens"].iloc[0] == pytest.approx(np.sqrt(first * last), rel=1e-12)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory):
    """Return a folder with a small sweep and its results."""
    folder = tmp_path_factory.mktemp("refitted")
    rng = np.random.default_rng(0)
    rows = [
        {"params": n, "tokens": d, "batch": 65536, "lr": lr, "loss": 2 + 20 / n**0.2 + 30 / d**0.2 + 0.05 * miss**2}
        for n in (1e7, 1e8, 1e9)
        for d in (1e9, 1e10)
        for miss in np.linspace(-1.5, 1.5, 7)
        for lr in [30 * n**-0.5 * d**-0.05 * np.exp(miss + rng.normal(0, 0.1))]
    ]
    (folder / "in").mkdir()
    pd.DataFrame(rows).to_csv(folder / "in" / "sweep.csv", index=False)
    refit(folder)
    return folder


def refit(folder) -> sf.Refit:
    config = folder / "scalefit.toml"
    config.write_text('[read]\nbatch_unit = "tokens"\n[fit]\ndraws = 20\n')
    return sf.refit(folder / "in", folder / "out", config=config, jobs=1, figures=False, report=False)


@pytest.mark.parametrize(("errors", "moved"), [(2.9, False), (-2.9, False), (3.1, True), (-3.1, True)])
def test_a_value_has_moved_beyond_three_combined_errors(refitted, errors: float, moved: bool) -> None:
    """The combined error of 4 and 3 is 5: not their sum, nor the larger."""
    file = refitted / "out" / "sweep" / "record.json"
    record = json.loads(file.read_text())
    (entry,) = (entry for entry in record["findings"] if entry["quantity"] == "lr: a")
    now = entry["value"]
    entry["value"] = now + errors * 1.25 * entry["stderr"]
    entry["stderr"] = 0.75 * entry["stderr"]
    file.write_text(json.dumps(record | {"version": "before"}))
    said = refit(refitted).summary["moved"].iloc[0]
    assert ("lr: a " in said) == moved
    drifts = [drift for drift in json.loads(file.read_text())["drift"] if drift["quantity"] == "lr: a"]
    assert len(drifts) == moved
    for drift in drifts:
        assert drift["errors"] == pytest.approx(3.1, rel=1e-9)
        assert [drift["before"], drift["after"]] == pytest.approx([entry["value"], now], rel=1e-12)


def pairs_of_rates() -> pd.DataFrame:
    batch = np.geomspace(1e4, 4e6, 9)
    noise = [0.12, -0.2, 0.05, 0.1, -0.06, -0.15, 0.2, -0.02, 0.08]
    return pd.DataFrame({"batch": batch, "lr": 0.01 / (1 + 3e5 / batch) * np.exp(noise)})


def test_a_rule_of_the_rate_is_tested_against_a_slope_and_a_bend() -> None:
    from scipy.stats import f

    table = pairs_of_rates()
    found = sf.fit_rate_curve(5e5, table).table.set_index("rule")["p"]
    x = np.log(table["batch"] / 5e5)
    rest = np.log(table["lr"]) + np.log1p(np.exp(-x))
    free = ((rest - np.polyval(np.polyfit(x, rest, 2), x)) ** 2).sum()
    held = ((rest - rest.mean()) ** 2).sum()
    assert found["sgd"] == pytest.approx(f.sf((held - free) / 2 / (free / 6), 2, 6), rel=1e-9)


def test_a_noise_scale_with_an_error_is_given_every_chance() -> None:
    """The p value is the largest over noise scales not rejected at 1 in 1000, plus that 1 in 1000."""
    from scipy.stats import norm

    table, share = pairs_of_rates(), 0.3
    scales = 1e6 * np.exp(norm.isf(5e-4) * share * np.linspace(-1, 1, 41))
    known = np.array([sf.fit_rate_curve(scale, table).table["p"] for scale in scales])
    found = sf.fit_rate_curve(1e6, table, noise_stderr=share * 1e6).table["p"]
    np.testing.assert_allclose(found, known.max(axis=0) + 1e-3, rtol=1e-9)


@pytest.mark.parametrize(
    ("sizes", "poor", "left_out"), [(4, 1, 0), (5, 1, 1), (8, 4, 4), (8, 5, 0), (11, 5, 5), (11, 6, 0), (12, 7, 0)]
)
def test_four_batch_sizes_and_half_of_them_judge_the_smaller_ones(sizes: int, poor: int, left_out: int) -> None:
    batch = np.geomspace(1e4, 1e7, sizes)
    examples = 1e9 * (1 + batch / 1e6) * np.exp(0.01 * np.random.default_rng(1).normal(size=sizes))
    examples[:poor] *= 3
    found = sf.fit_tradeoff(pd.DataFrame({"batch": batch, "examples": examples})).table.iloc[0]
    assert found["n_left_out"] == left_out


@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_rounded_batch_stays_within_limits_that_are_no_multiples(power_of_two: bool) -> None:
    """6.6 units round to 7 and to 2**3, 2.1 units to 2 and to 2**1: none of them is allowed."""
    tokens = np.geomspace(1e8, 2e10, 60)
    curve = pd.DataFrame({"tokens": tokens, "loss": 1.8 + 2100 / tokens**0.37})
    limits = {"multiple": 1e5, "power_of_two": power_of_two}
    most = sf.batch_schedule("kaplan2020_bcrit", curve, overhead=4.0, cap=6.6e5, **limits).table["batch"]
    assert most.max() == (4e5 if power_of_two else 6e5)
    least = sf.batch_schedule("kaplan2020_bcrit", curve, overhead=0.02, smallest=2.1e5, **limits).table["batch"]
    assert least.min() == (4e5 if power_of_two else 3e5)


@pytest.mark.parametrize(("cells", "few"), [(5, True), (6, False), (12, False)])
def test_few_cells_are_said_to_be_few(cells: int, few: bool) -> None:
    rng = np.random.default_rng(0)
    params = np.geomspace(1e7, 1e9, cells)
    lr = 3e-3 * (params / 1e8) ** -0.4 * np.exp(0.05 * rng.normal(size=cells))
    rows = pd.DataFrame({"params": params, "lr": lr})
    found = sf.compare([sf.fit("eta = c * N**a", rows), sf.fit("eta = c", rows)])
    assert any(note.code == "few" for note in found.notes) == few


def test_an_average_counts_the_laws_it_does_not_name() -> None:
    found = sf.average_laws(sf.find_optima(sf.load_dataset("tiny-lm")))
    told = found.reason.count("(error ")
    assert 0 < told < len(found.weights)
    assert f"; {len(found.weights) - told} more below" in found.reason


def test_the_surface_of_the_bundled_sweep_is_what_it_was() -> None:
    """Values as first computed, not derived here; that they are near the simulated truth is tested elsewhere."""
    found = sf.fit_surface(sf.load_dataset("simulated"))
    lr, batch = found.lr_fit, found.batch_fit
    assert batch is not None
    assert list(lr.values.values()) == pytest.approx([0.905191112, -0.648249570, 0.268556635], rel=1e-6)
    assert lr.table["stderr"].tolist() == pytest.approx([0.0572403453, 0.00196648620, 0.00210647561], rel=1e-5)
    assert batch.values["b"] == pytest.approx(0.571797160, rel=1e-6)
    assert batch.table["stderr"].tolist()[2] == pytest.approx(0.00233899687, rel=1e-5)
    errors = found.cells[["log_lr_stderr", "log_batch_stderr"]].mean().tolist()
    assert errors == pytest.approx([0.0112256102, 0.0175546083], rel=1e-5)
    assert [found.scatter, found.noise] == pytest.approx([0.000706429613, 0.00319795776], rel=1e-5)
    assert found.between["lr"] == pytest.approx(0.00539633448, rel=1e-4)
    row = found.predict_loss(params=1e8, tokens=1e10, lr=1e-3, batch=1e6).iloc[0]
    assert row[["loss_lo", "loss", "loss_hi"]].tolist() == pytest.approx([3.03708872, 3.04475315, 3.05241758], rel=1e-6)


def test_what_the_estimators_take_for_granted() -> None:
    stated = [sf.Basin(), sf.Parabola(), sf.NearMinimum(), sf.Hyperbola(), sf.Overhead(), sf.Huber(), sf.LocalLine()]
    assert [repr(method) for method in stated] == [
        "Basin(window=0.03, level=0.95, asymmetry=None)",
        "Parabola(window=0.01, level=0.95)",
        "NearMinimum(excess=0.0025)",
        "Hyperbola(lack_of_fit=None)",
        "Overhead(overhead=0.2, reference=None, curve=Hyperbola(lack_of_fit=None))",
        "Huber(delta=0.001)",
        "LocalLine(share=0.2)",
    ]


def test_the_batch_at_the_end_of_a_schedule_is_its_last() -> None:
    tokens = np.geomspace(1e8, 2e10, 6)
    plan = sf.batch_schedule("kaplan2020_bcrit", pd.DataFrame({"tokens": tokens, "loss": 1.8 + 2100 / tokens**0.37}))
    batch = plan.table["batch"].to_numpy()
    assert (np.diff(batch) > 0).all()
    asked = np.array([0.0, *plan.table["tokens"]])
    np.testing.assert_array_equal(plan.batch_at(asked), [*batch, batch[-1]])
    assert plan.batch_at(2 * plan.tokens) == batch[-1]


def test_a_copy_of_the_very_first_run_is_found_across_files(tmp_path: Path) -> None:
    runs = pd.DataFrame({"lr": [1e-3, 2e-3], "params": 1e8, "tokens": 1e9, "loss": [3.123456789, 3.023456789]})
    runs.to_csv(tmp_path / "a.csv", index=False)
    runs.head(1).assign(machine="b").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(sf.SweepError, match="1 of 3 runs"):
        sf.read_sweep([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_a_line_of_which_nothing_is_known_bounds_no_ratio() -> None:
    """Neither the intercept nor the slope can be told from 0: the critical batch may be anything."""
    table = pd.DataFrame({"batch": [1e4, 2e4, 4e4, 8e4], "steps": [1000.0, 3000.0, 500.0, 2500.0]})
    found = sf.fit_tradeoff(table, method=sf.StepsLine(), small_batches="keep").table.iloc[0]
    assert not found["identified"]
    assert (found["B_crit_lo"], found["B_crit_hi"]) == (0.0, np.inf)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_start_says_which_of_two_equal_terms_is_which(swapped: bool) -> None:
    size = np.geomspace(1, 1e4, 14)
    scatter = np.exp(0.002 * np.random.default_rng(0).normal(size=14))
    table = pd.DataFrame({"params": size, "loss": (3 / size**1.2 + 2 / size**0.25) * scatter})
    start = (
        {"A": 1.0, "alpha": 0.25, "B": 1.0, "beta": 1.2}
        if swapped
        else {"A": 1.0, "alpha": 1.2, "B": 1.0, "beta": 0.25}
    )
    found = sf.fit(sf.Law("L = A/N**alpha + B/N**beta"), table, start=start)
    assert (found.values["alpha"] < found.values["beta"]) == swapped


def test_scores_of_the_bundled_sweep_are_what_they_were() -> None:
    """Values as first computed, not derived here."""
    found = sf.backtest(sf.load_dataset("simulated"), "largest params", published=["steplaw2025"])
    scores = found.summary().set_index("entrant")
    names = ["Basin: lr_power", "grid minimum + OLS", "surface: lr_power", "Parabola: lr_power", "steplaw2025"]
    expected = {
        "regret_pct": [0.140885, 0.139887, 0.140496, 0.165884, 0.205044],
        "regret_stderr": [0.039233, 0.037819, 0.039182, 0.043019, 0.037830],
        "worst_pct": [0.361047, 0.289022, 0.359157, 0.400694, 0.320514],
        "lr_log2": [0.017083, 0.235536, 0.017799, 0.266861, 0.311400],
        "batch_log2": [0.030399, 0.294451, 0.027206, 0.026102, 0.039753],
    }
    for column, values in expected.items():
        np.testing.assert_allclose(scores.loc[names, column], values, atol=2e-6, err_msg=column)


def test_the_chance_of_a_small_batch_that_needs_more_data() -> None:
    """F(1, k - 3) of what the misfit gains, in units of a scatter of 2 %, times the three numbers that are tried."""
    from scipy.optimize import least_squares
    from scipy.stats import f

    batch = np.geomspace(1e4, 1e7, 7)
    scatter = np.exp([0.25, 0.006, -0.008, 0.004, 0.007, -0.009, 0.003])
    examples = 1e9 * (1 + batch / 1e6) * scatter

    def misfit(rows: slice) -> float:
        def rest(logs: np.ndarray) -> np.ndarray:
            return np.log(examples[rows]) - logs[0] - np.log1p(batch[rows] / np.exp(logs[1]))

        tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
        return float(2 * least_squares(rest, np.log([1e9, 1e6]), **tight).cost)

    found = sf.fit_tradeoff(pd.DataFrame({"batch": batch, "examples": examples})).table.iloc[0]
    assert found["n_left_out"] == 1
    added = (misfit(slice(None)) - misfit(slice(1, None))) / 0.02**2
    assert found["excess_p"] == pytest.approx(3 * f.sf(added, 1, 4), rel=1e-6)


@pytest.mark.parametrize("method", [sf.StepsLine(), sf.InverseSteps(), sf.Hyperbola()], ids=repr)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_trade_off_does_not_depend_on_units(method: object, unit: float) -> None:
    found = [
        sf.fit_tradeoff(pd.DataFrame({"batch": size * BATCHES, "steps": STEPS}), method=method).table.iloc[0]
        for size in (1.0, unit)
    ]
    for name in ("E_min", "B_crit", "S_min"):
        columns = [name, f"{name}_lo", f"{name}_hi", f"{name}_stderr"]
        size = 1.0 if name == "S_min" else unit
        np.testing.assert_allclose(found[1][columns].astype(float), size * found[0][columns].astype(float), rtol=1e-6)


def test_errors_of_the_parabola_are_those_of_least_squares() -> None:
    """Every run counts alike in so wide a window; the noise of a run is judged about a cubic."""
    rng = np.random.default_rng(0)
    x, y = (axis.ravel() for axis in np.meshgrid(np.log(2) * np.arange(-3, 4), np.log(2) * np.arange(-2, 3)))
    noise = 0.003 * rng.normal(size=len(x))
    loss = 2 + 0.02 * (x - 0.2) ** 2 + 0.015 * (y + 0.1) ** 2 - 0.012 * (x - 0.2) * (y + 0.1) + noise
    runs = pd.DataFrame({"lr": 1e-3 * np.exp(x), "batch": 1e5 * np.exp(y), "params": 1e8, "tokens": 1e9, "loss": loss})
    sweep = sf.read_sweep(runs, batch_unit="tokens")
    found = sf.find_optima(sweep, ("lr", "batch"), method=sf.Parabola(window=1e6)).table.iloc[0]

    def design(order: int) -> np.ndarray:
        return np.stack([x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)], axis=1)

    def vertex(c: np.ndarray) -> np.ndarray:
        # terms 1, y, y^2, x, x y, x^2
        return np.linalg.solve([[2 * c[5], c[4]], [c[4], 2 * c[2]]], [-c[3], -c[1]])

    square, cubic = design(2), design(3)
    coefficient = np.linalg.lstsq(square, loss, rcond=None)[0]
    rest = loss - cubic @ np.linalg.lstsq(cubic, loss, rcond=None)[0]
    covariance = np.linalg.inv(square.T @ square) * (rest @ rest) / (len(x) - cubic.shape[1])
    step = 1e-6
    slopes = np.stack(
        [(vertex(coefficient + d) - vertex(coefficient - d)) / (2 * step) for d in step * np.eye(6)], axis=1
    )
    errors = np.sqrt(np.diag(slopes @ covariance @ slopes.T))
    assert np.log([found["lr"] / 1e-3, found["batch"] / 1e5]) == pytest.approx(vertex(coefficient), rel=1e-5)
    assert [found["log_lr_stderr"], found["log_batch_stderr"]] == pytest.approx(errors, rel=1e-4)
