"""Student's t: how many standard errors an interval reaches to either side."""

from __future__ import annotations

from typing import Any

import numpy as np


def t_quantile(level: float, dof: Any) -> Any:
    """Return the two-sided quantile: a share `level` lies within it, for a number or an array of degrees of freedom.

    Infinite without degrees of freedom, normal for infinitely many.

    Examples
    --------
    >>> t_quantile(0.95, np.array([0, 5, np.inf])).round(3)
    array([  inf, 2.571, 1.96 ])
    """
    from scipy.special import ndtri, stdtrit

    share, dof = 0.5 + level / 2, np.asarray(dof, dtype=float)
    finite = np.where((dof > 0) & np.isfinite(dof), dof, 1.0)
    quantile = np.where(np.isinf(dof), ndtri(share), np.where(dof > 0, stdtrit(finite, share), np.inf))
    return float(quantile) if quantile.ndim == 0 else quantile
