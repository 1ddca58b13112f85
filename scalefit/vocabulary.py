"""The dictionary between words in tables and letters in formulas, with units, and how numbers are written: 7B, 1.4T."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from types import MappingProxyType
from typing import Any

import pandas as pd

from scalefit.errors import SweepError

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15}
_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(rf"({_DIGITS}(?:e[+-]?\d+)?(?=\Z)|{_DIGITS}(?=\s*[kmgbtp]\Z))\s*(\w?)\Z", re.IGNORECASE | re.ASCII)


def parse_number(text: str) -> float:
    """Read a number as people write it, or raise a `ValueError`: ``7e9``, ``7B``, ``1.4T``, ``125M``, ``2_000``.

    Examples
    --------
    >>> parse_number("1.4T"), parse_number("7e9"), parse_number("125M")
    (1400000000000.0, 7000000000.0, 125000000.0)
    """
    match = _NUMBER.match(text.strip().replace("_", ""))
    value = float(match[1]) * _SUFFIXES.get(match[2].lower(), 1.0) if match else math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a number such as 7e9, 7B or 1.4T, found {text!r}")
    return value


def format_number(value: float, digits: int = 4) -> str:
    """Write a number compactly; large counts get the suffixes of the field, whole ones below a million stay whole.

    Examples
    --------
    >>> format_number(7e9), format_number(1.4e12), format_number(0.00123456), format_number(16384)
    ('7B', '1.4T', '0.001235', '16384')
    """
    if value is None or not math.isfinite(value):
        return "nan" if value is None or math.isnan(value) else ("inf" if value > 0 else "-inf")
    rounded = abs(float(f"{value:.{digits}g}"))
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if size <= rounded < 1e15:
            return f"{value / size:.{digits}g}{suffix}"
    text = f"{value:.{digits}g}"
    if "e+" in text and rounded < 1e6:
        return f"{value if value == round(value) else float(text):.0f}"
    return text


def format_span(values: pd.Series) -> str:
    """Write from where to where numbers reach.

    Examples
    --------
    >>> format_span(pd.Series([2e9, 1e9, 8e9]))
    '1B .. 8B'
    """
    return f"{format_number(values.min())} .. {format_number(values.max())}"


def format_error(value: float, error: float) -> str:
    """Write a value with its error in brackets, both rounded at the same digit.

    The error keeps two digits when its first three are 100 to 354, one when they are 355 to 949, and is rounded up to
    10 otherwise: the rule of the Particle Data Group (Review of Particle Physics, introduction, section 5.3). An error
    without a decimal point counts in units of the value's last digit.

    Examples
    --------
    >>> format_error(0.34731, 0.0154), format_error(477.8, 124.5), format_error(-0.768, 0.0543), format_error(2, 0)
    ('0.347(15)', '480(120)', '-0.77(5)', '2')
    >>> format_error(3.2e-6, 4e-8), format_error(0.4, 1.7)
    ('3.20(4)e-06', '0.4(1.7)')
    """
    if not math.isfinite(value):
        return format_number(value)
    if not math.isfinite(error):
        return f"{value:.4g}(?)"
    if error <= abs(value) * sys.float_info.epsilon:
        return f"{value:.6g}"
    rounded = _round_error(Decimal(repr(float(error))))
    number = Decimal(repr(float(value))).quantize(rounded, context=_WIDE)
    size = max(abs(number), rounded)
    if Decimal("1e-3") <= size < Decimal("1e6"):
        return _brackets(number, rounded)
    power = size.adjusted()
    return f"{_brackets(number.scaleb(-power), rounded.scaleb(-power))}e{power:+03d}"


_WIDE = Context(prec=700)


def _round_error(error: Decimal) -> Decimal:
    lead = int(error.scaleb(2 - error.adjusted()).to_integral_value(ROUND_HALF_UP))
    digits = 2 if lead < 355 else 1 if lead < 950 else 0
    return error.quantize(Decimal(1).scaleb(error.adjusted() + 1 - max(digits, 1)), ROUND_HALF_UP, context=_WIDE)


def _brackets(value: Decimal, error: Decimal) -> str:
    decimals = max(-int(error.as_tuple().exponent), 0)
    shown = f"{error:.{decimals}f}" if decimals == 0 or error >= 1 else f"{error.scaleb(decimals):.0f}"
    return f"{value:.{decimals}f}({shown})"


@dataclass(frozen=True)
class Quantity:
    """One quantity of a training run; `unit` holds where data are counted in tokens, see `unit_of`.

    `aliases` are further names of the column in exports and papers, in lower case and apart by blanks; capitals, blanks
    and dashes in a file's names do not matter there. A symbol names its column too, but only as written: N, never n.
    """

    column: str
    symbol: str | None
    unit: str
    meaning: str
    latex: str
    aliases: str = ""
    numeric: bool = True


# fmt: off
QUANTITIES: tuple[Quantity, ...] = (
    Quantity("lr", "eta", "1", "peak learning rate", r"\eta",
             "learning_rate peak_lr max_lr lr_peak lr_max base_lr learningrate"),
    Quantity("batch", "B", "tokens", "batch size, data per optimizer step", "B",
             "bs batch_size gbsz gbs global_batch_size bsz batchsize"),
    Quantity("params", "N", "parameters", "model size, number of parameters", "N",
             "n_params num_params parameters num_parameters n_parameters model_size non_embedding_params "
             "non_embedding_param_size"),
    Quantity("tokens", "D", "tokens", "data trained on", "D",
             "train_tokens training_tokens n_tokens num_tokens data_size tokens_seen total_tokens"),
    Quantity("loss", "L", "nats/token", "final loss", "L",
             "val_loss validation_loss valid_loss final_loss smooth_loss eval_loss lm_loss test_loss"),
    Quantity("steps", "S", "steps", "optimizer steps", "S",
             "ti total_steps train_steps n_steps num_steps iterations iters max_steps"),
    Quantity("flops", "C", "FLOP", "training compute", "C", "compute training_flop flop"),
    Quantity("seq_len", None, "tokens", "sequence length", r"\ell",
             "sequence_length seq_length seqlen context_length block_size ctx_len max_seq_len"),
    Quantity("weight_decay", None, "1", "weight decay", r"\lambda", "wd"),
    Quantity("weight_norm", None, "1", "Frobenius norm of the weights at the end", r"\|W\|", "param_norm"),
    Quantity("seed", None, "", "random seed", "seed", "random_seed rng_seed"),
    Quantity("optimizer", None, "", "optimizer", "optimizer", "optim optimiser", numeric=False),
    Quantity("schedule", None, "", "learning-rate schedule", "schedule", "lr_schedule scheduler", numeric=False),
    Quantity("run", None, "", "name of the run", "run", "run_id run_name exp_name name", numeric=False),
)
# fmt: on

BY_COLUMN: Mapping[str, Quantity] = MappingProxyType({q.column: q for q in QUANTITIES})
BY_SYMBOL: Mapping[str, Quantity] = MappingProxyType({q.symbol: q for q in QUANTITIES if q.symbol})

AXES: tuple[str, ...] = ("lr", "batch", "params", "tokens")
"""The columns that say where a run sits in a sweep."""


def column_of(name: str) -> str:
    """Return the column a symbol stands for; any other name stands for itself.

    Examples
    --------
    >>> column_of("eta"), column_of("tokens"), column_of("width")
    ('lr', 'tokens', 'width')
    """
    return BY_SYMBOL[name].column if name in BY_SYMBOL else name


def quantity_of(name: str) -> Quantity | None:
    """Return the quantity that a symbol or a column names, or None for a name outside the vocabulary."""
    return BY_COLUMN.get(column_of(name))


def latex_of(name: str) -> str | None:
    """Return the LaTeX of a symbol or column of the vocabulary, or None."""
    quantity = quantity_of(name)
    return quantity.latex if quantity else None


def unit_of(column: str, data_unit: str = "tokens") -> str:
    """Return the unit of a column of the vocabulary in a table that counts its data in `data_unit`.

    Examples
    --------
    >>> unit_of("batch"), unit_of("batch", "images"), unit_of("loss"), unit_of("loss", "images"), unit_of("steps")
    ('tokens', 'images', 'nats/token', 'nats', 'steps')
    """
    unit = BY_COLUMN[column].unit
    if data_unit == "tokens":
        return unit
    return {"tokens": data_unit, "nats/token": "nats"}.get(unit, unit)


def units_of(columns: Iterable[str], data_unit: str = "tokens") -> dict[str, str]:
    """Return the unit of each of these columns that is of the vocabulary, in its order."""
    present = set(columns)
    return {name: unit_of(name, data_unit) for name in BY_COLUMN if name in present}


def check_data_unit(data_unit: Any) -> str:
    """Return the name of a unit of data, or raise a `SweepError` if it is not a word."""
    if not isinstance(data_unit, str) or not data_unit.replace(" ", "").replace("_", "").isalpha():
        raise SweepError(f"data_unit should be a plural noun such as 'tokens' or 'images', found {data_unit!r}")
    return data_unit


READ_OFF: Mapping[str, str] = MappingProxyType(
    {
        "B_crit": "critical batch size, data per step",
        "B_noise": "noise scale of the gradient, data per step",
        "S_min": "fewest steps that reach a loss",
        "E_min": "least data that reaches a loss",
        "eta_max": "largest of the best learning rates over all batches",
        "dL": "largest fall of the loss in one step",
    }
)
"""Positive targets outside the vocabulary. On the right of a formula these names are parameters as any other."""


def is_positive(target: str) -> bool:
    """Return whether a target is known to be positive, so that it is fitted in logs.

    Examples
    --------
    >>> is_positive("B_crit"), is_positive("eta"), is_positive("score")
    (True, True, False)
    """
    return target in READ_OFF or quantity_of(target) is not None
