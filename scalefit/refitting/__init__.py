"""Folders of sweeps in, up-to-date laws, tables, figures and reports out."""

from scalefit.refitting.archive import read_fits
from scalefit.refitting.configuration import read_settings
from scalefit.refitting.engine import Plan, refit
from scalefit.refitting.outcome import Event, Refit
from scalefit.refitting.settings import Analysis, Reading, Rule, Settings
from scalefit.refitting.watching import watch

__all__ = [
    "Analysis",
    "Event",
    "Plan",
    "Reading",
    "Refit",
    "Rule",
    "Settings",
    "read_fits",
    "read_settings",
    "refit",
    "watch",
]
