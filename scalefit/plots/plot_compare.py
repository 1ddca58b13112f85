"""Pictures of several laws in one panel: fitted to the same points, or published ones beside a fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from scalefit.errors import LawError
from scalefit.fitting.fit_result import Fit
from scalefit.laws.formula import Law
from scalefit.laws.published import PublishedLaw
from scalefit.plots._style import ROLES, Look, family
from scalefit.plots.axes import expect, fit_height, key, label_ends
from scalefit.plots.law_lines import (
    INSIDE,
    Rows,
    draw_line,
    draw_points,
    held_text,
    name_published,
    rows_of,
    slice_of,
    slice_panel,
)
from scalefit.plots.scales import log_steps
from scalefit.vocabulary import column_of


def compare(
    fits: Sequence[Fit] | Mapping[str, Fit],
    along: str | None = None,
    *,
    at: Mapping[str, float] | None = None,
    heldout: Rows | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw several laws fitted to the same points, such as the learning rate against the batch for SGD and for a surge.

    Parameters
    ----------
    fits : sequence of Fit, or mapping of str to Fit
        Laws for one target, eight at most; a mapping gives them names.
    along, at, ax
        As for `law`; inputs held are those of every fit that has them.
    heldout : DataFrame, Optima or Sweep, optional
        Rows none of the laws has seen.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LawError
        If there is no fit, two have the same name, or one is of another target or lacks the input on the axis.

    Notes
    -----
    Where laws have further inputs, points are moved along the first law to where those are held.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"batch": 2.0 ** np.arange(14, 20), "lr": [4e-4, 5.7e-4, 8e-4, 1e-3, 1.2e-3, 1.3e-3]})
    >>> laws = {"power": sf.fit("eta = c * B**g", table), "SGD": sf.fit("mccandlish2018_lr", table)}
    >>> [text.get_text() for text in sf.plots.compare(laws, ax=Figure().subplots()).get_legend().get_texts()]
    ['power', 'SGD']

    See Also
    --------
    law : one law with its band
    published : laws from papers
    """
    named = _by_name(fits)
    _check_held((fit.law for fit in named.values()), at)
    first = next(iter(named.values()))
    lead, kept = slice_of(first, along, None, _held_inputs(first, at)), rows_of(heldout, first)
    ax = slice_panel(ax, lead, kept[lead.along])
    draw_points(ax, lead, kept, [ROLES["heldout"]])
    looks = [ROLES["law"]] if len(named) == 1 else family(len(named))
    for (name, fit), look in zip(named.items(), looks, strict=True):
        if column_of(fit.law.target) != lead.target:
            raise LawError(f"{name} is a law for {fit.law.target}, not for {lead.target}")
        own = slice_of(fit, lead.along, None, _held_inputs(fit, dict(lead.fixed) | dict(at or {})))
        curve = own.curve(ax.get_xlim(), 0.95)
        ax.plot(curve[lead.along], curve["prediction"], **look.line())
    fit_height(ax, 0.08)
    entries = [(look.line(), name) for name, look in zip(named, looks, strict=True)]
    key(ax, [*entries, (ROLES["heldout"].points(), "held out" if len(kept) else "")], held_text(lead.fixed))
    return ax


def _by_name(fits: Any) -> dict[str, Fit]:
    several = list(fits.values() if isinstance(fits, Mapping) else fits) if isinstance(fits, Iterable) else [fits]
    for one in several:
        expect(one, Fit, "compare")
    if not 0 < len(several) <= 8:
        raise LawError(f"fits: expected one to eight laws, found {len(several)}")
    names = fits if isinstance(fits, Mapping) else [fit.law.name or fit.law.formula for fit in several]
    named = dict(zip(names, several, strict=True))
    if len(named) < len(several):
        raise LawError("several of these fits are of the same law: name each, plots.compare({'2024': a, '2025': b})")
    return named


def _held_inputs(fit: Fit, at: Mapping[str, float] | None) -> dict[str, float]:
    """Return the held inputs that a fit has."""
    own = {column_of(name) for name in fit.law.inputs}
    return {column_of(name): value for name, value in (at or {}).items() if column_of(name) in own}


def _check_held(laws: Iterable[Law], at: Mapping[str, float] | None) -> None:
    """Raise LawError if an input is held that none of the laws has."""
    known = {column_of(name) for law in laws for name in law.inputs}
    if strange := [name for name in at or {} if column_of(name) not in known]:
        raise LawError(f"at={dict(at or {})!r}: none of these laws has the input {', '.join(strange)}")


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
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"tokens": [2e9, 8e9, 3e10, 1e11], "batch": [1.2e5, 2.6e5, 5.5e5, 1.1e6]})
    >>> ax = sf.plots.published(sf.fit("B = c * D**b", table), ["steplaw2025_bs"], ax=Figure().subplots())
    >>> [text.get_text() for text in ax.texts]
    ['this fit', 'steplaw2025']

    See Also
    --------
    scalefit.laws.catalog : the published laws
    compare : laws of one's own
    """
    expect(fit, Fit, "published")
    others = name_published(names)
    if fit.data_unit != "tokens":
        raise LawError(f"published laws count tokens; this fit counts {fit.data_unit}")
    if not others:
        raise LawError("names: expected at least one published law, such as 'steplaw2025_lr'")
    _check_held((fit.law, *(other.law for _, other in others)), at)
    cut = slice_of(fit, along, None, _held_inputs(fit, at))
    held = {column_of(name): float(value) for name, value in (at or {}).items()} | dict(cut.fixed)
    if strange := [other.name for _, other in others if column_of(other.law.target) != cut.target]:
        raise LawError(f"{', '.join(strange)}: not a law for {cut.target}, which {fit.law.formula!r} is")
    ax = slice_panel(ax, cut)
    ends = [(draw_line(ax, cut, ROLES["law"], level), "this fit", ROLES["law"].color)]
    for (name, other), look in zip(others, _shades(len(others)), strict=True):
        ends.append((_draw_published(ax, other, look, cut.along, held), name, look.color))
    fit_height(ax, 0.08)
    label_ends(ax, ends)
    key(ax, [], held_text(held))
    return ax


def _shades(n: int) -> list[Look]:
    """Return looks for several published laws: one hue, dark to light, each named where it ends."""
    base = ROLES["published"]
    colors = [base.color] if n == 1 else [to_hex(color) for color in colormaps["Purples"](np.linspace(0.95, 0.5, n))]
    return [Look(color, look.marker, look.dash) for color, look in zip(colors, family(n), strict=True)]


def _draw_published(ax: Axes, other: PublishedLaw, look: Look, along: str, held: Mapping[str, float]) -> float:
    """Draw one published law; return its height at the right edge."""
    x = log_steps(ax.get_xlim(), 160)
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
