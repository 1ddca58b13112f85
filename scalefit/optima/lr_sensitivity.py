"""What a wrong learning rate costs: the mean excess loss over a range about the optimum, and its trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note, Observations, merge
from scalefit.display import Display, Displayable
from scalefit.errors import FitError, SweepError
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.optima.basin_shape import bend, window_weight
from scalefit.optima.cells import Bools, Estimator, Floats, average, cells_face, pad, repeats
from scalefit.optima.find_optima import find_optima
from scalefit.optima.optimum_estimators import Basin
from scalefit.schema import lowest_of
from scalefit.sweep import Sweep

# A range is whole up to rounding of its ends.
_WHOLE = 0.999

# Ratio of the bends of neighbouring parabolas up to which both are believed; beyond, one of them meets a wall.
_ALIKE = 3.0

_POWERS = {
    "params": ("N**a", "a", "exponent of N"),
    "tokens": ("D**b", "b", "exponent of D"),
    "batch": ("B**g", "g", "exponent of B"),
}


def lr_sensitivity(
    sweep: Sweep,
    *,
    span: float = 3.0,
    cap: float | None = None,
    by: str | Sequence[str] | None = None,
    method: Estimator | None = None,
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

    See Also
    --------
    near_optimal : The rates that cost at most a stated loss.

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
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> lr = 1e-3 * 2.0 ** np.arange(-4, 5)
    >>> sweep = sf.read_sweep(pd.DataFrame({"lr": lr, "params": [1e8] * 9, "loss": 3 + 0.03 * np.log(lr / 1e-3) ** 2}))
    >>> sf.lr_sensitivity(sweep).table[["sensitivity", "covered", "status"]].round(4).to_dict("records")
    [{'sensitivity': 0.0121, 'covered': 1.0, 'status': 'whole'}]
    """
    if not 1 < span < np.inf:
        raise SweepError(f"span is the factor either side of the optimum, above 1, found {span!r}")
    optima = find_optima(sweep, over="lr", by=by, method=method)
    found, table = optima.table, sweep.table
    cell, x, loss = sweep.group(optima.by)[1], np.log(table["lr"].to_numpy()), table["loss"].to_numpy()
    caps = _caps(loss, cell, len(found), cap)
    levels = _Levels.of(cell, x, loss, caps, sweep.rtol)
    basin = method if isinstance(method, Basin) else Basin()
    cells = pad(cell, x[:, None], loss, len(found), sweep.rtol)
    settled = basin.settle(cells)

    point = (found["status"] == "interior").to_numpy()
    best = np.where(point, np.log(np.where(point, found["lr"], 1.0)), np.nan)
    reach = np.log(span)
    lo = np.maximum(best - reach, np.where(levels.count > 0, levels.x, np.inf).min(axis=1))
    hi = np.minimum(best + reach, np.where(levels.count > 0, levels.x, -np.inf).max(axis=1))
    weights = levels.mean_weights(lo, hi)
    value = (weights * levels.loss).sum(axis=1) - found["loss"].to_numpy()
    off = weights - _bottom_weights(levels, best, basin.window, settled.bends.shared)
    error = _stderr(levels, off, settled.fit.variance, found["log_lr_stderr"].to_numpy(dtype=float), (lo, hi))
    tolerance = np.log1p(sweep.rtol)
    inside = (levels.x >= lo[:, None] - tolerance) & (levels.x <= hi[:, None] + tolerance)
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
        "n_runs": (inside * levels.count).sum(axis=1).astype(int),
        "n_capped": (inside * levels.capped).sum(axis=1).astype(int),
        "status": np.where(point, np.where(covered >= _WHOLE, "whole", "part"), found["status"]),
    }
    table = pd.concat([found[list(optima.by)], pd.DataFrame(columns)], axis=1)
    notes = merge(optima.notes, _notes(table, span, cap))
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


