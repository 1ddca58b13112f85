"""Selection: fitted laws compared on cells they have not seen, and the simplest law the data do not contradict."""

from scalefit.selection.choice import Choice, choose_law
from scalefit.selection.comparison import Comparison, compare

__all__ = ["Choice", "Comparison", "choose_law", "compare"]
