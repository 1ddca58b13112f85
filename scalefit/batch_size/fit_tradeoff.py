"""Fit the trade-off between steps and examples: points or a table in, a `Tradeoff` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scalefit._values import Note, merge
from scalefit.batch_size.estimators import Hyperbola, fit_tied
from scalefit.batch_size.hyperbola import SIGNIFICANCE, VERDICTS, Array, Estimate, Estimator, Study, find_poor
from scalefit.batch_size.points_from_sweep import study_name
from scalefit.batch_size.tradeoff import Tradeoff
from scalefit.batch_size.tradeoff_points import TradeoffPoints, tradeoff_points
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_values import check_level
from scalefit.schema import group_rows
from scalefit.vocabulary import column_of


def fit_tradeoff(
    data: Any,
    by: str | Sequence[str] | None = None,
    *,
    method: Estimator | None = None,
    tie: str | Sequence[str] | None = None,
    small_batches: str = "leave_out",
    level: float = 0.95,
    data_unit: str = "tokens",
    examples_unit: str | None = None,
    unit_size: float | None = None,
) -> Tradeoff:
    r"""Fit the trade-off between steps and examples, study by study and target by target.

    .. math:: \left(\frac{S}{S_{min}} - 1\right)\left(\frac{E}{E_{min}} - 1\right) = 1
              \iff \ln E = \ln E_{min} + \ln(1 + B/B_{crit})

    Parameters
    ----------
    data : TradeoffPoints, DataFrame or mapping of columns
        Points from `tradeoff_points`, or a table with `batch` and `steps` or `examples` (also `tokens`, `epochs`, or
        the name of the data unit) used up to the target, replicates as rows; optional `target` and columns that tell
        studies apart; optional `status` ("bound" for a run that did not get there) and `log_stderr`.
    by : str or sequence of str, optional
        Columns that tell studies apart. By default params, and a column of text without gaps most of whose values span
        several batch sizes (further ones if they tell runs at one batch size apart).
    method : Hyperbola, StepsLine, InverseSteps or Overhead, optional
        ``Hyperbola()``, or ``StepsLine()``, ``InverseSteps()``, ``Overhead(0.2, reference=...)``.
    tie : str or sequence of str, optional
        Columns in whose logs ln E_min and ln S_min are to be linear, so that all fits that differ in them only are made
        at once: ``"target"`` ties the targets of each study by S_min(L) and E_min(L), power laws in the loss, and with
        them B_crit(L); ``("target", "params")`` ties the studies as well. `Tradeoff.exponents` holds the powers.
    small_batches : {"leave_out", "keep"}
        What to do with the smallest batch sizes when they need significantly more data than the hyperbola of the others
        allows (see Notes).
    level : float
        Coverage of the intervals.
    data_unit : str
        What the batch counts, and the examples unless said otherwise.
    examples_unit : str, optional
        What the examples count, if not the same: "epochs".
    unit_size : float, optional
        How much of `data_unit` one `examples_unit` holds (the size of the data set, for epochs). Without it B_crit and
        E_min are known, steps are not.

    Returns
    -------
    Tradeoff

    Raises
    ------
    SweepError
        If the table cannot be used.
    FitError
        If no study has two batch sizes that reach a target.

    See Also
    --------
    tradeoff_points : Points from curves or from a sweep of final losses.
    plots.tradeoff : Draws the fit.
    fit : ``sf.fit("bcrit_loss", trade)`` fits a law to the critical batch sizes.

    Notes
    -----
    *Errors.* Replicates say how noisy a run is (pooled over the batch sizes of a study, in logs). Batch sizes also
    scatter about the curve, by 4 to 7 % on real data, which no number of replicates removes: that variance is estimated
    beside the noise. Intervals invert the likelihood profile with Student's t on (batch sizes - 2) degrees of freedom;
    an interval is open where the misfit stays acceptable for B_crit without limit. Then the parameter is not
    identified: its value is where the curve fits best, no more, without a standard error, and the bound is what is
    known. A standard error is the longer side of the 95 % interval over 1.96, so that two of them hold what it holds.
    Tied fits count the batch sizes of a study once, however many targets share their runs, and weigh all points alike.

    *Small batches.* By the hyperbola the data needed never rise as the batch shrinks. Where they do (a learning rate
    that was not tuned, or could not fall far enough) those batch sizes are found by an F test and left out: the curve
    is fitted without the m smallest batch sizes for m = 1, 2, ..., and the misfit that taking them back adds is
    compared with F(m, k - m - 2). On studies that obey the hyperbola this happens in about 1 %.

    *Coverage* in simulated studies is tabled in ``docs/batch_size.md``.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, equations 2.11 and 2.12.

    Examples
    --------
    >>> import numpy as np
    >>> import scalefit as sf
    >>> batch = np.array([64, 128, 256, 512, 1024, 2048])
    >>> steps = 1000 * (1 + 500 / batch) * [1.02, 0.99, 1, 1.01, 0.97, 1.01]
    >>> trade = sf.fit_tradeoff({"batch": batch, "steps": steps})
    >>> trade.table[["S_min", "B_crit", "identified"]].round(0).to_dict("records")
    [{'S_min': 989.0, 'B_crit': 510.0, 'identified': True}]
    """
    check_level(level)
    if small_batches not in ("leave_out", "keep"):
        raise FitError(f"small_batches: expected 'leave_out' or 'keep', found {small_batches!r}")
    method = Hyperbola() if method is None else method
    if not callable(getattr(method, "estimate", None)) or isinstance(method, type):
        raise FitError(f"method should be one such as Hyperbola() or Overhead(0.2), found {method!r}")
    points = _read_points(data, by, data_unit, examples_unit, unit_size)
    keys = points.keys
    lack = getattr(getattr(method, "curve", method), "lack_of_fit", None)
    parts, single = _divide(points, None if lack is None else lack**2, small_batches == "leave_out")
    if not parts:
        raise FitError("no study has two batch sizes that reach a target: there is no trade-off to fit", partial=points)
    names = _tied_names(tie, keys, method)
    if names:
        estimates, exponents = _tie_parts(parts, keys, names, level)
    else:
        estimates, exponents = [method.estimate(part.study, level) for part in parts], None
    pairs = list(zip(parts, estimates, strict=True))
    table = pd.DataFrame([_line(keys, part, found, points.unit_size, level) for part, found in pairs])
    rows = pd.concat([_beside_curve(part, found, level) for part, found in pairs], ignore_index=True)
    notes = merge(points.notes, _poor_notes(parts, keys), _fit_notes(single, keys, table, rows))
    curves = {part.name: found.curve for part, found in pairs}
    return Tradeoff(table, rows, curves, points, method, level, exponents, notes)


def _read_points(
    data: Any, by: str | Sequence[str] | None, data_unit: str, examples_unit: str | None, unit_size: float | None
) -> TradeoffPoints:
    """Return points as they are, or those of a table however it is given."""
    if isinstance(data, TradeoffPoints):
        if by is not None or unit_size is not None or examples_unit is not None:
            raise SweepError("points know their studies and units already; give by= and units to tradeoff_points")
        return data
    if isinstance(data, Mapping):
        try:
            data = pd.DataFrame({str(name): np.atleast_1d(column) for name, column in data.items()})
        except ValueError as error:
            raise SweepError(f"the columns do not make a table: {error}") from None
    if isinstance(data, str | Path):
        raise SweepError(f"expected points or a table, found a path; read it: fit_tradeoff(pd.read_csv({str(data)!r}))")
    if not isinstance(data, pd.DataFrame):
        made = "from curves or a sweep: fit_tradeoff(tradeoff_points(data, targets=[...]))"
        raise SweepError(f"expected points or a table of steps or examples, found {type(data).__name__}; {made}")
    return tradeoff_points(data, by=by, data_unit=data_unit, examples_unit=examples_unit, unit_size=unit_size)


@dataclass(frozen=True, eq=False)
class _Part:
    """One study at one target, by batch."""

    name: tuple[Any, ...]  # values of the columns that tell fits apart
    rows: pd.DataFrame  # points and bounds
    study: Study  # what is fitted
    excess: Array  # ln(data needed / data that the hyperbola of the others allows) for each of its smallest batch sizes
    chance: float  # probability that noise alone gives as much excess
    left: int  # how many of the smallest batch sizes are left out

    @property
    def highest(self) -> float:
        """The largest batch size that needs too much data; 0 if none does."""
        points = self.rows.loc[self.rows["status"] == "point", "batch"]
        return float(points.iloc[len(self.excess) - 1]) if len(self.excess) else 0.0


def _divide(points: TradeoffPoints, lack: float | None, leave_out: bool) -> tuple[list[_Part], list[tuple[Any, ...]]]:
    """Return the parts that can be fitted, and the names of studies with fewer than two batch sizes."""
    keys, rows = points.keys, points.table.sort_values("batch", kind="stable")
    parts, single = [], []
    for key, group in rows.groupby(keys, sort=True) if keys else [((), rows)]:
        name = key if isinstance(key, tuple) else (key,)
        study = _study(group[group["status"] == "point"], points.replicated)
        if len(study.x) < 2:
            single.append(name)
            continue
        excess, chance = find_poor(study, lack)
        left = len(excess) if leave_out else 0
        parts.append(_Part(name, group, study.drop(left), excess, chance, left))
    return parts, single


def _study(points: pd.DataFrame, replicated: bool) -> Study:
    """Return points as arrays; a batch size without an error of its own gets that of the study's typical run."""
    variance = points["log_stderr"].to_numpy(dtype=float) ** 2
    runs = points["n"].to_numpy(dtype=float) if replicated else np.ones(len(points))
    known = np.isfinite(variance)
    of_run = float(np.mean((variance * runs)[known])) if known.any() else 0.0
    filled = np.where(known, variance, of_run / runs)
    return Study(np.log(points["batch"].to_numpy()), np.log(points["examples"].to_numpy()), filled, of_run)


