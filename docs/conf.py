"""Configuration of Sphinx."""

from importlib.metadata import version as installed_version

project = "ipcae_sklearn"
author = "The ipcae_sklearn developers"
release = version = installed_version("ipcae-sklearn")
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
numpydoc_show_class_members = False
html_theme = "furo"
exclude_patterns = ["_build"]
# scikit-learn's classes and labels, which docstrings name, are not documented here.
suppress_warnings = ["ref.python", "ref.ref"]
