from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scalefit._datasets import registry
from scalefit._datasets.load_dataset import datasets, load_dataset
from scalefit._datasets.read_table import read_mup, read_reference_points, read_zhang
from scalefit.errors import SweepError
from scalefit.sweep import Sweep

RUNS = b"""h,lr,bs,ti,loss,smooth loss,D,N
960,0.001,64,1000,3.3,3.1,131072000,200000000
960,0.002,64,1000,3.2,3.0,131072000,200000000
960,0.004,64,1000,3.4,3.2,131072000,200000000
"""
SHA = hashlib.sha256(RUNS).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = f"/someone/sweeps/{COMMIT}/data/runs.csv"


@dataclass
class Site:
    """What the local server answers, by path, and what it was asked for."""

    base: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    asked: list[str] = field(default_factory=list)
    hold: threading.Event | None = None


@pytest.fixture
def site(monkeypatch, tmp_path) -> Iterator[Site]:
    answers = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers.asked.append(self.path)
            if answers.hold is not None:
                answers.hold.wait(10)
                return
            body = answers.bodies.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: answers.cut_after])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # server_close then waits for every answer
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answers.base = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(registry, "BASE_ADDRESS", answers.base)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SCALEFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCALEFIT_DATA", raising=False)
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


def register(monkeypatch, commit=COMMIT, sha256=SHA, **facts) -> registry.Dataset:
    file = registry.UpstreamFile("someone/sweeps", commit, "data/runs.csv", sha256, len(RUNS), ("other_name.csv",))
    known = registry.Dataset(
        "some-runs", "a few runs", "runs", "none stated", 3, files=(file,), sweep={"columns": {"loss": "smooth loss"}}
    )
    known = replace(known, **facts)
    monkeypatch.setattr(registry, "DATASETS", {**registry.DATASETS, known.name: known})
    return known


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "some-runs"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_public_sweep_is_downloaded_once_and_says_where_it_is_from(site, monkeypatch, tmp_path):
    register(monkeypatch)
    site.bodies[ADDRESS] = RUNS
    first = load_dataset("some-runs")
    assert isinstance(first, Sweep)
    assert first.table["loss"].tolist() == [3.1, 3.0, 3.2]
    assert first.table["batch"].tolist() == [131072.0] * 3
    assert first.source == "some-runs"
    told = first.notes[0]
    assert told.code == "dataset"
    for part in ("someone/sweeps data/runs.csv", COMMIT, SHA, "licence: none stated"):
        assert part in told.text
    second = load_dataset("some-runs")
    assert site.asked == [ADDRESS]
    assert cached(tmp_path) == ["runs.csv"]
    assert second.fingerprint == first.fingerprint


def test_raw_returns_the_rows_as_published_with_the_notes(site, monkeypatch):
    register(monkeypatch, cautions=("mind the gap",))
    site.bodies[ADDRESS] = RUNS
    table = load_dataset("some-runs", raw=True)
    assert table.columns.tolist() == ["h", "lr", "bs", "ti", "loss", "smooth loss", "D", "N"]
    assert len(table) == 3
    assert "licence: none stated" in table.attrs["notes"][0]
    assert "mind the gap" in table.attrs["notes"][1]
    assert any(note.caution and note.text == "mind the gap" for note in load_dataset("some-runs").notes)


def test_a_damaged_copy_in_the_cache_is_replaced(site, monkeypatch, tmp_path):
    register(monkeypatch)
    site.bodies[ADDRESS] = RUNS
    load_dataset("some-runs")
    (tmp_path / "cache" / "some-runs" / "runs.csv").write_bytes(RUNS[:-20])
    assert len(load_dataset("some-runs")) == 3
    assert site.asked == [ADDRESS, ADDRESS]


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(site, monkeypatch, tmp_path):
    register(monkeypatch)
    changed = RUNS.replace(b"3.0", b"2.0")
    site.bodies[ADDRESS] = changed
    with pytest.raises(SweepError) as caught:
        load_dataset("some-runs")
    for part in (SHA, hashlib.sha256(changed).hexdigest(), site.base + ADDRESS, "SCALEFIT_DATA"):
        assert part in str(caught.value)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("sha256", [SHA, None], ids=["hash known", "hash unknown"])
