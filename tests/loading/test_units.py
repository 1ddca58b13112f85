"""The unit of the batch: said, proven, or refused; and never converted twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scalefit.backtesting.usual_competitors import published_entrant
from scalefit.errors import LawError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.laws.published import get_published
from scalefit.loading.read_sweep import read_sweep
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import NearMinimum
from scalefit.sweep import Sweep


def runs(length: float = 2048.0, **columns: Any) -> pd.DataFrame:
    batch = np.array([16.0, 32.0, 64.0, 128.0])
    steps = np.array([8000.0, 4000.0, 2000.0, 1000.0])
    table = {"lr": 1e-3, "batch": batch, "steps": steps, "tokens": batch * steps * length}
    return pd.DataFrame({**table, "loss": [3.3, 3.2, 3.4, 3.6], **columns})


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(SweepError) as caught:
        read_sweep(source, **options)
    return str(caught.value)


def noted(sweep: Sweep, code: str = "batch_unit") -> str:
    return " | ".join(note.text for note in sweep.notes if note.code == code)


# -- proven ------------------------------------------------------------------------------------------------------------


def test_a_batch_in_tokens_is_proven() -> None:
    sweep = read_sweep(runs(1.0))
    assert_array_equal(sweep.table["batch"], runs()["batch"])
    assert "batch is in tokens: steps * batch = tokens" in noted(sweep)


@pytest.mark.parametrize("length", [2.0, 512.0, 1000.0, 1365.0, 2048.0, 32768.0])
def test_a_batch_in_sequences_is_proven(length: float) -> None:
    sweep = read_sweep(runs(length))
    assert_array_equal(sweep.table["batch"], runs()["batch"] * length)
    assert f"sequences of {length:g} tokens" in noted(sweep)


def test_rounded_token_counts_still_prove_a_round_length() -> None:
    table = runs()
    table["tokens"] *= [1.002, 0.998, 1.0, 1.001]
    assert_array_equal(read_sweep(table).table["batch"], runs()["batch"] * 2048)


def test_seq_len_proves_by_argument_or_column() -> None:
    assert_array_equal(read_sweep(runs(), seq_len=2048).table["batch"], runs()["batch"] * 2048)
    lengths = np.array([512.0, 512.0, 1024.0, 1024.0])
    table = runs(seq_len=lengths)
    table["tokens"] = table["batch"] * table["steps"] * lengths
    assert_array_equal(read_sweep(table).table["batch"], table["batch"] * lengths)
    assert_array_equal(read_sweep(runs(1.0), seq_len=2048).table["batch"], runs()["batch"])


@pytest.mark.parametrize("missing", ["steps", "tokens"])
def test_a_unit_that_cannot_be_proven_says_what_to_pass(missing: str) -> None:
    for table in (runs().drop(columns=missing), runs(1.0).drop(columns=missing)):
        message = refusal(table)
        assert f"without {missing} it cannot be checked" in message
        assert "batch_unit='tokens', or batch_unit='sequences' with seq_len" in message
    assert "cannot be checked" in refusal(runs().drop(columns=missing), seq_len=2048)


@pytest.mark.parametrize("factor", [[1, 1, 1, 1.05], [1, 1, 1, 1000.0], [1e-3, 1e-3, 1e-3, 1e-3], [0.0012] * 4])
def test_steps_and_tokens_that_do_not_agree_prove_nothing(factor: list[float]) -> None:
    table = runs()
    table["tokens"] *= factor
    assert "unit of batch is not clear" in refusal(table)


def test_a_ratio_that_is_not_seq_len_is_refused() -> None:
    message = refusal(runs(), seq_len=1024)
    assert "neither 1 (batch in tokens) nor seq_len (1024) in 4 of 4 runs, first 2048 in row 1" in message


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_extreme_numbers_prove_nothing_and_warn_of_nothing(size: float) -> None:
    refusal(runs(batch=size, steps=size))


# -- said --------------------------------------------------------------------------------------------------------------


def test_a_claim_is_taken_when_nothing_contradicts_it() -> None:
    alone = runs()[["lr", "batch", "loss"]]
    assert_array_equal(read_sweep(alone, batch_unit="tokens").table["batch"], alone["batch"])
    sweep = read_sweep(alone, batch_unit="sequences", seq_len=512)
    assert_array_equal(sweep.table["batch"], alone["batch"] * 512)
    assert "as said" in noted(sweep)
    column = read_sweep(alone.assign(seq_len=512), batch_unit="sequences")
    assert_array_equal(column.table["batch"], alone["batch"] * 512)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_unit": "tokens"}, "batch_unit='tokens' contradicts steps and tokens in 4 of 4 runs, first in row 1"),
        ({"batch_unit": "sequences", "seq_len": 1024}, "should be 1024 and is 2048"),
    ],
)
def test_a_claim_that_steps_and_tokens_contradict_is_refused(options: dict[str, Any], text: str) -> None:
    assert text in refusal(runs(), **options)


def test_sequences_claimed_for_a_batch_in_tokens_are_refused() -> None:
    assert "contradicts steps and tokens in 4 of 4 runs" in refusal(runs(1.0), batch_unit="sequences", seq_len=2048)
    assert "does not fit" in refusal(runs(1.0), batch_unit="sequences")


def test_one_run_that_contradicts_is_enough() -> None:
    table = runs(1.0)
    table.loc[2, "tokens"] *= 1.03
    assert "in 1 of 4 runs, first in row 3" in refusal(table, batch_unit="tokens")
    table.loc[2, "tokens"] *= 1.01 / 1.03
    assert len(read_sweep(table, batch_unit="tokens")) == 4


def test_sequences_without_a_length_are_proven_or_refused() -> None:
    assert_array_equal(read_sweep(runs(), batch_unit="sequences").table["batch"], runs()["batch"] * 2048)
    assert "needs seq_len" in refusal(runs()[["batch", "loss"]], batch_unit="sequences")


@pytest.mark.parametrize("length", [0, -1, np.nan, np.inf, "2048", True])
def test_a_seq_len_that_is_no_length_is_refused(length: Any) -> None:
    assert "seq_len should be a positive number" in refusal(runs(), seq_len=length)


def test_argument_and_column_must_agree() -> None:
    table = runs(seq_len=[2048, 2048, 1024, 2048])
    assert "contradicts the column seq_len in 1 of 4 runs, first 1024 in row 3" in refusal(table, seq_len=2048)


def test_without_a_batch_nothing_is_needed() -> None:
    table = runs()[["lr", "steps", "loss"]]
    assert not noted(read_sweep(table))
    assert "were not used" in noted(read_sweep(table, batch_unit="tokens"))


# -- derived -----------------------------------------------------------------------------------------------------------


def test_tokens_follow_from_steps_and_batch_and_nothing_else_is_derived() -> None:
    sweep = read_sweep(runs().drop(columns="tokens"), batch_unit="sequences", seq_len=2048)
    assert_allclose(sweep.table["tokens"], runs()["tokens"], rtol=0)
    assert "tokens = steps * batch" in noted(sweep, "derived")
    untouched = read_sweep(runs().drop(columns="steps").assign(flops=1e20), batch_unit="tokens")
    assert "steps" not in untouched.table
    assert "params" not in untouched.table


def test_a_change_of_unit_changes_nothing_else() -> None:
    sequences, tokens = read_sweep(runs()), read_sweep(runs().assign(batch=runs()["batch"] * 2048))
    pd.testing.assert_frame_equal(sequences.table, tokens.table)
    assert sequences.fingerprint == tokens.fingerprint


def test_each_source_is_proven_by_itself() -> None:
    other = runs(1.0, batch=runs()["batch"] * 512, loss=[4.1, 4.2, 4.3, 4.4])
    other["tokens"] = other["batch"] * other["steps"]
    sweep = read_sweep([runs(), other])
    assert_array_equal(sweep.table["batch"], np.concatenate([runs()["batch"] * 2048, runs()["batch"] * 512]))


# -- other units of data -----------------------------------------------------------------------------------------------


def images(**columns: Any) -> pd.DataFrame:
    """Runs counted in images, 256 a step."""
    table = {"lr": [0.1, 0.2, 0.4], "batch_size": 256, "steps": 5000, "images": 1.28e6, "loss": [1.2, 1.1, 1.3]}
    return pd.DataFrame({**table, **columns})


def test_data_may_be_counted_in_images() -> None:
    sweep = read_sweep(images(), data_unit="images")
    assert sweep.data_unit == "images"
    assert sweep.table["tokens"].tolist() == [1.28e6] * 3
    units = {"lr": "1", "batch": "images", "tokens": "images", "loss": "nats", "steps": "steps"}
    assert dict(sweep.units) == units
    assert noted(sweep) == "batch is in images: steps * batch = tokens in every run within 1 %"
    assert "tokens  images" in repr(sweep)
    assert "1.1 .. 1.3 nats\n" in repr(sweep)


@pytest.mark.parametrize(("unit", "name"), [("samples", "sample"), ("epochs", "epoch"), ("Images", "images")])
def test_the_column_called_like_the_unit_is_the_data(unit: str, name: str) -> None:
    table = images().rename(columns={"images": name}).drop(columns="batch_size")
    assert read_sweep(table, data_unit=unit).table["tokens"].tolist() == [1.28e6] * 3
    assert "tokens" not in read_sweep(table).table


def test_a_batch_in_images_has_to_be_proven_or_said_too() -> None:
    table = images().drop(columns="steps")
    text = refusal(table, data_unit="images")
    assert "pass batch_unit='images', or batch_unit='sequences' with seq_len=<images per sequence>" in text
    assert read_sweep(table, data_unit="images", batch_unit="images").table["batch"].tolist() == [256.0] * 3
    assert "batch_unit should be one of None, 'images', 'sequences'" in refusal(
        table, data_unit="images", batch_unit="tokens"
    )
    twice = read_sweep(table, data_unit="images", batch_unit="sequences", seq_len=2)
    assert twice.table["batch"].tolist() == [512.0] * 3
    assert "now in images (2 each)" in noted(twice)


@pytest.mark.parametrize("unit", ["", "7", None, 3, "tokens/s"])
def test_a_data_unit_is_a_word(unit: Any) -> None:
    assert "data_unit should be a plural noun" in refusal(images(), data_unit=unit)


def test_the_unit_follows_the_runs_to_the_fit_and_its_file() -> None:
    table = images(images=[1e6, 2e6, 4e6], steps=[3906.25, 7812.5, 15625], loss=[1.3, 1.2, 1.1])
    sweep = read_sweep(table, data_unit="images")
    assert sweep.where("D > 1e6").data_unit == sweep.observations("loss").data_unit == "images"
    fitted = fit("L = c * D**a", sweep)
    assert fitted.data_unit == "images"
    assert "in images" in repr(fitted)
    assert Fit.from_json(fitted.to_json()).data_unit == "images"
    assert fit("L = c * D**a", sweep.table).data_unit == "tokens"
    optima = find_optima(read_sweep(images(), data_unit="images"), by="tokens", method=NearMinimum(0.05))
    assert optima.data_unit == optima.observations("lr").data_unit == "images"
    assert "data in  images" in repr(optima)


def test_sweeps_in_different_units_are_different() -> None:
    table = images().rename(columns={"images": "tokens"})
    in_images, in_samples = (read_sweep(table, data_unit=unit) for unit in ("images", "samples"))
    assert in_images.fingerprint != in_samples.fingerprint


def test_published_constants_refuse_other_units() -> None:
    law = get_published("steplaw2025_lr")
    assert law(params=1e9, tokens=1e10, data_unit="tokens") == law(params=1e9, tokens=1e10)
    with pytest.raises(LawError, match="images"):
        law(params=1e9, tokens=1e10, data_unit="images")
    grid = pd.MultiIndex.from_product([[1e-3, 2e-3, 4e-3], [1e8, 2e8]], names=["lr", "params"]).to_frame(index=False)
    sweep = Sweep.from_frame(grid.assign(tokens=1e9, loss=3.0), data_unit="images")
    with pytest.raises(LawError, match="images"):
        published_entrant("steplaw2025").train(sweep)


def test_numbers_in_millions_get_a_caution() -> None:
    table = pd.DataFrame({"lr": [1e-3, 2e-3], "batch": 65536.0, "params": 70.0, "tokens": 4.0, "loss": [3.1, 3.0]})
    sweep = read_sweep(table, batch_unit="tokens")
    told = {note.code: note for note in sweep.notes}
    assert "up to 70 only" in told["params_unit"].text
    assert "2 of 2 runs are shorter than a step" in told["short"].text
    assert told["params_unit"].caution
    plain = read_sweep(table.assign(params=7e7, tokens=4e9), batch_unit="tokens")
    assert not {"params_unit", "short"} & {note.code for note in plain.notes}
    epochs = read_sweep(table.assign(params=7e7), batch_unit="epochs", data_unit="epochs")
    assert "short" not in {note.code for note in epochs.notes}


def test_losses_like_no_nats_get_a_caution_and_are_kept() -> None:
    def told(loss: list[float], **options: Any) -> dict[str, str]:
        sweep = read_sweep(pd.DataFrame({"lr": [1e-3, 2e-3], "loss": loss}), **options)
        assert_array_equal(sweep.table["loss"], loss)
        return {note.code: note.text for note in sweep.notes if note.caution}

    assert "the smallest loss is 3e+300" in told([3e300, 4e300])["loss_unit"]
    assert "loss_unit" in told([101.0, np.nan], nonfinite="diverged")
    for plain in (told([11.0, 4e300]), told([3e300, 4e300], data_unit="images")):
        assert "loss_unit" not in plain
