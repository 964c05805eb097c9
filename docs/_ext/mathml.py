"""Sphinx's mathematics as MathML, which browsers draw by themselves, with the STIX fonts that matplotlib brings: nothing is fetched."""

import shutil
from pathlib import Path
from typing import Any

import matplotlib
from docutils import nodes
from latex import UnknownLatex, mathml
from sphinx.application import Sphinx
from sphinx.util import logging

FONTS = ["STIXGeneral", *(f"STIXSiz{word}SymReg" for word in ("One", "Two", "Three", "Four"))]
log = logging.getLogger(__name__)


def converted(node: nodes.Element, display: bool) -> str:
    """The node's formula, or a warning and the formula as text."""
    latex = node.astext()
    try:
        return mathml(latex, display)
    except UnknownLatex as error:
        log.warning("formula %r: %s", latex, error, location=node)
        return f"<code>{latex}</code>"


def inline(self: Any, node: nodes.Element) -> None:
    """A formula in a line of text."""
    self.body.append(converted(node, display=False))
    raise nodes.SkipNode


def block(self: Any, node: nodes.Element) -> None:
    """A formula of its own."""
    self.body.append(self.starttag(node, "div", CLASS="math-block"))
    self.body.append(converted(node, display=True) + "</div>\n")
    raise nodes.SkipNode


def copy_fonts(app: Sphinx, error: Exception | None) -> None:
    """Put the fonts beside the style sheet."""
    if error is None and app.builder.format == "html":
        source, target = Path(matplotlib.get_data_path(), "fonts/ttf"), Path(app.outdir, "_static/fonts")
        target.mkdir(parents=True, exist_ok=True)
        for name in FONTS:
            shutil.copy(source / f"{name}.ttf", target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("build-finished", copy_fonts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
