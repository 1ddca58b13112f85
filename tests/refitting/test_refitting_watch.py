"""New files are taken up as they arrive, half-written ones when they are whole; no test waits."""

from __future__ import annotations

import os
from pathlib import Path

from refitting_samples import QUICK, runs

from scalefit.refitting import _refit
from scalefit.refitting._refit import Plan, watch
from scalefit.refitting.workers import Workers


class Interrupted(Exception):
    """Ends a watch."""


def watched(folder, out, steps) -> list[dict[str, str]]:
    """Watch a folder; between two looks the next step is taken. Return what each round did."""
    waiting = iter(steps)

    def sleep(seconds):
        assert seconds == 7.0
        step = next(waiting, None)
        if step is None:
            raise Interrupted
        step()

    plan = Plan(out, QUICK, figures=False, report=False)
    rounds = []
    try:
        for result in watch(folder, plan, pool=lambda: Workers(1), interval=7.0, sleep=sleep):
            rounds.append(dict(zip(result.table["name"], result.table["status"], strict=True)))
    except Interrupted:
        return rounds
    raise AssertionError("a watch ended that nobody interrupted")


def nothing() -> None:
    pass


def test_files_that_are_there_are_refitted_once(tmp_path):
    runs().to_csv(tmp_path / "a.csv", index=False)
    assert watched(tmp_path, tmp_path / "out", [nothing] * 4) == [{"a": "ok"}]
    assert watched(tmp_path, tmp_path / "out", [nothing] * 4) == [{"a": "skipped"}]


def test_a_half_written_file_is_waited_for(tmp_path):
    text = runs().to_csv(index=False)
    pieces = [text[i : i + 300] for i in range(0, len(text), 300)]

    def write(piece):
        def step():
            with (tmp_path / "a.csv").open("a") as file:
                file.write(piece)

        return step

    rounds = watched(tmp_path, tmp_path / "out", [*map(write, pieces), nothing, nothing, nothing])
    assert len(pieces) > 3
    assert rounds == [{"a": "ok"}]


def test_what_arrives_or_changes_later_is_refitted_and_nothing_else(tmp_path):
    def arrive(name, seed):
        return lambda: runs(seed).to_csv(tmp_path / name, index=False)

    def leave():
        (tmp_path / "a.csv").unlink()

    steps = [arrive("a.csv", 0), nothing, nothing, arrive("b.csv", 1), nothing, nothing, arrive("a.csv", 2), nothing]
    steps += [nothing, leave, nothing, nothing]
    assert watched(tmp_path, tmp_path / "out", steps) == [{"a": "ok"}, {"b": "ok"}, {"a": "ok"}]


def test_a_bad_file_is_reported_once(tmp_path):
    (tmp_path / "a.csv").write_text("broken")
    assert watched(tmp_path, tmp_path / "out", [nothing] * 5) == [{"a": "failed"}]


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path):
    def arrive():
        (tmp_path / "later").mkdir()
        runs().to_csv(tmp_path / "later" / "a.csv", index=False)

    paths = str(tmp_path / "later" / "*.csv")
    assert watched(paths, tmp_path / "out", [nothing, arrive, nothing, nothing]) == [{"a": "ok"}]


def test_a_path_that_names_nothing_keeps_no_other_waiting(tmp_path):
    runs().to_csv(tmp_path / "a.csv", index=False)
    paths = [tmp_path / "a.csv", tmp_path / "later.csv"]

    def arrive():
        runs(1).to_csv(tmp_path / "later.csv", index=False)

    assert watched(paths, tmp_path / "out", [nothing, nothing, arrive, nothing, nothing]) == [
        {"a": "ok"},
        {"later": "ok"},
    ]


def test_a_folder_that_cannot_be_searched_is_reported_once_without_a_file_to_refit(tmp_path, monkeypatch):
    locked, real = tmp_path / "in" / "locked", os.scandir
    locked.mkdir(parents=True)

    def refused(path="."):
        if isinstance(path, str) and Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(locked))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert watched(tmp_path / "in", tmp_path / "out", [nothing] * 4) == [{}]


def test_an_interrupted_round_is_the_last(tmp_path, monkeypatch):
    runs().to_csv(tmp_path / "a.csv", index=False)

    real = _refit.refit_found

    def interrupt(event):
        raise KeyboardInterrupt

    def interrupted(found, plan, workers, on_event):
        return real(found, plan, workers, interrupt)

    monkeypatch.setattr(_refit, "refit_found", interrupted)
    plan = Plan(tmp_path / "out", QUICK, figures=False, report=False)
    (result,) = watch(tmp_path, plan, pool=lambda: Workers(1), sleep=lambda _: None)
    assert result.interrupted
    assert result.exit_code == 130
