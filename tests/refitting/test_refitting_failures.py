"""One bad file never stops the rest, and says what is wrong with it."""

from __future__ import annotations

import errno
import json
import os

import pytest
from refitting_samples import QUICK, contents, quickly, runs, write_bad, write_readable, write_sweeps
from typer.testing import CliRunner

import scalefit.loading.files
from scalefit.cli import app
from scalefit.errors import RefitError, SweepError
from scalefit.fitting.fit_result import Fit
from scalefit.refitting import output_folder, results, study
from scalefit.refitting.results import read_fits
from scalefit.refitting.settings import Reading, Settings


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "in").mkdir()
    readable = write_readable(folder / "in")
    bad = write_bad(folder / "in")
    (folder / "in" / "folder.csv").mkdir()
    write_sweeps(folder / "in" / "deep", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scalefit.loading.files, "MAX_BYTES", 4 << 20)
        return quickly(folder / "in", folder / "out"), readable, bad


def test_every_bad_file_has_its_own_clear_line_and_the_good_ones_are_done(mixed):
    result, readable, bad = mixed
    failed = result.table.query("status == 'failed'").set_index("name")["error"]
    assert set(failed.index) == bad
    assert len(bad) >= 35
    assert set(result.table.query("status == 'ok'")["name"]) == {*readable, "deep--sweep0"}
    check_lines(failed)
    assert result.exit_code == 1


def check_lines(errors):
    assert errors.is_unique
    assert errors.map(lambda text: len(text) > 15 and "\n" not in text).all()
    assert not errors.str.startswith("unforeseen").any(), errors[errors.str.startswith("unforeseen")].tolist()


def test_where_losses_may_diverge_every_bad_file_has_its_own_line_too(tmp_path, monkeypatch):
    monkeypatch.setattr(scalefit.loading.files, "MAX_BYTES", 4 << 20)
    (tmp_path / "in").mkdir()
    bad = write_bad(tmp_path / "in")
    config = Settings(reading=Reading(nonfinite="diverged"), analysis=QUICK.analysis)
    result = quickly(tmp_path / "in", tmp_path / "out", config=config)
    assert set(result.table["status"]) == {"failed"}
    errors = result.table.set_index("name")["error"]
    assert set(errors.index) == bad
    check_lines(errors)
    for name in ("all-diverged", "nan-loss", "huge-loss"):
        assert errors[name].startswith("nothing can be fitted to "), "the reader let it pass: no run has a loss"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("empty", "empty.csv is empty"),
        ("utf16", "UTF-16; save it as UTF-8"),
        ("decimal-commas", "write decimals with a point"),
        ("duplicate-header", "2 columns named 'params'"),
        ("bomb", "GiB of data, which is no table of runs"),
        ("loop", "symbolic link"),
        ("pipe", "is no file but a pipe"),
        ("negative-loss", "loss should be positive"),
        ("pickle", "is not Parquet"),
        ("one-row", "it needs several levels of lr"),
        ("one-cell", "the data vary none of params and tokens"),
    ],
)
def test_the_line_says_what_is_wrong(mixed, name, line):
    assert line in mixed[0].table.set_index("name").loc[name, "error"]


def test_odd_files_that_can_be_read_are_read_right(mixed):
    result, readable, _ = mixed
    rows = result.summary.set_index("name")
    assert {name: rows.loc[name, "n_runs"] for name in readable} == readable
    numbers = rows.loc[list(readable)].select_dtypes("number")
    assert (numbers.nunique() <= 1).all(), "the same runs in other clothes gave other laws"


