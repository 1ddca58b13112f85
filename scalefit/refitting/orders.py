"""What a worker is asked to make of one file: all that the results depend on, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from scalefit.refitting.discovery import Source
from scalefit.refitting.records import Drift, Finding
from scalefit.refitting.settings import Analysis, Reading


@dataclass(frozen=True)
class Order:
    """What is to be made of one file.

    Parameters
    ----------
    source : Source
    sha256 : str
        Of the file when the order was given.
    reading, analysis : Reading, Analysis
    settings : str
        Digest of all that the results depend on beside the input.
    settings_source, settings_text : str
        Where the settings came from, and those that differ from the defaults as TOML, for the report.
    version : str
        Of scalefit.
    before : tuple of Finding
        Of the results that this order replaces, if those were of another input, settings or version.
    drift : tuple of Drift
        What had moved when this very input was first refitted.
    figures, report : bool
    """

    source: Source
    sha256: str
    reading: Reading
    analysis: Analysis
    settings: str
    settings_source: str
    settings_text: str
    version: str
    before: tuple[Finding, ...] = ()
    drift: tuple[Drift, ...] = ()
    figures: bool = True
    report: bool = True
