"""The picture of published laws against one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalefit.errors import LawError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.published import PublishedLaw, get_published
from scalefit.plots._style import ROLES, Look, family
from scalefit.plots.axes import axes_of, caption, expect, label_ends
from scalefit.plots.plot_law import (
    INSIDE,
    check_held,
    draw_line,
    draw_points,
    frame_lines,
    held_inputs,
    held_text,
    prepare,
    slice_of,
)
from scalefit.vocabulary import column_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def published(
    fit: Fit,
    names: Sequence[str | PublishedLaw],
    along: str | None = None,
    *,
    at: Mapping[str, float] | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw published laws against one's own.

    Parameters
    ----------
    fit : Fit
        One's own law for the learning rate or the batch size.
    names : sequence of str or PublishedLaw
        Published laws of the same target, by key: ``["steplaw2025_lr"]``.
    along, at, level, ax
        As for `law`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If the fit does not count its data in tokens, or a published law is for another target or needs an input that is
        neither on the axis nor held; name it in `at`. Compute is taken as 6 N D where it is not given.

    Notes
    -----
    A published law is solid where its authors covered the place, dotted elsewhere; dotted throughout where they do not
    state a range. Its constants belong to its recipe: another optimizer, schedule or count of parameters moves it.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import pandas as pd
    >>> from scalefit.fitting.fit_law import fit_law as fit
    >>> table = pd.DataFrame({"tokens": [2e9, 8e9, 3e10, 1e11], "batch": [1.2e5, 2.6e5, 5.5e5, 1.1e6]})
    >>> ax = published(fit("B = c * D**b", table), ["steplaw2025_bs"], ax=Figure().subplots())
    >>> [text.get_text() for text in ax.texts]
    ['this fit', 'steplaw2025']
    """
    expect(fit, Fit, "published")
    others = [get_published(name) if isinstance(name, str) else name for name in names]
    if fit.data_unit != "tokens":
        raise LawError(f"published laws count tokens; this fit counts {fit.data_unit}")
    if not others:
        raise LawError("names: expected at least one published law, such as 'steplaw2025_lr'")
    check_held((fit.law, *(other.law for other in others)), at)
    cut = slice_of(fit, along, None, held_inputs(fit, at))
    held = {column_of(name): float(value) for name, value in (at or {}).items()} | dict(cut.fixed)
    if strange := [other.name for other in others if column_of(other.law.target) != cut.target]:
        raise LawError(f"{', '.join(strange)}: not a law for {cut.target}, which {fit.law.formula!r} is")
    ax = axes_of(ax)
    low, high = prepare(ax, cut, fit.rows[cut.along])
    tops = [(draw_line(ax, cut, np.nan, ROLES["law"], (low, high), level, alone=True), "this fit", ROLES["law"].color)]
    draw_points(ax, cut, fit.rows, [ROLES["law"]], fit.censored)
    shades = _shades(len(others))
    for other, look in zip(others, shades, strict=True):
        tops.append((_draw_published(ax, other, look, cut.along, held, (low, high)), _short(other), look.color))
    frame_lines(ax, cut)
    label_ends(ax, tops)
    caption(ax, held_text(held))
    return ax


def _shades(n: int) -> list[Look]:
    """Return looks for several published laws: one hue, dark to light, each named where it ends."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    base = ROLES["published"]
    colors = [base.color] if n == 1 else [to_hex(color) for color in colormaps["Purples"](np.linspace(0.95, 0.5, n))]
    return [Look(color, look.marker, look.dash) for color, look in zip(colors, family(n), strict=True)]


def _draw_published(
    ax: Axes, other: PublishedLaw, look: Look, along: str, held: Mapping[str, float], ends: tuple[float, float]
) -> float:
    """Draw one published law; return its height at the right edge."""
    x = np.geomspace(*ends, 160)
    place = {name: np.full(x.shape, value) for name, value in held.items()} | {along: x}
    if {"params", "tokens"} <= place.keys():
        place.setdefault("flops", 6 * place["params"] * place["tokens"])
    wanted = [column_of(name) for name in other.law.inputs]
    if lacking := [name for name in wanted if name not in place]:
        raise LawError(f"{other.name} needs {', '.join(lacking)} too: say where, such as at={{{lacking[0]!r}: 1e9}}")
    y = np.asarray(other.law(other.values, {name: place[name] for name in wanted}), dtype=float)
    y = np.where(y > 0, y, np.nan)
    covered = np.full(x.shape, bool(other.validity))
    for name, (low, high) in other.validity.items():
        covered &= (place[name] >= low / INSIDE) & (place[name] <= high * INSIDE)
    ax.plot(x, np.where(covered, y, np.nan), **look.line(linestyle="-"))
    ax.plot(x, y, **look.line(linestyle=(0, (1, 1.4)), linewidth=0.9))
    return float(y[np.isfinite(y)][-1])


def _short(other: PublishedLaw) -> str:
    """Return the key of a published law without its target: the panel says that."""
    return other.name.rpartition("_")[0] or other.name