@dataclass(frozen=True, eq=False)
class _Levels:
    """Distinct learning rates of each cell, ascending, padded with NaN (0 in loss and count); all (cells, levels)."""

    x: Floats
    loss: Floats  # mean at the place, diverged runs at the cap
    count: Floats
    capped: Floats  # runs at the cap

    @classmethod
    def of(cls, cell: NDArray[np.int64], x: Floats, loss: Floats, caps: Floats, rtol: float) -> _Levels:
        """Join the runs of each cell at each rate, those above the cap or diverged at the cap."""
        limit = caps[cell]
        capped = ~(loss <= limit)
        place = repeats(cell, x[:, None], rtol)
        counted = np.nan_to_num(np.where(capped, limit, loss), nan=0.0)
        own, middle, mean = average(cell, x[:, None], counted, place)
        parts = [mean, np.bincount(place).astype(float), np.bincount(place, capped)]
        padded = [pad(own, middle, part, len(caps), rtol) for part in parts]
        # A second difference takes three levels.
        spare = [(0, 0), (0, max(3 - padded[0].x.shape[1], 0))]
        grid = np.pad(padded[0].x[:, :, 0], spare, constant_values=np.nan)
        return cls(grid, *(np.pad(np.nan_to_num(part.loss), spare) for part in padded))

    def mean_weights(self, lo: Floats, hi: Floats) -> Floats:
        """Return what each level counts for in the mean over lo to hi, shape (cells, levels); NaN without a range."""
        # The integral is linear in the losses: its weights are the integrals of losses 1 at one level and 0 elsewhere.
        levels = np.broadcast_to(np.eye(self.x.shape[1])[:, None, :], (self.x.shape[1], *self.x.shape))
        return (self._integral(levels, lo, hi) / np.where(hi > lo, hi - lo, np.nan)).T

    def height(self, at: Floats) -> Floats:
        """Return the loss at a place, straight between levels."""
        x = np.where(self.count > 0, self.x, np.inf)
        upper = np.clip((x < at[:, None]).sum(axis=1), 1, self.x.shape[1] - 1)
        row = np.arange(len(x))
        x0, x1, y0, y1 = (part[row, j] for part in (self.x, self.loss) for j in (upper - 1, upper))
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)

    def _integral(self, values: Floats, lo: Floats, hi: Floats) -> Floats:
        """Integrate the mean of the parabolas through three neighbouring levels each, shape (..., cells)."""
        x0, x1 = self.x[:, :-1], self.x[:, 1:]
        real = np.isfinite(x1)
        step = np.where(real, x1 - x0, 1.0)
        start, end = (np.where(real, np.clip(edge[:, None], x0, x1) - x0, 0.0) for edge in (lo, hi))
        share = (start + end) / (2 * step)
        straight = (end - start) * ((1 - share) * values[..., :-1] + share * values[..., 1:])
        # A parabola departs from its chord by its second divided difference times z (z - step).
        bow = (end**3 - start**3) / 3 - step * (end**2 - start**2) / 2
        bends = self._bends(values)
        left, right = self._shares()
        return np.nan_to_num(straight + bow * (left * bends[..., :-1] + right * bends[..., 1:])).sum(axis=-1)

    def _bends(self, values: Floats) -> Floats:
        """Return the second divided difference about each level; 0 at the ends and beside capped runs."""
        bends = np.zeros(values.shape)
        slope = np.diff(values, axis=-1) / np.diff(self.x, axis=-1)
        bends[..., 1:-1] = np.diff(slope, axis=-1) / (self.x[:, 2:] - self.x[:, :-2])
        return np.where(self._smooth(), bends, 0.0)

    def _smooth(self) -> Bools:
        free = (self.count > 0) & (self.capped == 0)
        smooth = np.zeros(free.shape, dtype=bool)
        smooth[:, 1:-1] = free[:, 1:-1] & free[:, :-2] & free[:, 2:]
        return smooth

    def _shares(self) -> tuple[Floats, Floats]:
        """Say how much each interval takes of the parabolas about its two ends.

        Both where they are alike, the less bent where one of them meets a wall, the only one at the end of a grid.
        """
        smooth, bends = self._smooth(), self._bends(self.loss)
        left, right = np.abs(bends[:, :-1]), np.abs(bends[:, 1:])
        alike = (np.maximum(left, right) <= _ALIKE * np.minimum(left, right)) & (bends[:, :-1] * bends[:, 1:] > 0)
        share = np.where(alike, 0.5, left <= right)
        share = np.where(smooth[:, :-1] & smooth[:, 1:], share, smooth[:, :-1])
        return share, np.where(smooth[:, :-1] | smooth[:, 1:], 1.0 - share, 0.0)


