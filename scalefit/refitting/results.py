"""The results of one sweep: made from its file in a worker that writes nothing, and laws read from `fit.json`."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from scalefit._values import Note
from scalefit._version import __version__
from scalefit.errors import RefitError, ScalefitError, SweepError
from scalefit.fitting.export import to_record
from scalefit.fitting.fit_result import Fit
from scalefit.loading.files import MAX_BYTES
from scalefit.loading.read_sweep import read_sweep
from scalefit.refitting.discovery import Source
from scalefit.refitting.output_folder import FILE, REPORT, Record, read_json
from scalefit.refitting.report import Pictures, draw, to_toml, write_report
from scalefit.refitting.settings import Analysis, Reading, to_plain
from scalefit.refitting.study import Drift, Finding, Study, drifted, study_sweep
from scalefit.refitting.summary import guarded_csv, printable
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep

FIT_FILE = "fit.json"

FIT_SCHEMA = 1
"""Version of fit.json; files of another version are refused."""

_KIND = "scalefit.Study"
_LARGEST = 100_000_000  # bytes that a fit.json may have

# Python's warning filters and matplotlib's settings belong to the whole process: two threads that change and restore
# them undo each other's changes, so that a warning which a study silences reaches the user, or is raised where warnings
# are errors. So a process does one study at a time. Threads share one interpreter and would be no faster.
_ALONE = threading.Lock()


@dataclass(frozen=True)
class Task:
    """One file to refit, with all that its results depend on."""

    source: Source
    sha256: str  # of the file when the task was made
    reading: Reading
    analysis: Analysis
    settings: str  # digest of everything besides the input that the results depend on
    settings_source: str
    before: tuple[Finding, ...] = ()  # of the results to be replaced, if of other input, settings or version
    drift: tuple[Drift, ...] = ()  # what moved when this same input was first refitted
    figures: bool = True
    report: bool = True


@dataclass(frozen=True)
class Product:
    """The content of a finished folder: its record, and its files by relative path."""

    record: Record
    files: Mapping[str, bytes]


def produce(task: Task) -> Product:
    """Read a file, study its sweep, and write the results as texts, tables and pictures."""
    with _ALONE, warnings.catch_warnings():
        return _produce(task)


def _produce(task: Task) -> Product:
    sweep = _read_sweep(task)
    study = study_sweep(sweep, task.analysis)
    findings = study.findings
    record = Record(
        name=task.source.name,
        source=task.source.path,
        relative=task.source.relative,
        sha256=task.sha256,
        settings=task.settings,
        version=__version__,
        n_runs=len(sweep),
        n_cells=len(sweep.cells),
        n_cautions=sum(note.caution for note in study.notes),
        findings=findings,
        drift=task.drift or drifted(task.before, findings),
    )
    files = {FIT_FILE: write_fits(study, task.sha256)}
    tables = {"optima.csv": study.optima, "tradeoff.csv": study.tradeoff, "backtest.csv": study.backtest}
    files |= {name: guarded_csv(part.table) for name, part in tables.items() if part is not None}
    pictures: Pictures = {}
    notes: list[Note] = []
    if task.figures:
        pictures, notes = draw(study)
        files |= {f"figures/{name}.{kind}": data for name, kinds in pictures.items() for kind, data in kinds.items()}
    if task.report:
        page = write_report(
            study,
            record,
            settings=to_toml(task.reading, task.analysis),
            settings_source=task.settings_source,
            pictures=pictures if task.figures else None,
            tables=sorted(name for name in files if name.endswith(".csv")),
            notes=notes,
        )
        files[REPORT] = printable(page).encode()
    record = msgspec.structs.replace(record, outputs={name: len(content) for name, content in sorted(files.items())})
    return Product(record, {**files, FILE: record.to_json().encode()})


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as hex; SweepError if it cannot be read or is no table of runs by its size."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise SweepError(f"{path} is no file but a pipe, a device or a folder")
        if status.st_size > MAX_BYTES:  # hashing so large a file would delay all others
            raise SweepError(f"{path} holds {status.st_size:,} bytes; a table of runs has {MAX_BYTES:,} at most")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SweepError(f"cannot read {path}: {error.strerror or error}") from error


def _read_sweep(task: Task) -> Sweep:
    options = asdict(task.reading)
    condition = options.pop("where")
    try:
        sweep = read_sweep(task.source.path, **options)
    except SweepError as error:
        if "columns=" in str(error):  # a remedy in Python
            raise SweepError(f"{error}; for a refit that is columns = {{...}} under [read] in scalefit.toml") from error
        raise
    if digest_file(task.source.path) != task.sha256:
        raise SweepError(f"{task.source.path} changed while it was read; it is taken up by the next refit")
    return sweep if condition is None else sweep.where(condition)


def write_fits(study: Study, sha256: str) -> bytes:
    """Return a study as JSON, the same bytes every time, with numbers that read back exactly."""
    of_surface = {} if study.surface is None else _laws_of(study.surface)
    choices = {"lr": study.lr_law, "batch": study.batch_law}
    record = {
        "schema": FIT_SCHEMA,
        "kind": _KIND,
        "version": __version__,
        "sha256": sha256,
        "laws": {name: to_record(law) for name, law in (study.laws | of_surface).items()},
        "reasons": {name: choice.reason for name, choice in choices.items() if choice is not None},
        "bootstrap": {name: _rows(draws.intervals()) for name, draws in study.draws.items()},
        "tradeoff": [] if study.tradeoff is None else _rows(study.tradeoff.table),
        "backtest": [] if study.backtest is None else _rows(study.backtest.summary()),
        "notes": [asdict(note) for note in study.notes],
        "gaps": [gap.text for gap in study.gaps],
    }
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _laws_of(surface: Surface) -> dict[str, Fit]:
    """Return the laws of a surface, each with the cautions about the surface."""
    laws = surface.laws | ({} if surface.floor_fit is None else {"loss": surface.floor_fit})
    cautions = [note for note in surface.notes if note.caution]
    return {
        f"surface_{name}": law.with_notes(*(note for note in cautions if note not in law.notes))
        for name, law in laws.items()
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [to_plain(row) for row in table.to_dict("records")]


def read_fits(path: str | os.PathLike[str]) -> dict[str, Fit]:
    """Read the laws of a `fit.json`, through the checks that new input passes.

    Parameters
    ----------
    path : path
        The file, or the folder of results it is in.

    Returns
    -------
    dict of str to Fit
        By what they predict: lr, batch, loss, B_crit, and those of the joint surface as surface_lr, surface_batch and
        surface_loss.

    Raises
    ------
    RefitError
        If the file cannot be read, is of another kind or version, or a law in it does not hold together.

    See Also
    --------
    scalefit.refit : Writes it.

    Examples
    --------
    >>> import tempfile
    >>> import scalefit as sf
    >>> folder = Path(tempfile.mkdtemp())
    >>> sf.simulation.simulate_sweep(seed=0).to_csv(folder / "runs.csv", index=False)
    >>> done = sf.refit(folder / "runs.csv", folder / "results", jobs=1, figures=False, report=False)
    >>> sf.read_fits(folder / "results" / "runs")["lr"].law.target
    'eta'
    """
    file = Path(path) / FIT_FILE if Path(path).is_dir() else Path(path)
    record = _read_json(file)
    if not isinstance(record, dict) or record.get("kind") != _KIND:
        raise RefitError(f"{file} is not a fit.json of a refit; one written by Fit.to_json is read by Fit.from_json")
    if type(record.get("schema")) is not int or record["schema"] != FIT_SCHEMA:
        raise RefitError(
            f"{file}: expected schema version {FIT_SCHEMA}, found {record.get('schema')!r}; refit with this version of "
            "scalefit, or read it with the one that wrote it"
        )
    laws = record.get("laws")
    if not isinstance(laws, dict):
        raise RefitError(f"{file}: laws should be a table of fits, found {type(laws).__name__}")
    return {name: _read_law(name, law, file) for name, law in laws.items()}


def is_study(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is the `fit.json` of a refit, of any version; RefitError if it is no JSON."""
    record = _read_json(Path(path))
    return isinstance(record, dict) and record.get("kind") == _KIND


def _read_json(file: Path) -> Any:
    try:
        return read_json(file, _LARGEST)
    except OSError as error:
        raise RefitError(f"cannot read {file}: {error.strerror or error}") from error


def _read_law(name: str, law: Any, file: Path) -> Fit:
    if not isinstance(law, dict):
        raise RefitError(f"{file}: the law for {name} should be a fit, found {type(law).__name__}")
    try:
        return Fit.from_json(json.dumps(law))
    except (ScalefitError, RecursionError) as error:
        raise RefitError(f"{file}: the law for {name}: {error}") from error
