"""One sweep with every method of scalefit: results, the reasons for gaps, and findings that moved since."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, TypeVar

import numpy as np
from msgspec import Meta, Struct

from scalefit._bootstrap import bootstrap
from scalefit._fit import fit_sweep
from scalefit._values import Note, merge
from scalefit.backtesting._backtest import Backtest, backtest
from scalefit.batch_size.fit_tradeoff import fit_tradeoff
from scalefit.batch_size.tradeoff import Tradeoff
from scalefit.batch_size.tradeoff_points import tradeoff_points
from scalefit.errors import ScalefitError, ScalefitWarning, SweepError
from scalefit.fitting.draws import Draws
from scalefit.fitting.fit_law import fit_law as fit
from scalefit.fitting.fit_result import Fit
from scalefit.fitting.fit_values import FitStatus
from scalefit.laws.formula import Law
from scalefit.optima.cells import Cells, Estimates
from scalefit.optima.find_optima import Optima, find_optima
from scalefit.optima.optimum_estimators import Basin
from scalefit.refitting.settings import Analysis
from scalefit.selection.choose_law import Choice, choose_law, usual_laws
from scalefit.solvers.losses import Huber
from scalefit.surface.fit_surface import fit_surface
from scalefit.surface.surface import Surface
from scalefit.sweep import Sweep
from scalefit.vocabulary import AXES, format_number

Result = TypeVar("Result")

Text = Annotated[str, Meta(pattern=r"^[^\0\ud800-\udfff]*\Z")]
"""A text without half characters (surrogates), which could not be written to a file."""

_Quantity = Annotated[str, Meta(pattern=r"^\w{1,100}: \w{1,100}\Z")]
"""The law's target and a parameter, such as "lr: a"; no other column of the summary has a colon."""

_FAR = 3.0
"""Combined standard errors beyond which a value has moved."""

_HUBER = 1e-3
"""Scale of the loss law's Huber loss on log residuals, the field's custom since Hoffmann et al. 2022."""

_LEVELS = 3
"""Batch sizes that a cell must have for an optimum among them."""

_LOSS_LAWS: dict[tuple[str, ...], str] = {
    ("params", "tokens"): "chinchilla",
    ("params",): "loss_params",
    ("tokens",): "loss_tokens",
}
"""The usual law of the loss by what varies."""


class Finding(Struct, frozen=True, forbid_unknown_fields=True):
    """One number of a refit with its standard error (NaN where the data give none), under a law with this formula."""

    quantity: _Quantity
    value: float
    stderr: float
    law: Text = ""


class Drift(Struct, frozen=True, forbid_unknown_fields=True):
    """A finding that has moved; or ``"lr: law"``, where another law was chosen and `errors` is NaN."""

    quantity: _Quantity
    before: float | Text
    after: float | Text
    errors: float

    def __str__(self) -> str:
        """Return one line for logs and tables."""
        before, after = (v if isinstance(v, str) else format_number(v) for v in (self.before, self.after))
        far = f" ({format_number(self.errors, 2)} errors)" if self.errors == self.errors else ""
        return f"{self.quantity} {before} -> {after}{far}"


def drifted(before: Sequence[Finding], after: Sequence[Finding]) -> tuple[Drift, ...]:
    """Return the findings that moved by more than three combined standard errors, or now rest on another law.

    Examples
    --------
    >>> drifted([Finding("lr: a", -0.5, 0.03)], [Finding("lr: a", -0.25, 0.04)])
    (Drift(quantity='lr: a', before=-0.5, after=-0.25, errors=5.0),)
    """
    if not before:
        return ()
    old_laws, laws = ({f.quantity.partition(":")[0]: f.law for f in found if f.law} for found in (before, after))
    moved = [
        Drift(f"{target}: law", old_laws.get(target, "none"), laws.get(target, "none"), math.nan)
        for target in dict.fromkeys([*laws, *old_laws])
        if old_laws.get(target) != laws.get(target)
    ]
    old = {(finding.quantity, finding.law): finding for finding in before}
    for new in after:
        was = old.get((new.quantity, new.law))
        if was is not None and (errors := _errors_between(was, new)) > _FAR:
            moved.append(Drift(new.quantity, was.value, new.value, errors))
    return tuple(moved)


def _errors_between(was: Finding, new: Finding) -> float:
    """Return how many combined errors lie between two values; 0 where one or its error is unknown, as at a bound."""
    error, way = math.hypot(was.stderr, new.stderr), abs(new.value - was.value)
    return way / error if math.isfinite(error) and error > 0 and math.isfinite(way) else 0.0


