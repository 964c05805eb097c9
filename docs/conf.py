"""Sphinx configuration: `pip install -e ".[docs]"`, then `sphinx-build docs docs/_build`."""

from importlib.metadata import version as version_of

project = "mbkit"
author = "the mbkit authors"
release = version_of("mbkit")
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build"]
