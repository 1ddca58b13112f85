"""One table over all sweeps of an output folder, from what is on disk: summary.csv, summary.parquet, index.html."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from scalefit.formatting import format_number
from scalefit.refitting.delivery import Outbox
from scalefit.refitting.outcome import Event
from scalefit.refitting.records import REPORT, Drift, Record, read_records
from scalefit.refitting.tables import guarded_csv, printable

FAILURES = "failures.json"
"""Which files have no up-to-date result, and why: kept so that a later refit of other files does not forget them."""


def write_summary(outbox: Outbox, events: Iterable[Event]) -> pd.DataFrame:
    """Write the summary of everything in the output folder, and return it; call it under the folder's lock."""
    failures = _update_failures(outbox, events)
    table = summarize(read_records(outbox.out), failures)
    outbox.put_file("summary.csv", guarded_csv(table))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    outbox.put_file("summary.parquet", buffer.getvalue())
    from scalefit.refitting.report import write_index

    outbox.put_file("index.html", write_index(table).encode())
    return table


def summarize(records: Iterable[Record], failures: dict[str, dict[str, str]]) -> pd.DataFrame:
    """Return one row a sweep: where it came from, what was found, what moved, what went wrong.

    Columns: name, status ("ok", or "failed": then the numbers are those of the last version that could be refitted),
    source, n_runs, n_cells, n_cautions, moved, error, report (its page, if there is one), then each finding and its
    standard error.
    """
    known = {record.name: record for record in records}
    rows = []
    for name in sorted({*known, *failures}):
        record, failure = known.get(name), failures.get(name)
        row: dict[str, object] = {"name": name, "status": "failed" if failure else "ok"}
        row["source"] = printable(failure["path"] if failure else record.source if record else "")
        row |= {count: getattr(record, count, None) for count in ("n_runs", "n_cells", "n_cautions")}
        row["moved"] = "; ".join(map(_told, record.drift)) if record else ""
        row["error"] = printable(failure["error"]) if failure else ""
        row["report"] = f"{name}/{REPORT}" if record and REPORT in record.outputs else ""
        for finding in record.findings if record else ():
            if finding.law:
                row[f"{finding.quantity.partition(':')[0]}: law"] = finding.law
            row[finding.quantity], row[f"{finding.quantity} stderr"] = finding.value, finding.stderr
        rows.append(row)
    first = ["name", "status", "source", "n_runs", "n_cells", "n_cautions", "moved", "error", "report"]
    others = sorted({key for row in rows for key in row} - set(first))
    table = pd.DataFrame(rows, columns=[*first, *others])
    return table.astype(dict.fromkeys(("n_runs", "n_cells", "n_cautions"), "Int64"))


def read_failures(out: Path) -> dict[str, dict[str, str]]:
    """Read which files failed last time; a damaged file counts as none, since every failure is tried again."""
    try:
        record = json.loads((out / FAILURES).read_text(encoding="utf-8"))
        return {str(name): {key: str(entry[key]) for key in ("path", "error")} for name, entry in record.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _update_failures(outbox: Outbox, events: Iterable[Event]) -> dict[str, dict[str, str]]:
    failures = {name: entry for name, entry in read_failures(outbox.out).items() if os.path.lexists(entry["path"])}
    events = list(events)
    done = {event.path for event in events}
    failures = {name: entry for name, entry in failures.items() if entry["path"] not in done}
    for event in events:
        if event.status == "failed":
            failures[event.name] = {"path": event.path, "error": event.error}
    outbox.put_file(FAILURES, (json.dumps(failures, indent=1, sort_keys=True) + "\n").encode())
    return failures


def _told(drift: Drift) -> str:
    far = f"{format_number(drift.errors, 2)} errors" if drift.errors == drift.errors else "another law"
    return f"{drift.quantity} {format_number(drift.before)} -> {format_number(drift.after)} ({far})"
