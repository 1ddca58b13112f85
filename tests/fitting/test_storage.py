"""Fits as JSON: everything comes back, and nothing that is not a whole fit gets in."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scalefit as sf
from scalefit import FitError

quiet = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def make(loss: sf.Squared | sf.Huber | sf.SoftL1, rows: int = 30, law: str = "chinchilla", **changes: Any) -> sf.Fit:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"params": 10 ** rng.uniform(7, 10, rows), "tokens": 10 ** rng.uniform(9, 12, rows)})
    loss_values = 1.8 + 480 / table["params"] ** 0.35 + 2100 / table["tokens"] ** 0.37
    table["loss"] = loss_values * np.exp(0.01 * rng.normal(size=rows))
    return sf.fit(law, table.assign(**changes), loss=loss)


FITS = {
    "squared": make(sf.Squared()),
    "huber": make(sf.Huber(2e-3)),
    "soft": make(sf.SoftL1(2e-3)),
    "exact": make(sf.Squared(), rows=5),
    "one size": make(sf.Squared(), params=1e9),
    "formula": make(sf.Squared(), law="L = E + A/N**alpha + B/D**beta"),
}
TEXT = FITS["one size"].to_json()


@pytest.mark.parametrize("name", list(FITS))
def test_everything_comes_back(name: str, tmp_path: Path) -> None:
    fit = FITS[name]
    path = tmp_path / "fit.json"
    text = fit.to_json(path)
    assert path.read_text() == text
    for back in (
        sf.Fit.from_json(path),
        sf.Fit.from_json(str(path)),
        sf.Fit.from_json(text),
        pickle.loads(pickle.dumps(fit)),
    ):
        assert dict(back.values) == dict(fit.values)
        pd.testing.assert_frame_equal(back.table, fit.table)
        pd.testing.assert_frame_equal(back.rows, fit.rows)
        pd.testing.assert_frame_equal(back.natural_covariance, fit.natural_covariance)
        for point in (fit.rows.iloc[0, :2].to_dict(), {"N": fit.rows["params"], "D": fit.rows["tokens"][0]}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sf.ExtrapolationWarning)  # a point off the line of five rows
                pd.testing.assert_frame_equal(back.predict(**point), fit.predict(**point))
        assert (back.status, back.notes, back.loss, back.law) == (fit.status, fit.notes, fit.loss, fit.law)
        assert repr(back) == repr(fit)
        assert back.to_json() == text


def test_the_file_is_plain_json_with_a_version(tmp_path: Path) -> None:
    record = json.loads(TEXT, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert record["schema"] == 2
    assert record["kind"] == "scalefit.Fit"
    assert "inf" in record["stderr"].values()
    assert record["values"] == dict(FITS["one size"].values)


def test_resampling_goes_on_from_a_file() -> None:
    fit = FITS["huber"]
    there, back = (sf.bootstrap(f, n=20, by="row", seed=3).table for f in (fit, sf.Fit.from_json(fit.to_json())))
    pd.testing.assert_frame_equal(back, there)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(TEXT) | changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed(schema=1), "expected schema version 2, found 1"),
        (changed(schema=True), "schema version"),
        (changed(schema=None), "schema version"),
        (changed(kind="other"), "other JSON"),
        ("{}", "other JSON"),
        ("{", "not JSON"),
        (TEXT[: len(TEXT) // 2], "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        (changed(phi=[1.0]), "phi"),
        (changed(phi=["nan"] * 5), "phi"),
        (changed(phi=["oops"] * 5), "not a complete fit"),
        (changed(covariance=[[1.0]]), "covariance"),
        (changed(covariance=3), "not a complete fit"),
        (changed(states=["free"]), "states"),
        (changed(states=["great"] * 5), "states"),
        (changed(lower=[1.0] * 5, upper=[0.0] * 5), "bounds"),
        (changed(weights=[1.0]), "weights"),
        (changed(cells=[-1] * 30), "cells"),
        (changed(cells=[10**30] * 30), "not a complete fit"),
        (changed(rows={}), "not a complete fit"),
        (changed(rows={"params": [1.0], "tokens": [1.0], "loss": ["inf"]}), "rows"),
        (changed(dof="inf"), "not a complete fit"),
        (changed(status="GREAT"), "not a complete fit"),
        (changed(space="cubic"), "not a complete fit"),
        (changed(loss={"name": "Evil"}), "not a complete fit"),
        (changed(loss={"name": "Huber", "delta": -1}), "not a complete fit"),
        (changed(ties={"beta": "__import__('os')"}), "not a complete fit"),
        (changed(ties={"beta": "2 * gamma"}), "ties"),
        (changed(law=json.loads(TEXT)["law"] | {"formula": "L = ().__class__"}), "not a complete fit"),
        (changed(law=None), "not a complete fit"),
        (changed(notes=[1]), "not a complete fit"),
    ],
)
def test_what_is_not_a_whole_fit_is_refused(text: str, words: str) -> None:
    with pytest.raises(FitError, match=words):
        sf.Fit.from_json(text)


@pytest.mark.parametrize("key", sorted(set(json.loads(TEXT)) - {"stderr", "errors", "unread", "labels", "witnesses"}))
def test_a_missing_part_is_refused(key: str) -> None:
    record = json.loads(TEXT)
    del record[key]
    with pytest.raises(FitError):
        sf.Fit.from_json(json.dumps(record))


junk = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}))


@quiet
@given(
    st.sampled_from(sorted(set(json.loads(TEXT)))), st.recursive(junk, lambda x: st.lists(x, max_size=6), max_leaves=8)
)
def test_any_value_in_any_place_ends_in_a_fit_or_a_fit_error(key: str, value: Any) -> None:
    try:
        fit = sf.Fit.from_json(changed(**{key: value}))
    except FitError:
        return
    assert np.isfinite(list(fit.values.values())).all()


@quiet
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 40), st.text(max_size=6))
def test_any_damage_to_the_text_ends_in_a_fit_or_a_fit_error(at: int, length: int, text: str) -> None:
    try:
        fit = sf.Fit.from_json("{" + TEXT[1:at] + text + TEXT[at + length :])
    except FitError:
        return
    assert len(fit.phi) == len(fit.law.parameters)


@pytest.mark.parametrize("value", [5.0, "nan", "x", None])
def test_values_that_are_not_those_computed_with_are_refused(value: Any) -> None:
    record = json.loads(TEXT)
    record["values"][next(iter(record["values"]))] = value
    with pytest.raises(FitError, match="not a complete fit"):
        sf.Fit.from_json(json.dumps(record))


def test_only_a_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FitError, match="it is a folder, a pipe or a device"):
            sf.Fit.from_json(place)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    fit = FITS["squared"]
    with pytest.raises(FitError, match=r"cannot read the fit .*No such file"):
        sf.Fit.from_json(tmp_path / "absent.json")
    with pytest.raises(FitError, match="cannot read"):
        sf.Fit.from_json(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FitError, match="not JSON"):
        sf.Fit.from_json(tmp_path / "binary.json")
    with pytest.raises(FitError, match="cannot write"):
        fit.to_json(tmp_path / "no folder" / "fit.json")


def test_a_crash_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.json"
    old = FITS["squared"].to_json(path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        FITS["huber"].to_json(path)
    assert path.read_text() == old
    assert os.listdir(tmp_path) == ["fit.json"]


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    FITS["squared"].to_json(tmp_path / "fit.json")
    assert (tmp_path / "fit.json").stat().st_mode == (tmp_path / "usual").stat().st_mode
