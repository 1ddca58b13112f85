"""Make the tiny-lm sweep: ``python data/tiny_lm/generate.py`` (needs torch; a CPU is enough).

Every finished cell is one file in the work folder, so a run that is stopped or killed loses only the cells in
flight; start it again and it goes on. At the end, or with ``--collect``, the files become ``runs.csv`` and
``curves.parquet``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import signal
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import pandas as pd
import torch
from corpus import read_corpus
from plan import Cell, extension, full_plan
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from train import PROTOCOL, train_cell

HERE = Path(__file__).resolve().parent
COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeElapsedColumn(),
    TextColumn("left"), TimeRemainingColumn(),
)  # fmt: skip


def write_durably(path: Path, content: str) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def cell_path(work: Path, cell: Cell) -> Path:
    """Where the result of a cell is kept."""
    return work / f"{cell.name}.json"


def check_facts(work: Path, root: Path | None) -> None:
    """Record what the runs were made from, or refuse to mix them with runs made from something else."""
    facts = {"text": read_corpus(root).facts, "protocol": PROTOCOL}
    path = work / "facts.json"
    if path.exists():
        before = json.loads(path.read_text())
        for key in facts:
            if before[key] != facts[key]:
                raise SystemExit(f"{work} holds runs of another {key}: {before[key]}\nthis one: {facts[key]}")
        return
    facts |= {"torch": torch.__version__, "machine": platform.machine(), "system": platform.system()}
    write_durably(path, json.dumps(facts, indent=1))


def work_on(cell: Cell, work: Path, root: Path | None, device: str) -> str:
    """Train a cell and keep its result; the body of a worker process."""
    begin = time.perf_counter()
    result = train_cell(cell, root, device)
    write_durably(cell_path(work, cell), json.dumps(result))
    losses = " ".join(f"{run['loss']:.3f}" for run in result["runs"])
    return f"{cell.name}  {time.perf_counter() - begin:.0f} s  {losses}"


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers for all

    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()  # a killed parent leaves no orphans


class Queue:
    """The cells still to train: the plan, and ahead of it the extensions that finished cells call for."""

    def __init__(self, plan: list[Cell], work: Path) -> None:
        self.work = work
        self.ahead: list[Cell] = []
        self.plan = [cell for cell in plan if not cell_path(work, cell).exists()]
        self.done = sum(cell.cost for cell in plan) - sum(cell.cost for cell in self.plan)
        self.total = sum(cell.cost for cell in plan)
        for cell in plan:
            if cell not in self.plan:
                self._extend(cell)

    def _extend(self, cell: Cell) -> None:
        runs = json.loads(cell_path(self.work, cell).read_text())["runs"]
        more = extension(cell, {run["lr"]: run["loss"] for run in runs})
        if more is None:
            return
        self.total += more.cost
        if cell_path(self.work, more).exists():
            self.done += more.cost
        else:
            self.ahead.append(more)

    def finish(self, cell: Cell) -> None:
        """Note that a cell is trained."""
        self.done += cell.cost
        self._extend(cell)

    def take(self) -> Cell | None:
        """The next cell, or None."""
        while self.ahead or self.plan:
            cell = (self.ahead or self.plan).pop(0)
            if not cell_path(self.work, cell).exists():  # another process may share the folder
                return cell
            self.finish(cell)
        return None


def sweep(plan: list[Cell], work: Path, root: Path | None, device: str, jobs: int, seconds: float) -> bool:
    """Train what is left of a plan.

    Parameters
    ----------
    plan : list of Cell
        Cells in order.
    work : Path
        Folder of results.
    root : Path, optional
        Folder of the text.
    device : str
        Where to train.
    jobs : int
        Worker processes, one thread each.
    seconds : float
        Stop after this time, dropping the cells in flight.

    Returns
    -------
    bool
        Whether the plan is complete.
    """
    queue, end = Queue(plan, work), time.monotonic() + seconds
    running: dict[Future[str], Cell] = {}
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*COLUMNS, speed_estimate_period=1800) as progress,
        ProcessPoolExecutor(jobs, context, _prepare_worker) as pool,
    ):
        bar = progress.add_task("tiny-lm", total=queue.total, completed=queue.done)
        try:
            while time.monotonic() < end:
                while len(running) < jobs and (cell := queue.take()):
                    running[pool.submit(work_on, cell, work, root, device)] = cell
                if not running:
                    return True
                _settle(running, queue, progress)
                progress.update(bar, total=queue.total, completed=queue.done)
            progress.console.print("out of time")
        except KeyboardInterrupt:
            progress.console.print("stopped")
        for child in multiprocessing.active_children():
            child.terminate()
    return False


def _settle(running: dict[Future[str], Cell], queue: Queue, progress: Progress) -> None:
    for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
        progress.console.print(time.strftime("%H:%M:%S"), future.result(), highlight=False, soft_wrap=True)
        queue.finish(running.pop(future))


def collect(work: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fold the results of all finished cells into ``runs.csv`` and ``curves.parquet``.

    Parameters
    ----------
    work, out : Path
        Folder of results, folder of the two tables.

    Returns
    -------
    runs, curves : pandas.DataFrame
    """
    results = [json.loads(path.read_text()) for path in sorted(work.glob("w*-s*.json"))]
    if not results:
        raise SystemExit(f"no finished cell in {work}")
    order = ["params", "tokens", "batch", "seed", "lr"]
    runs = pd.DataFrame([run for result in results for run in result["runs"]])
    runs = runs.sort_values(order, ignore_index=True)
    # pandas writes floats as the shortest text that reads back the same
    runs.to_csv(out / "runs.csv", index=False, na_rep="nan")
    points = [point for result in results for point in result["curves"]]
    curves = pd.DataFrame(points, columns=["run", "steps", "tokens", "loss", "lr_share"])
    shared = ["run", "lr", "batch", "params", "seq_len", "seed"]
    curves = curves.merge(runs[shared], on="run", validate="many_to_one")
    curves = curves.sort_values(["params", "batch", "seed", "lr", "run", "steps"], ignore_index=True)
    curves.astype({"loss": "float32", "lr_share": "float32"}).to_parquet(
        out / "curves.parquet", index=False, compression="zstd"
    )
    return runs, curves


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the two tables")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder of results, a file a cell")
    parser.add_argument("--text", type=Path, help="folder of *.py to train on (default: the standard library)")
    parser.add_argument("--plan", type=Path, help="JSON list of cells: width, layers, tokens, batch, seed, grid")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="worker processes, one thread each")
    parser.add_argument("--hours", type=float, default=1e6, help="stop after this time")
    parser.add_argument("--collect", action="store_true", help="only write the tables from what is finished")
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.collect:
        check_facts(args.work, args.text)
        plan = [Cell(**cell) for cell in json.loads(args.plan.read_text())] if args.plan else full_plan()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # "kill" stops as cleanly as ctrl-C
        sweep(plan, args.work, args.text, args.device, args.jobs, args.hours * 3600)
    runs, curves = collect(args.work, args.out)
    print(f"{len(runs)} runs, {curves['run'].nunique()} with curves, in {args.out}")


if __name__ == "__main__":
    main()
