"""Effective learning rates: there, what they are good for, and back again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, SweepError
from scalefit.optima.effective_lr import effective_lr, from_effective
from scalefit.simulation import Design, Truth, simulate_sweep

TRUTH = Truth(noise=0.0, cliff=1e6, lr_batch_power=0.0)
DESIGN = Design(
    params=(1e7, 4e7, 1.6e8, 6.4e8), tokens=(1e9, 4e9, 1.6e10), batch_levels=1, lr_levels=11, lr_ratio=2**0.5
)


def norm_of(table: pd.DataFrame) -> pd.Series:
    """A weight norm that grows with size, data and the learning rate itself."""
    return 2.0 * table["params"] ** 0.3 * table["tokens"] ** 0.05 * table["lr"] ** 0.4


def simulated(noise: float = 0.0) -> sf.Sweep:
    table = simulate_sweep(replace(TRUTH, noise=noise), DESIGN, seed=1).drop(columns="batch")
    return sf.read_sweep(table.assign(weight_norm=norm_of(table), weight_decay=0.1))


def test_the_rate_is_divided_by_the_norm_and_kept() -> None:
    sweep = simulated()
    effective = effective_lr(sweep)
    before, after = sweep.table, effective.table
    np.testing.assert_allclose(after["lr"], before["lr"] / before["weight_norm"], rtol=1e-14)
    np.testing.assert_array_equal(after["lr_nominal"], before["lr"])
    pd.testing.assert_frame_equal(after.drop(columns=["lr", "lr_nominal"]), before.drop(columns="lr"))
    assert (effective.source, effective.rtol) == (sweep.source, sweep.rtol)
    added = [note for note in effective.notes if note not in sweep.notes]
    assert [note.code for note in added] == ["effective_lr"]
    assert "lr / weight_norm" in added[0].text
    assert "lr_nominal" not in sweep.table  # the sweep it came from is as it was


def test_in_equilibrium_it_is_the_root_of_rate_times_decay() -> None:
    sweep = simulated()
    effective = effective_lr(sweep, norm="equilibrium")
    np.testing.assert_allclose(effective.table["lr"], np.sqrt(0.1 * sweep.table["lr"]), rtol=1e-14)
    back = from_effective(effective.table["lr"], weight_decay=effective.table["weight_decay"])
    np.testing.assert_allclose(back, sweep.table["lr"], rtol=1e-13)


def test_numbers_go_there_and_back() -> None:
    effective = effective_lr(simulated()).table
    back = from_effective(effective["lr"].to_numpy(), weight_norm=effective["weight_norm"])
    np.testing.assert_allclose(back, effective["lr_nominal"], rtol=1e-13)


def test_optimum_of_a_larger_run_by_way_of_the_effective_rate() -> None:
    """The norm depends on the learning rate that is asked for: the two are solved together."""
    sweep = simulated()
    law = sf.fit("lr_power", sf.find_optima(effective_lr(sweep)))
    norm = sf.fit("weight_norm = w * N**p * D**q * eta**r", sweep.table)
    assert norm.values["r"] == pytest.approx(0.4, abs=1e-6)
    big = {"params": 1e10, "tokens": 2e11}
    with pytest.warns(sf.ExtrapolationWarning):
        predicted = law.predict(**big)
    with pytest.warns(sf.ExtrapolationWarning):
        back = from_effective(predicted, weight_norm=norm)
    best = float(TRUTH.optimum(**big)["lr"])
    assert back["prediction"][0] == pytest.approx(best, rel=0.03)
    assert back["lo"][0] < back["prediction"][0] < back["hi"][0]
    assert (back["params"][0], back["reach"][0]) == (1e10, predicted["reach"][0])
    alone = from_effective([predicted["prediction"][0]], weight_norm=norm, **big)
    assert alone[0] == pytest.approx(back["prediction"][0], rel=1e-12)
    again = alone[0] / float(norm.law(norm.values, big | {"lr": alone[0]}))
    assert again == pytest.approx(predicted["prediction"][0], rel=1e-12)


def test_the_error_of_the_norm_law_widens_the_interval() -> None:
    sweep = simulated(noise=0.002)
    law = sf.fit("lr_power", sf.find_optima(effective_lr(sweep)))
    table = sweep.table
    scatter = np.exp(0.2 * np.random.default_rng(0).normal(size=len(table)))
    loose = sf.fit("weight_norm = w * N**p * D**q", table.assign(weight_norm=table["weight_norm"] * scatter))
    predicted = law.predict(params=6.4e8, tokens=1.6e10)
    norm = loose.predict(params=6.4e8, tokens=1.6e10)
    back = from_effective(predicted, weight_norm=loose)
    own = np.log(predicted["hi"] / predicted["prediction"])[0]
    added = np.log(norm["hi"] / norm["prediction"])[0]
    assert np.log(back["hi"] / back["prediction"])[0] == pytest.approx(np.hypot(own, added), rel=1e-6)
    assert back["prediction"][0] == pytest.approx((predicted["prediction"] * norm["prediction"])[0], rel=1e-12)


def test_a_prediction_in_equilibrium_is_squared_with_its_interval() -> None:
    law = sf.fit("lr_power", sf.find_optima(effective_lr(simulated(noise=0.002), norm="equilibrium")))
    predicted = law.predict(params=1e8, tokens=4e9)
    back = from_effective(predicted, weight_decay=0.1)
    for name in ("prediction", "lo", "hi"):
        assert back[name][0] == pytest.approx(predicted[name][0] ** 2 / 0.1, rel=1e-12)
    assert back["prediction"][0] == pytest.approx(float(TRUTH.optimum(1e8, 4e9)["lr"]), rel=0.1)


def test_curvature_that_comes_from_the_norm_is_gone_in_effective_rates() -> None:
    """Optima whose effective rate is log-linear while the norm bends in ln N: the finding of arXiv:2606.29158."""
    table = simulate_sweep(replace(TRUTH, noise=0.001), DESIGN, seed=2).drop(columns="batch")
    bent = np.exp(0.05 * np.log(table["params"] / 1e7) ** 2)
    sweep = sf.read_sweep(table.assign(lr=table["lr"] * bent, weight_norm=bent))
    plain = sf.fit("lr_curved_params", sf.find_optima(sweep)).table.set_index("parameter")
    effective = sf.fit("lr_curved_params", sf.find_optima(effective_lr(sweep))).table.set_index("parameter")
    assert plain.loc["d", "lo"] > 0.03
    assert plain.loc["d", "value"] == pytest.approx(0.05, abs=0.01)
    assert abs(effective.loc["d", "value"]) < 0.01
    assert abs(effective.loc["d", "value"]) < 3 * effective.loc["d", "stderr"]


def test_a_law_of_effective_rates_carries_the_note() -> None:
    fit = sf.fit("lr_power", sf.find_optima(effective_lr(simulated())))
    assert any(note.code == "effective_lr" for note in fit.notes)


def test_diverged_runs_without_a_norm_are_left_out_and_told_of() -> None:
    table = simulated().table.drop(columns="diverged")
    top = table.groupby(["params", "tokens"])["lr"].transform("max") == table["lr"]
    table.loc[top, ["loss", "weight_norm"]] = np.nan
    sweep = sf.Sweep.from_frame(table.assign(diverged=top))
    effective = effective_lr(sweep)
    assert len(effective) == len(sweep) - int(top.sum())
    note = next(note for note in effective.notes if note.code == "no_norm")
    assert note.caution
    assert str(int(top.sum())) in note.text


def test_sgd_is_doubted() -> None:
    table = simulated().table.drop(columns="diverged")
    notes = effective_lr(sf.read_sweep(table.assign(optimizer="SGD"))).notes
    assert any(note.code == "sgd" and note.caution for note in notes)


@pytest.mark.parametrize("norm", ["weight_norm", "equilibrium"])
def test_a_missing_column_is_named(norm: str) -> None:
    column = {"weight_norm": "weight_norm", "equilibrium": "weight_decay"}[norm]
    sweep = sf.read_sweep(simulated().table.drop(columns=["diverged", column]))
    with pytest.raises(SweepError, match=f"needs the column {column}"):
        effective_lr(sweep, norm=norm)


@pytest.mark.parametrize("value", [0.0, np.nan, -0.1])
def test_zero_or_unknown_decay_is_refused_with_its_row(value: float) -> None:
    table = simulated().table.drop(columns="diverged")
    table.loc[4, "weight_decay"] = value
    with pytest.raises(SweepError, match=r"weight_decay should be positive: 1 of .* first in row 5"):
        effective_lr(sf.Sweep.from_frame(table), norm="equilibrium")


def test_what_has_no_meaning_is_refused() -> None:
    sweep = simulated()
    with pytest.raises(SweepError, match="norm should be"):
        effective_lr(sweep, norm="spectral")
    with pytest.raises(SweepError, match="effective already"):
        effective_lr(effective_lr(sweep))
    for ways in ({}, {"weight_decay": 0.1, "weight_norm": 2.0}):
        with pytest.raises(SweepError, match="give one way back"):
            from_effective([0.01], **ways)
    for decay in (0.0, -1.0, np.nan, "much"):
        with pytest.raises(SweepError, match="weight_decay should be positive"):
            from_effective([0.01], weight_decay=decay)
    with pytest.raises(SweepError, match="effective learning rate should be positive"):
        from_effective([-0.01], weight_decay=0.1)
    with pytest.raises(SweepError, match="only a norm law takes inputs"):
        from_effective([0.01], weight_decay=0.1, params=1e9)
    with pytest.raises(SweepError, match="without prediction, lo, hi"):
        from_effective(sweep.table, weight_decay=0.1)


def test_a_norm_law_that_cannot_serve_is_refused() -> None:
    table = simulated().table
    with pytest.raises(FitError, match="should be one for weight_norm"):
        from_effective([0.01], weight_norm=sf.fit("lr_power", table), params=1e9, tokens=1e10)
    norm = sf.fit("weight_norm = w * N**p * eta**r", table)
    with pytest.raises(FitError, match="needs params"):
        from_effective([0.01], weight_norm=norm)
    with pytest.raises(FitError, match="does not take batch"):
        from_effective([0.01], weight_norm=norm, params=1e9, batch=1e6)
    runaway = sf.fit("weight_norm = w * eta**r", table.assign(weight_norm=table["lr"] ** 1.2))
    with pytest.raises(FitError, match="grows as fast as lr"):
        from_effective([0.01], weight_norm=runaway)
