"""How the documentation is built: ``sphinx-build -W docs docs/_build`` after ``pip install ".[docs]"``."""

import importlib.metadata

project = "scalefit"
release = importlib.metadata.version("scalefit")
copyright = "the scalefit developers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # pages link to files of the repository, which the site does not hold

autosummary_generate = True
templates_path = ["_templates"]
autodoc_typehints = "none"  # the docstrings give types with shapes and units
numpydoc_show_class_members = False
exclude_patterns = ["_build", "_templates"]

html_theme = "furo"
html_title = "scalefit"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
