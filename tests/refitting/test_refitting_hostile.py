"""What lies in wait beside the data: nothing is run, followed or believed, and nothing of the caller's is changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import pytest
from refitting_samples import QUICK, contents, quickly, runs, write_sweeps
from typer.testing import CliRunner

from scalefit.cli import app
from scalefit.errors import RefitError, SweepError
from scalefit.refitting import results
from scalefit.refitting._refit import refit
from scalefit.refitting.discovery import discover
from scalefit.refitting.settings import Analysis, Reading, Rule, Settings, read_settings
from scalefit.refitting.study import study_sweep
from scalefit.refitting.workers import Workers
from scalefit.sweep import Sweep

PLANTED = """
import importlib.util, pathlib, sysconfig
pathlib.Path({mark!r}).touch()
spec = importlib.util.spec_from_file_location("signal", sysconfig.get_paths()["stdlib"] + "/signal.py")
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
globals().update(vars(real))
"""


def test_no_module_in_the_working_folder_is_imported(tmp_path):
    folder, mark = write_sweeps(tmp_path / "in", 2), tmp_path / "mark"
    (folder / "signal.py").write_text(PLANTED.format(mark=str(mark)))
    (folder / "scalefit.toml").write_text("[fit]\ndraws = 0\n")
    program = str(Path(sys.executable).with_name("scalefit"))
    command = [program, "refit", ".", "--out", str(tmp_path / "out"), "--jobs", "2", "--no-figures", "--no-report"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_a_staging_folder_of_someone_else_is_left_alone(tmp_path):
    folder = write_sweeps(tmp_path / "in", 1)
    (folder / ".staging" / "work" / "old").mkdir(parents=True)
    (folder / ".staging" / "work" / "old" / "thesis.txt").write_text("all of it")
    assert quickly(folder, folder).exit_code == 0
    assert (folder / ".staging" / "work" / "old" / "thesis.txt").read_text() == "all of it"


def test_a_folder_that_version_0_1_0_had_set_aside_comes_back(tmp_path):
    """Its writer died between the two renames; the folder holds a file of the user's."""
    folder, out = write_sweeps(tmp_path / "in", 1), tmp_path / "out"
    assert quickly(folder, out).exit_code == 0
    stage = out / ".staging" / ("a" * 32)
    (stage / "old").mkdir(parents=True)
    (stage / "owner.lock").touch()
    (place,) = (path.parent for path in out.glob("*/record.json"))
    (place / "mine.txt").write_text("kept")
    place.rename(stage / "old" / place.name)
    assert quickly(folder, out).exit_code == 0
    assert (place / "mine.txt").read_text() == "kept"


def test_a_staging_folder_that_is_a_link_is_refused(tmp_path):
    folder, victim, out = write_sweeps(tmp_path / "in", 1), tmp_path / "victim", tmp_path / "out"
    (victim / "deep").mkdir(parents=True)
    out.mkdir()
    (out / ".staging").symlink_to(victim)
    with pytest.raises(RefitError, match=r"\.staging is a link"):
        quickly(folder, out)
    assert (victim / "deep").is_dir()


@pytest.mark.parametrize("name", ["being-written", "set-aside"])
def test_a_folder_in_staging_that_is_a_link_is_refused(tmp_path, name):
    victim, out = tmp_path / "victim", tmp_path / "out"
    (victim / "secret").mkdir(parents=True)
    (out / ".staging").mkdir(parents=True)
    (out / ".staging" / name).symlink_to(victim)
    with pytest.raises(RefitError, match=f"{name} is a link"):
        quickly(write_sweeps(tmp_path / "in", 1), out)
    assert (victim / "secret").is_dir()
    assert not (out / "secret").exists()


def test_a_glob_does_not_walk_through_a_maze_of_links(tmp_path):
    folder = write_sweeps(tmp_path / "in", 1)
    for name in "ab":
        (folder / name).symlink_to(".")
    shutil.copytree(write_sweeps(tmp_path / "more", 1), folder / "deep" / "er")
    found = discover(str(folder / "**" / "*.csv"), tmp_path / "out").sources
    assert {source.path for source in found} == {str(folder / "sweep0.csv"), str(folder / "deep" / "er" / "sweep0.csv")}


def test_a_link_is_a_file_of_its_own_wherever_it_points(tmp_path):
    store, folder, out = write_sweeps(tmp_path / "store", 2), tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("latest.csv", "also.csv"):
        (folder / name).symlink_to(store / "sweep0.csv")
    settings = Settings(QUICK.reading, QUICK.analysis, (Rule("in/latest.csv", {}, {"draws": 0}),))
    assert settings.of(discover(folder, out).sources[1].path)[1].draws == 0
    assert sorted(quickly(folder, out).table["name"]) == ["also", "latest"]
    (folder / "latest.csv").unlink()
    (folder / "latest.csv").symlink_to(store / "sweep1.csv")
    result = quickly(folder, out).table.set_index("name")["status"]
    assert result.to_dict() == {"also": "skipped", "latest": "ok"}


def test_results_of_another_refit_are_no_sweeps(tmp_path):
    folder = write_sweeps(tmp_path / "all", 1)
    quickly(folder, folder / "first")
    found = quickly(folder, folder / "second")
    assert list(found.table["path"]) == [str(folder / "sweep0.csv")]


