"""The dictionary between words in tables and letters in formulas.

Tables speak in words (``lr``, ``batch``, ``params``), formulas in letters (eta, B, N); this module is the only
place that knows both, together with units, meanings and the names other people's exports use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from scalefit.errors import SweepError


@dataclass(frozen=True)
class Quantity:
    """One quantity of a training run.

    Parameters
    ----------
    column : str
        Its name in tables.
    symbol : str or None
        Its letter in formulas, if it has one.
    unit : str
        The unit of the column in a `Sweep` that counts its data in tokens; see `unit_of`.
    meaning : str
        One plain phrase.
    latex : str
        The symbol as LaTeX.
    aliases : tuple of str
        Other names for the column, in lower case, as exports and papers write them; capitals, spaces and dashes do
        not matter there. A symbol names its column too, but only exactly as written: ``N``, never ``n``.
    numeric : bool
        Whether the column holds numbers (all but `run`, `optimizer` and `schedule` do).
    """

    column: str
    symbol: str | None
    unit: str
    meaning: str
    latex: str
    aliases: tuple[str, ...] = ()
    numeric: bool = True


QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        "lr",
        "eta",
        "1",
        "peak learning rate",
        r"\eta",
        (
            "learning_rate",
            "learning rate",
            "peak_lr",
            "max_lr",
            "lr_peak",
            "lr_max",
            "base_lr",
            "learningrate",
        ),
    ),
    Quantity(
        "batch",
        "B",
        "tokens",
        "batch size, data per optimizer step",
        "B",
        ("bs", "batch_size", "batch size", "gbsz", "gbs", "global_batch_size", "bsz", "batchsize"),
    ),
    Quantity(
        "params",
        "N",
        "parameters",
        "model size, number of parameters",
        "N",
        (
            "n_params",
            "num_params",
            "parameters",
            "num_parameters",
            "n_parameters",
            "model_size",
            "model size",
            "non_embedding_params",
            "non_embedding_param_size",
        ),
    ),
    Quantity(
        "tokens",
        "D",
        "tokens",
        "data trained on",
        "D",
        (
            "train_tokens",
            "training_tokens",
            "n_tokens",
            "num_tokens",
            "data_size",
            "tokens_seen",
            "total_tokens",
        ),
    ),
    Quantity(
        "loss",
        "L",
        "nats/token",
        "final loss",
        "L",
        (
            "val_loss",
            "validation_loss",
            "valid_loss",
            "final_loss",
            "smooth loss",
            "smooth_loss",
            "eval_loss",
            "lm_loss",
            "lm loss",
            "test_loss",
        ),
    ),
    Quantity(
        "steps",
        "S",
        "steps",
        "optimizer steps",
        "S",
        ("ti", "total_steps", "train_steps", "n_steps", "num_steps", "iterations", "iters", "max_steps"),
    ),
    Quantity("flops", "C", "FLOP", "training compute", "C", ("compute", "training_flop", "training flop", "flop")),
    Quantity(
        "seq_len",
        None,
        "tokens",
        "sequence length",
        r"\ell",
        ("sequence_length", "seq_length", "seqlen", "context_length", "block_size", "ctx_len", "max_seq_len"),
    ),
    Quantity("weight_decay", None, "1", "weight decay", r"\lambda", ("wd", "weight decay")),
    Quantity("weight_norm", None, "1", "Frobenius norm of the weights at the end", r"\|W\|", ("param_norm",)),
    Quantity("seed", None, "", "random seed", "seed", ("random_seed", "rng_seed")),
    Quantity("optimizer", None, "", "optimizer", "optimizer", ("optim", "optimiser"), numeric=False),
    Quantity(
        "schedule",
        None,
        "",
        "learning-rate schedule",
        "schedule",
        ("lr_schedule", "scheduler"),
        numeric=False,
    ),
    Quantity("run", None, "", "name of the run", "run", ("run_id", "run_name", "exp_name", "name"), numeric=False),
)

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


def check_data_unit(data_unit: Any) -> str:
    """Return the name of a unit of data after checking that it is a word.

    Raises
    ------
    SweepError
        If it is not.
    """
    if not isinstance(data_unit, str) or not data_unit.replace(" ", "").replace("_", "").isalpha():
        raise SweepError(f"data_unit should be a plural noun such as 'tokens' or 'images', found {data_unit!r}")
    return data_unit