@dataclass(frozen=True, repr=False)
class CachedBasin:
    """`Basin`, keeping its answers: a study and its backtest ask for the optima of the same cells."""

    method: Basin
    _known: dict[Any, Estimates] = field(default_factory=dict, compare=False)

    @property
    def level(self) -> float:
        """Coverage of the intervals."""
        return self.method.level

    def estimate(self, block: Cells) -> Estimates:
        """Return the estimates of these cells, from the cache if they are known."""
        cells = block.tolerance, block.x.shape, block.x.tobytes(), block.loss.tobytes()
        if cells not in self._known:
            self._known[cells] = self.method.estimate(block)
        return self._known[cells]

    def __repr__(self) -> str:
        return repr(self.method)


@dataclass(frozen=True, eq=False)
class Study:
    """The results of one sweep; None where the data do not allow one, with the reason among `gaps`.

    Attributes
    ----------
    sweep : Sweep
    optima : Optima or None
        Over learning rate and batch together, if cells search both; else over the learning rate.
    lr_law, batch_law : Choice or None
        The law through the optima that predicted held-out cells best, and why.
    loss_law : Fit or None
        Of the best loss of every cell.
    surface : Surface or None
    tradeoff : Tradeoff or None
        Steps against examples at losses between those measured.
    critical_law : Fit or None
        Of the critical batch size in the loss.
    backtest : Backtest or None
    lr_draws, batch_draws : Draws or None
        Cell bootstraps of the laws.
    gaps : tuple of Note
        What could not be done, and why.
    """

    sweep: Sweep
    optima: Optima | None = None
    lr_law: Choice | None = None
    batch_law: Choice | None = None
    loss_law: Fit | None = None
    surface: Surface | None = None
    tradeoff: Tradeoff | None = None
    critical_law: Fit | None = None
    backtest: Backtest | None = None
    lr_draws: Draws | None = None
    batch_draws: Draws | None = None
    gaps: tuple[Note, ...] = field(default=())

    @property
    def laws(self) -> dict[str, Fit]:
        """The fitted laws by what they predict: lr, batch, loss, B_crit."""
        chosen = {"lr": self.lr_law, "batch": self.batch_law}
        laws = {target: choice.fit for target, choice in chosen.items() if choice is not None}
        others = {"loss": self.loss_law, "B_crit": self.critical_law}
        return laws | {target: law for target, law in others.items() if law is not None}

    @property
    def draws(self) -> dict[str, Draws]:
        """The bootstraps by the law they are of."""
        found = {"lr": self.lr_draws, "batch": self.batch_draws}
        return {target: draws for target, draws in found.items() if draws is not None}

    @property
    def notes(self) -> tuple[Note, ...]:
        """The notes of all results, each once."""
        results = (getattr(self, entry.name) for entry in fields(self) if entry.name != "gaps")
        own = [getattr(result, "notes", ()) for result in results]
        own += [choice.comparison.notes for choice in (self.lr_law, self.batch_law) if choice is not None]
        weak = [
            Note("status", f"the law for {target} is {law.status}: {law.status.sentence}", caution=True)
            for target, law in self.laws.items()
            if law.status is not FitStatus.CONVERGED
        ]
        return merge(weak, *own, *(law.notes for law in self.laws.values()), self.gaps)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The numbers of the summary: parameters of the laws with their errors, and the backtest's best regret.

        A parameter that the runs do not identify, and every one of a law that was not found, has no value here.
        """
        found = [
            Finding(f"{target}: {row['parameter']}", *_value_and_error(row, law.status), law.law.formula)
            for target, law in self.laws.items()
            for row in law.table.to_dict("records")
        ]
        if self.backtest is not None:
            best = self.backtest.summary().iloc[0]
            found.append(Finding("backtest: regret_pct", float(best["regret_pct"]), float(best["regret_stderr"])))
        return tuple(found)


def _value_and_error(row: Mapping[Any, Any], status: FitStatus) -> tuple[float, float]:
    """Return value and error of a parameter, NaN where they are not identified."""
    if status is FitStatus.NOT_CONVERGED or row["status"] == "unidentified":
        return math.nan, math.nan
    return float(row["value"]), float(row["stderr"])


def study_sweep(sweep: Sweep, analysis: Analysis) -> Study:
    """Apply to a sweep every method that its runs allow.

    Raises
    ------
    SweepError
        If not a single law can be fitted; the reasons are listed.
    """
    steps = _Steps(sweep, analysis)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScalefitWarning)  # the notes of the results repeat these warnings
        result = steps.run()
    if not result.laws:
        raise SweepError(f"nothing can be fitted to {sweep.source}: " + "; ".join(gap.text for gap in result.gaps))
    return result


class _Steps:
    """The steps of a study; what one of them cannot do becomes a gap."""

    def __init__(self, sweep: Sweep, analysis: Analysis) -> None:
        self._sweep, self._analysis = sweep, analysis
        self._gaps: list[Note] = []
        self._method = CachedBasin(Basin())
        self._varied = {name for name in AXES if name in sweep.columns and len(sweep.levels(name)) > 1}

    def run(self) -> Study:
        sweep = self._sweep
        optima = joint = self._try("optima over lr and batch", self._joint_optima, needs=("lr", "batch"))
        if joint is None:
            optima = self._try("optima over lr", lambda: self._optima("lr"), needs=("lr",))
        lr_law = self._law("lr", optima, self._analysis.lr_laws)
        batch_law = self._law("batch", joint, self._analysis.batch_laws)
        trade = self._try("trade-off of steps and examples", self._tradeoff, needs=("batch", "tokens"))
        return Study(
            sweep,
            optima,
            lr_law,
            batch_law,
            self._try("law for the loss", self._loss_law),
            self._try("joint surface", lambda: self._surface(optima), needs=("lr",)),
            trade,
            self._critical_law(trade),
            self._try("backtest", lambda: self._backtest(optima), needs=("lr",)),
            self._bootstrap("lr", lr_law),
            self._bootstrap("batch", batch_law),
            tuple(self._gaps),
        )

    def _try(self, what: str, step: Callable[[], Result], needs: tuple[str, ...] = ()) -> Result | None:
        for name in needs:
            if name not in self._varied:
                found = "one level only" if name in self._sweep.columns else "no such column"
                self._miss(f"no {what}: it needs several levels of {name}, and there is {found}")
                return None
        try:
            return step()
        except ScalefitError as error:
            self._miss(f"no {what}: {error}")
        return None

    def _miss(self, text: str) -> None:
        self._gaps.append(Note("gap", text, caution=True))

    def _joint_optima(self) -> Optima:
        if (self._sweep.cells["n_batch"] < _LEVELS).all():
            raise SweepError("no cell has three batch sizes, so there is no law for the batch either")
        return self._optima("lr", "batch")

    def _optima(self, *over: str) -> Optima:
        found = find_optima(self._sweep, over, method=self._method)
        return replace(found, method=self._method.method)  # results do not keep the cache

    def _law(self, target: str, optima: Optima | None, laws: tuple[str, ...]) -> Choice | None:
        if optima is None:
            return None
        return self._try(f"law for {target}", lambda: choose_law(optima, laws or "auto", target=target))

    def _surface(self, optima: Optima | None) -> Surface:
        lr_laws, batch_law = self._laws_of_settings(optima)
        return fit_surface(self._sweep, lr_laws[0], batch_law, self._usual_loss_law() or "chinchilla")

    def _backtest(self, optima: Optima | None) -> Backtest:
        lr_laws, batch_law = self._laws_of_settings(optima)
        return backtest(
            self._sweep,
            self._analysis.holdout,
            laws=lr_laws,
            batch_law=batch_law,
            methods=(Basin(),),
            observed=self._method,
        )

    def _laws_of_settings(self, optima: Optima | None) -> tuple[tuple[Law | str, ...], Law | str]:
        """Return the laws asked for, else the straight ones in what varies: no choice that used the held-out cells."""
        analysis = self._analysis
        if {"params", "tokens"} <= self._varied or optima is None:
            return analysis.lr_laws or ("lr_power",), (*analysis.batch_laws, "batch_power")[0]
        batch_laws: tuple[Law | str, ...] = usual_laws(optima, "batch") if "batch" in optima.over else ("batch_power",)
        return analysis.lr_laws or usual_laws(optima, "lr")[:1], (*analysis.batch_laws, *batch_laws)[0]

    def _usual_loss_law(self) -> str | None:
        """Return the law of the loss asked for, else the usual one; None where none of its inputs varies."""
        if self._analysis.loss_law != "auto":
            return self._analysis.loss_law
        return _LOSS_LAWS.get(tuple(name for name in ("params", "tokens") if name in self._varied))

    def _loss_law(self) -> Fit:
        law = self._usual_loss_law()
        if law is None:
            raise SweepError("neither params nor tokens vary")
        if "flops" in self._sweep.columns and "tokens" not in self._sweep.columns:
            text = "tokens are unknown though flops are not: runs of one size and other flops are one cell to every law"
            self._miss(f"{text}; add a column of tokens (flops / (6 params), if that is how they were counted)")
        return fit_sweep(law, self._sweep, loss=Huber(_HUBER)).fit

    def _tradeoff(self) -> Tradeoff:
        targets = self._analysis.targets
        return fit_tradeoff(tradeoff_points(self._sweep, targets if isinstance(targets, int) else list(targets)))

    def _critical_law(self, trade: Tradeoff | None) -> Fit | None:
        if trade is None:
            return None
        known = int(np.count_nonzero(trade.table["identified"]))
        if known < 3:
            self._miss(f"no law for B_crit: {known} of {len(trade)} trade-offs identify it, and a law needs three")
            return None
        return self._try("law for B_crit", lambda: fit("bcrit_loss", trade))

    def _bootstrap(self, target: str, choice: Choice | None) -> Draws | None:
        analysis = self._analysis
        if choice is None or not analysis.draws:
            return None
        what = f"bootstrap of the law for {target}"
        return self._try(what, lambda: bootstrap(choice.fit, n=analysis.draws, seed=analysis.seed))
