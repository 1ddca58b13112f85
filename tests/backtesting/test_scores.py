"""What the rows of a backtest say of each entrant."""

import numpy as np
import pandas as pd
import pytest

from scalefit.backtesting.scores import Scores, misses, too_few


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


def with_intervals(**changes):
    """One entrant, two settings, four cells in two folds: errors of 0.5, 1, 2 octaves up or down, and an edge."""
    table = pd.DataFrame({"entrant": "one", "beyond": "params", "error": "", "fold": ["a", "a", "b", "b"]})
    for axis, errors in (("lr", [0.5, -1.0, 2.0, 0.0]), ("batch", [0.0, 0.5, 0.0, 0.0])):
        table = table.assign(**{f"{axis}": 1.0, f"{axis}_lo": 0.5, f"{axis}_hi": 4.0, f"log2_{axis}_error": errors})
        table = table.assign(**{f"{axis}_status": ["interior"] * 3 + ["edge"], f"{axis}_inside": [True] * 3 + [None]})
    return Scores(table.assign(**changes), np.zeros((4, 1)), ("lr", "batch"), 0.8)


def test_coverage_with_and_without_the_error_of_the_observed_optimum():
    lr, batch, both = with_intervals(lr_inside=[True, True, False, None]).coverage.to_dict("records")
    assert (lr["setting"], lr["folds"], lr["cells"]) == ("lr", 2, 3), "an edge is no point"
    assert (lr["inside"], lr["held"]) == pytest.approx((2 / 3, 2 / 3))
    assert (batch["inside"], batch["held"]) == (1.0, 1.0)
    assert (both["setting"], both["inside"], both["cells"]) == ("lr and batch", pytest.approx(2 / 3), 3)
    exact = with_intervals().coverage.set_index("setting")
    assert exact.loc["lr", ["inside", "held"]].tolist() == pytest.approx([1, 2 / 3])


def test_the_interval_score_is_the_width_and_what_misses_cost():
    lr, batch, _ = with_intervals().coverage.to_dict("records")
    assert lr["half_width"] == batch["half_width"] == 1.5
    assert batch["score"] == pytest.approx(3.0)
    assert lr["score"] == pytest.approx(3 + 2 / 0.2 * 1 / 3), "one of three lies an octave below the lower bound"


def test_distances_are_counted_in_half_widths_on_their_side():
    found = misses(with_intervals().table, "lr")
    assert found["half"].tolist()[:3] == [1.0, 2.0, 1.0]
    assert found["ratio"].tolist()[:3] == [0.5, 0.5, 2.0]
    assert np.isnan(found["ratio"].iloc[3])
    open_ones = with_intervals(lr_lo=0.0).table
    assert misses(open_ones, "lr")["ratio"].isna().tolist() == [True, False, True, True]


def test_failed_entrants_and_those_without_intervals_have_no_coverage():
    assert with_intervals(error="FitError: no").coverage.empty
    assert with_intervals(lr_inside=None, batch_inside=None).coverage.empty


def test_too_few_hits_are_those_that_chance_seldom_gives():
    hits, cells = pd.Series([10, 9, 19, 5]), pd.Series([14, 13, 20, 6])
    assert too_few(hits, cells, 0.95).tolist() == [True, True, False, False]
