"""Every number of the main calls, written to a file and compared: has a change of the code changed any.

OMP_NUM_THREADS=1 python benchmarks/every_number.py write old.json
python benchmarks/every_number.py compare old.json new.json

Numbers that differ by more than 1e-9 of their size, or that only one file has, are listed and make the exit status 1.
Texts (notes, statuses, refusals) are listed too but do not count. Public sweeps are read where the tests find them.
"""

# ruff: noqa: B023 (what is made in a loop is called at once)
from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import ismethod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from theory import SGD, Adam, NoisyQuadratic, SignSGD, optimal_step, steps_to_target

import scalefit as sf

# The only names that are not at the root of the package: when they move, mend these lines.
from scalefit.simulation import simulate_sweep

THEORY = __import__("importlib").import_module("scalefit.theory") if not hasattr(sf, "sgd_optimum") else sf
ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ROOT.parent / "shared" / "data"
RELATIVE, FLOOR, LONGEST = 1e-9, 1e-12, 2000
MADE = ("table", "runs", "rows", "values", "natural_covariance", "residuals", "exponents", "points", "scatter", "n",
        "verdict", "supported", "intervals", "stderr", "summary", "by_axis", "final", "is_bound", "cells")  # fmt: skip
SKIPPED = ("pooled", "comparison", "tests", "curve")
METHODS = {"default": None, "basin": sf.Basin(), "parabola": sf.Parabola(), "near": sf.NearMinimum(),
           "grid": sf.GridMinimum(), "wide": sf.Basin(0.05, 0.9, 0.3), "narrow": sf.Parabola(0.005, 0.9)}  # fmt: skip
LOSSES = {"": {}, "/huber": {"loss": sf.Huber(0.02)}, "/soft": {"loss": sf.SoftL1(0.02)}, "/plain": {"space": "plain"}}
SIZE = {"params": 7e9, "tokens": 1.4e12}
Leaf = float | str


