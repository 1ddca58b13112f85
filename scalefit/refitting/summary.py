"""One table over all sweeps of an output folder, from what is on disk: summary.csv, summary.parquet, index.html."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit.errors import RefitError
from scalefit.refitting.discovery import FAILURES, INDEX, SUMMARY, SUMMARY_PARQUET
from scalefit.refitting.folders import Outbox
from scalefit.refitting.records import REPORT, DamagedError, Finding, Record, read_json, read_records
from scalefit.refitting.refit_result import Event, guarded_csv, printable

Failures = dict[str, dict[str, str]]
"""Which files have no up-to-date result: by path, the name and the error. Kept in FAILURES, so that a later refit of
other files does not forget them."""

_LARGEST = 100_000_000
"""Bytes of the largest FAILURES that is read: some hundreds for each file that failed."""


def write_summary(outbox: Outbox, events: Iterable[Event]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Write the summary of everything in the output folder; call it under the folder's lock.

    Returns
    -------
    table : pandas.DataFrame
    unreadable : list of (str, str)
        Folders of results whose record cannot be read, and why; and FAILURES, if that was damaged.
    """
    failures, forgotten = _update_failures(outbox, events)
    records, unreadable = read_records(outbox.out)
    table = summarize(records, failures, {record.source for record in records if _is_gone(record.source)})
    outbox.put_file(SUMMARY, guarded_csv(table))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    outbox.put_file(SUMMARY_PARQUET, buffer.getvalue())
    from scalefit.refitting.report import write_index

    outbox.put_file(INDEX, write_index(table).encode())
    return table, forgotten + unreadable


def summarize(records: Iterable[Record], failures: Failures, gone: Collection[str] = ()) -> pd.DataFrame:
    """Return one row a sweep: where it came from, what was found, what moved, what went wrong.

    Columns: name, status ("ok"; "failed": then the numbers are those of the last version that could be refitted;
    "gone": the file is no longer there, and its last results stand), source, n_runs, n_cells, n_cautions, moved, error,
    report (its page, if there is one), then each finding and its standard error.

    Parameters
    ----------
    records : iterable of Record
    failures : dict
        See `Failures`.
    gone : collection of str
        Paths of files that are no longer there.
    """
    records = list(records)
    lost = failures.keys() - {record.source for record in records}
    rows = [_row(record, record.source, failures.get(record.source), record.source in gone) for record in records]
    rows += [_row(None, source, failures[source]) for source in lost]
    rows.sort(key=lambda row: (row["name"], row["source"]))
    first = ["name", "status", "source", "n_runs", "n_cells", "n_cautions", "moved", "error", "report"]
    others = sorted({key for row in rows for key in row} - set(first))
    table = pd.DataFrame(rows, columns=[*first, *others])
    return table.astype(dict.fromkeys(("n_runs", "n_cells", "n_cautions"), "Int64"))


def _row(record: Record | None, source: str, failure: dict[str, str] | None, gone: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {"name": record.name if record else printable(failure["name"]) if failure else ""}
    row |= {"status": "failed" if failure else "gone" if gone else "ok", "source": printable(source)}
    row |= {count: getattr(record, count, None) for count in ("n_runs", "n_cells", "n_cautions")}
    row["moved"] = "; ".join(map(str, record.drift)) if record else ""
    row["error"] = printable(failure["error"]) if failure else ""
    row["report"] = f"{record.name}/{REPORT}" if record and REPORT in record.outputs else ""
    for finding in record.findings if record else ():
        if finding.law:
            row[f"{finding.quantity.partition(':')[0]}: law"] = finding.law
        name = _column(finding)
        row[name], row[f"{name} stderr"] = finding.value, finding.stderr
    return row


def _column(finding: Finding) -> str:
    """Return the column of a finding; a parameter called law leaves "lr: law" to the formula."""
    is_law = finding.quantity.partition(": ")[2] == "law"
    return f"{finding.quantity} (parameter)" if is_law else finding.quantity


def _is_gone(path: str) -> bool:
    """Tell whether a file was deleted or moved; one that only cannot be reached may still be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False


def read_failures(out: Path) -> Failures:
    """Read which files failed last time; none if nothing has been written yet.

    Raises
    ------
    RefitError
        If the file cannot be opened, or is damaged.
    """
    place = out / FAILURES
    try:
        failures = read_json(place, _LARGEST)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RefitError(f"cannot read {place}: {error.strerror or error}") from error
    if not isinstance(failures, dict) or not all(map(_is_failure, failures.values())):
        raise DamagedError(f"{place} should give a name and an error for each path")
    return failures


def _is_failure(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.keys() == {"name", "error"} and all(type(v) is str for v in entry.values())


def _update_failures(outbox: Outbox, events: Iterable[Event]) -> tuple[Failures, list[tuple[str, str]]]:
    """Add what failed and drop what no longer does; say so if what failed before has had to be forgotten."""
    events, before, forgotten = list(events), {}, []
    try:
        before = read_failures(outbox.out)
    except RefitError as error:
        why = f"{error}; it is written anew, without what failed before: refit those files to know"
        forgotten.append((str(outbox.out / FAILURES), why))
    done = {event.path for event in events}
    failures = {path: entry for path, entry in before.items() if path not in done and os.path.lexists(path)}
    failures |= {e.path: {"name": e.name, "error": e.error} for e in events if e.status == "failed"}
    outbox.put_file(FAILURES, (json.dumps(failures, indent=1, sort_keys=True) + "\n").encode())
    return failures, forgotten
