"""`{sentences} PACKAGE...`: every sentence by which mbkit refuses something, read from the source when the pages are built."""

import ast
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

SOURCE = Path(__file__).parents[2] / "mbkit"
ERRORS = ("UserError", "UserCodeError")


def template(node: ast.expr) -> str:
    """The text of an expression, with dots for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return "…"


def sentences(package: str) -> Iterator[str]:
    """The sentences of a package or module, in the order of its files; none where there is no such package."""
    path = SOURCE / package
    for file in [*sorted(path.rglob("*.py")), *SOURCE.glob(f"{package}.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", None) in ERRORS:
                yield template(node.exc.args[0])


class Sentences(Directive):
    """A list of the sentences of the packages that are named."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """One item for each sentence that says something by itself."""
        texts = {text: None for package in self.arguments[0].split() for text in sentences(package) if len(text.replace("…", "")) > 12}
        items = [nodes.list_item("", nodes.paragraph("", "", nodes.literal(text, text))) for text in texts]
        return [nodes.bullet_list("", *items, classes=["sentences"])]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("sentences", Sentences)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
