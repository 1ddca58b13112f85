"""`scalefit refit` in the shell: what it prints, what it exits with, and that its fits can be predicted from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest
from refitting_samples import write_sweeps
from typer.testing import CliRunner

from scalefit.cli import app
from scalefit.refitting._refit import watch
from scalefit.refitting.results import read_fits

runner = CliRunner()


def run(*arguments: object):
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    write_sweeps(folder / "in", 2)
    (folder / "in" / "bad.csv").write_text("broken\n1\n")
    (folder / "few.toml").write_text("[fit]\ndraws = 20\n")
    return folder


def refit(folder, out, *more):
    quick = ["--config", folder / "few.toml", "--jobs", 1, "--no-figures", "--no-report"]
    return run("refit", folder / "in", "--out", folder / out, *quick, *more)


@pytest.fixture(scope="module")
def first(folder):
    return refit(folder, "out")


def test_a_log_has_a_line_for_each_file_and_a_summary(folder, first):
    assert first.exit_code == 1
    lines = first.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"[1/3] failed  {folder / 'in' / 'bad.csv'}: ")
    assert lines[2] == f"[3/3] ok      {folder / 'in' / 'sweep1.csv'}"
    assert "2 refitted, 1 failed" in first.stdout
    assert "\x1b" not in first.output


def test_quiet_prints_failures_only(folder, first):
    result = refit(folder, "out", "--quiet")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["failed"]


def test_json_is_a_line_for_each_file_and_one_at_the_end(folder, first):
    result = refit(folder, "out", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(record["status"] for record in records[:-1]) == ["failed", "skipped", "skipped"]
    assert records[-1] == {
        "out": str(folder / "out"),
        "skipped": 2,
        "failed": 1,
        "unreadable": {},
        "interrupted": False,
        "exit_code": 1,
    }
    assert result.stderr == ""


def test_force_does_all_again(folder, first):
    result = refit(folder, "out", "--json", "--force")
    assert json.loads(result.stdout.splitlines()[-1])["ok"] == 2


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_has_a_bar_with_the_time_left(folder, first):
    import pty

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "scalefit.cli", "refit", "in", "--out", "out", "--config", "few.toml"]
    command += ["--no-figures", "--no-report"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=folder, stderr=child, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(child)
        shown = b""
        while piece := read(parent):
            shown += piece
    os.close(parent)
    assert process.returncode == 1
    assert b"3/3" in shown
    assert b"0:00:00" in shown
    assert b"failed" in shown


def read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere", "--out", "x"], "'nowhere' is no file, folder or glob of any"),
        (["tests", "--out", "x", "--config", "nowhere.toml"], "cannot read the settings nowhere.toml"),
        (["tests", "--out", "x", "--jobs", "0"], "jobs should be a whole number from 1 up"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_two(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    result = run("refit", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert expected in result.stderr
    assert not (tmp_path / "x").exists()


def test_out_is_asked_for():
    assert run("refit", "in").exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc"), reason="every place can be written to")
def test_a_place_that_cannot_be_written_is_one_line(folder):
    result = run("refit", folder / "in", "--out", "/proc/nowhere")
    assert result.exit_code == 2
    assert "cannot write /proc/nowhere" in result.stderr


def test_predict_reads_what_refit_wrote(folder, first):
    path = folder / "out" / "sweep0" / "fit.json"
    result = run("predict", path, "params=5e8", "tokens=5B", "--law", "lr", "--json")
    assert result.exit_code == 0, result.output
    expected = read_fits(path)["lr"].predict(params=5e8, tokens=5e9).iloc[0]
    assert json.loads(result.stdout)["prediction"] == expected["prediction"]
    assert "eta at" in run("predict", path.parent, "params=7e9", "tokens=1.4T", "--law", "surface_lr").stdout


@pytest.mark.parametrize("law", [[], ["--law", "speed"]])
def test_predict_lists_the_laws_of_a_refit(folder, first, law):
    result = run("predict", folder / "out" / "sweep0" / "fit.json", "params=7e9", *law)
    assert result.exit_code == 2
    assert "--law: expected one of lr, loss, surface_lr" in result.stderr


def test_predict_wants_no_name_for_a_single_fit(folder, tmp_path):
    read_fits(folder / "out" / "sweep0")["lr"].to_json(tmp_path / "one.json")
    result = run("predict", tmp_path / "one.json", "params=7e9", "tokens=1e12", "--law", "lr")
    assert result.exit_code == 2
    assert "leave --law out" in result.stderr


def test_an_interrupted_watch_ends_with_130(folder, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("scalefit.cli.refit_commands.watch", partial(watch, sleep=interrupt))
    result = run("refit", folder / "in", "--out", folder / "watched", "--watch")
    assert result.exit_code == 130