def test_a_file_that_cannot_be_opened_is_listed(tmp_path, monkeypatch):
    write_sweeps(tmp_path / "in", 2)

    def closed(path):
        if path.endswith("sweep0.csv"):
            raise SweepError(f"cannot read {path}: {os.strerror(errno.EACCES)}")
        return digest(path)

    digest = results.digest_file
    monkeypatch.setattr("scalefit.refitting._refit.digest_file", closed)
    result = quickly(tmp_path / "in", tmp_path / "out")
    assert result.table["status"].tolist() == ["failed", "ok"]
    assert "Permission denied" in result.table["error"][0]


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that cannot be searched, beside a sweep; by hand, since root may search any."""
    closed = write_sweeps(tmp_path / "in", 1) / "closed"
    write_sweeps(closed, 1)
    real = os.scandir

    def scandir(path="."):
        if path == str(closed):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return closed


def test_a_folder_that_cannot_be_searched_is_reported_and_the_rest_is_done(closed, tmp_path):
    result = quickly(tmp_path / "in", tmp_path / "out")
    assert result.table["status"].tolist() == ["ok"]
    assert result.unreadable == ((str(closed), "Permission denied"),)
    assert result.exit_code == 1
    assert [note.text for note in result._display().notes if note.caution] == [f"{closed}: Permission denied"]


def in_the_shell(folder, *how):
    (folder / "few.toml").write_text("[fit]\ndraws = 20\n")
    quick = ["--config", str(folder / "few.toml"), "--jobs", "1", "--no-figures", "--no-report"]
    return CliRunner().invoke(app, ["refit", str(folder / "in"), "--out", str(folder / "out"), *quick, *how])


def test_the_shell_reports_a_folder_that_cannot_be_searched(closed, tmp_path):
    result = in_the_shell(tmp_path)
    assert result.exit_code == 1
    assert f"{closed}: Permission denied" in " ".join(result.stdout.split())


def test_quiet_reports_a_folder_that_cannot_be_searched(closed, tmp_path):
    result = in_the_shell(tmp_path, "--quiet")
    assert result.exit_code == 1
    assert result.stderr == f"failed  {closed}: Permission denied\n"


def test_json_reports_a_folder_that_cannot_be_searched(closed, tmp_path):
    result = in_the_shell(tmp_path, "--json")
    last = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == last["exit_code"] == 1
    assert last["unreadable"] == {str(closed): "Permission denied"}


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_refit(tmp_path, monkeypatch):
    write_sweeps(tmp_path / "in", 1)
    real = results.read_sweep

    def slow(path, **options):
        sweep = real(path, **options)
        with open(path, "a") as file:
            file.write("\n")
        return sweep

    monkeypatch.setattr(results, "read_sweep", slow)
    result = quickly(tmp_path / "in", tmp_path / "out")
    assert "changed while it was read" in result.table["error"][0]
    assert not (tmp_path / "out" / "sweep0").exists()


def test_a_fault_of_our_own_fails_the_file_loudly_and_is_tried_again(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("no")

    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(study, "fit_surface", broken)
        result = quickly(folder, out)
    assert result.exit_code == 1
    assert result.table["error"].tolist() == ["unforeseen ZeroDivisionError: no"]
    assert quickly(folder, out).table["status"].tolist() == ["ok"]


def test_a_failed_file_keeps_its_last_results_and_is_forgotten_when_it_is_deleted(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 2), tmp_path / "out"
    quickly(folder, out)
    before = contents(out)
    (folder / "sweep0.csv").write_text("broken")
    result = quickly(folder, out)
    assert result.exit_code == 1
    row = result.summary.set_index("name").loc["sweep0"]
    assert row["status"] == "failed"
    assert row["n_runs"] == len(runs())
    assert {name: data for name, data in contents(out).items() if "/" in name} == {
        name: data for name, data in before.items() if "/" in name
    }
    (folder / "sweep0.csv").unlink()
    result = quickly(folder, out)
    assert result.exit_code == 0
    assert result.summary["status"].tolist() == ["gone", "ok"]
    assert result.summary["error"].tolist() == ["", ""]


def test_a_full_disk_is_a_clear_error_and_what_was_done_is_kept(tmp_path, monkeypatch):
    folder, out = write_sweeps(tmp_path / "in", 3), tmp_path / "out"
    quickly(folder / "sweep0.csv", out)
    before = contents(out)
    real, room = os.fsync, iter(range(6))

    def fsync(handle):
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(output_folder.os, "fsync", fsync)
    with pytest.raises(RefitError, match="No space left on device; what was there before is kept"):
        quickly(folder, out)
    monkeypatch.setattr(output_folder.os, "fsync", real)
    after = contents(out)
    assert {name: after[name] for name in before} == before
    result = quickly(folder, out)
    assert result.exit_code == 0
    assert set(result.summary["name"]) == {"sweep0", "sweep1", "sweep2"}


def test_a_folder_of_someone_else_is_not_replaced(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    (out / "sweep0").mkdir(parents=True)
    (out / "sweep0" / "thesis.tex").write_text("mine")
    result = quickly(folder, out)
    assert (out / "sweep0" / "thesis.tex").read_text() == "mine"
    assert result.table["name"][0].startswith("sweep0-")
    assert quickly(folder, out).table["status"].tolist() == ["skipped"]


def test_damaged_results_are_made_again(tmp_path):
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    quickly(folder, out)
    whole = contents(out)
    for damage in (b"", b"{", b"[]", b'{"schema": 99}', b'{"schema": 1}', b"\x80\x04cos\nsystem\n."):
        (out / "sweep0" / "record.json").write_bytes(damage)
        (out / "failures.json").write_bytes(damage)
        assert quickly(folder, out).table["status"].tolist() == ["ok"]
        assert contents(out) == whole


def test_fits_read_back_and_predict(mixed):
    fits = read_fits(mixed[0].out / "bom")
    assert {"lr", "loss", "surface_lr"} <= set(fits)
    assert all(isinstance(fit, Fit) for fit in fits.values())
    row = mixed[0].summary.set_index("name").loc["bom"]
    assert fits["lr"].values["a"] == row["lr: a"]
    expected = row["lr: c"] * 1e9 ** row["lr: a"] * 1e10 ** row["lr: b"]
    assert fits["lr"].predict(params=1e9, tokens=1e10)["prediction"][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 10**5, "is not JSON"),
        ("{}", "is not a fit.json of a refit"),
        ('{"kind": "scalefit.Study", "schema": 99}', "expected schema version 1, found 99"),
        ('{"kind": "scalefit.Study", "schema": true}', "expected schema version 1, found True"),
        ('{"kind": "scalefit.Study", "schema": 1, "laws": 3}', "laws should be a table of fits, found int"),
        ('{"kind": "scalefit.Study", "schema": 1, "laws": {"lr": {}}}', "the law for lr: "),
        ('{"kind": "scalefit.Study", "schema": 1, "laws": {"lr": {"kind": "scalefit.Fit", "schema": 2}}}', "for lr: "),
    ],
)
def test_a_damaged_archive_is_refused_with_a_reason(tmp_path, text, message):
    path = tmp_path / "fit.json"
    path.write_text(text)
    with pytest.raises(RefitError, match=message):
        read_fits(path)


def test_a_formula_in_an_archive_is_never_executed(mixed, tmp_path):
    text = (mixed[0].out / "bom" / "fit.json").read_text()
    evil = text.replace("eta = c * N**a * D**b", f"eta = __import__('os').system('touch {tmp_path}/evil')")
    assert evil != text
    (tmp_path / "fit.json").write_text(evil)
    with pytest.raises(RefitError, match="the law for lr"):
        read_fits(tmp_path)
    assert not (tmp_path / "evil").exists()
