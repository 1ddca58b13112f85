"""How results look: one face, laid out as text, HTML, LaTeX or Markdown."""

from scalefit.faces.face import Face
from scalefit.faces.html import to_html
from scalefit.faces.latex import to_latex
from scalefit.faces.markdown import to_markdown
from scalefit.faces.shown import Shown
from scalefit.faces.text import to_text

__all__ = ["Face", "Shown", "to_html", "to_latex", "to_markdown", "to_text"]
