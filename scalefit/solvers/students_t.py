"""Student's t: how many standard errors an interval reaches to either side."""

from __future__ import annotations

from typing import Any

import numpy as np


def t_quantile(level: float, dof: Any) -> Any:
    """Return the two-sided quantile: a share `level` lies within it, for a number or an array of degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    share, dof = 0.5 + level / 2, np.asarray(dof, dtype=float)
    # Without degrees of freedom an interval reaches to infinity; stdtrit itself fails at 0 and at infinity.
    finite = np.where((dof > 0) & np.isfinite(dof), dof, 1.0)
    quantile = np.where(np.isinf(dof), ndtri(share), np.where(dof > 0, stdtrit(finite, share), np.inf))
    return float(quantile) if quantile.ndim == 0 else quantile