def test_a_cut_connection_leaves_nothing_behind(site, monkeypatch, tmp_path, sha256):
    register(monkeypatch, sha256=sha256)
    site.bodies[ADDRESS], site.cut_after = RUNS, 60
    with pytest.raises(SweepError, match=r"connection was cut.*try again"):
        load_dataset("some-runs")
    assert cached(tmp_path) == []
    site.cut_after = None
    assert len(load_dataset("some-runs")) == 3


def test_a_body_that_ends_early_is_cut_even_where_the_client_does_not_count(site, monkeypatch, tmp_path):
    import requests

    answer = SimpleNamespace(
        headers={"Content-Length": "100"},
        raw=SimpleNamespace(tell=lambda: 40),
        raise_for_status=lambda: None,
        iter_content=lambda size: iter([RUNS[:40]]),
    )
    register(monkeypatch, sha256=None)
    monkeypatch.setattr(requests, "get", lambda *args, **kwargs: nullcontext(answer))
    with pytest.raises(SweepError, match="40 of 100 bytes came"):
        load_dataset("some-runs")
    assert cached(tmp_path) == []


def test_a_missing_file_is_said_to_be_gone(site, monkeypatch):
    register(monkeypatch)
    with pytest.raises(SweepError, match=r"answered 404: it is not there any more\. To work offline, put .*runs\.csv"):
        load_dataset("some-runs")


def test_a_server_that_does_not_answer_is_given_up(site, monkeypatch):
    register(monkeypatch)
    monkeypatch.setattr(registry, "TIMEOUT", 0.2)
    site.hold = threading.Event()
    try:
        with pytest.raises(SweepError, match=r"did not answer within 0\.2 s"):
            load_dataset("some-runs")
    finally:
        site.hold.set()


def test_no_network_is_said_with_the_way_to_work_offline(site, monkeypatch):
    register(monkeypatch)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(registry, "BASE_ADDRESS", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SweepError, match=r"cannot be reached; is this machine online\?.*set SCALEFIT_DATA"):
            load_dataset("some-runs")


def test_a_cache_that_cannot_be_written_names_the_setting(site, monkeypatch, tmp_path):
    register(monkeypatch)
    site.bodies[ADDRESS] = RUNS
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SCALEFIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(SweepError, match=r"the cache .*file.some-runs cannot be used .*set SCALEFIT_CACHE to"):
        load_dataset("some-runs")


def test_a_read_only_cache_is_enough_once_the_file_is_there(site, monkeypatch, tmp_path):
    register(monkeypatch)
    site.bodies[ADDRESS] = RUNS
    load_dataset("some-runs")
    folder = tmp_path / "cache" / "some-runs"
    folder.chmod(0o500)
    try:
        assert len(load_dataset("some-runs")) == 3
        if not _writable(folder):
            (folder / "runs.csv").chmod(0o600)
            (folder / "runs.csv").write_bytes(b"damaged")
            with pytest.raises(SweepError, match="set SCALEFIT_CACHE"):
                load_dataset("some-runs")
    finally:
        folder.chmod(0o700)


def _writable(folder: Path) -> bool:
    try:
        (folder / "probe").touch()
    except PermissionError:
        return False
    (folder / "probe").unlink()
    return True


def test_an_abbreviated_commit_falls_back_to_the_tip_as_long_as_the_hash_agrees(site, monkeypatch):
    register(monkeypatch, commit="01234567")
    site.bodies["/someone/sweeps/HEAD/data/runs.csv"] = RUNS
    assert len(load_dataset("some-runs")) == 3
    assert site.asked == ["/someone/sweeps/01234567/data/runs.csv", "/someone/sweeps/HEAD/data/runs.csv"]
    unpinned = registry.UpstreamFile("someone/sweeps", "01234567", "data/runs.csv")
    assert len(unpinned.addresses) == 1


def test_a_file_without_a_hash_on_record_says_so_and_shows_its_own(site, monkeypatch):
    register(monkeypatch, sha256=None)
    site.bodies[ADDRESS] = RUNS
    text = load_dataset("some-runs").notes[0].text
    assert "no sha256 on record" in text
    assert SHA in text


