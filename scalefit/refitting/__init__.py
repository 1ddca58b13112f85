"""Folders of sweeps in, up-to-date laws, tables, figures and reports out."""

from scalefit.refitting._refit import Plan, refit
from scalefit.refitting._watch import watch
from scalefit.refitting.fit_file import read_fits
from scalefit.refitting.refit_result import Event, Refit
from scalefit.refitting.settings import Analysis, Reading, Rule, Settings, read_settings

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
