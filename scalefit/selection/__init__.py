"""Selection: laws compared on cells they have not seen, nested tests, averages, and the simplest law that stands."""

from scalefit.selection.automatic import fit
from scalefit.selection.averaging import Average, average_laws
from scalefit.selection.choice import Choice, choose_law
from scalefit.selection.comparison import Comparison, compare
from scalefit.selection.ladder import Ladder, climb_ladder
from scalefit.selection.nesting import NestedTest, nested_test

__all__ = [
    "Average",
    "Choice",
    "Comparison",
    "Ladder",
    "NestedTest",
    "average_laws",
    "choose_law",
    "climb_ladder",
    "compare",
    "fit",
    "nested_test",
]
