"""Both roads, ours and lmfit's, lead to the same numbers; what lmfit.Parameters say is obeyed."""

from __future__ import annotations

import lmfit
import numpy as np
import pandas as pd
import pytest

import scalefit as sf
from scalefit import FitError, FitStatus

LAW = sf.laws.get_law("chinchilla")
NAMES = ("E", "A", "alpha", "B", "beta")
NEAR = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
LOSSES = [sf.Squared(), sf.Huber(3e-3), sf.SoftL1(3e-3)]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(2e9, 5e11, 8)))
    # Every row has a size of its own: errors of laws that fit badly would else be those of sizes, which lmfit has not.
    made = pd.DataFrame({"params": n * np.geomspace(1, 1.8, 48), "tokens": d})
    truth = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}
    return made.assign(loss=LAW(truth, made) * np.exp(0.005 * np.random.default_rng(5).normal(size=48)))


def parameters(**changes: dict) -> lmfit.Parameters:
    made = lmfit.Parameters()
    for name in (n for n in NAMES if "expr" not in changes.get(n, {})):
        made.add(name, **({"value": NEAR[name]} | changes.get(name, {})))
    for name, change in changes.items():
        if "expr" in change:
            made.add(name, **change)
    return made


SCIPY = {"Squared": "linear", "Huber": "huber", "SoftL1": "soft_l1"}


def residual(params: lmfit.Parameters, table: pd.DataFrame, space: str) -> np.ndarray:
    v = params.valuesdict()
    value = v["E"] + v["A"] / table["params"] ** v["alpha"] + v["B"] / table["tokens"] ** v["beta"]
    with np.errstate(all="ignore"):  # steps that go too far are lmfit's to take back
        r = (np.log(value / table["loss"]) if space == "log" else value - table["loss"]).to_numpy()
    return np.nan_to_num(r, nan=1e3)


def by_lmfit(
    params: lmfit.Parameters, table: pd.DataFrame, loss: sf.Squared, space: str
) -> lmfit.minimizer.MinimizerResult:
    """Minimise the same objective with lmfit and scipy alone, from a start near the answer."""
    robust = {"loss": SCIPY[type(loss).__name__], "f_scale": getattr(loss, "delta", getattr(loss, "scale", 1.0))}
    tight = {"jac": "3-point", "x_scale": "jac", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 2000}
    return lmfit.minimize(residual, params, args=(table, space), method="least_squares", **tight, **robust)


def agree(fit: sf.Fit, other: lmfit.minimizer.MinimizerResult, table: pd.DataFrame) -> None:
    theirs = fit.loss.value(residual(other.params, table, fit.space)).sum()
    assert fit.objective <= theirs * (1 + 1e-10)
    for name in NAMES:
        assert fit.params[name].value == pytest.approx(other.params[name].value, rel=1e-6)


