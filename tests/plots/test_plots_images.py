"""Pictures compared with images that were looked at; `pytest --mpl-generate-path=tests/plots/baseline` renews them."""

from __future__ import annotations

import matplotlib
import pytest
from matplotlib import pyplot
from plot_overlaps import overlaps, texts
from plot_samples import PICTURES

from scalefit import plots

STYLE = dict(plots.style("paper", width="single"))
DRAWN_BY = "3.11."
TOLERANCE = 2.5
"""Root mean square of pixel differences, 0 to 255. Taking a curve away makes 4 or more, other words in a label 8 or
more. Another version of matplotlib sets text a little wider or narrower, which moves everything: 34 to 52 with 3.9."""


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.mark.mpl_image_compare(
    baseline_dir="baseline", tolerance=TOLERANCE, style=STYLE, savefig_kwargs={"dpi": 100}, deterministic=True
)
@pytest.mark.parametrize("name", PICTURES)
def test_picture(name):
    """Nothing written overlaps or is cut off at single-column width, and the picture is the one looked at."""
    fig = PICTURES[name]().figure
    assert len(texts(fig)) > 4
    assert overlaps(fig) == []
    assert min(text.get_fontsize() for text in texts(fig)) >= 7
    if not matplotlib.__version__.startswith(DRAWN_BY):
        pytest.skip(f"the images are by matplotlib {DRAWN_BY}x, not {matplotlib.__version__}; labels were checked")
    return fig


def test_images_are_compared_in_a_plain_run(request):
    assert request.config.getoption("--mpl"), "the images are compared only with --mpl, which pyproject.toml sets"
