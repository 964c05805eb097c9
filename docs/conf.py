"""Sphinx configuration: `make docs`, or `pip install -e ".[docs]"` and `sphinx-build docs docs/_build/html`."""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "mbkit"
author = copyright = "the mbkit authors"
try:
    release = metadata.version("mbkit")
except metadata.PackageNotFoundError:  # a checkout that is not installed
    release = ""
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml", "sentences", "docstrings"]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["mystnb.unknown_mime_type"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # outputs are stored; tests/test_notebooks.py executes every notebook
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 100

html_math_renderer = "mathml"  # docs/_ext/mathml.py: drawn by the browser, without a network
html_theme = "furo"
html_title = "mbkit"
html_static_path = ["_static"]
html_css_files = ["mbkit.css"]
html_js_files = ["copy.js"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f99", "color-brand-content": "#1f5f99"},
    "dark_css_variables": {"color-brand-primary": "#8fc1f0", "color-brand-content": "#8fc1f0"},
}
