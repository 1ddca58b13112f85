"""The noise scales along a training run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scalefit.errors import SweepError
from theory.optimizers import Optimizer
from theory.quadratic import NoisyQuadratic


def trace_run(
    problem: NoisyQuadratic,
    optimizer: Optimizer,
    *,
    batch: float,
    lr: float,
    steps: int,
    replicates: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Train at one batch size and constant learning rate, and record the loss and the noise scales of every step.

    Parameters
    ----------
    problem : NoisyQuadratic
        The loss, its noise and where training begins.
    optimizer : SGD, SignSGD or Adam
        How the weights move; moments begin empty.
    batch, lr : float
        Samples per step and learning rate.
    steps : int
        Length of the run.
    replicates : int
        Runs with noise of their own, over which numerators and denominators are averaged apart.
    seed : int
        Seed of the noise.

    Returns
    -------
    pandas.DataFrame
        One row a step, from 0: steps, loss,
        ``B_noise = tr(H Sigma)/(G'HG)``, ``B_simple = tr(Sigma)/|G|^2`` and B_sign, the
        noise scale of sign-SGD (`step_limits`), inf where coordinates are not coupled so that steps get dearer.

    References
    ----------
    McCandlish et al. 2018, arXiv:1812.06162: B_crit is B_noise averaged along the path.

    Examples
    --------
    >>> from theory import SGD, NoisyQuadratic
    >>> problem = NoisyQuadratic(curvature=[1.0, 0.5], noise=1.0, start=[1.0, 1.0])
    >>> path = trace_run(problem, SGD(), batch=64, lr=0.5, steps=3)
    >>> path["B_noise"].is_monotonic_increasing, len(path)
    (True, 4)
    """
    if not (batch > 0 and lr > 0 and steps >= 1 and replicates >= 1):
        raise SweepError("trace_run needs a positive batch and lr, a step or more and a replicate or more")
    rng, shape = np.random.default_rng(seed), (replicates, len(problem.start))
    x, moments = np.broadcast_to(problem.start, shape), optimizer.prepare(shape)
    diagonal = np.diagonal(problem.hessian)
    records = np.empty((steps + 1, 5))
    for step in range(steps + 1):
        slope = problem.gradient(x)
        ratio = slope / problem.noise
        alone = ratio**2 @ diagonal
        terms = (problem.loss(x), 2 * problem.loss(slope), (slope**2).sum(axis=1), 2 * problem.loss(ratio), alone)
        records[step] = [np.mean(term) for term in terms]
        noise = problem.noise / np.sqrt(batch) * rng.standard_normal(shape)
        direction, moments = optimizer.direction(slope + noise, moments, step + 1)
        x = x - lr * direction
    loss, curved, square, together, alone = records.T
    dear = together - alone > 1e-12 * alone
    return pd.DataFrame(
        {
            "steps": np.arange(steps + 1),
            "loss": loss,
            "B_noise": np.sum(diagonal * problem.noise**2) / curved,
            "B_simple": np.sum(problem.noise**2) / square,
            "B_sign": np.where(dear, np.pi * diagonal.sum() / (2 * np.where(dear, together - alone, 1.0)), np.inf),
        }
    )
