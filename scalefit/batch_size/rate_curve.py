"""The best learning rate over the batch: shapes from theory, fitted to pairs of batch and best rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scalefit._values import Note, merge
from scalefit.batch_size.critical_batch import NoiseScale, positive, read_critical
from scalefit.display import Display, Displayable
from scalefit.errors import FitError
from scalefit.fitting.fit_values import check_level
from scalefit.fitting.problem import Rows, collect
from scalefit.laws import get_law
from scalefit.solvers.distributions import t_quantile
from scalefit.vocabulary import format_error, format_number

Floats = NDArray[np.float64]

_FEWEST = 3
_TRUST = 1e-3  # chance of a noise scale outside those searched, added to p (Berger and Boos 1994)
_GRID = np.linspace(-1.0, 1.0, 41)


class Shape(NamedTuple):
    """A curve eta / eta_max = height (1 + B_noise/B)**-alpha (B/B_noise)**-fall."""

    rule: str
    law: str  # its name in the catalogue
    height: float
    alpha: float
    fall: float

    def log(self, u: Floats) -> Floats:
        """Return ln(eta / eta_max) over u = ln(B / B_noise)."""
        return np.log(self.height) - self.alpha * np.logaddexp(0.0, -u) - self.fall * u

    def slope(self, u: Floats) -> Floats:
        """Return the slope of `log` in ln B_noise."""
        return self.fall - self.alpha / (1 + np.exp(np.minimum(u, 700.0)))  # exp(710) overflows


# The curves of Li et al. 2024; "adam" is their theorem 3: 2 / (sqrt(B_noise/B) + sqrt(B/B_noise)).
SHAPES = (
    Shape("adam", "lr_surge", 2.0, 1.0, 0.5),
    Shape("sgd", "lr_sgd_exact", 1.0, 1.0, 0.0),
    Shape("sgd_root", "lr_saturating", 1.0, 0.5, 0.0),
)


@dataclass(frozen=True, eq=False, repr=False)
class RateCurve(Displayable):
    """Predicted learning rates over the batch; made by `fit_rate_curve`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a rule (``adam``, ``sgd``, ``sgd_root``): `law`; `eta_max` with `stderr`, `lo` and `hi` (95 %);
        `eta_mean`, the arithmetic mean of the paper; `scatter` of the pairs about the curve in logs; `worst`, the
        factor by which the worst pair is off; `p` and `rejected`.
    noise : NoiseScale
        B_noise (`value`), where it is from (`source`), and the standard error of its logarithm (`log_stderr`).
    batch, lr, weights : ndarray (n,)
        The pairs.
    level : float
    data_unit : str
    notes : tuple of Note

    See Also
    --------
    fit_rate_curve : Makes one.

    Examples
    --------
    >>> import scalefit as sf
    >>> pairs = {"batch": [16, 64, 256, 1024, 4096], "lr": [3.9e-4, 8.2e-4, 1.0e-3, 7.9e-4, 4.1e-4]}
    >>> curve = sf.fit_rate_curve(256.0, pairs)
    >>> curve.predict([128.0, 512.0], rule="adam")["lr"].round(5).tolist()
    [0.00089, 0.00089]
    """

    _table: pd.DataFrame
    noise: NoiseScale
    batch: Floats
    lr: Floats
    weights: Floats
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
        if self._table["p"].isna().all():
            return "the pairs are too few to test the curves"
        rejected, standing = (list(self._table.loc[self._table["rejected"] == out, "rule"]) for out in (True, False))
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
            The curve to read, a row of `table`.
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
            If there is no such rule, or a batch is not positive.

        Examples
        --------
        >>> import scalefit as sf
        >>> pairs = {"batch": [16, 64, 256, 1024, 4096], "lr": [3.9e-4, 8.2e-4, 1.0e-3, 7.9e-4, 4.1e-4]}
        >>> sf.fit_rate_curve(256.0, pairs).predict(8192)[["lr", "reach"]].round(5).to_dict("records")
        [{'lr': 0.00032, 'reach': 2.0}]
        """
        shapes = {shape.rule: shape for shape in SHAPES}
        if rule not in shapes:
            raise FitError(f"rule: expected one of {', '.join(shapes)}, found {rule!r}")
        sizes = positive("batch", batch)
        check_level(level)
        shape, row = shapes[rule], self._table.set_index("rule").loc[rule]
        own, new = np.log(self.batch / self.noise.value), np.log(sizes / self.noise.value)
        center = np.log(row["eta_max"]) + shape.log(new)
        # The height was fitted with the same noise scale, so part of that error cancels.
        slope = shape.slope(new) - self.weights @ shape.slope(own) / len(own)
        spread = row["scatter"] ** 2 * (1 + 1 / len(own)) + (slope * self.noise.log_stderr) ** 2
        half = t_quantile(level, len(own) - 1) * np.sqrt(spread)
        reach = np.maximum(np.maximum(sizes / self.batch.max(), self.batch.min() / sizes), 1.0)
        columns = {"batch": sizes, "lr": np.exp(center), "lo": np.exp(center - half), "hi": np.exp(center + half)}
        return pd.DataFrame(columns | {"reach": reach}, index=batch.index if isinstance(batch, pd.Series) else None)

    def _display(self) -> Display:
        noise, table = self.noise, self._table
        scale = format_error(noise.value, noise.value * noise.log_stderr)
        span = f"{format_number(self.batch.min())} .. {format_number(self.batch.max())}"
        known = f"{scale} {self.data_unit} ({noise.source})"
        facts = (("B_noise", known), ("pairs", f"{len(self.batch)}, batch {span}"), ("verdict", self.verdict))
        shown = table[["rule"]].copy()
        shown["eta_max"] = [format_error(value, error) for value, error in table[["eta_max", "stderr"]].to_numpy()]
        for name, form in (("scatter", "{:.3g}"), ("worst", "{:.2f}x"), ("p", "{:.2g}")):
            shown[name] = table[name].map(form.format)
        shown["rejected"] = np.where(table["rejected"], "yes", "no")
        return Display("Learning rate over the batch", facts, shown, self.notes)


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
    noise : float, Tradeoff, Fit, PublishedLaw or str
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
    LawError
        If `noise` is none of these, is not positive, or counts data in another unit than the pairs.
    FitError
        If the noise scale is not identified, or there are fewer than three pairs.

    See Also
    --------
    fit_tradeoff : Measures the noise scale.
    climb_ladder : Tests simple rules of the rate over the batch against each other, without a noise scale.

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
    >>> import scalefit as sf
    >>> pairs = {"batch": [16, 64, 256, 1024, 4096], "lr": [3.9e-4, 8.2e-4, 1.0e-3, 7.9e-4, 4.1e-4]}
    >>> curve = sf.fit_rate_curve(256.0, pairs, noise_stderr=20.0)
    >>> curve.table.set_index("rule")["rejected"].to_dict()
    {'adam': False, 'sgd': True, 'sgd_root': True}
    """
    critical = read_critical(noise, stderr=noise_stderr, target=target)
    scale = critical.at_loss(loss)
    check_level(level)
    rows = collect(get_law("lr_surge"), pairs, None)[1]
    critical.check_data_unit(rows.data_unit)
    kept = rows.weights > 0
    if int(kept.sum()) < _FEWEST:
        raise FitError(f"expected at least {_FEWEST} pairs of batch and best lr, found {int(kept.sum())}")
    batch, rate = (rows.table[name].to_numpy()[kept] for name in ("batch", "lr"))
    weights = rows.weights[kept] / rows.weights[kept].mean()
    table = pd.DataFrame([_row(shape, scale, batch, rate, weights, level) for shape in SHAPES])
    notes = merge(rows.notes, _pair_notes(scale, rows, batch))
    return RateCurve(table, scale, batch, rate, weights, level, rows.data_unit, notes)


def _row(shape: Shape, scale: NoiseScale, batch: Floats, rate: Floats, weights: Floats, level: float) -> dict[str, Any]:
    """Return height, misfit and verdict of one shape."""
    u = np.log(batch / scale.value)
    height, count = np.log(rate) - shape.log(u), len(batch)
    mean = float(weights @ height / count)
    residual = height - mean
    scatter = float(np.sqrt(weights @ residual**2 / (count - 1)))
    error = float(np.hypot(scatter / np.sqrt(count), (weights @ shape.slope(u) / count) * scale.log_stderr))
    factor = np.exp(t_quantile(0.95, count - 1) * error)
    top, p = float(np.exp(mean)), _lack_of_fit(shape, scale, batch, rate, weights)
    row = {"rule": shape.rule, "law": shape.law, "eta_max": top, "stderr": top * error}
    row |= {"lo": top / factor, "hi": top * factor, "eta_mean": float(np.exp(height) @ weights / count)}
    worst = float(np.exp(np.abs(residual).max()))
    return row | {"scatter": scatter, "worst": worst, "p": p, "rejected": bool(p < level)}


def _lack_of_fit(shape: Shape, scale: NoiseScale, batch: Floats, rate: Floats, weights: Floats) -> float:
    """Return the p value of the residuals having no slope and no bend, the largest over credible noise scales."""
    from scipy.special import fdtrc

    count, root, x = len(batch), np.sqrt(weights), np.log(batch)
    if count < 4 or len(np.unique(x)) < 3:
        return float("nan")
    known = scale.log_stderr == 0
    shifts = np.zeros(1) if known else t_quantile(1 - _TRUST, np.inf) * scale.log_stderr * _GRID
    height = (np.log(rate) - shape.log(x - np.log(scale.value) - shifts[:, None])) * root
    centred = (x - x.mean()) / x.std()
    curved = np.linalg.qr(np.stack([root, root * centred, root * centred**2], axis=1))[0]
    total = (height**2).sum(axis=1)
    simple = total - (height @ root / np.linalg.norm(root)) ** 2
    wide = total - ((height @ curved) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.maximum(simple - wide, 0.0) / 2 / (np.maximum(wide, 0.0) / (count - 3))
    p = float(fdtrc(2, count - 3, np.nan_to_num(statistic, nan=0.0)).max())  # 0/0: pairs exactly on the curve
    return min(1.0, p + (0.0 if known else _TRUST))


def _pair_notes(scale: NoiseScale, rows: Rows, batch: Floats) -> list[Note]:
    """Note what the pairs cannot show."""
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
