"""What a wrong learning rate costs: the mean excess loss over a range about the optimum, and its trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._levels import lowest_of
from scalefit._values import Note, Observations, merge
from scalefit.display import Face, Shown
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.optima.basin import Basin
from scalefit.optima.basin_shape import bend
from scalefit.optima.cells import Extractor, Floats, pad
from scalefit.optima.find_optima import find_optima
from scalefit.optima.near_optimal import Ground, fit_basin, lay_out, read_runs
from scalefit.sweep import Sweep
from scalefit.vocabulary import format_number

_SHOWN = 12
_WHOLE = 0.999
_POWERS = {"params": "N**a", "tokens": "D**b", "batch": "B**g"}
_MEANINGS = {"c": "prefactor", "a": "exponent of N", "b": "exponent of D", "g": "exponent of B"}


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Shown):
    """The learning-rate sensitivity of each cell; made by `lr_sensitivity`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a cell: the columns of `by`; `sensitivity` in nats per token and its `stderr` (NaN where the noise of a
        run is unknown); `lr` and `loss`, the optimum the range lies about; `cap`; `lr_lo` and `lr_hi`, the range
        averaged over; `covered`, its share of the range asked for, in ln lr; `n_runs` inside, `n_capped` of them at the
        cap; `status`: whole, part (the grid ends inside the range), or that of the optimum where it is no point.
    by : tuple of str
        The columns that tell cells apart.
    span : float
        The range asked for reaches from lr/span to lr*span.
    notes : tuple of Note
    source : str
    data_unit : str
    """

    _table: pd.DataFrame
    by: tuple[str, ...]
    span: float
    notes: tuple[Note, ...] = field(default=())
    source: str = "table"
    data_unit: str = "tokens"

    @property
    def table(self) -> pd.DataFrame:
        """The cells, as a copy that can be changed without changing this result."""
        return self._table.copy()

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._table)

    def observations(self, target: str) -> Observations:
        """Return the rows a law is fitted to: cells whose whole range was swept, with the sensitivity as `target`.

        Raises
        ------
        SweepError
            If there is none.
        """
        whole = (self._table["status"] == "whole").to_numpy()
        positive = whole & (self._table["sensitivity"].to_numpy(dtype=float) > 0)
        if not positive.any():
            raise SweepError(
                f"no cell of {self.source} was swept over the whole range of a factor {self.span:g} either side of its "
                "optimum; take a smaller span"
            )
        notes = self.notes
        if dropped := int((~whole).sum()):
            text = (
                f"{dropped} of {len(self)} cells without an optimum or with part of the range are left out of the fit"
            )
            notes = (*notes, Note("left_out", text, caution=True))
        if lost := int((whole & ~positive).sum()):
            text = f"{lost} cells are no more sensitive than their noise (not above 0) and are left out of the fit"
            notes = (*notes, Note("not_positive", text, caution=True))
        rows = self._table.loc[positive, [*self.by, "sensitivity"]].rename(columns={"sensitivity": target})
        return Observations(rows.reset_index(drop=True), None, notes, self.source, self.data_unit)

    def trend(self, law: Law | str | None = None) -> Fit:
        r"""Fit how the sensitivity changes with the size of the model, the data and the batch.

        .. math:: s = c\,N^a D^b B^g

        Parameters
        ----------
        law : Law or str, optional
            A law for `s`; by default the power law in those of N, D and B that tell cells apart and vary.

        Returns
        -------
        Fit
            In logs, every cell counting the same.

        Raises
        ------
        FitError
            If there are too few cells.
        """
        return fit(self._default_law() if law is None else law, self, space="log")

    def _default_law(self) -> Law:
        rows = self.observations("s").table
        varied = [name for name in _POWERS if name in self.by and rows[name].nunique() > 1]
        if not varied:
            raise FitError("a trend needs cells that differ in params, tokens or batch")
        formula = " * ".join(["s = c", *(_POWERS[name] for name in varied)])
        law = Law(formula, positive={"c"}, name="lr_sensitivity", source="trend of the sensitivity of arXiv:2309.14322")
        meanings = {name: _MEANINGS[name] for name in law.parameters}
        return Law(formula, positive={"c"}, meanings=meanings, name=law.name, source=law.source)

    def _face(self) -> Face:
        counts = self._table["status"].value_counts()
        facts = (
            (
                "cells",
                f"{len(self)} of ({', '.join(self.by)}): " + ", ".join(f"{n} {key}" for key, n in counts.items()),
            ),
            ("range", f"from lr/{self.span:g} to lr*{self.span:g}, mean in ln lr"),
            ("source", self.source),
        )
        columns = [*self.by, "sensitivity", "stderr", "lr", "covered", "n_runs", "n_capped", "status"]
        shown = self._table.loc[: _SHOWN - 1, columns]
        text = pd.DataFrame({name: [_cell_text(value) for value in shown[name]] for name in columns})
        more = len(self) - _SHOWN
        notes = (*self.notes, Note("shown", f"{more} more cells in .table")) if more > 0 else self.notes
        return Face("Learning-rate sensitivity", facts, text, notes)


def lr_sensitivity(
    sweep: Sweep,
    *,
    span: float = 3.0,
    cap: float | None = None,
    by: str | Sequence[str] | None = None,
    method: Extractor | None = None,
) -> Sensitivity:
    r"""Measure what a learning rate off the optimum costs, cell by cell.

    .. math:: s = \frac{1}{2\ln r}\int_{\eta^*/r}^{\eta^* r}\min(L(\eta), L_{\rm cap})\,d\ln\eta - L_{\min}

    Parameters
    ----------
    sweep : Sweep
        Runs with `lr` and `loss`.
    span : float
        r: the range reaches from the optimum over r to the optimum times r. Cells swept over part of it are averaged
        over that part and say so.
    cap : float, optional
        The loss a run counts with at most, nats per token: the loss at initialisation, ln(vocabulary) say. By default
        the highest finite loss of the cell. Diverged runs count at the cap.
    by, method
        Cells, and how their optima are read off; see `find_optima`. The loss at that optimum is :math:`L_{\min}`.

    Returns
    -------
    Sensitivity
        Nats per token, with a standard error, cell by cell.

    Raises
    ------
    SweepError
        If a column is missing, or `span` or `cap` has no meaning.

    Notes
    -----
    This is the sensitivity of Wortsman et al., there a mean over one range of rates for all models. We know it from
    descriptions: its exact form is unverified here. A range about each cell's own optimum keeps a drift of the optimum
    from counting as sensitivity.

    Between neighbouring rates the loss is the mean of two parabolas through three runs (the less bent one where they
    differ threefold), and a straight line beside a capped run. Runs at one place are averaged first. The standard error
    takes the noise of a run, judged by a basin near the optimum, to be the same over the range, the bottom to be that
    of a basin, and adds the error of the optimum's place; what runs scatter by on the unstable side comes on top.

    Simulated asymmetric basins (k = 0.8, span 4): noiseless, within 0.5 % of the integral; with a noise of
    0.003 nats 2 to 3 % high, because an optimum read off wrongly centres the range wrongly, with a scatter of 1.0 to
    1.1 quoted standard errors. Basins that are flat for their noise are read high by more.

    References
    ----------
    Wortsman et al. 2023, arXiv:2309.14322; trends with data and width: arXiv:2410.05838.

    Examples
    --------
    >>> lr = 1e-3 * 2.0 ** np.arange(-4, 5)
    >>> runs = pd.DataFrame({"lr": lr, "params": 1e8, "loss": 3 + 0.03 * np.log(lr / 1e-3) ** 2})
    >>> lr_sensitivity(Sweep.from_frame(runs)).table[["sensitivity", "covered", "status"]].round(4).to_dict("records")
    [{'sensitivity': 0.0121, 'covered': 1.0, 'status': 'whole'}]
    """
    if not 1 < span < np.inf:
        raise SweepError(f"span is the factor either side of the optimum, above 1, found {span!r}")
    optima = find_optima(sweep, over="lr", by=by, method=method)
    found = optima.table
    cell, x, loss = read_runs(sweep, optima)
    caps = _caps(loss, cell, len(found), cap)
    ground = lay_out(cell, x, loss, caps, sweep.rtol)
    basin = method if isinstance(method, Basin) else Basin()
    k, _, local = fit_basin(pad(cell, x[:, None], loss, len(found), sweep.rtol), basin)

    point = (found["status"] == "interior").to_numpy()
    best = np.where(point, np.log(np.where(point, found["lr"], 1.0)), np.nan)
    reach = np.log(span)
    lo, hi = np.maximum(best - reach, ground.first), np.minimum(best + reach, ground.last)
    weights = ground.mean_weights(lo, hi)
    value = (weights * ground.loss).sum(axis=1) - found["loss"].to_numpy()
    off = weights - _bottom_weights(ground, best, basin, k)
    error = _stderr(ground, off, local.variance, found["log_lr_stderr"].to_numpy(dtype=float), (lo, hi))
    inside = (ground.x >= lo[:, None] - ground.tolerance) & (ground.x <= hi[:, None] + ground.tolerance)
    covered = (hi - lo) / (2 * reach)
    columns = {
        "sensitivity": np.where(point, value, np.nan),
        "stderr": np.where(point, error, np.nan),
        "lr": found["lr"],
        "loss": found["loss"],
        "cap": caps,
        "lr_lo": np.exp(lo),
        "lr_hi": np.exp(hi),
        "covered": covered,
        "n_runs": (inside * ground.count).sum(axis=1).astype(int),
        "n_capped": (inside * ground.capped).sum(axis=1).astype(int),
        "status": np.where(point, np.where(covered >= _WHOLE, "whole", "part"), found["status"]),
    }
    table = pd.concat([found[list(optima.by)], pd.DataFrame(columns)], axis=1)
    notes = merge(optima.notes, _remarks(table, span, cap))
    return Sensitivity(table, optima.by, span, notes, sweep.source, sweep.data_unit)


def _caps(loss: Floats, cell: NDArray[np.int64], n_cells: int, cap: float | None) -> Floats:
    if cap is None:
        return -lowest_of(cell, -loss, n_cells)
    worst = np.nan_to_num(lowest_of(cell, loss, n_cells)).max(initial=0.0)
    if not worst < cap < np.inf:
        raise SweepError(
            f"cap is the loss at initialisation, above the best loss of every cell ({worst:.4g} in the worst of them), "
            f"found {cap!r}"
        )
    return np.full(n_cells, float(cap))


def _bottom_weights(ground: Ground, best: Floats, basin: Basin, k: float) -> Floats:
    """Return what each level counts for in the bottom of a basin fitted about the optimum, shape (cells, levels)."""
    there = (ground.count > 0) & (ground.capped == 0) & np.isfinite(best)[:, None]
    u = np.where(there, ground.x - best[:, None], 0.0)
    lowest = np.where(there, ground.loss, np.inf).min(axis=1)[:, None]
    excess = np.where(there, ground.loss, 0.0) / lowest - 1
    weight = np.where(there, ground.count * (1 + (np.maximum(excess, 0.0) / basin.window) ** 1.5) ** -2, 0.0)
    design = np.stack([np.ones_like(u), u, bend(u, np.asarray(k))[0]], axis=2)
    gram = np.einsum("clk,cl,clm->ckm", design, weight, design)
    return weight * np.einsum("clk,ck->cl", design, np.linalg.pinv(gram, hermitian=True)[:, :, 0])


def _stderr(ground: Ground, weights: Floats, variance: Floats, shift: Floats, bound: tuple[Floats, Floats]) -> Floats:
    """Join the noise of the mean over the bottom with the move of the range with the optimum's own error."""
    each = (ground.count - ground.capped) / np.maximum(ground.count, 1.0) ** 2
    noise = variance * (weights**2 * each).sum(axis=1)
    slope = (ground.height(bound[1]) - ground.height(bound[0])) / (bound[1] - bound[0])
    return np.sqrt(noise + (slope * np.nan_to_num(shift)) ** 2)


def _remarks(table: pd.DataFrame, span: float, cap: float | None) -> list[Note]:
    how = "the highest finite loss of its cell" if cap is None else f"{cap:g} nats"
    capped = int(table["n_capped"].sum())
    text = f"mean excess loss from lr/{span:g} to lr*{span:g}; {capped} runs there count at the cap, {how}"
    text += "" if cap is not None or not capped else "; the loss at initialisation as cap= would not depend on the grid"
    notes = [Note("sensitivity", text, caution=cap is None and capped > 0)]
    if part := int((table["status"] == "part").sum()):
        text = f"{part} of {len(table)} cells were swept over part of the range; theirs is the mean over that part"
        notes.append(Note("part", text, caution=True))
    return notes


def _cell_text(value: object) -> str:
    return format_number(float(value)) if isinstance(value, int | float | np.number) else str(value)
