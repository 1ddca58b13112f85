"""Folders of sweeps in, up-to-date laws, tables, figures and reports out."""

from scalefit.refitting._refit import Plan, refit, watch
from scalefit.refitting.results import read_fits
from scalefit.refitting.settings import Analysis, Reading, Rule, Settings, read_settings
from scalefit.refitting.summary import Event, Refit

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
