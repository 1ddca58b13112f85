"""The best batch of the three-term law: its formula, its errors, and when it is not identified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, FitStatus, LawError
from scalefit.batch_size.best_batch import best_batch

TRUTH = {"E": 1.6, "a": 400.0, "alpha": 0.35, "b": 8.0, "beta": 0.3, "c": 90.0, "gamma": 0.5}
EXPONENT = 0.3 / 0.8
PREFACTOR = (0.5 * 90.0 / (0.3 * 8.0)) ** (1 / 0.8)


def runs(noise: float = 0.0, seed: int = 0, truth: dict[str, float] = TRUTH) -> pd.DataFrame:
    """Four sizes, five budgets, six batch sizes: the batches of a budget lie around its best."""
    axes = np.meshgrid(np.geomspace(5e7, 1e9, 4), np.geomspace(1e9, 1e11, 5), np.geomspace(0.1, 10, 6))
    params, tokens, share = (axis.ravel() for axis in axes)
    batch = share * PREFACTOR * tokens**EXPONENT
    table = pd.DataFrame({"params": params, "tokens": tokens, "batch": batch, "steps": tokens / batch})
    scatter = np.exp(noise * np.random.default_rng(seed).normal(size=len(table)))
    return table.assign(loss=sf.laws.get_law("three_term")(truth, table) * scatter)


def test_it_is_where_the_law_is_lowest_at_a_fixed_budget() -> None:
    found = best_batch(sf.fit("three_term", runs()))
    assert (found.prefactor, found.exponent) == pytest.approx((PREFACTOR, EXPONENT), rel=1e-5)
    for tokens in (1e9, 1e11):
        batch = np.geomspace(1e3, 1e8, 20001)
        table = {"params": np.full(len(batch), 1e8), "batch": batch, "steps": tokens / batch}
        lowest = batch[sf.laws.get_law("three_term")(TRUTH, table).argmin()]
        assert found.predict(tokens)["batch"][0] == pytest.approx(lowest, rel=1e-3)
    assert found.predict(pd.Series([1e9, 1e11], ["short", "long"])).index.tolist() == ["short", "long"]
    assert found.identified


def test_its_errors_are_those_of_repeated_fits_and_its_intervals_cover() -> None:
    fits = [sf.fit("three_term", runs(0.003, seed)) for seed in range(40)]
    found = [best_batch(fit) for fit in fits]
    exponents = np.array([one.exponent for one in found])
    assert np.median([one.exponent_stderr for one in found]) == pytest.approx(exponents.std(ddof=1), rel=0.3)
    true = PREFACTOR * 1e12**EXPONENT
    rows = pd.concat([one.predict(1e12) for one in found])
    assert ((rows["lo"] < true) & (true < rows["hi"])).mean() > 0.88
    assert np.median(np.log(rows["batch"] / true)) == pytest.approx(0.0, abs=0.1)


def test_a_bootstrap_gives_much_the_same_errors() -> None:
    fit = sf.fit("three_term", runs(0.003, 1))
    draws = sf.bootstrap(fit, n=300, by="row")
    by_draws, by_covariance = best_batch(fit, draws=draws), best_batch(fit)
    assert by_draws.exponent == by_covariance.exponent
    assert by_draws.exponent_stderr == pytest.approx(by_covariance.exponent_stderr, rel=0.35)
    wide, narrow = by_draws.predict(1e10).iloc[0], by_draws.predict(1e10, level=0.5).iloc[0]
    assert wide["lo"] < narrow["lo"] < narrow["batch"] < narrow["hi"] < wide["hi"]
    with pytest.raises(FitError, match="the bootstrap of this fit"):
        best_batch(sf.fit("three_term", runs(0.003, 2)), draws=draws)


def test_a_term_the_data_do_not_need_leaves_it_unidentified() -> None:
    without = TRUTH | {"c": 1e-9}
    found = best_batch(sf.fit("three_term", runs(truth=without)))
    assert not found.identified
    assert found.exponent_stderr == np.inf
    row = found.predict(1e10).iloc[0]
    assert (row["lo"], row["hi"]) == (0.0, np.inf)
    assert "no_best_batch" in [note.code for note in found.notes if note.caution]
    assert "no: the step or the batch term is not known" in repr(found)


def test_one_batch_size_per_budget_does_not_identify_it() -> None:
    table = runs(0.003)
    ray = table[np.isclose(table["batch"], table.groupby(["params", "tokens"])["batch"].transform("min"))]
    found = best_batch(sf.fit("three_term", ray))
    assert not found.identified
    assert "aligned" in [note.code for note in found.notes]


def test_other_laws_are_refused() -> None:
    table = runs()
    with pytest.raises(LawError, match=r"expected a fit of 'L = E \+ a/N\*\*alpha"):
        best_batch(sf.fit("chinchilla", table))
    with pytest.raises(FitError, match="tokens: expected positive"):
        best_batch(sf.fit("three_term", table)).predict(0.0)


def test_step_law_runs_give_the_published_best_batch(shared_data: Callable[[str], Path]) -> None:
    """0.667 D^0.566 by Schaipp on runs of the same laboratory; the prefactor and exponent are one error apart."""
    raw = pd.read_csv(shared_data("steplaw_dense_lr_bs.csv"))
    columns = {"params": raw["N"], "tokens": raw["D"], "batch": raw["bs"] * 2048, "steps": raw["ti"]}
    table = pd.DataFrame(columns).astype(float).assign(loss=raw["smooth loss"])
    best = table.loc[table.groupby(["params", "tokens", "batch"])["loss"].idxmin()]
    near = best[best["loss"] < 1.02 * best.groupby(["params", "tokens"])["loss"].transform("min")]
    fit = sf.fit("three_term", near.reset_index(drop=True), loss=sf.Huber(1e-3))
    assert fit.status is FitStatus.CONVERGED
    found = best_batch(fit)
    assert found.exponent == pytest.approx(0.566, abs=2 * found.exponent_stderr)
    assert found.exponent_stderr < 0.08
    rows = found.predict([2e9, 1e10, 1e11])
    published = sf.laws.get_published("schaipp2026_bs")(tokens=rows["tokens"].to_numpy())
    assert (np.abs(np.log(rows["batch"] / published)) < np.log(1.2)).all()
