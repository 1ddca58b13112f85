"""What each setting of a refit may be, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scalefit.errors import LawError, ScalefitError, SweepError
from scalefit.expressions import parse
from scalefit.holdouts import check_holdout
from scalefit.laws import get_law
from scalefit.vocabulary import BY_COLUMN, check_data_unit, column_of

_MOST, _MOST_TARGETS = 100_000, 100
_LARGEST, _LONGEST = 1e18, 1_000


def check(name: str, value: Any, where: str) -> None:
    """Raise SweepError unless a value is one that the setting of this name can have.

    Parameters
    ----------
    name : str
        A field of `Reading` or `Analysis`.
    value
    where : str
        How the error calls the setting.
    """
    expected, good = _EXPECTED[name]
    if not good(value):
        raise SweepError(f"{where} should be {expected}, found {value!r}")
    try:
        for text in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
            _MEANING.get(name, str)(text)
    except ScalefitError as error:
        raise SweepError(f"{where}: {error}") from None


def _check_law(*targets: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        law = get_law(text)
        if column_of(law.target) not in targets:
            raise LawError(f"{text!r} is a law for {law.target}, not for {' or '.join(targets)}")

    return check


def _check_loss_law(text: str) -> None:
    if text != "auto":
        _check_law("loss")(text)


def _check_condition(text: str) -> None:
    parse(text, condition=True)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _LARGEST


def _is_draws(value: Any) -> bool:
    return _is_count(value) and value != 1


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        column_of(name) in BY_COLUMN and (_is_text(column) or column is None) for name, column in value.items()
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_targets(value: Any) -> bool:
    return (_is_count(value) and 0 < value <= _MOST_TARGETS) or (
        isinstance(value, list | tuple) and bool(value) and all(map(_is_size, value))
    )


def _one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda value: value in words


_TEXT = ("a text", _is_text)
_LAWS = ("a list of laws, by name or formula", _is_list)
_EXPECTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "columns": (
        "a table such as {lr = 'peak', tokens = false}, words of the package on the left, false for none",
        _is_mapping,
    ),
    "batch_unit": ("what the batch counts: 'sequences', or the unit of the data such as 'tokens'", _is_text),
    "seq_len": ("a positive number", _is_size),
    "data_unit": _TEXT,
    "nonfinite": _one_of("raise", "diverged", "drop"),
    "duplicates": _one_of("raise", "keep", "drop"),
    "params_convention": _one_of("non_embedding", "total"),
    "where": ("a condition such as 'params < 1e9'", _is_text),
    "lr_laws": _LAWS,
    "batch_laws": _LAWS,
    "loss_law": ("a law, by name or formula", _is_text),
    "targets": (f"a list of losses, or how many to spread over those measured, {_MOST_TARGETS} at most", _is_targets),
    "holdout": ("a condition such as 'params > 1e9', or 'largest params'", _is_text),
    "draws": (f"0 for none, or a whole number from 2 to {_MOST:,}", _is_draws),
    "seed": (f"a whole number from 0 to {_MOST:,}", _is_count),
}
_MEANING: Mapping[str, Callable[[str], Any]] = {
    "data_unit": check_data_unit,
    "where": _check_condition,
    "lr_laws": _check_law("lr"),
    "batch_laws": _check_law("batch"),
    "loss_law": _check_loss_law,
    "holdout": check_holdout,
}
"""What raises an error if a text, well formed, means nothing."""
