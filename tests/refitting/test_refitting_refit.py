"""A refit does what is new, says what moved, and its output depends on nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from refitting_samples import QUICK, contents, quickly, runs, write_sweeps

from scalefit.refitting.settings import Analysis, Settings
from scalefit.refitting.study import Drift, Finding, drifted, study_sweep
from scalefit.refitting.summary import guarded_csv, summarize
from scalefit.simulation import Design, Truth, simulate_sweep
from scalefit.sweep import Sweep


def statuses(result) -> dict[str, str]:
    return dict(zip(result.table["name"], result.table["status"], strict=True))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    write_sweeps(folder / "in", 3)
    return folder, quickly(folder / "in", folder / "out")


@pytest.fixture
def copied(done, tmp_path):
    """Return input, output and what was done, to be changed at will."""
    shutil.copytree(done[0] / "out", tmp_path / "out")
    shutil.copytree(done[0] / "in", tmp_path / "in")
    for record in (tmp_path / "out").glob("*/record.json"):  # the same files at another place
        record.write_text(record.read_text().replace(str(done[0]), str(tmp_path)))
    return tmp_path / "in", tmp_path / "out"


def test_each_sweep_has_its_folder_and_all_are_summarised(done):
    files = contents(done[0] / "out")
    assert {name for name in files if name.startswith("sweep0/")} == {
        "sweep0/backtest.csv",
        "sweep0/fit.json",
        "sweep0/optima.csv",
        "sweep0/record.json",
    }
    assert {name for name in files if "/" not in name} == {
        "failures.json",
        "index.html",
        "summary.csv",
        "summary.parquet",
    }
    table = pd.read_parquet(done[0] / "out" / "summary.parquet")
    pd.testing.assert_frame_equal(table, done[1].summary)
    assert table["name"].tolist() == ["sweep0", "sweep1", "sweep2"]
    assert (table["lr: a stderr"] > 0).all()
    rows = list(csv.DictReader(io.StringIO(files["summary.csv"].decode())))
    assert float(rows[1]["lr: a"]) == table["lr: a"][1]


def test_nothing_changed_nothing_is_done(copied):
    folder, out = copied
    before = contents(out)
    result = quickly(folder, out)
    assert set(statuses(result).values()) == {"skipped"}
    assert {name: data for name, data in contents(out).items() if "sweep" in name} == {
        name: data for name, data in before.items() if "sweep" in name
    }


@pytest.mark.parametrize(
    "change",
    [
        {"config": Settings(analysis=Analysis(draws=21))},
        {"config": Settings(reading=replace(QUICK.reading, where="params > 0"), analysis=QUICK.analysis)},
        {"report": True},
        {"force": True},
    ],
    ids=["analysis", "reading", "report", "force"],
)
def test_what_the_results_depend_on_is_done_again(copied, change):
    folder, out = copied
    assert statuses(quickly(folder / "sweep1.csv", out, **change)) == {"sweep1": "ok"}
    assert statuses(quickly(folder, out, **{**change, "force": False}))["sweep1"] == "skipped"


def test_only_the_changed_file_is_done_again_even_if_size_and_time_are_the_same(copied):
    folder, out = copied
    path = folder / "sweep1.csv"
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert statuses(quickly(folder, out)) == {"sweep0": "skipped", "sweep1": "ok", "sweep2": "skipped"}


def test_a_new_version_of_the_package_refits_all(copied, monkeypatch):
    monkeypatch.setattr("scalefit.refitting._refit.__version__", "99.0")
    assert set(statuses(quickly(*copied)).values()) == {"ok"}


def test_a_missing_output_is_made_again(copied):
    folder, out = copied
    (out / "sweep2" / "optima.csv").unlink()
    assert statuses(quickly(folder, out))["sweep2"] == "ok"
    assert (out / "sweep2" / "optima.csv").exists()


def test_the_output_does_not_depend_on_processes_or_order(done, tmp_path):
    folder = done[0] / "in"
    paths = [folder / "sweep2.csv", folder / "sweep0.csv", folder / "sweep1.csv"]
    quickly(paths, tmp_path / "out", jobs=2)
    assert contents(tmp_path / "out") == contents(done[0] / "out")


def test_a_file_keeps_its_name_whatever_comes_beside_it(copied):
    folder, out = copied
    shutil.copy(folder / "sweep0.csv", folder / "sweep0.tsv")
    (folder / "sweep0.tsv").write_text((folder / "sweep0.csv").read_text().replace(",", "\t"))
    result = statuses(quickly(folder, out))
    assert {name: result[name] for name in ("sweep0", "sweep1", "sweep2")} == dict.fromkeys(
        ("sweep0", "sweep1", "sweep2"), "skipped"
    )
    assert len(result) == 4
    assert statuses(quickly(folder.parent, out)) == dict.fromkeys(result, "skipped")


def test_files_of_one_name_in_two_folders_do_not_share_results(copied):
    folder, out = copied
    other = write_sweeps(folder.parent / "other", 1)
    quickly(other, out)
    names = statuses(quickly([folder, other], out))
    assert len(names) == 4
    assert set(names.values()) == {"skipped"}


def test_exponents_that_move_beyond_their_errors_are_flagged_in_summary_and_index(copied):
    folder, out = copied
    table = pd.read_csv(folder / "sweep0.csv")
    table["lr"] *= (table["params"] / 1e8) ** 0.4
    table.to_csv(folder / "sweep0.csv", index=False)
    wider = simulate_sweep(design=Design(params=(1e7, 1e8, 1e9, 4e9), tokens=(1e9, 1e10), batch_levels=1), seed=1)
    wider.dropna().to_csv(folder / "sweep1.csv", index=False)
    result = quickly(folder, out, report=True)
    rows = result.summary.set_index("name")
    assert "lr: a " in rows.loc["sweep0", "moved"]
    assert "errors)" in rows.loc["sweep0", "moved"]
    assert "lr: a " not in rows.loc["sweep1", "moved"], "more data of the same law is no drift"
    assert rows.loc["sweep2", "moved"] == ""
    assert any(note.code == "moved" and "sweep0" in note.text for note in result._display().notes)
    assert "lr: a " in (out / "index.html").read_text()
    assert "Moved since the last refit" in (out / "sweep0" / "report.html").read_text()
    assert "Moved since the last refit" not in (out / "sweep2" / "report.html").read_text()


def test_drift_is_measured_in_combined_errors_and_only_under_the_same_law():
    before = [Finding("lr: a", -0.5, 0.03, "p"), Finding("lr: b", 0.2, 0.1, "p"), Finding("gone", 1.0, 0.1)]
    after = [Finding("lr: a", -0.25, 0.04, "p"), Finding("lr: b", 0.3, 0.1, "p"), Finding("new", 1.0, 0.1)]
    assert drifted(before, after) == (Drift("lr: a", -0.5, -0.25, 5.0),)
    (moved,) = drifted(before[:1], [Finding("lr: a", -0.5, 0.03, "q")])
    assert np.isnan(moved.errors)
    assert drifted([Finding("x", np.nan, 0.1)], [Finding("x", 1.0, 0.1)]) == ()
    assert drifted([Finding("x", 1.0, np.nan)], [Finding("x", 1.0, np.nan)]) == ()


def test_settings_apply_to_the_files_they_name(copied, tmp_path):
    folder, out = copied
    config = tmp_path / "scalefit.toml"
    config.write_text(
        '[fit]\ndraws = 20\n[[sweep]]\nmatch = "in/sweep2.csv"\nfit = {lr_laws = ["eta = c * N**a"], '
        'holdout = "params >= 1e9"}\nread = {where = "tokens < 5e9"}\n'
    )
    result = quickly(folder, out, config=config)
    assert statuses(result) == {"sweep0": "skipped", "sweep1": "skipped", "sweep2": "ok"}
    row = result.summary.set_index("name").loc["sweep2"]
    assert row["lr: law"] == "eta = c * N**a"
    assert row["n_runs"] < len(runs())


@pytest.fixture
def hostile(tmp_path):
    """A sweep whose columns, cells and file name try to be formulas and scripts."""
    table = runs().assign(run=[f"<script>alert({i})</script>" for i in range(len(runs()))])
    table["=HYPERLINK(A1)"] = "=cmd|' /C calc'!A0"
    folder = tmp_path / "in"
    folder.mkdir()
    table.to_csv(folder / "=1+1<script>alert(0)<.csv", index=False)
    (folder / "<img src=x onerror=alert(1)>.csv").write_text("<b>broken</b>\n")
    return folder


def test_names_and_cells_cannot_run_anywhere(hostile, tmp_path):
    out = tmp_path / "out"
    result = quickly(hostile, out, report=True, figures=True)
    assert sorted(result.table["status"]) == ["failed", "ok"]
    for path in out.rglob("*.html"):
        page = path.read_text()
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "<b>broken" not in page
    for path in out.rglob("*.csv"):
        for row in csv.reader(io.StringIO(path.read_text())):
            for cell in row:
                assert not cell.startswith(("=", "@", "\t", "\r")), cell
                assert not cell.startswith(("+", "-")) or float(cell)
    assert {path.parent for path in out.rglob("record.json")} == {
        out / name for name in result.table["name"][result.table["status"] == "ok"]
    }


def test_spreadsheets_find_no_formula_in_headers_or_cells():
    table = pd.DataFrame({"=a": ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "＝1", "plain"], "n": -1.5})
    rows = list(csv.reader(io.StringIO(guarded_csv(table).decode(), newline="")))
    assert rows[0] == ["'=a", "n"]
    assert [row[0][0] for row in rows[1:]] == ["'"] * 8 + ["p"]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_a_name_that_is_not_unicode_is_no_trouble(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / os.fsdecode(b"run-\xff.csv")).write_text(runs().to_csv(index=False))
    result = quickly(folder, tmp_path / "out", report=True)
    assert result.exit_code == 0
    assert "run-\\udcff.csv" in result.summary["source"][0]
    assert statuses(quickly(folder, tmp_path / "out", report=True)) == {result.table["name"][0]: "skipped"}


def test_a_record_that_names_another_folder_is_not_believed(copied):
    folder, out = copied
    path = out / "sweep0" / "record.json"
    record = json.loads(path.read_text())
    record["name"] = "../../escape"
    path.write_text(json.dumps(record))
    assert statuses(quickly(folder, out))["sweep0"] == "ok"
    assert not (out.parent.parent / "escape").exists()


def test_what_the_runs_do_not_allow_is_said():
    sweep = Sweep.from_frame(runs())
    result = study_sweep(sweep, Analysis(draws=0))
    told = " ".join(gap.text for gap in result.gaps)
    assert "so there is no law for the batch either" in told
    assert "no trade-off of steps and examples" in told
    assert result.laws.keys() == {"lr", "loss"}
    assert set(result.gaps) <= set(result.notes)


TRUTH = Truth()
LR = {"c": TRUTH.lr, "a": TRUTH.lr_params_power, "b": TRUTH.lr_tokens_power}
BATCH = {"c": TRUTH.batch, "a": TRUTH.batch_params_power, "b": TRUTH.batch_tokens_power}
LOSS = {
    "E": TRUTH.floor,
    "A": TRUTH.floor_params,
    "alpha": TRUTH.floor_params_power,
    "B": TRUTH.floor_tokens,
    "beta": TRUTH.floor_tokens_power,
}


@pytest.fixture(scope="module")
def wide():
    """The study of a sweep that allows every result but a law for B_crit, which `Truth` does not have."""
    design = Design(params=(1e7, 1e8, 1e9), tokens=(1e9, 8e9, 6.4e10), lr_levels=5, batch_levels=7)
    table = simulate_sweep(TRUTH, design, seed=2)
    return study_sweep(Sweep.from_frame(table.assign(diverged=table["loss"].isna())), Analysis(draws=50))


def check_law(law, truth):
    for row in law.table.to_dict("records"):
        assert abs(row["value"] - truth[row["parameter"]]) <= 3 * row["stderr"], row


def test_the_laws_of_a_wide_sweep_are_those_it_was_made_from(wide):
    assert wide.laws.keys() == {"lr", "batch", "loss"}
    for target, truth in {"lr": LR, "batch": BATCH, "loss": LOSS}.items():
        check_law(wide.laws[target], truth)
    for name, truth in {"lr": LR, "batch": BATCH}.items():
        check_law(wide.surface.laws[name], truth)


def test_the_bootstraps_of_a_wide_sweep_hold_what_it_was_made_from(wide):
    assert wide.draws.keys() == {"lr", "batch"}
    for name, truth in {"lr": LR, "batch": BATCH}.items():
        for row in wide.draws[name].intervals().to_dict("records"):
            assert row["lo"] <= truth[row["parameter"]] <= row["hi"], row


def test_the_backtest_of_a_wide_sweep_predicts_the_true_optima(wide):
    table = wide.backtest.table
    assert set(table["params"]) == {1e9}
    rows = table[table["entrant"] == wide.backtest.summary()["entrant"][0]]
    assert sorted(rows["tokens"]) == [1e9, 8e9, 6.4e10]
    best = TRUTH.optimum(rows["params"], rows["tokens"])
    for axis in ("lr", "batch"):
        assert rows[f"{axis}_lo"].le(best[axis]).all()
        assert rows[f"{axis}_hi"].ge(best[axis]).all()
    cost = TRUTH.excess(rows["lr"], rows["batch"], best["lr"], best["batch"])
    assert (cost < TRUTH.noise / 10).all(), "the noise of a single run is far more than the prediction costs"
    found = {finding.quantity: finding for finding in wide.findings}["backtest: regret_pct"]
    assert found.value == pytest.approx(rows["regret_pct"].mean())


def test_a_sweep_without_a_critical_batch_has_no_law_for_one(wide):
    """The simulated basin is a parabola in the log of the batch: fewer steps buy nothing, however many examples."""
    assert not wide.tradeoff.table["identified"].any()
    (told,) = [gap.text for gap in wide.gaps]
    assert told.startswith("no law for B_crit: 0 of 9 trade-offs identify it")


def traded(b_star=1e7, alpha_b=0.5):
    """Runs that reach a loss with E_min * (1 + B / B_crit) tokens, E_min and B_crit powers of the loss."""
    losses = np.linspace(1.75, 12.0, 20_000)
    rows = []
    for batch in 2.0 ** np.arange(15, 23):
        tokens = 2e9 * (losses - 1.7) ** -4 * (1 + batch / (b_star / losses ** (1 / alpha_b)))
        assert (np.diff(tokens) < 0).all(), "no loss can be read off"
        for budget in np.geomspace(1e9, 6.4e10, 7):
            loss = np.interp(-np.log(budget), -np.log(tokens), losses)
            rows += [(lr, batch, 1e8, budget, loss + 0.03 * np.log(lr / 2e-3) ** 2) for lr in 2.0 ** np.arange(-11, -6)]
    table = pd.DataFrame(rows, columns=["lr", "batch", "params", "tokens", "loss"])
    table["loss"] *= np.exp(5e-4 * np.random.default_rng(0).standard_normal(len(table)))
    return table


def test_the_critical_batch_of_a_sweep_is_that_which_it_was_made_from():
    result = study_sweep(Sweep.from_frame(traded()), Analysis(draws=0))
    points = result.tradeoff.table
    assert points["identified"].all()
    # Each batch's losses are taken for a power law of its tokens, which they nearly are.
    assert points["B_crit"].to_numpy() == pytest.approx(1e7 / points["target"].to_numpy() ** 2, rel=0.1)
    check_law(result.laws["B_crit"], {"B_star": 1e7, "alpha_B": 0.5})


def test_what_is_not_identified_has_no_value_and_a_caution():
    table = runs()
    result = study_sweep(Sweep.from_frame(table), Analysis(draws=0, loss_law="chinchilla"))
    states = result.loss_law.table.set_index("parameter")["status"]
    assert (states == "unidentified").any(), "two budgets cannot tell three parameters of the data"
    found = {finding.quantity: finding.value for finding in result.findings}
    assert [np.isnan(found[f"loss: {name}"]) for name in states.index] == list(states == "unidentified")
    assert any("the law for loss is ILL_CONDITIONED" in note.text for note in result.notes if note.caution)


def test_a_summary_of_nothing_is_an_empty_table():
    table = summarize([], {})
    assert len(table) == 0
    assert table.columns[0] == "name"
