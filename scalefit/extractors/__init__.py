"""Ways to read the optimum off a cell of runs; each is a frozen settings object with `extract(block)`.

A new way (an asymmetric basin shared by all cells, say) is one file here: it sees the whole `Block`, so that it may
pool what it likes over cells, and it answers with one `Extraction`. Works for one axis or several at once.
"""

from scalefit.extractors.basin import Basin
from scalefit.extractors.cells import Block, Extraction, Extractor
from scalefit.extractors.picking import GridMinimum, NearMinimum
from scalefit.extractors.quadratic import Parabola

__all__ = ["Basin", "Block", "Extraction", "Extractor", "GridMinimum", "NearMinimum", "Parabola"]
