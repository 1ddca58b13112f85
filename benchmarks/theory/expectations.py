"""What theory says of a noisy quadratic, exactly where it can: to hold simulated training against."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scalefit.errors import SweepError
from theory.grids import positive
from theory.optimizers import SGD, Optimizer, SignSGD
from theory.quadratic import NoisyQuadratic

Floats = NDArray[np.float64]


def expected_step(problem: NoisyQuadratic, optimizer: Optimizer, batches: ArrayLike) -> pd.DataFrame:
    r"""Return the best single step exactly, for SGD and sign-SGD.

    For an update :math:`x \to x - \eta V` the mean loss is a parabola in :math:`\eta`, with its top at

    .. math::

        \eta^* = \frac{G^T E[V]}{\sum_{ij} H_{ij}\,\mathrm{cov}(V)_{ij} + E[V]^T H E[V]}, \qquad
        \Delta L^* = \tfrac12\,\eta^*\,G^T E[V].

    SGD has :math:`E[V] = G` and :math:`\mathrm{cov}(V) = \mathrm{diag}(\sigma^2)/B`. Sign-SGD has
    :math:`E[V_i] = e_i = \mathrm{erf}(\sqrt{B/2}\,G_i/\sigma_i)` and
    :math:`\mathrm{cov}(V) = \mathrm{diag}(1 - e_i^2)`, so that its denominator is
    :math:`\sum_i H_{ii} + \sum_{i \ne j} e_i e_j H_{ij}`.

    Parameters
    ----------
    problem : NoisyQuadratic
        The step is taken from its start.
    optimizer : SGD or SignSGD
        How the weights move.
    batches : array_like
        Samples per step.

    Returns
    -------
    pandas.DataFrame
        batch, lr, loss_drop.

    Raises
    ------
    SweepError
        For another optimizer.

    References
    ----------
    Li et al. 2024, arXiv:2405.14578, lemma 1 and theorem 2.

    Examples
    --------
    >>> from theory import SGD, NoisyQuadratic
    >>> problem = NoisyQuadratic(curvature=[1.0, 1.0], noise=1.0, start=[1.0, 0.0])
    >>> expected_step(problem, SGD(), [2.0])["lr"].tolist()
    [0.5]
    """
    sizes = positive("batches", batches)
    start = np.broadcast_to(problem.start, (len(sizes), len(problem.start)))
    lr, gain = _best_rate(problem, optimizer, start, sizes)
    return pd.DataFrame({"batch": sizes, "lr": lr, "loss_drop": 0.5 * lr * gain})


def _best_rate(problem: NoisyQuadratic, optimizer: Optimizer, x: Floats, batch: Floats) -> tuple[Floats, Floats]:
    """Return the learning rate of the best single step from x, shape (..., n), and G'E[V] there."""
    slope = problem.gradient(x)
    if isinstance(optimizer, SGD):
        mean = slope
        variance = np.broadcast_to(problem.noise**2, slope.shape) / batch[..., None]
    elif isinstance(optimizer, SignSGD):
        from scipy.special import erf

        mean = erf(np.sqrt(batch[..., None] / 2) * slope / problem.noise)
        variance = 1 - mean**2
    else:
        raise SweepError(f"the best step of {optimizer!r} has no closed form; measure it with optimal_step")
    gain = np.einsum("...i,...i->...", mean, slope)
    return gain / (variance @ np.diagonal(problem.hessian) + 2 * problem.loss(mean)), gain


