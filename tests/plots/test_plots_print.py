"""Print style: sizes, fonts, colours for every eye and for grey, files that say what they show."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from matplotlib import colors, pyplot
from matplotlib.figure import Figure
from PIL import Image
from plot_samples import PICTURES, law, surface, sweep

import scalefit as sf
from scalefit import plots
from scalefit.plots._style import MARKERS, ROLES, VENUES, family

# Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB
EYES = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def lab(color: str, eye: str = "all colours") -> np.ndarray:
    """CIELAB (D65) of a colour as an eye sees it."""
    rgb = np.array(colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(EYES[eye]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lab_of_known_colours():
    np.testing.assert_allclose(lab("white"), [100, 0, 0], atol=0.1)
    np.testing.assert_allclose(lab("#ff0000"), [53.24, 80.09, 67.20], atol=0.1)


@pytest.mark.parametrize("eye", EYES)
def test_roles_differ_for_every_eye(eye):
    for one, other in itertools.combinations(ROLES.values(), 2):
        distance = np.linalg.norm(lab(one.color, eye) - lab(other.color, eye))
        assert distance > 18, (one, other, distance)


def test_roles_differ_in_grey_and_none_vanishes_on_paper():
    lightness = sorted(lab(look.color)[0] for look in ROLES.values())
    assert np.diff(lightness).min() > 9
    assert lightness[-1] < 75


def test_roles_differ_in_marker_or_dash():
    points = [(look.marker, look.hollow) for name, look in ROLES.items() if name != "law"]
    assert len(set(points)) == len(points)
    lines = [ROLES[name].dash for name in ("law", "published", "heldout")]
    assert len({str(dash) for dash in lines}) == 3


@pytest.mark.parametrize("n", [2, 4, 6, 8])
@pytest.mark.parametrize("eye", EYES)
def test_a_family_grows_lighter_for_every_eye(n, eye):
    looks = family(n)
    lightness = [lab(look.color, eye)[0] for look in looks]
    assert np.diff(lightness).min() > 60 / n - 2
    assert max(lightness) < 80
    assert len({look.marker for look in looks}) == n
    assert len({str(look.dash) for look in looks}) == n
    assert len(MARKERS) == 8


def test_sizes_are_those_of_the_venues():
    assert plots.style()["figure.figsize"] == (3.25, 2.009)
    assert plots.style(width="double")["figure.figsize"][0] == 6.75
    column, text = VENUES["icml"]
    assert 2 * column + 0.25 == text == pytest.approx(487.8225 / 72.27, abs=1e-4)
    assert plots.style(venue="neurips")["figure.figsize"][0] == 5.5
    assert plots.style(venue="jmlr", width="double")["figure.figsize"][0] == 6.0
    assert plots.style(width=4.2, height=3)["figure.figsize"] == (4.2, 3.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "poster"}, "'poster'"),
        ({"venue": "nature"}, "icml, neurips"),
        ({"width": "triple"}, "single, double, half"),
        ({"width": -1}, "above 0"),
        ({"height": 0}, "above 0"),
    ],
)
def test_a_style_that_is_not_there_is_refused(arguments, said):
    with pytest.raises(sf.ScalefitError, match=said):
        plots.style(**arguments)


def test_a_style_holds_inside_its_block_only_and_nests():
    before = pyplot.rcParams["font.size"], list(pyplot.rcParams["figure.figsize"])
    outer = plots.style()
    with outer, plots.style(width="double"), outer:
        assert pyplot.rcParams["font.size"] == 8
        assert pyplot.rcParams["figure.figsize"][0] == 3.25
    assert (pyplot.rcParams["font.size"], list(pyplot.rcParams["figure.figsize"])) == before


def test_no_font_of_the_style_is_smaller_than_7_points():
    sizes = {name: value for name, value in plots.style().items() if name.endswith("size") and "font" in name}
    sizes |= {name: value for name, value in plots.style().items() if name.endswith(("labelsize", "titlesize"))}
    assert len(sizes) > 6
    assert min(sizes.values()) >= 7


def test_importing_plots_draws_nothing_and_loads_no_pyplot():
    code = (
        "import sys, scalefit; assert 'matplotlib' not in sys.modules; from scalefit import plots; "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False"]


def saved(tmp_path: Path, kind: str, name: str = "law", **settings) -> Path:
    with plots.style():
        return plots.savefig(PICTURES["law"](), tmp_path / f"{name}.{kind}", **settings)


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_the_same_figure_is_the_same_file(tmp_path, kind):
    first, second = (saved(tmp_path, kind, name, fit=law()).read_bytes() for name in "ab")
    assert first == second


def read_metadata(path: Path) -> str:
    if path.suffix == ".png":
        return "\n".join(f"{key} {value}" for key, value in Image.open(path).text.items())
    return path.read_bytes().decode("latin-1")


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_a_file_names_its_fit_and_version_and_no_time(tmp_path, kind):
    text = read_metadata(saved(tmp_path, kind, fit=law()))
    json = tmp_path / "fit.json"
    law().to_json(json)
    assert f"fit sha256={hashlib.sha256(json.read_bytes()).hexdigest()}" in text
    assert f"scalefit {sf.__version__}" in text
    assert "Date" not in text.replace("<dc:date>", "Date")


def test_several_results_are_named_each(tmp_path):
    text = read_metadata(saved(tmp_path, "png", fit=[surface(), sweep()]))
    assert text.count("fit sha256=") == 3
    assert f"sweep sha256={sweep().fingerprint}" in text
    assert plots.fingerprint() == ""


def test_another_fit_has_another_hash():
    again = sf.fit("lr_power", law().rows)
    assert plots.fingerprint(law()) != plots.fingerprint(again)
    assert plots.fingerprint(law()) == plots.fingerprint(sf.Fit.from_json(law().to_json()))


def test_a_pdf_embeds_true_type_fonts_and_keeps_its_width(tmp_path):
    data = saved(tmp_path, "pdf").read_bytes()
    assert b"/FontFile2" in data
    assert b"/Type3" not in data
    assert b"STIXGeneral" in data
    width = float(data.split(b"/MediaBox [ 0 0 ")[1].split()[0])
    assert width == pytest.approx(3.25 * 72, abs=0.01)


def test_an_svg_holds_outlines_not_text(tmp_path):
    data = saved(tmp_path, "svg").read_text()
    assert "<text" not in data
    assert "<path" in data


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(sf.ScalefitError, match=r"\.pdf, \.png, \.svg"):
        plots.savefig(Figure(), tmp_path / "figure.bmp")
    with pytest.raises(sf.ScalefitError, match="cannot write"):
        plots.savefig(Figure(), tmp_path / "nowhere" / "figure.png")
    with pytest.raises(sf.ScalefitError, match="found str"):
        plots.savefig(Figure(), tmp_path / "figure.png", fit=["fit.json"])
