"""Figures as files that say which fit they show, and come out the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scalefit._version import __version__
from scalefit.errors import ScalefitError
from scalefit.fitting.fit_result import Fit
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep

_STILL = {"svg.hashsalt": "scalefit", "pdf.fonttype": 42, "svg.fonttype": "path", "savefig.bbox": None}
"""Settings under which the same figure is the same file."""


def fingerprint(*shown: Fit | Surface | Sweep) -> str:
    """Return what a figure rests on as one line: a SHA-256 for every fit and sweep.

    That of a fit is the SHA-256 of its JSON: ``fit.to_json("fit.json")`` writes a file with this checksum.

    Parameters
    ----------
    *shown : Fit, Surface or Sweep
        What the figure shows.

    Returns
    -------
    str
        Empty for nothing.

    Raises
    ------
    ScalefitError
        If something else is given.

    Examples
    --------
    >>> import pandas as pd
    >>> import scalefit as sf
    >>> table = pd.DataFrame({"params": [1e7, 1e8, 1e9, 1e10], "loss": [4.0, 3.2, 2.56, 2.05]})
    >>> text = sf.plots.fingerprint(sf.fit("L = c * N**a", table))
    >>> text[:11], len(text)
    ('fit sha256=', 75)

    See Also
    --------
    savefig : writes this line into a file
    """
    return "; ".join(line for item in shown for line in _lines(item))


def _lines(item: Fit | Surface | Sweep) -> list[str]:
    if isinstance(item, Fit):
        return [f"fit sha256={hashlib.sha256(item.to_json().encode()).hexdigest()}"]
    if isinstance(item, Surface):
        fits = [fit for fit in (item.lr_fit, item.batch_fit, item.floor_fit) if fit is not None]
        return [line for fit in fits for line in _lines(fit)]
    if isinstance(item, Sweep):
        return [f"sweep sha256={item.fingerprint}"]
    raise ScalefitError(f"a figure can name a Fit, a Surface or a Sweep, found {type(item).__name__}")


def savefig(
    figure: Figure | Axes,
    path: str | Path,
    *,
    fit: Fit | Surface | Sweep | Sequence[Fit | Surface | Sweep] = (),
    **settings: Any,
) -> Path:
    """Write a figure to a file with the fit's hash and the package's version in its metadata.

    Parameters
    ----------
    figure : Figure or Axes
        The figure, or any axes in it.
    path : str or Path
        Ends in .pdf, .png or .svg.
    fit : Fit, Surface, Sweep, or several of them
        What the figure shows, see `fingerprint`.
    **settings
        For `matplotlib.figure.Figure.savefig`.

    Returns
    -------
    Path

    Raises
    ------
    ScalefitError
        If the path has another ending, or cannot be written.

    Notes
    -----
    No time is written, and the names of SVG elements do not change: the same figure is the same file, byte for byte.
    Fonts are embedded (TrueType in PDF, outlines in SVG), and the file is as wide as the figure: nothing is cropped.
    The metadata are the Subject of a PDF and the Description of a PNG or SVG.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> import scalefit as sf
    >>> import tempfile
    >>> figure = Figure()
    >>> figure.subplots().plot([1, 2])  # doctest: +ELLIPSIS
    [<matplotlib.lines.Line2D object at ...>]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sf.plots.savefig(figure, Path(folder) / "line.pdf").name
    'line.pdf'

    See Also
    --------
    style : sizes and fonts of a paper
    fingerprint : what is written of a fit
    """
    target = Path(path)
    drawn = figure if hasattr(figure, "savefig") else getattr(figure, "figure", None)
    if drawn is None:
        raise ScalefitError(f"expected a figure or axes in one, found {type(figure).__name__}")
    shown = [fit] if isinstance(fit, Fit | Surface | Sweep) else list(fit)
    text, maker = fingerprint(*shown), f"scalefit {__version__}"
    metadata = {
        ".pdf": {"Creator": maker, "Subject": text, "CreationDate": None},
        ".png": {"Software": maker, "Description": text},
        ".svg": {"Creator": [maker], "Description": text, "Date": None},
    }
    kind = target.suffix.lower()
    if kind not in metadata:
        raise ScalefitError(f"{target}: expected a name ending in {', '.join(metadata)}")
    try:
        with rc_context(_STILL):
            drawn.savefig(target, metadata=metadata[kind], **settings)
    except OSError as error:
        raise ScalefitError(f"cannot write {target}: {error.strerror or error}") from error
    return target
