"""Readers that turn other people's exports into sweeps."""

from __future__ import annotations

from scalefit.loaders.tabular import read_sweep

__all__ = ["read_sweep"]