@pytest.mark.parametrize("place", ["runs.csv", "other_name.csv", "some-runs/runs.csv"])
def test_a_folder_of_files_serves_without_any_request(site, monkeypatch, tmp_path, place):
    register(monkeypatch)
    (tmp_path / "local" / place).parent.mkdir(parents=True)
    (tmp_path / "local" / place).write_bytes(RUNS)
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path / "local"))
    sweep = load_dataset("some-runs")
    assert len(sweep) == 3
    assert f"in the folder {tmp_path / 'local'}" in sweep.notes[0].text
    assert site.asked == []


def test_wrong_content_in_the_folder_names_both_hashes(site, monkeypatch, tmp_path):
    register(monkeypatch)
    (tmp_path / "runs.csv").write_bytes(RUNS + b"\n")
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path))
    with pytest.raises(SweepError) as caught:
        load_dataset("some-runs")
    for part in (SHA, hashlib.sha256(RUNS + b"\n").hexdigest(), str(tmp_path / "runs.csv"), "read_sweep"):
        assert part in str(caught.value)
    assert site.asked == []


def test_a_folder_without_the_file_is_an_error_and_no_download(site, monkeypatch, tmp_path):
    register(monkeypatch)
    site.bodies[ADDRESS] = RUNS
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path))
    with pytest.raises(SweepError, match=r"is not in .*which SCALEFIT_DATA names\. To work offline, put http"):
        load_dataset("some-runs")
    assert site.asked == []
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SweepError, match=r"there is no folder .*nowhere"):
        load_dataset("some-runs")


def test_a_table_read_out_by_hand_is_checked_against_its_own_hash(site, monkeypatch, tmp_path):
    table = registry.DerivedTable("by_hand.csv", hashlib.sha256(b"a,b\n1,2\n").hexdigest(), {"a": "steps"})
    register(monkeypatch, derived=table, sweep=None)
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path))
    with pytest.raises(SweepError, match=r"or the table by_hand\.csv into a folder"):
        load_dataset("some-runs", raw=True)
    (tmp_path / "by_hand.csv").write_bytes(b"a,b\n1,2\n")
    found = load_dataset("some-runs", raw=True)
    assert found.to_dict("list") == {"steps": [1], "b": [2]}
    assert "read out of someone/sweeps by hand" in found.attrs["notes"][0]
    (tmp_path / "by_hand.csv").write_bytes(b"a,b\n1,3\n")
    with pytest.raises(SweepError, match=table.sha256):
        load_dataset("some-runs", raw=True)
    assert site.asked == []


def test_rows_that_are_not_runs_point_to_raw(site):
    for name in ("cbs-zhang", "mlperf-rcp", "mup-demo", "tiny-lm-curves"):
        with pytest.raises(SweepError, match=rf"no sweep; load_dataset\('{name}', raw=True\)"):
            load_dataset(name)
    assert site.asked == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny_lm", "did you mean 'tiny-lm' or 'tiny-lm-curves'"),
        ("steplaw", "did you mean 'steplaw-dense'"),
        ("Chinchila", "did you mean 'chinchilla-epoch'"),
        ("zzz", "there are tiny-lm, tiny-lm-curves, simulated"),
        ("", "there are tiny-lm"),
    ],
)
def test_an_unknown_name_suggests_near_ones(name, hint):
    with pytest.raises(SweepError, match="there is no data set") as caught:
        load_dataset(name)
    assert hint in str(caught.value)


def test_the_simulated_sweep_is_bundled_and_warns_that_it_is_one():
    sweep = load_dataset("simulated")
    assert len(sweep) == 560
    assert len(sweep.cells) == 16
    assert any(note.caution and "never happened" in note.text for note in sweep.notes)


def test_bundled_sets_do_not_look_at_the_folder_for_public_files(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path / "nowhere"))
    assert len(load_dataset("simulated")) == 560


