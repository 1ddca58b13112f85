"""A settings file says what it means, or is refused with the key that does not."""

from __future__ import annotations

import pytest

from scalefit.errors import SweepError
from scalefit.refitting.settings import Settings, digest, read_settings

GOOD = """
[read]
nonfinite = "diverged"

[fit]
lr_laws = ["lr_power", "eta = c * N**a"]
draws = 100

[[sweep]]
match = "steplaw*.csv"
read = {batch_unit = "sequences", seq_len = 2048, columns = {loss = "smooth loss"}}
fit = {holdout = "params > 1e9"}

[[sweep]]
match = "old/*"
fit = {draws = 0}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "scalefit.toml"
        path.write_text(text)
        return str(path)

    return write


def test_rules_apply_to_the_files_they_match(written):
    settings = read_settings(written(GOOD))
    reading, analysis = settings.of("/data/old/steplaw_dense.csv")
    assert (reading.nonfinite, reading.batch_unit, reading.seq_len) == ("diverged", "sequences", 2048)
    assert reading.columns == {"loss": "smooth loss"}
    assert (analysis.lr_laws, analysis.holdout, analysis.draws) == (("lr_power", "eta = c * N**a"), "params > 1e9", 0)
    reading, analysis = settings.of("/data/new/tiny.csv")
    assert (reading.batch_unit, analysis.holdout, analysis.draws) == (None, "largest params", 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fits]", r"unknown key 'fits'; did you mean fit\?"),
        ("[read]\nbatchunit = 'tokens'", r"read: unknown key 'batchunit'; did you mean batch_unit\?"),
        ("[read]\nseq_len = -1", r"read.seq_len should be a positive number, found -1"),
        ("[read]\nseq_len = true", r"read.seq_len should be a positive number, found True"),
        ("[read]\nnonfinite = 'ignore'", r"read.nonfinite should be one of raise, diverged, drop, found 'ignore'"),
        ("[read]\ncolumns = {speed = 'x'}", r"read.columns should be a table such as"),
        ("[fit]\nlr_laws = ['lr_pwer']", r"fit.lr_laws: no law named 'lr_pwer'; did you mean lr_power"),
        ("[fit]\nlr_laws = ['eta = __import__(\"os\")']", r"fit.lr_laws: "),
        ("[fit]\nlr_laws = ['batch_power']", r"fit.lr_laws: 'batch_power' is a law for B, not for lr"),
        ("[fit]\nloss_law = 'lr_power'", r"fit.loss_law: 'lr_power' is a law for eta, not for loss"),
        ("[fit]\nholdout = 'largest'", r"fit.holdout: expected 'largest params"),
        ("[fit]\nholdout = 'params >'", r"fit.holdout: 'params >' is not an expression"),
        ("[fit]\ntargets = [2.5, -1]", r"fit.targets should be a list of losses"),
        ("[fit]\ntargets = 0", r"fit.targets should be a list of losses"),
        ("[read]\nwhere = 'import os'", r"read.where: "),
        ("[read]\ndata_unit = '<b>'", r"read.data_unit: "),
        ("[fit]\ndraws = -5", r"fit.draws should be 0 for none, or a whole number from 2 to 100,000, found -5"),
        ("[[sweep]]\nread = {}", r"sweep 1.match should be a glob"),
        ("[[sweep]]\nmatch = '.'", r"sweep 1.match should be a glob"),
        (
            "[[sweep]]\nmatch = '*'\nread = {batch = 'x'}",
            r"sweep 1.read: unknown key 'batch'; did you mean batch_unit\?",
        ),
        ("sweep = 1", r"sweep should be written \[\[sweep\]\]"),
        ("read = 3", r"read should be a table of settings, found 3"),
        ("x = = 1", r"is not TOML"),
    ],
)
def test_what_means_nothing_is_refused_by_its_key(written, text, message):
    with pytest.raises(SweepError, match=message) as caught:
        read_settings(written(text))
    assert "scalefit.toml" in str(caught.value)


def test_without_a_file_there_are_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings() == Settings()
    (tmp_path / "scalefit.toml").write_text("[fit]\ndraws = 7")
    assert read_settings().analysis.draws == 7
    with pytest.raises(SweepError, match=r"cannot read the settings .*No such file"):
        read_settings(tmp_path / "absent.toml")


def test_the_digest_changes_with_every_setting(written):
    settings = read_settings(written(GOOD))
    seen = {digest(*settings.of(name)) for name in ("a.csv", "steplaw.csv", "old/a.csv")}
    assert len(seen) == 3
    assert digest(*settings.of("a.csv")) == digest(*settings.of("b.csv"))
