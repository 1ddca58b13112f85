"""The README's Python runs as it stands."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

from matplotlib import pyplot

import scalefit as sf

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_examples_run(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    shutil.copy(README.parent / "data" / "simulated" / "runs.csv", tmp_path / "runs.csv")
    monkeypatch.chdir(tmp_path)
    story: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sf.ExtrapolationWarning)  # the examples predict far beyond the table
        for block in blocks[:4]:
            exec(compile(block, str(README), "exec"), story)
    pyplot.close("all")
    assert (tmp_path / "law.pdf").read_bytes().startswith(b"%PDF")
    assert isinstance(story["trade"], sf.Tradeoff)
    assert isinstance(story["fit"], sf.Fit)
    assert isinstance(story["report"], sf.Backtest)
    assert isinstance(story["surface"], sf.Surface)


def test_what_it_says_of_our_own_sweep_is_what_comes_out():
    text = README.read_text(encoding="utf-8")
    sweep = sf.load_dataset("tiny-lm")
    optima = sf.find_optima(sweep, over="lr")
    assert f"{len(sweep)} small transformers" in text
    assert f"all {len(optima)} cells" in text
    values = sf.fit("lr_power_batch", optima).values
    for name, shown in {"a": "N^-0.349", "b": "D^-0.145", "g": "B^0.489"}.items():
        assert f"{abs(values[name]):.3f}" in shown
        assert shown in text
    summary = sf.backtest(sweep, "largest params").summary().set_index("entrant")["regret_pct"]
    assert f"{summary['Basin: lr_power']:.2f}(" in text
    assert f"{summary['surface: lr_power']:.2f}(" in text
    assert f"{summary['grid minimum + OLS']:.2f}(" in text