def _tied_names(tie: str | Sequence[str] | None, keys: list[str], method: Estimator) -> list[str]:
    """Return the columns to tie fits by, after checking that they can be tied."""
    if tie is None:
        return []
    names = [column_of(name) for name in ([tie] if isinstance(tie, str) else tie)]
    if set(names) - set(keys) or not names:
        raise FitError(f"tie: expected columns that tell the fits apart ({', '.join(keys) or 'none'}), found {tie!r}")
    if not isinstance(method, Hyperbola):
        raise FitError(f"tie: only Hyperbola() can be tied across targets, found {method!r}")
    if method.lack_of_fit is not None:
        raise FitError("tie: tied fits estimate the lack of fit; leave lack_of_fit=")
    return names


def _tie_parts(
    parts: list[_Part], keys: list[str], names: list[str], level: float
) -> tuple[list[Estimate], pd.DataFrame]:
    """Fit all parts that differ in the tied columns only at once."""
    table = pd.DataFrame([part.name for part in parts], columns=keys)
    for name in names:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise FitError(f"tie: power laws need numbers; {name} holds {table[name].iloc[0]!r}")
    logs = np.log(table[names].to_numpy(dtype=float))
    others, studies = [name for name in keys if name not in names], [name for name in keys if name != "target"]
    found, group = group_rows(table[others])
    estimates: dict[int, Estimate] = {}
    exponents = []
    for g in range(len(found)):  # one group where nothing is left to tell parts apart, and `found` has no columns
        members = np.flatnonzero(group == g).tolist()
        # Centred, so that the constant is the value in the middle of the data, nearly uncorrelated with the exponents.
        centred = logs[members] - logs[members].mean(axis=0)
        covariates = np.column_stack([np.ones(len(members)), centred])
        places = {(*table.loc[j, studies], x) for j in members for x in parts[j].study.x}
        fit = fit_tied([parts[j].study for j in members], covariates, len(places), level)
        for j, row in zip(members, covariates, strict=True):
            estimates[j] = fit.estimate(parts[j].study, row, level)
        exponents += [found.iloc[g].to_dict() | line for line in fit.exponents(names)]
    return [estimates[j] for j in range(len(parts))], pd.DataFrame(exponents)