def test_pictures_do_not_depend_on_what_the_caller_has_set(tmp_path):
    folder = write_sweeps(tmp_path / "in", 1)
    plain = quickly(folder, tmp_path / "plain", figures=True)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": True, "axes.facecolor": "red", "font.size": 30}):
        own = quickly(folder, tmp_path / "own", figures=True)
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert plain.exit_code == own.exit_code == 0
    assert contents(tmp_path / "plain") == contents(tmp_path / "own")


def test_threads_leave_the_callers_warning_filters_as_they_were(tmp_path):
    folder, before = write_sweeps(tmp_path / "in", 4), list(warnings.filters)
    with ThreadPoolExecutor(2) as threads:
        assert quickly(folder, tmp_path / "out", executor=threads).exit_code == 0
    assert warnings.filters == before


def test_threads_study_one_sweep_at_a_time(tmp_path, monkeypatch):
    """Warning filters belong to the process: a thread that restores them would unmute warnings of another."""
    real, inside, most = results.study_sweep, [], []

    def study(*arguments):
        inside.append(arguments)
        most.append(len(inside))
        done = real(*arguments)
        inside.pop()
        return done

    monkeypatch.setattr(results, "study_sweep", study)
    with ThreadPoolExecutor(4) as threads:
        assert quickly(write_sweeps(tmp_path / "in", 4), tmp_path / "out", executor=threads).exit_code == 0
    assert most == [1] * 4


def test_a_name_cannot_write_on_the_terminal(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a\x1b]0;x\x07\n[9 of 9] ok.csv").write_text("broken\n1\n")
    for more in ([], ["--quiet"]):
        result = CliRunner().invoke(app, ["refit", str(folder), "--out", str(tmp_path / "out"), "--jobs", "1", *more])
        assert result.exit_code == 1
        assert "\x1b" not in result.stderr
        assert "\x07" not in result.stderr + result.stdout
        assert "\x1b" not in result.stdout
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_settings_that_cannot_be_read_are_no_default(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "scalefit.toml"
    {"folder": place.mkdir, "link": lambda: place.symlink_to("gone"), "pipe": lambda: os.mkfifo(place)}[kind]()
    with pytest.raises(SweepError, match=r"settings scalefit\.toml"):
        read_settings()


@pytest.mark.parametrize("text", ["a = " + 900 * "[", "x = " + 5000 * "9", "x = '" + 200_000 * "a" + "'"])
def test_settings_out_of_all_bounds_are_refused(tmp_path, text):
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(SweepError, match=r"odd\.toml"):
        read_settings(tmp_path / "odd.toml")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Analysis, {"lr_laws": ("nope",)}, "lr_laws: no law named"),
        (Analysis, {"draws": 1}, "draws should be 0 for none, or a whole number from 2"),
        (Analysis, {"draws": 10**9}, "draws should be"),
        (Analysis, {"targets": 10**6}, "targets should be a list of losses"),
        (Analysis, {"targets": (float("inf"),)}, "targets should be a list of losses"),
        (Analysis, {"holdout": 3}, "holdout should be"),
        (Reading, {"seq_len": float("inf")}, "seq_len should be a positive number"),
        (Reading, {"batch_unit": "furlongs"}, "batch_unit should be 'sequences' or 'tokens'"),
        (Reading, {"batch_unit": "tokens", "data_unit": "images"}, "batch_unit should be 'sequences' or 'images'"),
    ],
)
def test_settings_made_in_python_pass_the_same_checks(kind, values, message):
    with pytest.raises(SweepError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("sw/**/*.csv", "/data/sw/a.csv", True),
        ("sw/**/*.csv", "/data/sw/x/y/a.csv", True),
        ("sw/**/*.csv", "/data/a.csv", False),
        ("old/*", "/data/old/a.csv", True),
        ("old/*", "/data/old/x/a.csv", False),
        ("/data/*.csv", "/data/a.csv", True),
        ("/data/*.csv", "/more/data/a.csv", False),
    ],
)
def test_a_glob_is_compared_with_the_end_of_a_path(glob, path, fits):
    settings = Settings(rules=(Rule(glob, {}, {"draws": 7}),))
    assert (settings.of(path)[1].draws == 7) is fits


def test_a_column_can_be_set_aside_in_toml(tmp_path):
    (tmp_path / "scalefit.toml").write_text("[read]\ncolumns = {tokens = false}\n")
    assert read_settings(tmp_path / "scalefit.toml").reading.columns == {"tokens": None}


def test_an_executor_that_was_shut_down_is_reported(tmp_path):
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(RefitError, match="the executor given is broken"), Workers(1, threads) as workers:
        list(workers.run(abs, [1]))


@pytest.mark.parametrize("jobs", [0, -1, 2.5, True, "2"])
def test_jobs_are_a_whole_number(jobs):
    with pytest.raises(RefitError, match="jobs should be a whole number from 1 up"):
        Workers(jobs)


def test_laws_of_the_settings_reach_backtest_and_surface():
    sweep = Sweep.from_frame(runs())
    study = study_sweep(sweep, Analysis(draws=0, lr_laws=("eta = c * N**a",), loss_law="loss_params"))
    assert study.surface.lr_fit.law.formula == "eta = c * N**a"
    assert study.surface.floor_fit.law.name == "loss_params"
    assert study.backtest.summary()["entrant"].str.contains("eta = c").any()


def test_a_remedy_names_the_key_of_the_settings(tmp_path):
    runs().rename(columns={"loss": "train_loss"}).to_csv(tmp_path / "a.csv", index=False)
    result = refit(tmp_path / "a.csv", tmp_path / "out", config=QUICK, jobs=1)
    assert "under [read] in scalefit.toml" in result.table["error"][0]