def test_an_installed_package_finds_its_own_copy_first(monkeypatch, tmp_path):
    known = registry.DATASETS["simulated"]
    package = tmp_path / "site" / "scalefit"
    (package / "_data" / "simulated").mkdir(parents=True)
    monkeypatch.setattr(registry, "_PACKAGE", package)
    with pytest.raises(SweepError, match=r"simulated should be bundled.*install scalefit again"):
        load_dataset("simulated")
    (tmp_path / "site" / "data" / "simulated").mkdir(parents=True)
    checkout = tmp_path / "site" / "data" / "simulated" / "runs.csv"
    checkout.write_text("lr,loss\n1,2\n")
    assert registry.bundled_path(known) == checkout
    (package / "_data" / "simulated" / "runs.csv").write_text("lr,loss\n1,3\n")
    assert registry.bundled_path(known) == package / "_data" / "simulated" / "runs.csv"


def test_the_real_sweep_is_bundled():
    try:
        registry.bundled_path(registry.DATASETS["tiny-lm"])
        registry.bundled_path(registry.DATASETS["tiny-lm-curves"])
    except SweepError as error:
        pytest.skip(f"the sweep has not been generated in this checkout: {error}")
    sweep = load_dataset("tiny-lm")
    assert len(sweep) >= 400
    assert sweep.params_convention == "non_embedding"
    assert {"lr", "batch", "params", "tokens", "steps", "seed", "weight_decay"} <= set(sweep.table.columns)
    curves = load_dataset("tiny-lm-curves", raw=True)
    assert {"run", "steps", "tokens", "loss"} <= set(curves.columns)
    assert set(curves["run"]) <= set(sweep.table["run"])


def test_the_list_states_source_commit_hash_and_licence_of_every_public_set():
    listed = datasets().set_index("name")
    assert set(listed["kind"]) == {"bundled", "public"}
    assert listed.index.is_unique
    public = listed[listed["kind"] == "public"]
    assert (public["licence"].str.len() > 2).all()
    assert public["source"].str.startswith("https://raw.githubusercontent.com/").all()
    assert public["commit"].str.match(r"^([0-9a-f]{8}|[0-9a-f]{40})( [0-9a-f]{40})*$").all()
    assert public["sha256"].str.match(r"^([0-9a-f]{64}( [0-9a-f]{64})*)?$").all()
    simulated = listed.loc["simulated"]
    path = registry.bundled_path(registry.DATASETS["simulated"])
    assert simulated["rows"] == 560
    assert simulated["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert simulated["size"] == path.stat().st_size


def test_importing_the_package_loads_no_downloader():
    code = "import sys, scalefit._datasets; print(sorted({'pooch', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_step_law_reads_its_target_and_batch(monkeypatch, shared_data):
    monkeypatch.setenv("SCALEFIT_DATA", str(shared_data("steplaw_dense_lr_bs.csv").parent))
    sweep = load_dataset("steplaw-dense")
    raw = load_dataset("steplaw-dense", raw=True)
    assert len(sweep) == len(raw) == registry.DATASETS["steplaw-dense"].rows
    assert len(sweep.cells) == 17
    np.testing.assert_array_equal(sweep.table["loss"], raw["smooth loss"])
    np.testing.assert_array_equal(sweep.table["batch"], raw["bs"] * 2048)
    assert sweep.params_convention == "non_embedding"


def test_chinchilla_keeps_all_points_and_says_what_is_usual(monkeypatch, shared_data):
    monkeypatch.setenv("SCALEFIT_DATA", str(shared_data("chinchilla_epoch_svg.csv").parent))
    sweep = load_dataset("chinchilla-epoch")
    table = sweep.table
    assert len(sweep) == 245
    np.testing.assert_allclose(table["flops"], 6 * table["params"] * table["tokens"], rtol=1e-14)
    assert any(note.caution and "drop the 5" in note.text for note in sweep.notes)
    assert any(note.caution and "FLOP / (6 params)" in note.text for note in sweep.notes)
    kept = sweep.where("loss < 3.44")
    assert len(kept) == 240
    assert kept.table["loss"].max() < np.sort(table["loss"])[-5]


def save_notebook(path: Path, cells: list[tuple[str, list[str]]]) -> Path:
    """Write a notebook of (source, printed pieces), with a figure and a cell of text around them."""
    code = [
        {
            "cell_type": "code",
            "source": source.splitlines(keepends=True),
            "outputs": [
                *({"output_type": "stream", "text": piece.splitlines(keepends=True)} for piece in pieces),
                {"output_type": "display_data", "data": {"image/png": "iVB"}},
            ],
        }
        for source, pieces in cells
    ]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["# plots"]}, *code], "nbformat": 4}))
    return path


