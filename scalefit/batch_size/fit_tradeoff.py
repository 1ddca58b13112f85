"""What a reader of a fitted trade-off should know: poor small batches, contradicted bounds, what is not identified.

`fit_tradeoff`: points or a table in, a `Tradeoff` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scalefit._levels import group_rows
from scalefit._values import Note, merge
from scalefit.batch_size.estimators import Hyperbola, fit_tied
from scalefit.batch_size.hyperbola import VERDICTS, Curve, Estimate, Estimator, Value
from scalefit.batch_size.points import TradeoffPoints, read_points
from scalefit.batch_size.studies import SIGNIFICANCE, Part, divide, told_study
from scalefit.batch_size.tradeoff import Tradeoff
from scalefit.errors import FitError, SweepError
from scalefit.vocabulary import column_of


def remark(
    parts: list[Part], lonely: list[tuple[Any, ...]], keys: list[str], table: pd.DataFrame, judged: pd.DataFrame
) -> list[Note]:
    """Return the notes on a fitted trade-off.

    Parameters
    ----------
    parts : list of Part
    lonely : list of tuple
        Studies without a fit.
    keys : list of str
        Columns that tell fits apart.
    table : pandas.DataFrame
        One row a fit.
    judged : pandas.DataFrame
        The points of all fits with what the curves say of them.
    """
    notes = _small_batches(parts, keys)
    if lonely:
        first = told_study(keys, lonely[0])
        text = f"{len(lonely)} studies have fewer than two batch sizes that reach the target, the first {first}"
        notes.append(Note("no_fit", text, caution=True))
    if count := int(judged["contradicts"].sum()):
        text = f"{count} bounds lie above the interval of their curve (contradicts in .points): those fits are doubtful"
        notes.append(Note("bounds_contradict", text, caution=True))
    for status, count in table["status"].value_counts().items():
        if status != "identified":
            text = f"{int(count)} of {len(table)} fits: {VERDICTS[str(status)]}"
            notes.append(Note(str(status), text, caution=True))
    return notes


def _small_batches(parts: list[Part], keys: list[str]) -> list[Note]:
    poor = [part for part in parts if part.excess.count]
    if not poor:
        return []
    worst = max(poor, key=lambda part: float(part.excess.amount.max()))
    more = 100 * np.expm1(worst.excess.amount.max())
    count = sum(part.excess.count for part in poor)
    action = "left out of the fits (small_batches='keep' fits them)" if worst.left else "fitted all the same, as asked"
    place = f" at {told_study(keys, worst.name)}" if keys else ""
    text = (
        f"in {len(poor)} of {len(parts)} fits the smallest batch sizes need more data than the hyperbola of the others "
        f"allows (F test, p < {SIGNIFICANCE:g}), worst{place}: up to {more:.0f} % more at batch {worst.highest:.6g} "
        f"and below. Their learning rate may not be tuned, or not free to fall. {count} points {action}"
    )
    return [Note("small_batches", text, caution=True)]


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
    method : Estimator, optional
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
    that was not tuned, or could not fall far enough) those batch sizes are found by an F test and left out; see
    `scalefit.tradeoff.excess.find_excess`. On studies that obey the hyperbola this happens in about 1 %.

    *Coverage* in simulated studies is tabled in ``docs/batch_size.md``.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, equations 2.11 and 2.12.

    Examples
    --------
    >>> batch = np.array([64, 128, 256, 512, 1024, 2048])
    >>> steps = 1000 * (1 + 500 / batch) * [1.02, 0.99, 1, 1.01, 0.97, 1.01]
    >>> trade = fit_tradeoff({"batch": batch, "steps": steps})
    >>> trade.table[["S_min", "B_crit", "identified"]].round(0).to_dict("records")
    [{'S_min': 989.0, 'B_crit': 510.0, 'identified': True}]
    """
    if not 0 < level < 1:
        raise FitError(f"level: expected a number between 0 and 1, found {level!r}")
    if small_batches not in ("leave_out", "keep"):
        raise FitError(f"small_batches: expected 'leave_out' or 'keep', found {small_batches!r}")
    method = Hyperbola() if method is None else method
    if not callable(getattr(method, "estimate", None)) or isinstance(method, type):
        raise FitError(f"method should be one such as Hyperbola() or Overhead(0.2), found {method!r}")
    points = _points(data, by, data_unit, examples_unit, unit_size)
    keys = points.keys
    parts, lonely = divide(points, _lack(method), small_batches == "leave_out")
    if not parts:
        raise FitError("no study has two batch sizes that reach a target: there is no trade-off to fit", partial=points)
    names = _tied_names(tie, keys, method)
    exponents = None
    if names:
        estimates, exponents = _estimate_tied(parts, keys, names, level)
    else:
        estimates = [method.estimate(part.study, level) for part in parts]
    pairs = list(zip(parts, estimates, strict=True))
    table = pd.DataFrame(
        [dict(zip(keys, part.name, strict=True)) | _line(found, part, points.unit_size, level) for part, found in pairs]
    )
    judged = _judge(parts, [found.curve for found in estimates], level)
    told = merge(points.notes, remark(parts, lonely, keys, table, judged))
    curves = {part.name: found.curve for part, found in pairs}
    return Tradeoff(table, judged, curves, points, method, level, exponents, told)


