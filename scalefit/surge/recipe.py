"""The recipe of Li et al.: a noise scale from the trade-off, a height from pairs, and a rate for every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scalefit.errors import FitError
from scalefit.fitting.data import Rows, collect
from scalefit.fitting.result import t_quantile
from scalefit.laws import get_law
from scalefit.notes import Note, merge
from scalefit.surge.curve import RateCurve
from scalefit.surge.noise import NoiseScale, read_noise
from scalefit.surge.shapes import SHAPES, Shape

Array = np.ndarray

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
