"""One table over all sweeps of an output folder, from what is on disk: summary.csv, summary.parquet, index.html."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from scalefit.refitting.delivery import Outbox
from scalefit.refitting.discovery import FAILURES, INDEX, SUMMARY, SUMMARY_PARQUET
from scalefit.refitting.outcome import Event
from scalefit.refitting.records import REPORT, Record, read_records
from scalefit.refitting.tables import guarded_csv, printable

Failures = dict[str, dict[str, str]]
"""Which files have no up-to-date result: by path, the name and the error. Kept in FAILURES, so that a later refit of
other files does not forget them."""


def write_summary(outbox: Outbox, events: Iterable[Event]) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Write the summary of everything in the output folder; call it under the folder's lock.

    Returns
    -------
    table : pandas.DataFrame
    unreadable : list of (str, str)
        Folders of results whose record cannot be read, and why.
    """
    failures = _update_failures(outbox, events)
    records, unreadable = read_records(outbox.out)
    table = summarize(records, failures)
    outbox.put_file(SUMMARY, guarded_csv(table))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    outbox.put_file(SUMMARY_PARQUET, buffer.getvalue())
    from scalefit.refitting.report import write_index

    outbox.put_file(INDEX, write_index(table).encode())
    return table, unreadable


def summarize(records: Iterable[Record], failures: Failures) -> pd.DataFrame:
    """Return one row a sweep: where it came from, what was found, what moved, what went wrong.

    Columns: name, status ("ok", or "failed": then the numbers are those of the last version that could be refitted),
    source, n_runs, n_cells, n_cautions, moved, error, report (its page, if there is one), then each finding and its
    standard error.
    """
    records = list(records)
    lost = failures.keys() - {record.source for record in records}
    rows = [_row(record, record.source, failures.get(record.source)) for record in records]
    rows += [_row(None, source, failures[source]) for source in lost]
    rows.sort(key=lambda row: (row["name"], row["source"]))
    first = ["name", "status", "source", "n_runs", "n_cells", "n_cautions", "moved", "error", "report"]
    others = sorted({key for row in rows for key in row} - set(first))
    table = pd.DataFrame(rows, columns=[*first, *others])
    return table.astype(dict.fromkeys(("n_runs", "n_cells", "n_cautions"), "Int64"))


def _row(record: Record | None, source: str, failure: dict[str, str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": record.name if record else failure["name"] if failure else ""}
    row |= {"status": "failed" if failure else "ok", "source": printable(source)}
    row |= {count: getattr(record, count, None) for count in ("n_runs", "n_cells", "n_cautions")}
    row["moved"] = "; ".join(map(str, record.drift)) if record else ""
    row["error"] = printable(failure["error"]) if failure else ""
    row["report"] = f"{record.name}/{REPORT}" if record and REPORT in record.outputs else ""
    for finding in record.findings if record else ():
        if finding.law:
            row[f"{finding.quantity.partition(':')[0]}: law"] = finding.law
        row[finding.quantity], row[f"{finding.quantity} stderr"] = finding.value, finding.stderr
    return row


def read_failures(out: Path) -> Failures:
    """Read which files failed last time; a damaged file counts as none, since every failure is tried again."""
    try:
        record = json.loads((out / FAILURES).read_text(encoding="utf-8"))
        return {str(path): {key: str(entry[key]) for key in ("name", "error")} for path, entry in record.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _update_failures(outbox: Outbox, events: Iterable[Event]) -> Failures:
    events = list(events)
    done = {event.path for event in events}
    failures = {
        path: entry for path, entry in read_failures(outbox.out).items() if path not in done and os.path.lexists(path)
    }
    failures |= {e.path: {"name": e.name, "error": e.error} for e in events if e.status == "failed"}
    outbox.put_file(FAILURES, (json.dumps(failures, indent=1, sort_keys=True) + "\n").encode())
    return failures