def step_limits(problem: NoisyQuadratic, optimizer: Optimizer) -> dict[str, float]:
    r"""Return the constants of the approximate laws of the best single step.

    SGD: :math:`\eta^* = \eta_{max}/(1 + B_{noise}/B)` and :math:`\Delta L^* = \Delta L_{max}/(1 + B_{noise}/B)` hold
    exactly. Sign-SGD, while :math:`B \ll \pi\sigma_i^2/(2 G_i^2)`:

    .. math::

        \eta^* = \frac{2\,\eta_{max}}{\sqrt{B_{noise}/B} + \sqrt{B/B_{noise}}}, \qquad
        B_{noise} = \frac{\pi \sum_i H_{ii}}{2 \sum_{i \ne j} r_i r_j H_{ij}}, \qquad
        \eta_{max} = \sqrt{\frac{B_{noise}}{2\pi}}\,\frac{\sum_i G_i^2/\sigma_i}{\sum_i H_{ii}}, \qquad
        \Delta L_{max} = \frac{B_{noise}}{\pi}\,\frac{(\sum_i G_i^2/\sigma_i)^2}{\sum_i H_{ii}}

    with :math:`r_i = G_i/\sigma_i`; and for large B :math:`\eta^* \to \sum_i |G_i| / (s^T H s)`, s the signs of G.

    Returns
    -------
    dict
        B_noise, lr_max, drop_max; for sign-SGD also lr_plateau, drop_plateau and B_valid, the median over coordinates
        of :math:`\pi\sigma_i^2/(2 G_i^2)`. Where :math:`\sum_{i \ne j} r_i r_j H_{ij} \le 0` (a diagonal H, for one)
        sign-SGD has no fall: B_noise, lr_max and drop_max are inf.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162, 2.6 to 2.8; Li et al. 2024, arXiv:2405.14578, theorems 3 to 5.

    Examples
    --------
    >>> from theory import SignSGD, NoisyQuadratic
    >>> flat = NoisyQuadratic(curvature=[1.0, 1.0], noise=1.0, start=[1.0, 0.5])
    >>> limits = step_limits(flat, SignSGD())
    >>> limits["B_noise"], limits["lr_plateau"]
    (inf, 0.75)
    """
    slope = problem.gradient(problem.start)
    if isinstance(optimizer, SGD):
        curve = float(slope @ problem.gradient(slope))
        lr = float(slope @ slope) / curve
        return {"B_noise": problem.noise_scale(), "lr_max": lr, "drop_max": 0.5 * lr * float(slope @ slope)}
    if not isinstance(optimizer, SignSGD):
        raise SweepError(f"the best step of {optimizer!r} has no closed form; measure it with optimal_step")
    diagonal, ratio, sign = np.diagonal(problem.hessian), slope / problem.noise, np.sign(slope)
    trace, gain = float(diagonal.sum()), float(np.sum(slope**2 / problem.noise))
    coupled = float(2 * problem.loss(ratio) - diagonal @ ratio**2)
    steep = float(2 * problem.loss(sign))
    coupled = coupled if coupled > 1e-12 * float(diagonal @ ratio**2) else 0.0
    scale = np.pi * trace / (2 * coupled) if coupled else np.inf
    lr = float(np.abs(slope).sum()) / steep
    return {
        "B_noise": scale,
        "lr_max": float(np.sqrt(scale / (2 * np.pi))) * gain / trace,
        "drop_max": scale / np.pi * gain**2 / trace,
        "lr_plateau": lr,
        "drop_plateau": 0.5 * lr * float(np.abs(slope).sum()),
        "B_valid": float(np.median(np.pi / (2 * ratio**2))),
    }


def sgd_mean_loss(problem: NoisyQuadratic, batch: ArrayLike, lr: ArrayLike, steps: ArrayLike) -> Floats:
    r"""Return the mean loss after a number of steps of SGD at a constant learning rate, exactly.

    Along an eigenvector of H with eigenvalue :math:`\lambda`, where the gradient of one sample has variance
    :math:`s^2`, the mean square of the distance obeys
    :math:`m \to (1 - \eta\lambda)^2 m + \eta^2 s^2/B`, whose solution is a geometric series.

    Parameters
    ----------
    problem : NoisyQuadratic
        The loss and its start.
    batch, lr, steps : array_like
        Broadcast against each other.

    Returns
    -------
    ndarray
        The mean loss.

    Examples
    --------
    >>> from theory import NoisyQuadratic
    >>> problem = NoisyQuadratic(curvature=[1.0], noise=1.0, start=[2.0])
    >>> sgd_mean_loss(problem, batch=1.0, lr=0.5, steps=[0, 1, 1000]).round(4).tolist()
    [2.0, 0.625, 0.1667]
    """
    values, vectors = np.linalg.eigh(problem.hessian)
    first = (vectors.T @ problem.start) ** 2
    variance = (vectors**2).T @ problem.noise**2
    b, eta, t = (np.asarray(a, dtype=float)[..., None] for a in (batch, lr, steps))
    shrink = (1 - eta * values) ** 2
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        left = shrink**t
        summed = np.where(np.isclose(shrink, 1, rtol=0, atol=1e-14), t, (1 - left) / (1 - shrink))
        return 0.5 * np.sum(values * (left * first + eta**2 * variance / b * summed), axis=-1)
