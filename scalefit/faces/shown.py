"""The manners of every result: how it prints, how it looks in a notebook, how it goes into a paper."""

from __future__ import annotations

from abc import ABC, abstractmethod

from scalefit.faces.face import Face


class Shown(ABC):
    """A result with a face; a subclass says what is on it."""

    @abstractmethod
    def _face(self) -> Face:
        """Return what the result shows."""

    def __repr__(self) -> str:
        from scalefit.faces.text import to_text

        return to_text(self._face())

    def _repr_html_(self) -> str:
        from scalefit.faces.html import to_html

        return to_html(self._face())

    def to_markdown(self) -> str:
        """Return the result as Markdown: title, facts, table and notes."""
        from scalefit.faces.markdown import to_markdown

        return to_markdown(self._face())

    def to_latex(self, *, caption: str | None = None, label: str | None = None) -> str:
        r"""Return the result as a LaTeX table; needs the package booktabs.

        Parameters
        ----------
        caption : str, optional
            LaTeX; by default the title of the result.
        label : str, optional
            For ``\ref``.
        """
        from scalefit.faces.latex import to_latex

        return to_latex(self._face(), caption=caption, label=label)
