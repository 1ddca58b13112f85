"""Sweeps and curves by name: the bundled ones, and public ones fetched from where their authors published them."""

from __future__ import annotations

from scalefit.collection.histories import load_curves
from scalefit.collection.loading import datasets, load_dataset

__all__ = ["datasets", "load_curves", "load_dataset"]
