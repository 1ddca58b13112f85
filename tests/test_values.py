"""Results survive the trip to another process: mappings in them are read-only and can be pickled."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit._values import FrozenMap


def pairs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    params, tokens = (axis.ravel() for axis in np.meshgrid([1e7, 3e7, 1e8, 3e8], [1e9, 4e9, 16e9]))
    lr = 0.5 * params**-0.3 * tokens**0.05 * np.exp(0.05 * rng.normal(size=len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "lr": lr})


def test_it_is_a_mapping_of_its_own():
    origin = {"a": 1, "b": 2}
    frozen = FrozenMap(origin)
    origin["a"] = 3
    assert frozen == {"a": 1, "b": 2}
    assert list(frozen) == ["a", "b"]
    with pytest.raises(TypeError):
        frozen["a"] = 3
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert copy.deepcopy(frozen) == frozen


def results() -> dict[str, object]:
    fits = [sf.fit(law, pairs()) for law in ("lr_power", "lr_curved")]
    batch = np.geomspace(1e4, 1e7, 8)
    noise = np.exp(0.05 * np.random.default_rng(1).normal(size=len(batch)))
    surged = pd.DataFrame({"batch": batch, "lr": 2e-3 * noise / (np.sqrt(1e5 / batch) + np.sqrt(batch / 1e5))})
    return {
        "forecast": sf.extrapolate(fits[0], params=3e8, tokens=1e9),
        "comparison": sf.compare(fits),
        "choice": sf.choose_law(pairs()),
        "average": sf.average_laws(pairs()),
        "ladder": sf.climb_ladder(surged),
        "published": sf.laws.get_published("steplaw2025_lr"),
    }


def test_results_with_mappings_can_be_pickled_and_copied():
    for name, result in results().items():
        assert repr(pickle.loads(pickle.dumps(result))) == repr(result), name
        assert repr(copy.deepcopy(result)) == repr(result), name
