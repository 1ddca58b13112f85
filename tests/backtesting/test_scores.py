"""What the rows of a backtest say of each entrant."""

import numpy as np
import pandas as pd
import pytest

from scalefit.backtesting.scores import Scores


def scored(**changes):
    """Two folds of one cell, three entrants: a good one, a bad one, and one that failed in the second cell."""
    table = pd.DataFrame(
        {
            "entrant": ["good", "bad", "broken"] * 2,
            "regret_pct": [0.1, 0.5, 0.0, 0.3, 0.2, np.nan],
            "regret_stderr": [0.01, 0.01, 0.01, 0.02, 0.02, np.nan],
            "log2_lr_error": [0.5, -1.0, 0.0, -0.25, 2.0, np.nan],
            "lr_status": ["interior"] * 3 + ["edge"] * 3,
            "lr_inside": [True, False, True, None, None, None],
            "censored": [False] * 3 + [True] * 3,
            "clipped": [False, True, False, False, False, False],
            "off_hull": [False, True, False, False, False, False],
            "beside_diverged": [False, False, False, False, True, False],
            "beyond": ["params"] * 3 + ["tokens"] * 3,
            "reach": [2.0, 2.0, 2.0, 8.0, 8.0, 8.0],
            "error": ["", "", "", "", "", "FitError: no"],
        }
    ).assign(**changes)
    draws = table["regret_pct"].to_numpy()[:, None] + np.array([[-0.03, 0.03]])
    return Scores(table, draws, ("lr",))


def test_the_best_comes_first_and_those_without_a_regret_for_every_cell_last():
    scores = scored().summary
    assert list(scores["entrant"]) == ["good", "bad", "broken"]
    assert list(scores["cells"]) == [2, 2, 1]
    assert list(scores["failed"]) == [0, 0, 1]
    assert "missing" not in scores


def test_means_are_over_cells_with_a_regret_and_points_alone():
    good, bad, broken = scored().summary.to_dict("records")
    assert good["regret_pct"] == pytest.approx(0.2)
    assert good["regret_stderr"] == pytest.approx(0.03)
    assert (good["worst_pct"], good["worst_stderr"]) == (0.3, 0.02)
    assert (good["lr_log2"], good["lr_coverage"]) == (0.5, 1.0), "the edge enters no mean"
    assert good["lr_mape"] == pytest.approx(100 * (2**0.5 - 1))
    assert (bad["lr_coverage"], bad["clipped"], bad["censored"]) == (0.0, 1.0, 0.5)
    assert (broken["regret_pct"], broken["censored"]) == (0.0, 0.0), "its failed cell is left out"
    assert (good["regret_params"], good["regret_tokens"]) == (0.1, 0.3)
    assert np.isnan(broken["regret_tokens"])


def test_gaps_to_the_best_are_paired():
    good, bad, broken = scored().summary.to_dict("records")
    assert (good["behind_pct"], good["behind_stderr"]) == (0.0, 0.0)
    assert bad["behind_pct"] == pytest.approx(0.15)
    assert bad["behind_stderr"] == pytest.approx(0.0, abs=1e-12), "the noise of a cell is common to both"
    assert broken["behind_pct"] == pytest.approx(-0.1), "over the cell that both have"


def test_one_unknown_error_makes_that_of_the_mean_unknown():
    scores = scored(regret_stderr=[np.nan, 0.01, 0.01, 0.02, 0.02, np.nan]).summary.set_index("entrant")
    assert np.isnan(scores.loc["good", "regret_stderr"])
    assert scores.loc["bad", "regret_stderr"] == pytest.approx(0.03)


def test_nothing_known_is_nan_and_not_zero():
    scores = scored(regret_pct=np.nan, error="FitError: no").summary
    assert list(scores["entrant"]) == ["good", "bad", "broken"]
    assert (scores["cells"] == 0).all()
    assert scores[["regret_pct", "regret_stderr", "behind_pct", "censored", "clipped"]].isna().all(axis=None)


def test_kinds_of_extrapolation_are_compared_entrant_by_entrant():
    found = scored()
    rows = found.by_axis
    assert list(zip(rows["beyond"], rows["entrant"], strict=True)) == [
        (beyond, name) for beyond in ("params", "tokens") for name in ("good", "bad", "broken")
    ]
    assert list(rows["cells"]) == [1, 1, 1, 1, 1, 0]
    assert rows["reach"].tolist() == pytest.approx([2, 2, 2, 8, 8, 8])
    assert rows["regret_pct"].tolist()[:3] == [0.1, 0.5, 0.0]
    assert "regret_params" not in scored(beyond="both").summary