def zhang_cells(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    lines = [
        f"Learning rate:  0.00316\nMinimum goal step {row.steps} for batch size {row.sequences} "
        f"(Model Size {row.model}, Run Name {row.run}), Run ID {row.run_id}\n\n"
        for row in rows.itertuples()
    ]
    targets = dict(zip(rows["model"], rows["target"], strict=True))
    text = "".join(lines)
    query = f"results = {{}}\ngoal_losses = {targets} \nprint(results)"
    return [("import wandb", []), (query, [text[:1000], text[1000:]])]


def grid() -> pd.DataFrame:
    models = ["85M", "151M-ablation", "302M", "604M", "1.2B"]
    rows = pd.DataFrame([(model, 2**i) for model in models for i in range(6, 15)], columns=["model", "sequences"])
    numbers = np.arange(len(rows))
    return rows.assign(
        target=rows["model"].map(dict(zip(models, [3.42, 3.24, 3.07, 2.92, 2.736], strict=True))),
        steps=1000 + numbers,
        run=[f"bs{size}-adamw_0.95-lr0.00316-ewa[0.99, 0.999]" for size in rows["sequences"]],
        run_id=[f"n0wjhn{number:02d}" for number in numbers],
    )


def test_steps_to_target_are_read_out_of_what_the_notebook_printed(tmp_path):
    expected = grid()
    table = read_zhang([save_notebook(tmp_path / "chinchilla.ipynb", zhang_cells(expected))])
    for name in ("model", "sequences", "target", "steps", "run", "run_id"):
        assert table[name].tolist() == expected[name].tolist()
    assert table["batch"].tolist() == (expected["sequences"] * 512).tolist()
    assert sorted(table["params"].unique()) == [85e6, 151e6, 302e6, 604e6, 1.2e9]


@pytest.mark.parametrize("damage", ["a row less", "a row twice", "no output", "no notebook"])
def test_a_notebook_that_is_not_the_known_one_is_refused(site, monkeypatch, tmp_path, damage):
    rows = grid()
    path = tmp_path / "chinchilla.ipynb"
    if damage == "no notebook":
        path.write_text("{")
    else:
        kept = {"a row less": range(44), "a row twice": [0, *range(44)], "no output": []}[damage]
        save_notebook(path, zhang_cells(rows.iloc[kept]))
    monkeypatch.setenv("SCALEFIT_DATA", str(tmp_path))
    with pytest.raises(SweepError, match=r"chinchilla\.ipynb cannot be read as cbs-zhang"):
        load_dataset("cbs-zhang", raw=True)


def test_the_notebook_and_the_table_read_out_of_it_agree(monkeypatch, shared_data, tmp_path):
    monkeypatch.setenv("SCALEFIT_DATA", str(shared_data("cbs_zhang_steps_to_target.csv").parent))
    by_hand = load_dataset("cbs-zhang", raw=True)
    read = read_zhang([save_notebook(tmp_path / "chinchilla.ipynb", zhang_cells(by_hand))])
    pd.testing.assert_frame_equal(read, by_hand[read.columns.tolist()], check_dtype=False)
    assert len(read) == registry.DATASETS["cbs-zhang"].rows


def mup_cells(table: pd.DataFrame, linspace: str) -> list[tuple[str, list[str]]]:
    cells = []
    for name, rows in table.groupby("parameterization", sort=False):
        source = (
            f"logs = []\nfor width in {rows['width'].drop_duplicates().tolist()}:\n"
            f"    for log2lr in np.linspace{linspace}:\n        logs.append(dict(model_type='{name} MLP'))"
        )
        text = "".join(
            f"Train Epoch: {row.epoch} [0/50000 (0%)]\tLoss: 2.302585 | ms/batch  0.20\n"
            f"Train Epoch: {row.epoch} [19200/50000 (38%)]\tLoss: {row.train_loss} | ms/batch  4.87\n\n"
            f"Train set: Average loss: {row.train_loss:.4f}\n\n"
            for row in rows.itertuples()
        )
        cells.append((source, [text[:100], text[100:]]))
    return [("def train():\n    return 0", []), *cells, ("sns.lineplot(data='SP MLP')", [])]


def test_epochs_are_matched_with_the_loops_that_ran_them(tmp_path):
    runs = [("muP", 256, -8.0), ("muP", 256, 0.0), ("muP", 512, -8.0), ("muP", 512, 0.0), ("SP", 256, -8.0)]
    runs += [("SP", 256, 0.0), ("SP", 512, -8.0), ("SP", 512, 0.0)]
    rows = [(*run, epoch, 2.5 - 0.1 * epoch) for run in runs for epoch in (1, 2, 3)]
    table = pd.DataFrame(rows, columns=["parameterization", "width", "log2lr", "epoch", "train_loss"])
    diverged = (table["width"] == 512) & (table["log2lr"] == 0)
    table.loc[diverged, "train_loss"] = np.nan
    table = table[~(diverged & (table["epoch"] > 1))].reset_index(drop=True)
    read = read_mup([save_notebook(tmp_path / "demo.ipynb", mup_cells(table, "(-8, 0, 2)"))])
    pd.testing.assert_frame_equal(read.drop(columns="lr"), table, check_dtype=False)
    assert read["lr"].tolist() == [2.0**value for value in table["log2lr"]]
    with pytest.raises(SweepError, match="expected 6 printed runs of muP, found 4"):
        read_mup([save_notebook(tmp_path / "demo.ipynb", mup_cells(table, "(-8, 0, 3)"))])
    with pytest.raises(SweepError, match="no cell loops over widths"):
        read_mup([save_notebook(tmp_path / "demo.ipynb", [("import mup", ["hello"])])])


def test_the_demonstration_and_the_table_read_out_of_it_agree(monkeypatch, shared_data, tmp_path):
    monkeypatch.setenv("SCALEFIT_DATA", str(shared_data("mup_demo_mlp_lr_width.csv").parent))
    by_hand = load_dataset("mup-demo", raw=True)
    assert len(by_hand) == registry.DATASETS["mup-demo"].rows
    read = read_mup([save_notebook(tmp_path / "demo.ipynb", mup_cells(by_hand, "(-8, 0, 20)"))])
    pd.testing.assert_frame_equal(read, by_hand, check_dtype=False, rtol=1e-9)


def test_another_number_of_rows_is_refused(site, monkeypatch):
    register(monkeypatch, sha256=None, rows=4)
    site.bodies[ADDRESS] = RUNS
    with pytest.raises(SweepError, match=r"runs\.csv cannot be read as some-runs \(expected 4 rows, found 3\)"):
        load_dataset("some-runs", raw=True)


def test_reference_points_become_one_row_a_replicate(tmp_path):
    facts = {"Creator": "X", "When": "then", "Platform": "P", "Hyperparams": {"b": 2, "a": 1e-3}}
    bert = {"bert_ref_256": {"Benchmark": "bert", **facts, "BS": 256, "Epochs to converge": [2834944, 2508800]}}
    resnet = {"resnet_ref_4096": {"Benchmark": "resnet", **facts, "BS": 4096, "Epochs to converge": [39, 42.5, 40]}}
    (tmp_path / "rcps_bert.json").write_text(json.dumps(bert))
    (tmp_path / "rcps_resnet.json").write_text(json.dumps(resnet))
    table = read_reference_points([tmp_path / "rcps_bert.json", tmp_path / "rcps_resnet.json"])
    assert table["batch_size"].tolist() == [256, 256, 4096, 4096, 4096]
    assert table["replicate"].tolist() == [0, 1, 0, 1, 2]
    assert table["epochs_to_converge"].tolist() == [2834944.0, 2508800.0, 39.0, 42.5, 40.0]
    assert table["hyperparams"].tolist() == ['{"a": 0.001, "b": 2}'] * 5


def test_the_reference_points_read_out_by_hand_have_the_same_columns(monkeypatch, shared_data):
    monkeypatch.setenv("SCALEFIT_DATA", str(shared_data("mlperf_rcp_bert_resnet.csv").parent))
    points = load_dataset("mlperf-rcp", raw=True)
    assert {"benchmark", "entry", "batch_size", "replicate", "epochs_to_converge"} <= set(points.columns)
    assert points["benchmark"].value_counts().to_dict() == {"bert": 303, "resnet": 238}
