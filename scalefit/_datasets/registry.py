"""What is known about every data set: where it is, at which commit, with which sha256, under which licence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from scalefit.errors import SweepError

BASE_ADDRESS = "https://raw.githubusercontent.com"
"""Where public files are fetched from; the repository, the commit and the path follow."""

FULL_COMMIT = 40


@dataclass(frozen=True)
class UpstreamFile:
    """A file as its authors published it.

    Parameters
    ----------
    repository, commit, path : str
        ``owner/name`` on GitHub, the commit (abbreviated where no more is on record), the path inside.
    sha256 : str or None
        Hash of the whole file; None where none is on record and only the commit pins the content.
    size : int or None
        Bytes.
    aliases : tuple of str
        Other names under which a local copy may lie in the folder ``SCALEFIT_DATA``.
    """

    repository: str
    commit: str
    path: str
    sha256: str | None = None
    size: int | None = None
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file without its folders."""
        return PurePosixPath(self.path).name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to look, in this order: a server may not know an abbreviated commit, so the tip is tried next.

        The tip of the default branch is only tried where the sha256 decides whether it still is the same file.
        """
        tip = ("HEAD",) if len(self.commit) < FULL_COMMIT and self.sha256 else ()
        return tuple(f"{BASE_ADDRESS}/{self.repository}/{ref}/{self.path}" for ref in (self.commit, *tip))


@dataclass(frozen=True)
class DerivedTable:
    """A table that somebody read out of the upstream files: only ever a local file, with a hash of its own."""

    name: str
    sha256: str
    rename: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Dataset:
    """One named data set.

    Parameters
    ----------
    name, about, holds, licence : str
        What to call it, what it is, what a row is, and what its authors allow.
    rows : int or None
        Number of rows as published; None for bundled files, which are counted.
    bundled : str
        Path of a bundled file below the data folder; empty for a public set.
    files : tuple of UpstreamFile
        The published files of a public set.
    derived : DerivedTable or None
        A local table accepted in place of the published files.
    sweep : mapping or None
        How `read_sweep` is to read it; None when its rows are not runs.
    remarks : tuple of str
        What a reader should know before using it; become notes of caution.
    """

    name: str
    about: str
    holds: str
    licence: str
    rows: int | None = None
    bundled: str = ""
    files: tuple[UpstreamFile, ...] = ()
    derived: DerivedTable | None = None
    sweep: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()


_OWN_LICENCE = "MIT, as scalefit"
_BUNDLED = (
    Dataset(
        name="tiny-lm",
        about="small byte-level transformers trained from scratch on Python's standard library: lr x batch x params "
        "x tokens",
        holds="runs",
        licence=_OWN_LICENCE,
        bundled="tiny_lm/runs.csv",
        sweep={"batch_unit": "tokens", "nonfinite": "diverged", "params_convention": "non_embedding"},
    ),
    Dataset(
        name="tiny-lm-curves",
        about="validation loss during training, for a part of the runs of tiny-lm",
        holds="loss curves",
        licence=_OWN_LICENCE,
        bundled="tiny_lm/curves.parquet",
    ),
    Dataset(
        name="simulated",
        about="runs that never happened, drawn from known laws: lr x batch x params x tokens",
        holds="runs",
        licence=_OWN_LICENCE,
        bundled="simulated/runs.csv",
        sweep={"batch_unit": "tokens"},
        remarks=("these runs never happened: they were drawn from known laws, and say nothing about real models",),
    ),
)
_PUBLIC = (
    Dataset(
        name="steplaw-dense",
        about="Step Law (Li et al. 2025), dense models: lr x batch grids in 17 (params, tokens) cells",
        holds="runs",
        licence="none stated",
        rows=1911,
        files=(
            UpstreamFile(
                repository="step-law/steplaw",
                commit="32a8f4cc",
                path="data/dense_lr_bs_loss.csv",
                sha256="9e46181076c04d450294d75dfe6f72adc416e231e154a07b337e378f9410002c",
                size=344476,
                aliases=("steplaw_dense_lr_bs.csv",),
            ),
        ),
        sweep={"columns": {"loss": "smooth loss"}, "params_convention": "non_embedding"},
    ),
    Dataset(
        name="chinchilla-epoch",
        about="Chinchilla (Hoffmann et al. 2022): params, FLOPs and loss read off a figure by Besiroglu et al. 2024",
        holds="runs",
        licence="none stated",
        rows=245,
        files=(
            UpstreamFile(
                repository="epoch-research/analyzing-chinchilla",
                commit="92258837425e1b5f2851d624287f0120583a3d0e",
                path="data/svg_extracted_data.csv",
                sha256="193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30",
                size=23224,
                aliases=("chinchilla_epoch_svg.csv",),
            ),
        ),
        sweep={"columns": {"params": "Model Size", "flops": "Training FLOP"}, "params_convention": "total"},
        remarks=(
            "tokens is not published and was computed as FLOP / (6 params); params is taken as the total count",
            "all 245 points are here; fits usually drop the 5 with the highest losses, sweep.where('loss < 3.44')",
        ),
    ),
    Dataset(
        name="cbs-zhang",
        about="critical batch size (Zhang et al. 2024): steps to a target validation loss, 5 sizes x 9 batch sizes",
        holds="steps to a target loss",
        licence="MIT",
        rows=45,
        files=(
            UpstreamFile(
                repository="hlzhang109/critical-batch-size",
                commit="c5b509d8cf276bb40388172a08f9d6f644cf44dc",
                path="plots/chinchilla.ipynb",
            ),
        ),
        derived=DerivedTable(
            name="cbs_zhang_steps_to_target.csv",
            sha256="b9c198f9214363fd9508c2f7bf6b069c19fb9cddd5c2b5ea1f36b0c6ac51488e",
            rename={
                "model_size": "model",
                "N_nominal": "params",
                "target_val_loss": "target",
                "batch_size_seqs": "sequences",
                "batch_size_tokens": "batch",
                "steps_to_target_queried": "steps",
                "best_run_name": "run",
                "best_run_id": "run_id",
            },
        ),
        remarks=(
            "steps are those the notebook's second cell printed (the fastest run of each batch size); the authors' "
            "fit, some cells further on, uses other steps for a few of them",
            "params are the nominal sizes, as the models are called",
        ),
    ),
    Dataset(
        name="mlperf-rcp",
        about="MLPerf Training reference convergence points, BERT and ResNet-50: replicates per batch size",
        holds="examples or epochs to convergence",
        licence="Apache-2.0",
        rows=393,
        files=(
            UpstreamFile(
                repository="mlcommons/logging",
                commit="5c07d0cd60224b3008b96662ebce06acfde977ec",
                path="mlperf_logging/rcp_checker/training_3.1.0/rcps_bert.json",
                sha256="d658f4a2c3958cb07cafc6ef124a693eb2129b941a740c5e66444bbb88518a4a",
                size=9820,
            ),
            UpstreamFile(
                repository="mlcommons/logging",
                commit="0a0a659d895eb34818bd929f76acdd616f8de3ee",
                path="mlperf_logging/rcp_checker/training_4.0.0/rcps_resnet.json",
                sha256="2b21bf22a3ed6d504d2a80f034bbc6610a6cface79b7c599eae56e4e771f582b",
                size=5653,
            ),
        ),
        derived=DerivedTable(
            name="mlperf_rcp_bert_resnet.csv",
            sha256="96b1b78e5d52350ece48f6f105378eed02b3bedde089a6d39f05e55360aa55a7",
            rename={"BS": "batch_size"},
        ),
        remarks=("epochs_to_converge counts samples for bert and epochs for resnet; batch_size counts examples",),
    ),
    Dataset(
        name="mup-demo",
        about="muP demonstration (Yang et al. 2022): MLPs on CIFAR-10, training loss by lr, width and parametrization",
        holds="training loss by epoch",
        licence="MIT",
        rows=3774,
        files=(
            UpstreamFile(
                repository="microsoft/mup",
                commit="13e990191a669c9955e7a91a6efffc1cae8a31df",
                path="examples/MLP/demo.ipynb",
            ),
        ),
        derived=DerivedTable(
            name="mup_demo_mlp_lr_width.csv", sha256="76fd75a898e07e378888da67e234c4d7737c3697d8595dad1309fb19f8085c46"
        ),
        remarks=("train_loss is NaN where a run diverged, which ended it; the optimizer is SGD",),
    ),
)
DATASETS: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in (*_BUNDLED, *_PUBLIC)})
"""Every data set by its name, bundled ones first."""


def get_dataset(name: str) -> Dataset:
    """Return what is known about the data set of this name.

    Raises
    ------
    SweepError
        If there is none, naming those with a similar name, or all.
    """
    if name in DATASETS:
        return DATASETS[name]
    plain = str(name).strip().lower().replace("_", "-").replace(" ", "-")
    near = [known for known in DATASETS if plain and known.startswith(plain)]
    near += [known for known in difflib.get_close_matches(plain, DATASETS, cutoff=0.5) if known not in near]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(DATASETS)}."
    raise SweepError(f"there is no data set {name!r}; {hint} scalefit.datasets() describes all")