def leaves(value: Any, path: str) -> Iterator[tuple[str, Leaf]]:
    """Yield every number and text of a result with its place."""
    if isinstance(value, Enum):
        yield path, value.name
    elif isinstance(value, bool | int | float | np.bool_ | np.number):
        yield path, float(value)
    elif value is None or isinstance(value, str | Path | sf.Law):
        yield path, str(value) if not isinstance(value, Path) else value.name
    elif isinstance(value, pd.DataFrame):
        for name in value:
            yield from leaves(value[name].to_numpy(), f"{path}.{name}")
    elif isinstance(value, np.ndarray | pd.Series | pd.Index):
        array = np.asarray(value)
        for index in range(0, array.size, max(1, len(array) // LONGEST if array.ndim else 1)):
            yield from leaves(array.flat[index], f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for name in value:
            yield from leaves(value[name], f"{path}.{name}")
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _made(value, path)
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, type(value).__name__


def _made(value: Any, path: str) -> Iterator[tuple[str, Leaf]]:
    """Yield what a result holds under public names: its fields, then what it works out."""
    held = [field.name for field in fields(value) if not field.name.startswith("_")]
    for name in dict.fromkeys(held + [name for name in MADE if hasattr(value, name)]):
        if name in SKIPPED or (name in ("fit", "surface") and isinstance(value, sf.Draws | sf.SurfaceDraws)):
            continue
        try:
            found = getattr(value, name)
            yield from leaves(found() if ismethod(found) else found, f"{path}.{name}")
        except Exception as error:
            yield f"{path}.{name}", f"{type(error).__name__}: {error}"


class Book:
    """Results by their place."""

    def __init__(self) -> None:
        self.found: dict[str, Leaf] = {}
        self._began = time.perf_counter()

    def forget(self, folder: str | Path) -> None:
        """Leave out of all texts where files lay."""
        self.found = {k: v.replace(str(folder), "") if isinstance(v, str) else v for k, v in self.found.items()}

    def note(self, name: str, call: Callable[[], Any]) -> Any:
        """Call, keep every number, and return the result; what is raised is kept as its text."""
        before = time.perf_counter()
        try:
            result = call()
            self.found.update(leaves(result, name))
        except Exception as error:
            result = None
            self.found[f"{name} raised"] = f"{type(error).__name__}: {error}"
        now = time.perf_counter()
        print(f"{now - self._began:6.1f} s {name} ({now - before:.2f} s, {len(self.found)} entries)", flush=True)
        return result


def settings(book: Book, at: str, sweep: sf.Sweep) -> tuple[Any, Any]:
    """Read off optima by every method; return those of one method over the rate and over both settings."""
    kept = {}
    for over in ("lr", ("lr", "batch")):
        for name, method in METHODS.items():
            key = "both" if isinstance(over, tuple) else over
            kept[key, name] = book.note(f"{at}/optima/{key}/{name}", lambda: sf.find_optima(sweep, over, method=method))
    return kept["lr", "default"], kept["both", "parabola"]


def laws(book: Book, at: str, tables: Mapping[str, Any], point: dict[str, float]) -> dict[str, Any]:
    """Fit every built-in law to the table of its target, by three losses; predict and resample."""
    names = sf.laws.catalog().query("kind == 'form'")["name"]
    found = {}
    for name in dict.fromkeys(names):
        law = sf.laws.get_law(name)
        data = tables.get(f"{law.target} of {', '.join(law.inputs)}", tables.get(law.target))
        wanted = {sf.laws.column_of(letter) for letter in law.inputs}
        if data is None or not wanted <= {*getattr(data, "table", data), "loss"}:
            continue
        for label, how in LOSSES.items():
            fit = book.note(f"{at}/fit/{name}{label}", lambda: sf.fit(law, data, **how))
            found[name + label] = fit
        if fit := found[name]:
            book.note(f"{at}/predict/{name}", lambda: fit.predict(**_read(fit, point), level=0.9))
            book.note(f"{at}/intervals/{name}", lambda: [fit.intervals(0.8), sf.Fit.from_json(fit.to_json()).table])
            for by in ("cell", "row", "parametric"):
                draws = book.note(f"{at}/bootstrap/{name}/{by}", lambda: sf.bootstrap(fit, n=60, by=by, seed=1))
            book.note(f"{at}/bootstrap/{name}/predict", lambda: draws.predict(**_read(fit, point)))
    return found


def _read(fit: sf.Fit, point: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in point.items() if name in fit.rows and name != fit.rows.columns[-1]}


def choices(book: Book, at: str, optima: Any, fits: Mapping[str, Any]) -> None:
    """Choose among laws in every way."""
    rates = optima.observations("eta").table.drop(columns="batch", errors="ignore") if at != "tiny" else optima
    book.note(f"{at}/auto", lambda: sf.fit("auto", rates))
    book.note(f"{at}/shrink", lambda: sf.fit("lr_curved", optima, shrink=True))
    book.note(f"{at}/choose", lambda: sf.choose_law(optima, target="lr"))
    book.note(f"{at}/average", lambda: (found := sf.average_laws(optima, target="lr"), found.weights, found.widest))
    rivals = [fits[name] for name in ("lr_power", "lr_curved", "lr_quadratic") if fits.get(name)]
    book.note(f"{at}/compare", lambda: sf.compare(rivals))
    book.note(f"{at}/nested", lambda: sf.nested_test(rivals[0], rivals[1], n=199))


def surface(book: Book, at: str, sweep: sf.Sweep, point: dict[str, float], holdouts: Sequence[str]) -> None:
    """Fit the surface, ask it everything, backtest and extrapolate."""
    found = book.note(f"{at}/surface", lambda: sf.fit_surface(sweep))
    book.note(f"{at}/surface/optimum", lambda: found.optimum(**point))
    place = {**point, "lr": 1e-3, "batch": 1e5}
    book.note(f"{at}/surface/loss", lambda: [found.loss(**place), found.predict_loss(**place)])
    draws = book.note(f"{at}/surface/draws", lambda: sf.bootstrap(found, n=20, seed=2))
    book.note(f"{at}/surface/draws/optimum", lambda: draws.optimum(**point))
    report = None
    for holdout in holdouts:
        report = book.note(f"{at}/backtest/{holdout}", lambda: sf.backtest(sweep, holdout, published=["steplaw2025"]))
    report = report or book.note(f"{at}/backtest", lambda: sf.backtest(sweep, holdouts[0]))
    book.note(f"{at}/extrapolate", lambda: sf.extrapolate(found, backtest=report, **point))
    law = sf.fit("lr_power", sf.find_optima(sweep, ("lr", "batch"), method=sf.Parabola()))
    book.note(f"{at}/extrapolate/law", lambda: sf.extrapolate(law, backtest=report, **point))
    book.note(f"{at}/extrapolate/untested", lambda: sf.extrapolate(found, level=0.8, **point))


def tradeoffs(book: Book, at: str, data: Any, **units: Any) -> Any:
    """Fit the trade-off by each estimator and predict; return the default one."""
    estimators = {"hyperbola": sf.Hyperbola(), "known": sf.Hyperbola(0.05), "steps": sf.StepsLine(),
                  "inverse": sf.InverseSteps(), "overhead": sf.Overhead(0.2)}  # fmt: skip
    for name, method in estimators.items():
        found = book.note(f"{at}/{name}", lambda: sf.fit_tradeoff(data, method=method, **units))
        book.note(f"{at}/{name}/predict", lambda: found.predict(batch=float(found.points["batch"].max()) * 2))
    book.note(f"{at}/kept", lambda: sf.fit_tradeoff(data, small_batches="keep", level=0.9, **units))
    return book.note(f"{at}/default", lambda: sf.fit_tradeoff(data, **units))


def costs(book: Book, at: str, sweep: sf.Sweep) -> None:
    """Sensitivity, near-optimal region, effective rates."""
    book.note(f"{at}/near", lambda: sf.near_optimal(sweep))
    cost = book.note(f"{at}/sensitivity", lambda: sf.lr_sensitivity(sweep))
    book.note(f"{at}/sensitivity/trend", lambda: cost.trend())
    book.note(f"{at}/effective", lambda: sf.effective_lr(sweep))
    book.note(f"{at}/effective/decay", lambda: sf.from_effective([1e-4, 1e-3], weight_decay=0.1))
    book.note(f"{at}/adjust", lambda: sf.adjust_batch(sweep, "kaplan2020_bcrit"))
    book.note(f"{at}/adjust/one", lambda: sf.adjust_batch(sweep, 4096.0))


def batches(book: Book, optima: pd.DataFrame, sweep: sf.Sweep, final: pd.DataFrame) -> None:
    """Rules of the rate over the batch, best batch, schedules."""
    book.note("batch/ladder", lambda: sf.climb_ladder(optima, n=99))
    curve = book.note("batch/rates", lambda: sf.fit_rate_curve(1024.0, optima, noise_stderr=200.0))
    for rule in ("adam", "sgd", "sgd_root"):
        book.note(f"batch/rates/{rule}", lambda: curve.predict([256.0, 8192.0], rule=rule))
    three = book.note("batch/three_term", lambda: sf.fit("three_term", final))
    book.note("batch/best", lambda: (best := sf.best_batch(three), best.predict([1e6, 1e8])))
    book.note("batch/best/draws", lambda: sf.best_batch(three, draws=sf.bootstrap(three, n=30, seed=3)))
    path = pd.DataFrame({"tokens": np.geomspace(1e8, 1e11, 12), "loss": 2 + 30 * np.geomspace(1e8, 1e11, 12) ** -0.15})
    for shape in ("sqrt", "proportional", "constant"):
        book.note(f"batch/plan/{shape}", lambda: sf.batch_schedule("kaplan2020_bcrit", path, shape=shape))
    asked = {"multiple": 2048 * 24, "power_of_two": True, "cap": 9e5, "smallest": 6e4, "overhead": 0.5}
    book.note("batch/plan/stages", lambda: (p := sf.batch_schedule("kaplan2020_bcrit", path, **asked), p.stages))


def theory(book: Book) -> None:
    """One step on a quadratic, and what the published laws say."""
    rng = np.random.default_rng(0)
    mu, sigma = rng.normal(0.1, 0.3, 12), np.exp(rng.normal(0, 0.3, 12))
    root = rng.normal(size=(12, 12))
    hessian = root @ root.T + 2.0
    for name in ("sgd_optimum", "sign_optimum"):
        book.note(f"theory/{name}", lambda: getattr(THEORY, name)(np.geomspace(0.1, 1e5, 15), mu, sigma, hessian))
    for name in ("sgd_constants", "surge_constants"):
        book.note(f"theory/{name}", lambda: getattr(THEORY, name)(mu, sigma, hessian))
    problem = NoisyQuadratic(1 / np.arange(1, 9.0), np.ones(8), np.sqrt(np.arange(1, 9.0)))
    for rule in (SGD(), SignSGD(), Adam(0.9, 0.99)):
        once = {"replicates": 200, "seed": 1}
        book.note(f"theory/step/{rule!r}", lambda: optimal_step(problem, rule, [1.0, 10.0, 100.0], **once))
        asked = {"target": 0.3 * float(problem.loss(problem.start)), "replicates": 16, "seed": 1}
        book.note(f"theory/steps/{rule!r}", lambda: steps_to_target(problem, rule, [4.0, 16.0, 64.0], **asked))
    at = {"eta": 1e-3, "N": 1e9, "D": 1e11, "B": 1e6, "L": 2.5, "S": 1e5, "C": 1e19}
    for name in dict.fromkeys(sf.laws.catalog().query("kind != 'form'")["name"]):
        law = sf.laws.get_published(name)
        given = {sf.laws.column_of(letter): at[letter] for letter in law.law.inputs}
        book.note(f"published/{name}", lambda: [law(**given), law.values, law.validity, law.convention])


def histories(book: Book) -> None:
    """Loss curves: smoothed, their ends, their crossings, their trade-off."""
    curves = book.note("curves", lambda: sf.read_curves(ROOT / "data/tiny_lm/curves.parquet"))
    curves = book.note("curves/tiny-lm", lambda: sf.load_curves("tiny-lm")) or curves
    few = curves.where("params < 1.5e4")
    smoothers = (sf.LocalLine(0.2), sf.Gaussian(3.0), sf.Exponential(4.0), sf.MovingAverage(5))
    for smoother in smoothers:
        book.note(f"curves/{smoother!r}", lambda: few.smooth(smoother))
    book.note("curves/final", lambda: curves.final())
    book.note("curves/final/share", lambda: curves.final(0.05))
    for crossing in ("monotone", "first", "last"):
        book.note(f"curves/to/{crossing}", lambda: curves.tokens_to_target([3.0, 2.6, 2.3], crossing=crossing))
    book.note("curves/points", lambda: sf.tradeoff_points(curves, targets=[2.7, 2.5]))
    tradeoffs(book, "curves/tradeoff", sf.tradeoff_points(curves, targets=[2.7, 2.5]))


def refits(book: Book) -> None:
    """Refit two small sweeps into a folder; keep every number of their files."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        for seed in (0, 1):
            runs = simulate_sweep(seed=seed).dropna().drop(columns="seed").iloc[::2]
            runs.to_csv(source / f"s{seed}.csv", index=False)
        done = book.note("refit", lambda: sf.refit(source, out, jobs=1, figures=False, report=False).summary)
        for file in sorted(out.rglob("*.json")) if done is not None else []:
            name = file.relative_to(out).as_posix()
            if name.endswith("fit.json"):
                book.note(f"refit/{name}", lambda: json.loads(file.read_text()))
                book.note(f"refit/read/{name}", lambda: sf.read_fits(file))
        for file in sorted(out.rglob("*.csv")):
            book.note(f"refit/{file.relative_to(out).as_posix()}", lambda: pd.read_csv(file))
        book.forget(folder)


def ours(book: Book) -> None:
    """Our own sweep and a simulated one."""
    sweep = book.note("tiny", lambda: sf.read_sweep(ROOT / "data/tiny_lm/runs.csv", batch_unit="tokens"))
    sweep = book.note("tiny/loaded", lambda: sf.load_dataset("tiny-lm")) or sweep
    point = {"params": 1e6, "tokens": 1e8}
    one, both = settings(book, "tiny", sweep)
    study = sweep.where("params > 2e4 and params < 3e4")
    trade = tradeoffs(book, "tiny/tradeoff", sf.tradeoff_points(study, targets=3))
    book.note("tiny/tied", lambda: sf.fit_tradeoff(sf.tradeoff_points(study, targets=3), tie="target"))
    pairs = sf.find_optima(study.where("tokens > 2e6 and tokens < 3e6"))
    sizes = np.geomspace(64, 65536, 9)
    drops = pd.DataFrame({"batch": sizes, "dL": 0.3 / (1 + 1000 / sizes) ** 0.9})
    rates = pairs.table.query("status == 'interior'")[["batch", "lr"]]
    every = sweep.table.groupby(["params", "tokens", "batch"], as_index=False)["loss"].min()
    every = every.assign(steps=every["tokens"] / every["batch"])
    found = both.table.query("status == 'interior'").dropna(subset=["lr", "batch"])
    points = trade.points.assign(loss=trade.points["target"], tokens=trade.points["examples"])
    tables = {"eta": one, "eta of B": rates, "B": both, "B of L": found, "B of eta, D": found, "B_crit": trade,
              "L": every, "dL": drops, "D": points.drop(columns="steps"), "S": points.drop(columns="tokens")}  # fmt: skip  # noqa: E501
    fits = laws(book, "tiny", tables, {**point, "batch": 8192.0, "loss": 2.0, "steps": 1e4})
    choices(book, "tiny", one, fits)
    surface(book, "tiny", sweep, point, ["largest params", "largest tokens"])
    costs(book, "tiny", sweep)
    batches(book, rates, sweep, every)
    made = book.note("simulated", lambda: sf.read_sweep(ROOT / "data/simulated/runs.csv", batch_unit="tokens"))
    both = settings(book, "simulated", made)[1]
    fits = laws(book, "simulated", {"eta": both, "B": both}, SIZE | {"batch": 1e6, "lr": 1e-3})
    choices(book, "simulated", both, fits)
    surface(book, "simulated", made, SIZE, ["largest params", "tokens >= 1e10", "rolling params"])


def public(book: Book) -> None:
    """Sweeps of others, where they lie beside the checkout."""
    if not PUBLIC.exists():
        print(f"no public sweeps at {PUBLIC}: left out")
        return
    os.environ["SCALEFIT_DATA"] = str(PUBLIC)
    dense = book.note("steplaw", lambda: sf.load_dataset("steplaw-dense"))
    both = settings(book, "steplaw", dense)[1]
    fits = laws(book, "steplaw", {"eta": both, "B": both}, SIZE | {"batch": 1e6, "lr": 1e-3})
    choices(book, "steplaw", both, fits)
    surface(book, "steplaw", dense, SIZE, ["params > 1e9", "tokens >= 5e10"])
    tradeoffs(book, "steplaw/tradeoff", sf.tradeoff_points(dense, targets=2))
    raw = pd.read_csv(PUBLIC / "cbs_zhang_steps_to_target.csv")
    names = {"N_nominal": "params", "target_val_loss": "target", "batch_size_tokens": "batch",
             "steps_to_target_used_in_fit": "steps"}  # fmt: skip
    zhang = tradeoffs(book, "zhang", raw.rename(columns=names)[list(names.values())].astype(float))
    laws(book, "zhang", {"B_crit": zhang}, {"params": 3e9, "loss": 2.5})
    names = {"benchmark": "benchmark", "BS": "batch", "epochs_to_converge": "examples"}
    raw = pd.read_csv(PUBLIC / "mlperf_rcp_bert_resnet.csv").rename(columns=names)[list(names.values())]
    tradeoffs(book, "mlperf", raw, data_unit="samples")
    raw = sf.load_dataset("chinchilla-epoch").table.sort_values("loss").iloc[:-5]
    laws(book, "chinchilla", {"L": raw}, {"params": 7e10, "tokens": 1.4e12})
    book.note("chinchilla/huber", lambda: sf.bootstrap(sf.fit("chinchilla", raw, loss=sf.Huber(1e-3)), n=100, seed=0))
    names = {"peak_lr": "lr", "N": "params", "D": "tokens", "loss": "loss"}
    raw = pd.read_csv(PUBLIC / "misfitting_last_ckpt.csv").rename(columns=names)[list(names.values())]
    edge = book.note("misfitting", lambda: sf.read_sweep(raw, duplicates="drop"))
    book.note("misfitting/optima", lambda: sf.find_optima(edge))
    book.note("misfitting/fit", lambda: sf.fit("lr_power", sf.find_optima(edge)))
    book.note("multipower", lambda: sf.read_curves(PUBLIC / "multipowerlaw_curves.csv"))


def write(file: Path) -> None:
    book = Book()
    for part in (theory, histories, refits, ours, public):
        part(book)
    for folder in (PUBLIC, ROOT):
        book.forget(folder)
    file.write_text(json.dumps(book.found, indent=0, sort_keys=True))
    print(f"{sum(isinstance(v, float) for v in book.found.values())} numbers, {len(book.found)} entries in {file}")


def compare(old: Mapping[str, Leaf], new: Mapping[str, Leaf]) -> int:
    """Print what differs; return 1 where a number does."""
    numbers = [{name: value for name, value in book.items() if isinstance(value, float)} for book in (old, new)]
    both = sorted(numbers[0].keys() & numbers[1].keys())
    a, b = (np.array([book[name] for name in both]) for book in numbers)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        share = np.where(same, 0.0, np.nan_to_num(np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)), nan=np.inf))
        wrong = (share > RELATIVE) & ~(np.abs(a - b) <= FLOOR)
    lines = [f"{both[i]}: {float(a[i])!r} -> {float(b[i])!r} ({share[i]:.2g})" for i in np.flatnonzero(wrong)]
    lines += [f"{name}: missing" for name in sorted(numbers[0].keys() - numbers[1].keys())]
    lines += [f"{name}: added" for name in sorted(numbers[1].keys() - numbers[0].keys())]
    texts = sorted((old.keys() | new.keys()) - (numbers[0].keys() | numbers[1].keys()))
    changed = [f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in texts if old.get(name) != new.get(name)]
    print(*(f"text {line}" for line in changed), *lines, sep="\n")
    most = int(share.argmax())
    print(f"{len(both)} numbers compared; largest relative difference {share[most]:.3g} at {both[most]}")
    print(f"{len(lines)} numbers differ, are missing or added; {len(changed)} of {len(texts)} texts differ")
    return int(bool(lines))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        sys.exit(compare(*(json.loads(Path(name).read_text()) for name in sys.argv[2:4])))