def _line(keys: list[str], part: _Part, found: Estimate, size: float | None, level: float) -> dict[str, Any]:
    """Return one fit's row of the table."""
    line = dict(zip(keys, part.name, strict=True))
    units = {"S_min": np.nan if size is None else size}
    for name, value in {"S_min": found.steps, "E_min": found.floor, "B_crit": found.critical}.items():
        for end, number in zip(("", "_stderr", "_lo", "_hi"), value.natural(level), strict=True):
            line[f"{name}{end}"] = number * units.get(name, 1.0)
    line |= {"rms": float(np.sqrt(np.mean(found.residuals**2))), "lack_of_fit": found.lack}
    line |= {"n_batch": len(found.residuals), "n_left_out": part.left}
    line |= {"excess": float(np.expm1(part.excess.max(initial=0.0))), "excess_p": part.chance}
    status = found.status
    return line | {"identified": status == "identified", "status": status, "verdict": VERDICTS[status]}


def _beside_curve(part: _Part, found: Estimate, level: float) -> pd.DataFrame:
    """Return the points of a fit with its curve beside them, and which bounds the curve contradicts."""
    batch, observed = part.rows["batch"], np.log(part.rows["examples"])
    value, _, high = found.curve(np.log(batch.to_numpy()), level)
    point = part.rows["status"] == "point"
    rows = part.rows.assign(used=point & (point.cumsum() > part.left), fitted=np.exp(value))
    contradicts = ~point & (observed > high) & (batch > part.highest)
    return rows.assign(residual=(observed - value).where(point), contradicts=contradicts)


