"""The generator of the tiny-lm sweep, in miniature: it resumes, repeats itself exactly, writes the promised columns."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "tiny_lm"
COLUMNS = [
    "run",
    "lr",
    "batch",
    "params",
    "params_total",
    "tokens",
    "loss",
    "steps",
    "flops",
    "seq_len",
    "weight_decay",
    "weight_norm",
    "seed",
    "optimizer",
    "schedule",
    "warmup_fraction",
    "diverged",
    "wall_seconds",
    "train_loss",
]
CELLS = [{"width": 16, "layers": 1, "tokens": 8192, "batch": batch} for batch in (64, 256, 512)]

needs_folder = pytest.mark.skipif(not FOLDER.is_dir(), reason="the generator is part of a checkout, not of the wheel")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed; the generator's only extra"
)
pytestmark = needs_folder


@pytest.fixture(scope="module")
def plan() -> ModuleType:
    """Return the module plan.py, under a name that no other module has."""
    spec = importlib.util.spec_from_file_location("tiny_lm_plan", FOLDER / "plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Return a folder of small source files, some of which the hash of their name holds out."""
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(60):
        lines = [f"def function_{i}_{j}(x):\n    return x * {j} + {i}\n\n" for j in range(20)]
        (folder / f"part{i}.py").write_text("".join(lines))
    (folder / "accents.py").write_text("# é is not ASCII\n", encoding="utf-8")
    return folder


def command(tmp_path: Path, text: Path, out: str) -> list[str]:
    (tmp_path / "plan.json").write_text(json.dumps(CELLS))
    options = {"--work": tmp_path / out / "work", "--out": tmp_path / out, "--text": text}
    options |= {"--plan": tmp_path / "plan.json", "--jobs": 1, "--device": "cpu"}
    return [sys.executable, str(FOLDER / "generate.py"), *(str(part) for pair in options.items() for part in pair)]


def wait_for_a_result(work: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> Path:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if found := sorted(work.glob("w*.json")):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"no cell finished in {seconds} s; exit status {process.poll()}")


@needs_torch
@pytest.mark.slow
def test_resumes_after_a_kill_and_repeats_itself_exactly(tmp_path: Path, text: Path) -> None:
    process = subprocess.Popen(command(tmp_path, text, "killed"), stdout=subprocess.DEVNULL)
    first = wait_for_a_result(tmp_path / "killed" / "work", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = first.read_bytes()  # holds wall seconds, which no second training would repeat
    assert not (tmp_path / "killed" / "runs.csv").exists()

    for out in ("killed", "straight"):
        subprocess.run(command(tmp_path, text, out), check=True, capture_output=True)
    assert first.read_bytes() == before
    resumed, straight = (pd.read_csv(tmp_path / out / "runs.csv") for out in ("killed", "straight"))
    pd.testing.assert_frame_equal(resumed.drop(columns="wall_seconds"), straight.drop(columns="wall_seconds"))

    assert set(COLUMNS) <= set(resumed.columns)
    assert resumed["run"].is_unique
    assert len(resumed) >= 7 * len(CELLS)
    assert (resumed["steps"] * resumed["batch"] == resumed["tokens"]).all()
    assert (resumed["params"] == 12 * 16**2).all()
    assert resumed.loc[~resumed["diverged"], "loss"].between(0, math.log(128)).all()
    facts = json.loads((tmp_path / "killed" / "work" / "facts.json").read_text())["text"]
    assert facts["files"] == 60
    assert facts["files_not_ascii_dropped"] == 1
    assert 0 < facts["files_held_out"] < 60

    (text / "part0.py").write_text("pass\n" * 100)
    refused = subprocess.run(command(tmp_path, text, "killed"), capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "holds runs of another text" in refused.stderr


@needs_torch
@pytest.mark.slow
def test_curves_and_divergence(tmp_path: Path, text: Path) -> None:
    script = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(FOLDER)!r})
import plan, train
train.CURVE_TOKENS = 4096
plan.GRIDS["mad"] = (0, 200)
result = train.train_cell(plan.Cell(16, 1, 8192, 64, grid="mad"), Path({str(text)!r}))
alone = plan.GRIDS.update(mad=(0, 1)) or train.train_cell(plan.Cell(16, 1, 8192, 64, grid="mad"), Path({str(text)!r}))
print(json.dumps([result, alone]))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    result, other = json.loads(done.stdout)
    sane, mad = result["runs"]
    assert not sane["diverged"]
    assert mad["diverged"]
    # the diverged neighbour leaves no trace in the run beside it
    assert sane["loss"] == other["runs"][0]["loss"]
    curve = pd.DataFrame(result["curves"]).query("run == @sane['run']")
    assert len(curve) == 100
    assert curve["tokens"].iloc[-1] == 8192
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0]
    assert curve["lr_share"].max() == 1


def test_plan_is_the_sweep_promised(plan: ModuleType) -> None:
    cells = plan.full_plan()
    assert len(set(cells)) == len(cells)
    sizes = sorted({12 * cell.layers * cell.width**2 for cell in cells})
    assert len(sizes) >= 5
    assert sizes[-1] / sizes[0] >= 50
    assert sizes[-1] >= 2 * sizes[-2]
    assert len({cell.run(lr) for cell in cells for lr in cell.lrs}) == sum(len(cell.lrs) for cell in cells) >= 400
    settings = [(c.width, c.layers, c.tokens, c.batch, c.seed, lr) for c in cells for lr in c.lrs]
    assert len(set(settings)) == len(settings)  # no run is made twice under two names
    for cell in cells:
        assert cell.steps * cell.batch == cell.tokens
        assert cell.steps >= plan.FEWEST_STEPS
        assert cell.grid in ("half", "short") or len(cell.lrs) >= 7
    for width, layers in plan.SIZES:
        own = [cell for cell in cells if (cell.width, cell.layers) == (width, layers)]
        assert len({cell.tokens for cell in own}) >= 4
        assert max(cell.batch for cell in own) >= 32 * min(cell.batch for cell in own)


@pytest.mark.parametrize(("best", "grid"), [(0, "low"), (1, "low"), (2, None), (4, None), (5, "high"), (6, "high")])
def test_a_cell_goes_on_where_its_optimum_is_near_an_end(plan: ModuleType, best: int, grid: str | None) -> None:
    cell = plan.Cell(16, 1, 2**17, 256)
    losses = {lr: abs(i - best) + (math.inf if i == 3 and best != 3 else 0) for i, lr in enumerate(cell.lrs)}
    more = plan.extension(cell, losses)
    assert (more.grid if more else None) == grid
    if more:
        assert not set(more.lrs) & set(cell.lrs)
        assert plan.extension(more, dict.fromkeys(more.lrs, 1.0)) is None
