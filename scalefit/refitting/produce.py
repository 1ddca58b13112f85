"""One file in, the contents of its results folder out; runs in a worker, touches no file but the one it reads."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scalefit._values import Note
from scalefit.errors import SweepError
from scalefit.loading.files import MAX_BYTES
from scalefit.loading.read_sweep import read_sweep
from scalefit.refitting.fit_file import FIT_FILE, write_fits
from scalefit.refitting.records import FILE, REPORT, Record, drifted
from scalefit.refitting.refit_result import guarded_csv, printable
from scalefit.refitting.settings import Order
from scalefit.refitting.study import Study, study_sweep
from scalefit.sweep import Sweep


@dataclass(frozen=True)
class Product:
    """A finished folder: its record, and its files by relative path."""

    record: Record
    files: Mapping[str, bytes]


def produce(order: Order) -> Product:
    """Read a file, study it, and put its results into words, tables and pictures.

    Raises
    ------
    ScalefitError
        If the file is no sweep, nothing can be fitted to it, or it changed while it was read.
    """
    sweep = _read(order)
    result = study_sweep(sweep, order.analysis)
    findings = result.findings
    record = Record(
        name=order.source.name,
        source=order.source.path,
        relative=order.source.relative,
        sha256=order.sha256,
        settings=order.settings,
        version=order.version,
        n_runs=len(sweep),
        n_cells=len(sweep.cells),
        n_cautions=sum(note.caution for note in result.notes),
        findings=findings,
        drift=order.drift or drifted(order.before, findings),
    )
    files = _tables(result, order)
    svgs: dict[str, str] = {}
    notes: list[Note] = []
    if order.figures:
        from scalefit.refitting.figures import draw

        pictures, notes = draw(result)
        svgs = {name: kinds["svg"].decode() for name, kinds in pictures.items()}
        files |= {f"figures/{name}.{kind}": data for name, kinds in pictures.items() for kind, data in kinds.items()}
    if order.report:
        from scalefit.refitting.report import write_report

        page = write_report(result, record, order, figures=svgs, tables=sorted(files), notes=notes)
        files[REPORT] = printable(page).encode()
    record = replace(record, outputs={name: len(content) for name, content in sorted(files.items())})
    return Product(record, {**files, FILE: record.to_json().encode()})


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as hex.

    Raises
    ------
    SweepError
        If it cannot be read.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise SweepError(f"{path} is no file but a pipe, a device or a folder")
        if status.st_size > MAX_BYTES:  # hashing it would keep the others waiting
            raise SweepError(f"{path} holds {status.st_size:,} bytes; a table of runs has {MAX_BYTES:,} at most")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SweepError(f"cannot read {path}: {error.strerror or error}") from error


def _read(order: Order) -> Sweep:
    options = asdict(order.reading)
    condition = options.pop("where")
    try:
        sweep = read_sweep(order.source.path, **options)
    except SweepError as error:
        if "columns=" in str(error):  # a remedy in Python
            raise SweepError(f"{error}; for a refit that is columns = {{...}} under [read] in scalefit.toml") from error
        raise
    if digest_file(order.source.path) != order.sha256:
        raise SweepError(f"{order.source.path} changed while it was read; it is taken up by the next refit")
    return sweep if condition is None else sweep.where(condition)


def _tables(result: Study, order: Order) -> dict[str, bytes]:
    files = {FIT_FILE: write_fits(result, order.sha256, order.version)}
    tables = {
        "optima.csv": result.optima,
        "tradeoff.csv": result.tradeoff,
        "backtest.csv": result.backtest,
    }
    return files | {name: guarded_csv(part.table) for name, part in tables.items() if part is not None}
