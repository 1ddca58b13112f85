"""What must hold for any data: units, order and repetition of rows move only what they should."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scalefit as sf

LOSSES = {"squared": sf.Squared(), "huber": sf.Huber(1e-2), "soft": sf.SoftL1(1e-2)}
factors = st.floats(-3, 6).map(lambda power: 10.0**power)
losses = st.sampled_from(sorted(LOSSES))
quiet = settings(max_examples=12, deadline=None, derandomize=True)


def sweep(seed: int, rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"params": 10 ** rng.uniform(7, 10, rows), "tokens": 10 ** rng.uniform(9, 12, rows)})
    table["batch"] = 10 ** rng.uniform(4, 7, rows)
    lr = 20 * table["params"] ** -0.7 * table["tokens"] ** 0.2 * table["batch"] ** 0.1
    loss = 1.8 + 480 / table["params"] ** 0.35 + 2100 / table["tokens"] ** 0.37
    return table.assign(lr=lr * np.exp(0.05 * rng.normal(size=rows)), loss=loss * np.exp(0.003 * rng.normal(size=rows)))


@quiet
@given(losses, st.sampled_from(["params", "tokens", "batch", "lr"]), factors)
def test_units_of_a_power_law(loss: str, column: str, factor: float) -> None:
    table = sweep(1)
    fit = sf.fit("lr_power_batch", table, loss=LOSSES[loss])
    scaled = sf.fit("lr_power_batch", table.assign(**{column: table[column] * factor}), loss=LOSSES[loss])
    for name in "abg":
        assert scaled.values[name] == pytest.approx(fit.values[name], abs=1e-8)
    exponent = {"params": "a", "tokens": "b", "batch": "g"}.get(column)
    predicted = fit.values["c"] * (factor if exponent is None else factor ** -fit.values[exponent])
    assert scaled.values["c"] == pytest.approx(predicted, rel=1e-6)
    assert scaled.objective == pytest.approx(fit.objective, rel=1e-9)
    assert scaled.status is fit.status


@quiet
@given(losses, st.sampled_from(["params", "tokens", "loss"]), factors)
def test_units_of_a_loss_law(loss: str, column: str, factor: float) -> None:
    table = sweep(2)
    fit = sf.fit("chinchilla", table, loss=LOSSES[loss])
    scaled = sf.fit("chinchilla", table.assign(**{column: table[column] * factor}), loss=LOSSES[loss])
    moved = dict(fit.values)
    if column == "params":
        moved["A"] *= factor ** fit.values["alpha"]
    elif column == "tokens":
        moved["B"] *= factor ** fit.values["beta"]
    else:
        moved |= {name: fit.values[name] * factor for name in "EAB"}
    assert scaled.values["alpha"] == pytest.approx(fit.values["alpha"], abs=1e-8)
    assert scaled.values["beta"] == pytest.approx(fit.values["beta"], abs=1e-8)
    assert scaled.values == pytest.approx(moved, rel=1e-6)
    errors = [f.table.set_index("parameter")["stderr"] for f in (fit, scaled)]
    assert errors[1]["alpha"] == pytest.approx(errors[0]["alpha"], rel=1e-5)
    assert scaled.status is fit.status


@quiet
@given(factors)
def test_units_of_the_target_in_plain_space(factor: float) -> None:
    table = sweep(3)
    fit = sf.fit("chinchilla", table, space="plain")
    scaled = sf.fit("chinchilla", table.assign(loss=table["loss"] * factor), space="plain")
    assert scaled.values["alpha"] == pytest.approx(fit.values["alpha"], abs=1e-8)
    assert scaled.values["A"] == pytest.approx(factor * fit.values["A"], rel=1e-6)
    assert scaled.scale == pytest.approx(factor * fit.scale, rel=1e-8)


@quiet
@given(st.sampled_from(["lr_power", "chinchilla", "skaling"]), losses, st.integers(0, 10**6))
def test_the_order_of_rows_changes_nothing(law: str, loss: str, seed: int) -> None:
    table = pd.concat([sweep(4), sweep(4).iloc[:5]], ignore_index=True)
    order = np.random.default_rng(seed).permutation(len(table))
    fit = sf.fit(law, table, loss=LOSSES[loss])
    shuffled = sf.fit(law, table.iloc[order], loss=LOSSES[loss])
    for name, value in fit.values.items():
        assert shuffled.values[name] == pytest.approx(value, rel=1e-12)
    pd.testing.assert_frame_equal(shuffled.table, fit.table, rtol=1e-12)
    np.testing.assert_allclose(shuffled.residuals, fit.residuals[order], rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(
        shuffled.rows["loss" if law != "lr_power" else "lr"], fit.rows.iloc[order].iloc[:, -1]
    )


@quiet
@given(losses, st.integers(0, 10**6))
def test_whole_weights_are_repeated_rows(loss: str, seed: int) -> None:
    table = sweep(5)
    counts = np.random.default_rng(seed).integers(1, 4, len(table))
    weighted = sf.fit("chinchilla", table, loss=LOSSES[loss], weights=counts)
    repeated = sf.fit("chinchilla", table.loc[table.index.repeat(counts)], loss=LOSSES[loss])
    assert weighted.values == pytest.approx(dict(repeated.values), rel=1e-7)


@quiet
@given(losses, st.sampled_from(["lr_power", "chinchilla"]), st.integers(0, 10**6))
def test_a_lower_objective_is_nowhere_near(loss: str, law: str, seed: int) -> None:
    fit = sf.fit(law, sweep(6), loss=LOSSES[loss])
    steps = np.random.default_rng(seed).normal(size=(50, len(fit.phi))) * np.sqrt(np.diag(fit.covariance))
    nearby = np.concatenate([fit.phi + size * steps for size in (1e-4, 1e-2, 1.0)])
    assert fit.problem.objective(nearby).min() >= fit.objective * (1 - 1e-12)


@quiet
@given(st.floats(0.5, 0.999), st.floats(-1, 1), st.floats(-1, 1))
def test_intervals_grow_with_their_level_and_hold_the_value(level: float, n: float, d: float) -> None:
    fit = sf.fit("chinchilla", sweep(7))
    point = {"params": 10 ** (8.5 + n), "tokens": 10 ** (10.5 + d)}
    narrow, wide = (fit.predict(level=q, **point).iloc[0] for q in (0.4, level))
    assert wide["lo"] < narrow["lo"] < wide["prediction"] < narrow["hi"] < wide["hi"]
    table = fit.intervals(level)
    assert ((table["lo"] < table["value"]) & (table["value"] < table["hi"])).all()
