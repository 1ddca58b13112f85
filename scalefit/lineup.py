"""Who competes in a backtest unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from scalefit.entrants import REFERENCES, Competitor, Custom, Entrant, label, published_entrant
from scalefit.extractors import Extractor, NearMinimum, Parabola
from scalefit.laws.formula import Law
from scalefit.surface import fit_surface


def line_up(
    laws: Sequence[Law | str],
    batch_law: Law | str,
    methods: Sequence[Extractor] | None,
    published: Sequence[str],
) -> tuple[Competitor, ...]:
    """Return the usual entrants: references, joint surfaces, every method with every law, published laws asked for.

    Parameters
    ----------
    laws : sequence of Law or str
        Laws for the learning rate.
    batch_law : Law or str
    methods : sequence of Extractor or None
        None is ``NearMinimum()`` and ``Parabola()``.
    published : sequence of str
        Keys (``"porian2024_lr"``), or what a pair of keys begins with (``"porian2024"``).
    """
    chosen = (NearMinimum(), Parabola()) if methods is None else tuple(methods)
    kinds = [type(method).__name__ for method in chosen]
    pairs = [
        Entrant(f"{kind if kinds.count(kind) == 1 else repr(method)}: {label(law)}", method, law, batch_law)
        for law in laws
        for method, kind in zip(chosen, kinds, strict=True)
    ]
    surfaces = [Custom(f"surface: {label(law)}", partial(fit_surface, lr_law=law, batch_law=batch_law)) for law in laws]
    known = {entrant.name for entrant in REFERENCES}
    return (
        *REFERENCES,
        *surfaces,
        *pairs,
        *(published_entrant(key) for key in dict.fromkeys(published) if key not in known),
    )
