"""The best learning rate over the batch: its shapes, the recipe that finds its height, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note, merge
from scalefit.batch_size.critical import NoiseScale, read_noise
from scalefit.display import Face, Shown
from scalefit.errors import FitError
from scalefit.fitting.fit_values import check_level
from scalefit.fitting.problem import Rows, collect
from scalefit.laws import get_law
from scalefit.solvers.students_t import t_quantile
from scalefit.vocabulary import format_error, format_number

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """ln(eta / eta_max) over u = ln(B / B_noise).

    Parameters
    ----------
    rule : str
    law : str
        Its name in the catalogue of laws.
    label : str
        What it is for.
    log : callable
        u -> ln(eta / eta_max).
    slope : callable
        u -> its derivative in ln B_noise.
    """

    rule: str
    law: str
    label: str
    log: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


def _sgd(alpha: float) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    return (lambda u: -alpha * np.logaddexp(0.0, -u)), (lambda u: -alpha / (1 + np.exp(np.minimum(u, 700.0))))


SHAPES: tuple[Shape, ...] = (
    Shape(
        "adam",
        "lr_surge",
        "Adam and sign descent, theorem 3",
        lambda u: np.log(2.0) - np.logaddexp(u / 2, -u / 2),
        lambda u: 0.5 * np.tanh(u / 2),
    ),
    Shape("sgd", "lr_sgd_exact", "SGD, alpha = 1", *_sgd(1.0)),
    Shape("sgd_root", "lr_saturating", "alpha = 1/2", *_sgd(0.5)),
)
"""The curves that Li et al. 2024 draw."""


def shape_of(rule: str) -> Shape:
    """Return a shape by its rule.

    Raises
    ------
    KeyError
        If there is none.
    """
    return {shape.rule: shape for shape in SHAPES}[rule]


Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class RateCurve(Shown):
    """Predicted learning rates over the batch; made by `fit_rate_curve`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a rule (``adam``, ``sgd``, ``sgd_root``): `law`; `eta_max` with `stderr`, `lo` and `hi` (95 %);
        `eta_mean`, the arithmetic mean of the paper; `scatter` of the pairs about the curve in logs; `worst`, the
        factor by which the worst pair is off; `p` and `rejected`.
    noise : NoiseScale
        B_noise, where it is from, and the standard error of its logarithm.
    batch, lr, weights : ndarray (n,)
        The pairs.
    level : float
    data_unit : str
    notes : tuple of Note
    """

    _table: pd.DataFrame
    noise: NoiseScale
    batch: Array
    lr: Array
    weights: Array
    level: float = 0.05
    data_unit: str = "tokens"
    notes: tuple[Note, ...] = field(default=())

    @property
    def table(self) -> pd.DataFrame:
        """The rules, as a copy."""
        return self._table.copy()

    @property
    def residuals(self) -> pd.DataFrame:
        """The pairs, and the log of observed over predicted rate under each rule."""
        u = np.log(self.batch / self.noise.value)
        found = pd.DataFrame({"batch": self.batch, "lr": self.lr})
        for shape, height in zip(SHAPES, self._table["eta_max"], strict=True):
            found[shape.rule] = np.log(self.lr) - np.log(height) - shape.log(u)
        return found

    @property
    def verdict(self) -> str:
        """One sentence: which rules the pairs reject."""
        p = self._table["p"].to_numpy()
        if np.isnan(p).all():
            return "the pairs are too few to test the curves"
        rejected = list(self._table.loc[self._table["rejected"], "rule"])
        standing = [rule for rule in self._table["rule"] if rule not in rejected]
        if not rejected:
            return "the pairs reject none of the curves"
        if not standing:
            return "the pairs reject all curves: none describes these rates with this noise scale"
        return f"the pairs reject {' and '.join(rejected)}, not {' and '.join(standing)}"

    def predict(self, batch: Any, *, rule: str = "adam", level: float = 0.95) -> pd.DataFrame:
        """Predict the best learning rate at batch sizes.

        Parameters
        ----------
        batch : float or array_like
            Data per step.
        rule : {"adam", "sgd", "sgd_root"}
        level : float
            Coverage of the interval.

        Returns
        -------
        pandas.DataFrame
            `batch`, `lr`, `lo`, `hi` (for a new measured best rate: scatter of the pairs, error of the height and
            that of B_noise), and `reach`, the factor by which the batch lies outside those of the pairs.

        Raises
        ------
        FitError
            For a rule there is not, or batches that are not positive.
        """
        rules = [shape.rule for shape in SHAPES]
        if rule not in rules:
            raise FitError(f"rule: expected one of {', '.join(rules)}, found {rule!r}")
        sizes = np.atleast_1d(np.asarray(batch, dtype=float))
        if not (np.isfinite(sizes) & (sizes > 0)).all():
            raise FitError(f"batch: expected positive numbers, found {batch!r}")
        shape, row = shape_of(rule), self._table.set_index("rule").loc[rule]
        own, new = np.log(self.batch / self.noise.value), np.log(sizes / self.noise.value)
        center = np.log(row["eta_max"]) + shape.log(new)
        # The height was fitted with the same noise scale, so part of that error cancels.
        slope = shape.slope(new) - self.weights @ shape.slope(own) / len(own)
        spread = row["scatter"] ** 2 * (1 + 1 / len(own)) + (slope * self.noise.log_stderr) ** 2
        check_level(level)
        half = t_quantile(level, len(own) - 1) * np.sqrt(spread)
        reach = np.maximum.reduce([sizes / self.batch.max(), self.batch.min() / sizes, np.ones(len(sizes))])
        columns = {"batch": sizes, "lr": np.exp(center), "lo": np.exp(center - half), "hi": np.exp(center + half)}
        return pd.DataFrame(columns | {"reach": reach})

    def _face(self) -> Face:
        noise, table = self.noise, self._table
        facts = (
            (
                "B_noise",
                f"{format_error(noise.value, noise.value * noise.log_stderr)} {self.data_unit} ({noise.source})",
            ),
            (
                "pairs",
                f"{len(self.batch)}, batch {format_number(self.batch.min())} .. {format_number(self.batch.max())}",
            ),
            ("verdict", self.verdict),
        )
        shown = pd.DataFrame({"rule": table["rule"]})
        shown["eta_max"] = [format_error(v, e) for v, e in zip(table["eta_max"], table["stderr"], strict=True)]
        shown["scatter"] = table["scatter"].map(lambda value: format_number(value, 3))
        shown["worst"] = table["worst"].map(lambda value: f"{value:.2f}x")
        shown["p"] = table["p"].map(lambda value: f"{value:.2g}")
        shown["rejected"] = ["yes" if value else "no" for value in table["rejected"]]
        return Face("Learning rate over the batch", facts, shown, self.notes)


_FEWEST = 3
_TRUST = 1e-3
_GRID = np.linspace(-1.0, 1.0, 41)


def fit_rate_curve(
    noise: Any,
    pairs: Any,
    *,
    noise_stderr: float | None = None,
    target: float | None = None,
    loss: float | None = None,
    level: float = 0.05,
) -> RateCurve:
    r"""Predict the best learning rate at any batch size from a noise scale and a few (batch, best rate) pairs.

    (a) The noise scale comes from the trade-off of steps against data, B_noise = B_crit. (b) It is where the rate of
    Adam peaks and that of SGD bends. (c) The height is the mean over the pairs of

    .. math::

        \eta^*(B)\,\tfrac12\Big(\sqrt{B_{noise}/B} + \sqrt{B/B_{noise}}\Big) \ \text{(Adam)}, \qquad
        \eta^*(B)\,(1 + B_{noise}/B)^{\alpha} \ \text{(SGD)}.

    Parameters
    ----------
    noise : float, Tradeoff, Fit or PublishedLaw
        B_noise: a number; a result of `fit_tradeoff` (or any table with `B_crit` and `B_crit_stderr`); or a fit or
        published law of ``bcrit_loss``, read at `loss`.
    pairs : DataFrame, Optima or mapping
        `batch` and the best `lr` there, and weights if it has any.
    noise_stderr : float, optional
        Standard error of B_noise when it is given as a number; without it B_noise is taken as known.
    target, loss : float, optional
        Which trade-off of several; where to read a law.
    level : float
        Below which p rejects a curve.

    Returns
    -------
    RateCurve

    Raises
    ------
    FitError
        If the noise scale is not identified, or there are fewer than three pairs.

    Notes
    -----
    `eta_max` is the mean of logs, as the scatter of a best rate is relative; `eta_mean` is the arithmetic mean of the
    paper, higher by half the squared scatter. Errors of B_noise are carried along to first order.

    *Rejected?* The residuals of a curve are tested for a slope and a bend in ln B (an F test with 2 and n - 3 degrees
    of freedom). B_noise is not known exactly: p is the largest over its 99.9 % interval, plus 0.001 (Berger and Boos),
    so a curve is rejected only if no credible noise scale saves it. With four or five pairs hardly any is.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578; Berger and Boos 1994, J. Am. Stat. Assoc. 89, 1012.

    Examples
    --------
    >>> pairs = pd.DataFrame({"batch": [16, 64, 256, 1024, 4096], "lr": [3.9e-4, 8.2e-4, 1.0e-3, 7.9e-4, 4.1e-4]})
    >>> curve = fit_rate_curve(256.0, pairs, noise_stderr=20.0)
    >>> curve.table.set_index("rule")["rejected"].to_dict()
    {'adam': False, 'sgd': True, 'sgd_root': True}
    """
    scale = read_noise(noise, stderr=noise_stderr, target=target, loss=loss)
    rows = collect(get_law("lr_surge"), pairs, None)[1]
    if scale.data_unit not in (None, rows.data_unit):
        raise FitError(f"the noise scale counts {scale.data_unit}, the pairs {rows.data_unit}")
    if not 0 < level < 1:
        raise FitError(f"level: expected a number between 0 and 1, found {level!r}")
    kept = rows.weights > 0
    if int(kept.sum()) < _FEWEST:
        raise FitError(f"expected at least {_FEWEST} pairs of batch and best lr, found {int(kept.sum())}")
    batch, rate = (rows.table[name].to_numpy()[kept] for name in ("batch", "lr"))
    weights = rows.weights[kept] / rows.weights[kept].mean()
    table = pd.DataFrame([_row(shape, scale, batch, rate, weights, level) for shape in SHAPES])
    notes = merge(rows.notes, _remarks(scale, rows, batch))
    return RateCurve(table, scale, batch, rate, weights, level, rows.data_unit, notes)


def _row(shape: Shape, scale: NoiseScale, batch: Array, rate: Array, weights: Array, level: float) -> dict[str, Any]:
    """Return height, misfit and verdict of one shape."""
    u = np.log(batch / scale.value)
    height, count = np.log(rate) - shape.log(u), len(batch)
    mean = float(weights @ height / count)
    residual = height - mean
    scatter = float(np.sqrt(weights @ residual**2 / (count - 1)))
    error = float(np.hypot(scatter / np.sqrt(count), (weights @ shape.slope(u) / count) * scale.log_stderr))
    factor = np.exp(t_quantile(0.95, count - 1) * error)
    p = _lack_of_fit(shape, scale, batch, rate, weights)
    return {
        "rule": shape.rule,
        "law": shape.law,
        "eta_max": np.exp(mean),
        "stderr": np.exp(mean) * error,
        "lo": np.exp(mean) / factor,
        "hi": np.exp(mean) * factor,
        "eta_mean": float(np.exp(height) @ weights / count),
        "scatter": scatter,
        "worst": float(np.exp(np.abs(residual).max())),
        "p": p,
        "rejected": bool(p < level),
    }


def _lack_of_fit(shape: Shape, scale: NoiseScale, batch: Array, rate: Array, weights: Array) -> float:
    """Return the p value of the residuals having no slope and no bend, the largest over credible noise scales."""
    count, root, x = len(batch), np.sqrt(weights), np.log(batch)
    if count < 4 or len(np.unique(x)) < 3:
        return float("nan")
    known = scale.log_stderr == 0
    reach = 0.0 if known else -_normal_quantile(_TRUST / 2) * scale.log_stderr
    u = x - np.log(scale.value) - (np.zeros(1) if known else reach * _GRID)[:, None]
    height = (np.log(rate) - shape.log(u)) * root
    centred = (x - x.mean()) / x.std()
    full = np.linalg.qr(np.stack([root, root * centred, root * centred**2], axis=1))[0]
    level = root / np.linalg.norm(root)
    simple = (height**2).sum(axis=1) - (height @ level) ** 2
    wide = (height**2).sum(axis=1) - ((height @ full) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.maximum(simple - wide, 0.0) / 2 / (np.maximum(wide, 0.0) / (count - 3))
    from scipy.special import fdtrc

    p = float(fdtrc(2, count - 3, np.nan_to_num(statistic, nan=0.0)).max())
    return min(1.0, p + (0.0 if known else _TRUST))


def _normal_quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _remarks(scale: NoiseScale, rows: Rows, batch: Array) -> list[Note]:
    notes = []
    if scale.log_stderr == 0:
        notes.append(Note("known", "B_noise is taken as known: intervals and p values hold no error of it"))
    if not batch.min() < scale.value < batch.max():
        side = "below" if batch.max() <= scale.value else "above"
        text = f"all pairs lie {side} B_noise = {scale.value:.4g}: they do not show the peak or the bend themselves"
        notes.append(Note("one_side", text, caution=True))
    if len(batch) < 6:
        notes.append(Note("few", f"{len(batch)} pairs can hardly reject any curve", caution=True))
    if len(rows.table) > len(batch):
        notes.append(Note("weightless", f"{len(rows.table) - len(batch)} pairs of weight zero are left out"))
    return notes
