"""Who competes in a backtest unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from scalefit.entrants import (
    AUTO,
    REFERENCES,
    Competitor,
    Custom,
    Entrant,
    LawPair,
    Predictor,
    Rule,
    label,
    published_entrant,
)
from scalefit.extractors import Basin, Extractor, Parabola
from scalefit.laws.formula import Law
from scalefit.notes import merge
from scalefit.selection.averaging import average_laws
from scalefit.surface import fit_surface
from scalefit.sweep import Sweep


def line_up(
    laws: str | Sequence[Law | str],
    batch_law: Law | str,
    methods: Sequence[Extractor] | None,
    published: Sequence[str],
) -> tuple[Competitor, ...]:
    """Return the usual entrants: references, joint surfaces, every method with every law, published laws asked for.

    Parameters
    ----------
    laws : sequence of Law or str, or str
        Laws for the learning rate; "auto" stands for the average of the usual ones.
    batch_law : Law or str
    methods : sequence of Extractor or None
        None is ``Basin()`` and ``Parabola()``.
    published : sequence of str
        Keys (``"porian2024_lr"``), or what a pair of keys begins with (``"porian2024"``).
    """
    laws = (laws,) if isinstance(laws, str) else laws
    chosen = (Basin(), Parabola()) if methods is None else tuple(methods)
    kinds = [type(method).__name__ for method in chosen]
    pairs = [
        Entrant(f"{kind if kinds.count(kind) == 1 else repr(method)}: {label(law)}", method, law, batch_law)
        for law in laws
        for method, kind in zip(chosen, kinds, strict=True)
    ]
    surfaces = [Custom(f"surface: {label(law)}", _surface_recipe(law, batch_law)) for law in laws]
    known = {entrant.name for entrant in REFERENCES}
    return (
        *REFERENCES,
        *surfaces,
        *pairs,
        *(published_entrant(key) for key in dict.fromkeys(published) if key not in known),
    )


def _surface_recipe(law: Law | str, batch_law: Law | str) -> Callable[[Sweep], Predictor]:
    if AUTO not in (law, batch_law):
        return partial(fit_surface, lr_law=law, batch_law=batch_law, loss_law=None)
    return partial(averaged_surface, lr_law=law, batch_law=batch_law)


def averaged_surface(sweep: Sweep, lr_law: Law | str = AUTO, batch_law: Law | str = "batch_power") -> LawPair:
    """Return a surface's prediction with "auto" laws replaced by averages through the centres of its cells.

    Parameters
    ----------
    sweep : Sweep
        The only runs seen.
    lr_law, batch_law : Law or str
        Where "auto", the surface is fitted with the straight law first.
    """
    straight = {"lr": "lr_power", "batch": "batch_power"}
    asked = {"lr": lr_law, "batch": batch_law}
    posed = {name: straight[name] if law == AUTO else law for name, law in asked.items()}
    surface = fit_surface(sweep, lr_law=posed["lr"], batch_law=posed["batch"], loss_law=None)
    fits = {"lr": surface.lr_fit, "batch": surface.batch_fit}
    rules: dict[str, Rule] = {
        name: average_laws(surface, target=name) if asked[name] == AUTO else found
        for name, found in fits.items()
        if found is not None
    }
    return LawPair(rules, merge(*(getattr(rule, "notes", ()) for rule in rules.values())))