def _bottom_weights(levels: _Levels, best: Floats, window: float, k: float) -> Floats:
    """Return what each level counts for in the bottom of a basin fitted about the optimum, shape (cells, levels)."""
    there = (levels.count > 0) & (levels.capped == 0) & np.isfinite(best)[:, None]
    u = np.where(there, levels.x - best[:, None], 0.0)
    lowest = np.where(there, levels.loss, np.inf).min(axis=1)[:, None]
    excess = np.where(there, levels.loss, 0.0) / lowest - 1
    weight = np.where(there, levels.count * window_weight(np.maximum(excess, 0.0), window), 0.0)
    design = np.stack([np.ones_like(u), u, bend(u, np.asarray(k))[0]], axis=2)
    gram = np.einsum("clk,cl,clm->ckm", design, weight, design)
    return weight * np.einsum("clk,ck->cl", design, np.linalg.pinv(gram, hermitian=True)[:, :, 0])


def _stderr(levels: _Levels, weights: Floats, variance: Floats, shift: Floats, ends: tuple[Floats, Floats]) -> Floats:
    """Join the noise of the mean over the bottom with the move of the range with the optimum's own error."""
    each = (levels.count - levels.capped) / np.maximum(levels.count, 1.0) ** 2
    noise = variance * (weights**2 * each).sum(axis=1)
    # A mean over [lo, hi] that moves along changes by the difference of the losses at its ends over its width.
    slope = (levels.height(ends[1]) - levels.height(ends[0])) / (ends[1] - ends[0])
    return np.sqrt(noise + (slope * np.nan_to_num(shift)) ** 2)


def _notes(table: pd.DataFrame, span: float, cap: float | None) -> list[Note]:
    how = "the highest finite loss of its cell" if cap is None else f"{cap:g} nats"
    capped = int(table["n_capped"].sum())
    text = f"mean excess loss from lr/{span:g} to lr*{span:g}; {capped} runs there count at the cap, {how}"
    text += "" if cap is not None or not capped else "; the loss at initialisation as cap= would not depend on the grid"
    notes = [Note("sensitivity", text, caution=cap is None and capped > 0)]
    if part := int((table["status"] == "part").sum()):
        text = f"{part} of {len(table)} cells were swept over part of the range; theirs is the mean over that part"
        notes.append(Note("part", text, caution=True))
    return notes


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Displayable):
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
        Those of the optima and of the means.
    source : str
        Where the runs came from.
    data_unit : str
        What `tokens` and `batch` count.

    See Also
    --------
    lr_sensitivity : Makes it.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> lr = [1e-3 * 2.0**k for k in range(-4, 5)]
    >>> rows = [(x, n, 3 + n / 1e9 * np.log(x / 1e-3) ** 2) for n in (1e7, 2e7, 4e7) for x in lr]
    >>> found = sf.lr_sensitivity(sf.read_sweep(pd.DataFrame(rows, columns=["lr", "params", "loss"])))
    >>> len(found), round(found.trend().values["a"], 2)
    (3, 1.0)
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

        Parameters
        ----------
        target : str
            The name the law has for the sensitivity.

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
            text = f"{dropped} of {len(self)} cells without an optimum or with part of the range"
            notes = (*notes, Note("left_out", f"{text} are left out of the fit", caution=True))
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
        FitError, SweepError
            If there are too few cells, or none was swept over its whole range.
        """
        return fit(self._default_law() if law is None else law, self, space="log")

    def _default_law(self) -> Law:
        rows = self.observations("s").table
        powers = [power for name, power in _POWERS.items() if name in self.by and rows[name].nunique() > 1]
        if not powers:
            raise FitError("a trend needs cells that differ in params, tokens or batch")
        return Law(
            " * ".join(["s = c", *(term for term, _, _ in powers)]),
            positive={"c"},
            meanings={"c": "prefactor"} | {letter: meaning for _, letter, meaning in powers},
            name="lr_sensitivity",
            source="trend of the sensitivity of arXiv:2309.14322",
        )

    def _display(self) -> Display:
        counts = ", ".join(f"{n} {key}" for key, n in self._table["status"].value_counts().items())
        facts = [
            ("cells", f"{len(self)} of ({', '.join(self.by)}): {counts}"),
            ("range", f"from lr/{self.span:g} to lr*{self.span:g}, mean in ln lr"),
            ("source", self.source),
        ]
        columns = [*self.by, "sensitivity", "stderr", "lr", "covered", "n_runs", "n_capped", "status"]
        return cells_face("Learning-rate sensitivity", facts, self._table[columns], self.notes)