def _poor_notes(parts: list[_Part], keys: list[str]) -> list[Note]:
    """Say in how many fits the smallest batch sizes need too much data, and how much at worst."""
    poor = [part for part in parts if len(part.excess)]
    if not poor:
        return []
    worst = max(poor, key=lambda part: float(part.excess.max()))
    more = 100 * np.expm1(worst.excess.max())
    count = sum(len(part.excess) for part in poor)
    action = "left out of the fits (small_batches='keep' fits them)" if worst.left else "fitted all the same, as asked"
    place = f" at {study_name(keys, worst.name)}" if keys else ""
    text = (
        f"in {len(poor)} of {len(parts)} fits the smallest batch sizes need more data than the hyperbola of the others "
        f"allows (F test, p < {SIGNIFICANCE:g}), worst{place}: up to {more:.0f} % more at batch {worst.highest:.6g} "
        f"and below. Their learning rate may not be tuned, or not free to fall. {count} points {action}"
    )
    return [Note("small_batches", text, caution=True)]


def _fit_notes(single: list[tuple[Any, ...]], keys: list[str], table: pd.DataFrame, rows: pd.DataFrame) -> list[Note]:
    """Say which studies have no fit, which bounds contradict theirs, and what is not identified."""
    notes = []
    if single:
        first = study_name(keys, single[0])
        text = f"{len(single)} studies have fewer than two batch sizes that reach the target, the first {first}"
        notes.append(Note("no_fit", text, caution=True))
    if count := int(rows["contradicts"].sum()):
        text = f"{count} bounds lie above the interval of their curve (contradicts in .points): those fits are doubtful"
        notes.append(Note("bounds_contradict", text, caution=True))
    for status, count in table["status"].value_counts().items():
        if status != "identified":
            notes.append(Note(str(status), f"{count} of {len(table)} fits: {VERDICTS[str(status)]}", caution=True))
    return notes
