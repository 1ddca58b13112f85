"""What a study finds, what moved since the one before, and the cautions that its laws carry."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from refitting_samples import quickly, runs
from typer.testing import CliRunner

from scalefit.cli import app
from scalefit.fitting.fit_values import FitStatus
from scalefit.refitting.results import read_fits
from scalefit.refitting.settings import Analysis
from scalefit.refitting.study import Drift, Finding, drifted, study_sweep
from scalefit.simulation import Design, simulate_sweep
from scalefit.sweep import Sweep

QUIET = Analysis(draws=0)


@pytest.fixture(scope="module")
def study():
    return study_sweep(Sweep.from_frame(runs()), QUIET)


def test_a_law_that_was_not_found_has_no_numbers(study):
    lost = replace(study, loss_law=replace(study.loss_law, status=FitStatus.NOT_CONVERGED))
    found = {finding.quantity: finding for finding in lost.findings if finding.quantity.startswith("loss")}
    assert found
    assert all(math.isnan(finding.value) and math.isnan(finding.stderr) for finding in found.values())
    kept = [finding for finding in study.findings if finding.quantity.startswith("loss")]
    assert any(math.isfinite(finding.value) for finding in kept)


def test_a_law_that_changes_comes_or_goes_has_moved():
    before = [Finding("lr: a", -0.5, 0.03, "p"), Finding("batch: a", 0.2, 0.1, "b"), Finding("backtest", 1.0, 0.1)]
    after = [Finding("lr: k", -0.5, 0.03, "q"), Finding("loss: E", 1.7, 0.1, "l"), Finding("backtest", 2.0, 0.1)]
    moved = {drift.quantity: str(drift) for drift in drifted(before, after)}
    assert moved == {
        "lr: law": "lr: law p -> q",
        "batch: law": "batch: law b -> none",
        "loss: law": "loss: law none -> l",
        "backtest": "backtest 1 -> 2 (7.1 errors)",
    }
    assert drifted([], after) == (), "the first results have moved from nowhere"
    assert drifted(after, after) == ()


def test_a_drift_says_itself_in_a_line():
    assert str(Drift("lr: a", -0.5, -0.25, 5.0)) == "lr: a -0.5 -> -0.25 (5 errors)"


def test_cautions_of_a_surface_go_with_its_laws_into_the_file(tmp_path):
    flat = runs().assign(loss=3.0)
    flat.to_csv(tmp_path / "flat.csv", index=False)
    quickly(tmp_path / "flat.csv", tmp_path / "out")
    laws = read_fits(tmp_path / "out" / "flat")
    study = study_sweep(Sweep.from_frame(flat), QUIET)
    doubts = {note.text for note in study.surface.notes if note.caution}
    assert doubts
    assert doubts <= {note.text for note in laws["surface_lr"].notes}
    told = json.loads((tmp_path / "out" / "flat" / "fit.json").read_text())["notes"]
    assert doubts <= {note["text"] for note in told}
    place = ["params=7e9", "tokens=1T"]
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "out" / "flat"), "--law", "surface_lr", *place])
    assert said.exit_code == 0
    assert all(f"caution: {text}" in said.stderr for text in doubts)


def test_where_one_axis_varies_backtest_and_surface_follow_it():
    table = simulate_sweep(design=Design(params=(1e7, 3e7, 1e8, 3e8, 1e9), tokens=(1e10,), batch_levels=1), seed=1)
    one = study_sweep(Sweep.from_frame(table.dropna().drop(columns="tokens")), QUIET)
    assert one.surface.lr_fit.law.name == "lr_params"
    assert one.surface.floor_fit.law.name == "loss_params"
    scores = one.backtest.summary()
    assert (scores[scores["entrant"] != "steplaw2025"]["failed"] == 0).all()


def test_what_moved_is_reported_in_the_log_and_for_machines(tmp_path):
    folder, out = tmp_path / "in", str(tmp_path / "out")
    folder.mkdir()
    command = ["refit", str(folder), "--out", out, "--jobs", "1", "--no-figures", "--no-report"]
    runs().to_csv(folder / "a.csv", index=False)
    assert "; moved" not in CliRunner().invoke(app, command).stderr
    table = runs()
    table["lr"] *= (table["params"] / 1e8) ** 0.4
    table.to_csv(folder / "a.csv", index=False)
    lines = CliRunner().invoke(app, [*command, "--json"]).stdout.splitlines()
    assert json.loads(lines[0])["moved"].startswith("lr: a ")
    runs().to_csv(folder / "a.csv", index=False)
    assert "; moved: lr: a " in CliRunner().invoke(app, command).stderr


@pytest.mark.parametrize("text", ['{"kind": "scalefit.Stu', "[" * 100_000])
def test_a_file_that_cannot_be_read_is_not_said_to_hold_one_fit(tmp_path, text):
    (tmp_path / "half.json").write_text(text)
    for path in (tmp_path / "half.json", tmp_path / "gone.json"):
        said = CliRunner().invoke(app, ["predict", str(path), "--law", "lr", "params=1e9"])
        assert said.exit_code == 2
        assert "leave --law out" not in said.stderr
        assert len(said.stderr.splitlines()) == 1


def test_an_input_that_the_law_has_not_is_refused(tmp_path):
    runs().to_csv(tmp_path / "a.csv", index=False)
    quickly(tmp_path / "a.csv", tmp_path / "out")
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "out" / "a"), "--law", "lr", "N=1e9", "D=1e10", "B=3"])
    assert said.exit_code == 2
    assert "batch is not an input" in said.stderr


def test_data_known_only_through_compute_are_asked_for():
    table = runs()
    table["flops"] = 6 * table["params"] * table.pop("tokens")
    gaps = " ".join(gap.text for gap in study_sweep(Sweep.from_frame(table), QUIET).gaps)
    assert "tokens are unknown though flops are not" in gaps
    assert "add a column of tokens" in gaps