@pytest.mark.parametrize("space", ["log", "plain"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_both_roads_agree(loss: sf.Squared, space: str, table: pd.DataFrame) -> None:
    fit = sf.fit(LAW, table, loss=loss, space=space)
    other = by_lmfit(parameters(), table, loss, space)
    agree(fit, other, table)
    if loss == sf.Squared():
        for name in NAMES:
            assert fit.params[name].stderr == pytest.approx(other.params[name].stderr, rel=1e-3)
        assert fit.params["A"].correl["alpha"] == pytest.approx(other.params["A"].correl["alpha"], abs=1e-4)


CONSTRAINTS = {
    "fixed": {"alpha": {"value": 0.34, "vary": False}},
    "two fixed": {"E": {"value": 1.8, "vary": False}, "beta": {"value": 0.37, "vary": False}},
    "inside its bounds": {"alpha": {"value": 0.34, "min": 0.2, "max": 0.5}},
    "at a bound": {"beta": {"value": 0.35, "max": 0.36}},
    "tied": {"beta": {"expr": "alpha"}},
    "tied by a formula": {"beta": {"expr": "1.05 * alpha"}, "B": {"expr": "exp(1.2 * log(A))"}},
    "tied to a fixed one": {"alpha": {"value": 0.35, "vary": False}, "beta": {"expr": "alpha + 0.02"}},
}


@pytest.mark.parametrize("constraint", list(CONSTRAINTS))
@pytest.mark.parametrize("loss", [sf.Squared(), sf.SoftL1(3e-3)], ids=["Squared", "SoftL1"])
def test_constrained_fits_agree(constraint: str, loss: sf.Squared, table: pd.DataFrame) -> None:
    params = parameters(**CONSTRAINTS[constraint])
    fit = sf.fit(LAW, table, loss=loss, params=params)
    agree(fit, by_lmfit(parameters(**CONSTRAINTS[constraint]), table, loss, "log"), table)


def test_a_fixed_parameter_has_no_error_and_the_others_less(table: pd.DataFrame) -> None:
    free, fit = sf.fit(LAW, table), sf.fit(LAW, table, params=parameters(**CONSTRAINTS["fixed"]))
    rows = fit.table.set_index("parameter")
    assert fit.values["alpha"] == pytest.approx(0.34, rel=1e-15)
    assert rows.loc["alpha", "status"] == "fixed"
    assert np.isnan(rows.loc["alpha", "stderr"])
    assert rows.loc["A", "stderr"] < 0.2 * free.table.set_index("parameter").loc["A", "stderr"]
    assert fit.dof == free.dof + 1
    assert fit.status is FitStatus.CONVERGED
    assert not fit.params["alpha"].vary


def test_a_parameter_at_its_bound_is_told(table: pd.DataFrame) -> None:
    fit = sf.fit(LAW, table, params=parameters(**CONSTRAINTS["at a bound"]))
    assert fit.status is FitStatus.AT_BOUND
    assert fit.values["beta"] == pytest.approx(0.36)
    assert dict(zip(fit.table["parameter"], fit.table["status"], strict=True))["beta"] == "at bound"
    assert fit.params["beta"].max == pytest.approx(0.36)
    assert fit.params["beta"].stderr is None


def test_a_tie_has_the_error_of_the_delta_method(table: pd.DataFrame) -> None:
    params = parameters(**CONSTRAINTS["tied by a formula"])
    fit = sf.fit(LAW, table, params=params)
    rows = fit.table.set_index("parameter")
    assert fit.law.parameters == ("E", "A", "alpha")
    assert fit.dof == 45
    assert rows.loc["beta", "stderr"] == pytest.approx(1.05 * rows.loc["alpha", "stderr"], rel=1e-10)
    slope = 1.2 * fit.values["A"] ** 0.2
    assert rows.loc["B", "stderr"] == pytest.approx(slope * rows.loc["A", "stderr"], rel=1e-8)
    assert rows.loc["beta", "status"].startswith("= ")
    assert fit.params["beta"].expr
    theirs = by_lmfit(parameters(**CONSTRAINTS["tied by a formula"]), table, sf.Squared(), "log")
    for name in NAMES:
        assert rows.loc[name, "stderr"] == pytest.approx(theirs.params[name].stderr, rel=1e-3)


def test_ties_may_chain_and_may_be_numbers(table: pd.DataFrame) -> None:
    chained = sf.fit(LAW, table, params=parameters(beta={"expr": "alpha + 0.02"}, B={"expr": "1e4 * beta"}))
    assert chained.values["B"] == pytest.approx(1e4 * (chained.values["alpha"] + 0.02), rel=1e-12)
    constant = sf.fit(LAW, table, params=parameters(beta={"expr": "0.37"}))
    assert constant.values["beta"] == 0.37
    assert constant.table.set_index("parameter").loc["beta", "stderr"] == 0


def test_a_tie_survives_json_prediction_and_resampling(table: pd.DataFrame) -> None:
    fit = sf.fit(LAW, table, params=parameters(beta={"expr": "alpha + 0.02"}))
    back = sf.Fit.from_json(fit.to_json())
    pd.testing.assert_frame_equal(back.table, fit.table)
    point = {"params": 1e9, "tokens": 1e11}
    pd.testing.assert_frame_equal(back.predict(**point), fit.predict(**point))
    draws = sf.bootstrap(fit, n=50, by="row").table
    np.testing.assert_allclose(draws["beta"], draws["alpha"] + 0.02, rtol=1e-12)


@pytest.mark.parametrize(
    ("ties", "words"),
    [
        ({"beta": "2 * gamma"}, "names gamma"),
        ({"beta": "alpha.real"}, "attribute access is not allowed"),
        ({"beta": "B", "B": "beta"}, "run in a circle"),
        ({"beta": "beta + 1"}, "run in a circle"),
        ({"beta": "N"}, "names N"),
    ],
)
def test_ties_that_mean_nothing(ties: dict[str, str], words: str) -> None:
    from scalefit.fitting.parameters import write_ties

    with pytest.raises(FitError, match=words):
        write_ties(LAW, ties)


def test_parameters_that_mean_nothing(table: pd.DataFrame) -> None:
    extra = parameters()
    extra.add("gamma", value=1.0)
    with pytest.raises(FitError, match="params names 'gamma'"):
        sf.fit(LAW, table, params=extra)
    with pytest.raises(FitError, match="beta is tied and bounded"):
        sf.fit(LAW, table, params=parameters(beta={"expr": "alpha", "max": 0.4}))
    with pytest.raises(FitError, match="A must be positive"):
        sf.fit(LAW, table, params=parameters(A={"value": -1.0, "vary": False}))
    with pytest.raises(FitError, match=r"start of A: .* needs a positive number"):
        sf.fit(LAW, table, params=parameters(A={"value": -1.0, "max": 0.0}))


def test_with_everything_fixed_only_the_scatter_is_measured(table: pd.DataFrame) -> None:
    truth = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}
    held = parameters(**{name: {"value": value, "vary": False} for name, value in truth.items()})
    for loss in LOSSES:
        fit = sf.fit(LAW, table, params=held, loss=loss)
        assert fit.values == pytest.approx(truth)
        assert fit.dof == 48
        assert fit.scale == pytest.approx(0.005, rel=0.4)
        predicted = fit.predict(params=1e9, tokens=1e11)
        assert predicted["lo"][0] < predicted["prediction"][0] < predicted["hi"][0]
        with pytest.raises(FitError, match="every parameter is held"):
            sf.bootstrap(fit)


def test_the_handed_over_fit_is_the_same(table: pd.DataFrame) -> None:
    for loss in LOSSES:
        fit = sf.fit(LAW, table, loss=loss)
        result = fit.to_lmfit()
        assert isinstance(result, lmfit.model.ModelResult)
        assert result.chisqr == pytest.approx(2 * fit.objective, rel=1e-9)
        for name, value in fit.values.items():
            assert result.params[name].value == pytest.approx(value, rel=1e-6)
            assert result.params[name].stderr == pytest.approx(fit.params[name].stderr)
        assert result.redchi == pytest.approx(2 * fit.objective / fit.dof, rel=1e-9)


def test_profile_intervals_of_the_handed_over_fit(table: pd.DataFrame) -> None:
    fit = sf.fit(LAW, table)
    profile = fit.to_lmfit().conf_interval(p_names=["alpha", "beta"], sigmas=[0.95])
    rows = fit.table.set_index("parameter")
    for name in ("alpha", "beta"):
        low, middle, high = (value for _, value in profile[name])
        assert middle == pytest.approx(fit.values[name], rel=1e-6)
        assert low == pytest.approx(rows.loc[name, "lo"], rel=0.02)
        assert high == pytest.approx(rows.loc[name, "hi"], rel=0.02)


def test_the_handed_over_model_predicts_elsewhere(table: pd.DataFrame) -> None:
    fit = sf.fit(LAW, table, loss=sf.Huber(3e-3))
    elsewhere = table[["params", "tokens"]] * 1.5  # as many rows as were fitted, but other ones
    predicted = np.exp(fit.to_lmfit().eval(x=elsewhere.to_numpy()))
    np.testing.assert_allclose(predicted, LAW(fit.values, elsewhere), rtol=1e-9)


def test_parameters_are_made_anew_so_that_a_fit_stays_as_it_is(table: pd.DataFrame) -> None:
    fit = sf.fit(LAW, table)
    mine = fit.params
    mine["alpha"].set(value=0.3, vary=False)
    assert fit.params["alpha"].value == fit.values["alpha"] != 0.3
    assert sf.fit(LAW, table, params=mine).values["alpha"] == pytest.approx(0.3)
