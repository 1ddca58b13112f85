"""Laws for effective rates compete in backtests, and give rates to set."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit.backtesting.competitors import EffectiveEntrant
from scalefit.errors import LawError, SweepError
from scalefit.simulation import Design, Truth, simulate_sweep


@pytest.fixture(scope="module")
def sweep() -> sf.Sweep:
    """Runs whose weights grow with the rate and the size, so that the rate to set is known."""
    runs = simulate_sweep(Truth(noise=1e-4), Design(batch_levels=5), seed=2)
    norm = 40 * (runs["lr"] / 1e-3) ** 0.3 * (runs["params"] / 1e8) ** 0.4
    return sf.Sweep.from_frame(runs.assign(weight_norm=norm, diverged=runs["loss"].isna()), source="simulated")


def test_the_rate_to_set_is_that_of_the_plain_law(sweep):
    places = {"params": [1e9, 2e9], "tokens": [6e10, 1e11]}
    plain = sf.fit("lr_power", sf.find_optima(sweep, over=("lr", "batch")))
    with pytest.warns(sf.ExtrapolationWarning):
        expected = plain.predict(**places)["prediction"]
    found = EffectiveEntrant("effective").train(sweep).optimum(**places)
    np.testing.assert_allclose(found["lr"], expected, rtol=0.03)
    assert (found["lr_lo"] < found["lr"]).all()
    assert (found["lr"] < found["lr_hi"]).all()


def test_it_is_scored_beside_the_others(sweep):
    report = sf.backtest(sweep, "largest params", entrants=[EffectiveEntrant("effective")])
    assert report.summary().loc[0, "failed"] == 0
    assert report.summary().loc[0, "regret_pct"] < 0.3


def test_what_cannot_be_converted_is_refused(sweep):
    bare = sf.Sweep.from_frame(sweep.table.drop(columns="weight_norm"))
    with pytest.raises(SweepError, match="weight_norm"):
        EffectiveEntrant("effective").train(bare)
    law = sf.Law("weight_norm = c * lr**k * B**g", positive={"c"})
    with pytest.raises(LawError, match="the norm law needs batch, which the law for lr does not"):
        EffectiveEntrant("effective", norm_law=law).train(sweep)


def test_a_backtest_of_a_sweep_without_norms_says_why_there_is_no_prediction(sweep):
    bare = sf.Sweep.from_frame(sweep.table.drop(columns="weight_norm"))
    report = sf.backtest(bare, "largest params", entrants=[EffectiveEntrant("effective")])
    assert isinstance(report.table, pd.DataFrame)
    assert report.table["error"].str.contains("weight_norm").all()