def _tied_names(tie: str | Sequence[str] | None, keys: list[str], method: Estimator) -> list[str]:
    if tie is None:
        return []
    names = [column_of(name) for name in ([tie] if isinstance(tie, str) else tie)]
    unknown = [name for name in names if name not in keys]
    if unknown or not names:
        raise FitError(f"tie: expected columns that tell the fits apart ({', '.join(keys) or 'none'}), found {tie!r}")
    if not isinstance(method, Hyperbola):
        raise FitError(f"tie: only Hyperbola() can be tied across targets, found {method!r}")
    if method.lack_of_fit is not None:
        raise FitError("tie: tied fits estimate the lack of fit; leave lack_of_fit=")
    return names


def _estimate_tied(
    parts: list[Part], keys: list[str], names: list[str], level: float
) -> tuple[list[Estimate], pd.DataFrame]:
    """Fit all parts that differ in the tied columns only at once."""
    table = pd.DataFrame([part.name for part in parts], columns=keys)
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(table[name])]
    if texts:
        raise FitError(f"tie: power laws need numbers; {texts[0]} holds {table[texts[0]].iloc[0]!r}")
    logs = np.log(table[names].to_numpy(dtype=float))
    others, studies = [name for name in keys if name not in names], [name for name in keys if name != "target"]
    found, group = group_rows(table[others])
    estimates: dict[int, Estimate] = {}
    exponents = []
    for g in range(len(found)):
        members = [int(j) for j in np.flatnonzero(group == g)]
        centre = logs[members].mean(axis=0)
        covariates = np.column_stack([np.ones(len(members)), logs[members] - centre])
        own = [parts[j].study for j in members]
        places = {(*table.loc[j, studies], x) for j in members for x in parts[j].study.x}
        fit = fit_tied(own, covariates, len(places), level)
        estimates |= {j: fit.estimate(parts[j].study, row, level) for j, row in zip(members, covariates, strict=True)}
        exponents += [dict(found.loc[g]) | line for line in fit.exponents(names)]
    return [estimates[j] for j in range(len(parts))], pd.DataFrame(exponents)


def _points(
    data: Any,
    by: str | Sequence[str] | None,
    data_unit: str,
    examples_unit: str | None,
    unit_size: float | None,
) -> TradeoffPoints:
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
        raise SweepError(
            f"expected points or a table of steps or examples to a target, found {type(data).__name__}; from curves or "
            "a sweep: fit_tradeoff(tradeoff_points(data, targets=[...]))"
        )
    return read_points(data, by, data_unit=data_unit, examples_unit=examples_unit, unit_size=unit_size)


def _lack(method: Estimator) -> float | None:
    lack = getattr(getattr(method, "curve", method), "lack_of_fit", None)
    return None if lack is None else lack**2


def _line(found: Estimate, part: Part, size: float | None, level: float) -> dict[str, Any]:
    shift = np.nan if size is None else np.log(size)
    steps = Value(found.steps.value + shift, found.steps.lo + shift, found.steps.hi + shift)
    line: dict[str, Any] = {}
    for name, value in (("S_min", steps), ("E_min", found.floor), ("B_crit", found.critical)):
        for end, number in zip(("", "_stderr", "_lo", "_hi"), value.natural(level), strict=True):
            line[f"{name}{end}"] = number
    return line | {
        "rms": found.rms,
        "lack_of_fit": found.lack,
        "n_batch": len(found.residuals),
        "n_left_out": part.left,
        "excess": float(np.expm1(part.excess.amount.max(initial=0.0))),
        "excess_p": part.excess.chance,
        "identified": found.status == "identified",
        "status": found.status,
        "verdict": VERDICTS[found.status],
    }


def _judge(parts: list[Part], curves: list[Curve], level: float) -> pd.DataFrame:
    """Put the fits beside their points, and say which bounds they contradict."""
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    sizes = [len(part.rows) for part in parts]
    ends = np.cumsum(sizes)[:-1]
    batch, observed = rows["batch"].to_numpy(), np.log(rows["examples"].to_numpy())
    places = np.split(np.log(batch), ends)
    expected = [curve.examples(place, level) for curve, place in zip(curves, places, strict=True)]
    value, _, high = np.concatenate(expected, axis=1)
    point = (rows["status"] == "point").to_numpy()
    rank = np.concatenate([np.cumsum(own) for own in np.split(point, ends)])
    left, highest = np.repeat([(part.left, part.highest) for part in parts], sizes, axis=0).T
    return rows.assign(
        used=point & (rank > left),
        fitted=np.exp(value),
        residual=np.where(point, observed - value, np.nan),
        contradicts=~point & (observed > high) & (batch > highest),
    )
