"""The shell commands, run as a user would: output, exit codes, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import scalefit as sf
from scalefit.cli import app

RUNS = str(Path(__file__).resolve().parents[2] / "data" / "simulated" / "runs.csv")
runner = CliRunner()


def run(*arguments: object):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_fit_prints_sweep_laws_and_predictions():
    result = run("fit", RUNS, "--law", "lr_power", "--law", "batch_power_tokens", "--at", "params=7B tokens=1.4T")
    assert result.exit_code == 0, result.output
    for text in ("560", "eta = c * N**a * D**b", "exponent of N", "eta at params = 7B", "B at tokens = 1.4T", "beyond"):
        assert text in result.stdout
    assert "ExtrapolationWarning" not in result.stderr
    assert "warning: 'eta = c * N**a * D**b' is predicted beyond the range" in result.stderr


def test_fit_written_and_predicted_from_equals_the_library(tmp_path):
    path = tmp_path / "fit.json"
    assert run("fit", RUNS, "--out", path).exit_code == 0
    printed = json.loads(run("predict", path, "params=7e8", "tokens=16B", "--json").stdout)
    optima = sf.find_optima(sf.read_sweep(RUNS), over=("lr", "batch"))
    expected = sf.fit("lr_power", optima).predict(params=7e8, tokens=1.6e10).iloc[0]
    assert printed["prediction"] == pytest.approx(expected["prediction"], rel=1e-12)
    assert printed["lo"] == pytest.approx(expected["lo"], rel=1e-12)


def test_options_reach_the_library():
    options = ["--law", "L = E + A/N**alpha", "--where", "tokens > 6e10", "--loss", "huber:1e-3", "--bootstrap", "50"]
    result = run("fit", RUNS, *options)
    assert result.exit_code == 0, result.output
    assert "Huber(delta=0.001)" in result.stdout
    assert "Bootstrap of" in result.stdout
    record = json.loads(run("fit", RUNS, "--method", "grid", "--json").stdout)
    assert record["law"]["name"] == "lr_power"


def test_laws_lists_forms_and_constants():
    result = run("laws")
    assert result.exit_code == 0
    assert "lr_curved" in result.stdout
    assert "steplaw2025_lr" in result.stdout
    names = {entry["name"] for entry in json.loads(run("laws", "--json").stdout)}
    assert names == set(sf.laws.catalog()["name"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "missing.csv"], "missing.csv"),
        (["fit", RUNS, "--law", "lr_powr"], "did you mean lr_power"),
        (["fit", RUNS, "--law", "eta = __import__('os')"], "unknown function"),
        (["fit", RUNS, "--where", "width > 3"], "width"),
        (["fit", RUNS, "--at", "params=7B"], "tokens"),
        (["fit", RUNS, "--at", "params=seven tokens=1"], "7e9, 7B or 1.4T"),
        (["fit", RUNS, "--method", "magic"], "grid, near, parabola"),
        (["fit", RUNS, "--loss", "huber:-1"], "positive"),
        (["fit", RUNS, "--law", "lr_power", "--law", "chinchilla", "--out", "x.json"], "one law"),
        (["predict", "missing.json", "params=1"], "missing.json"),
    ],
)
def test_errors_are_one_line_and_exit_two(arguments, expected):
    result = run(*arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.strip() == errors[0]
    assert expected in errors[0]
    assert "Traceback" not in result.output


def test_debug_shows_the_traceback():
    result = run("fit", "missing.csv", "--debug")
    assert isinstance(result.exception, sf.SweepError)


def test_backtest_ranks_entrants_and_writes_the_table(tmp_path):
    table = tmp_path / "cells.csv"
    result = run("backtest", RUNS, "--holdout", "params >= 1e9", "--out", table)
    assert result.exit_code == 0, result.output
    assert "surface: lr_power" in result.stdout
    assert "within 0.25 % + OLS" in result.stdout
    rows = table.read_text().splitlines()
    assert len(rows) == 1 + 4 * 6
    ranked = json.loads(run("backtest", RUNS, "--holdout", "largest params", "--json").stdout)
    regrets = [entry["regret_pct"] for entry in ranked if entry["regret_pct"] is not None]
    assert regrets == sorted(regrets)
    assert len(regrets) >= 5
    assert run("backtest", RUNS, "--holdout", "params > 1e15").exit_code == 2
