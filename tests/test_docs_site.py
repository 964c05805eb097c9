"""The documentation site: formulas become MathML, and the whole is built without a warning."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]


def extension():
    """docs/_ext/latex.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("latex", ROOT / "docs/_ext/latex.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


latex = extension()


def body(formula: str, display: bool = False) -> str:
    """The MathML of a formula, without what surrounds every one."""
    return (
        re.search(r"<semantics>(.*)<annotation", latex.mathml(formula, display), re.DOTALL)[1]
        .removeprefix("<mrow>")
        .removesuffix("</mrow>")
    )


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("x_1", "<msub><mi>x</mi><mn>1</mn></msub>"),
        ("x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
        (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
        ("0.25", "<mn>0.25</mn>"),
        (r"\sqrt{\alpha}", "<msqrt><mi>α</mi></msqrt>"),
        (r"\hat r", '<mover accent="true"><mi>r</mi><mo stretchy="false">^</mo></mover>'),
        (r"\mathcal N", '<mi mathvariant="normal">𝒩</mi>'),
        (r"\mathcal L", '<mi mathvariant="normal">ℒ</mi>'),
        (r"\mathbb E", '<mi mathvariant="normal">𝔼</mi>'),
        (r"\mathbb 1", '<mi mathvariant="normal">𝟙</mi>'),
        (r"\text{ if }", "<mtext>\xa0if\xa0</mtext>"),
        (r"\operatorname{clip}", '<mi mathvariant="normal">clip</mi>'),
        (r"\max_a", '<munder><mo movablelimits="true" lspace="0" rspace="0">max</mo><mi>a</mi></munder>'),
        ("a<b", "<mi>a</mi><mo>&lt;</mo><mi>b</mi>"),
        (r"\big(", '<mo stretchy="false" lspace="0" rspace="0" class="size1">(</mo>'),
    ],
)
def test_mathml_of(formula, expected):
    assert body(formula) == expected


@pytest.mark.parametrize("formula", [r"\unheard x", "{x", r"\left( x", r"\frac1", r"\begin{matrix} 1 \end{matrix}"])
def test_mathml_refuses_what_it_does_not_know(formula):
    with pytest.raises(latex.UnknownLatex):
        latex.mathml(formula)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_formulas_of_pages_are_well_formed(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
    inline = re.findall(r"(?<!\\)\$([^$\n]+)\$", re.sub(r"\$\$(.*?)\$\$|`[^`]*`", "", text, flags=re.DOTALL))
    for display, formulas in ((True, blocks), (False, inline)):
        for formula in formulas:
            xml.dom.minidom.parseString(latex.mathml(formula, display))


def test_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    for package in ("sphinx", "furo", "myst_nb", "sphinx_design"):
        pytest.importorskip(package, reason=f'{package} is missing: pip install "mbkit[docs]"')
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr  # a library may say what it found
    fetched = re.compile(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(?:https?:)?//[^"]*"')
    assert not [page.name for page in tmp_path.rglob("*.html") if fetched.search(page.read_text())]


def constants() -> list[str]:
    """Every piece of text in the source of mbkit; what is filled in divides pieces."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "mbkit").rglob("*.py"))]
    return [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_faq_quotes_sentences_of_the_source():
    quotes = re.findall(r"^> `(.+)`$", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)
    fragments = [part for quote in quotes for part in quote.split("…") if len(part.strip()) > 2]
    source = "\n".join(constants())
    assert len(quotes) > 40
    assert not [part for part in fragments if part not in source]


def test_faq_lists_the_sentences_of_every_package():
    listed = " ".join(re.findall(r"^```\{sentences\} (.+)$", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)).split()
    files = [path for path in (ROOT / "mbkit").rglob("*.py") if "raise UserError(" in path.read_text()]
    packages = {path.relative_to(ROOT / "mbkit").with_suffix("").parts[0] for path in files}
    assert not packages - set(listed)
