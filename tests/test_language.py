"""The field's English everywhere a person reads, one name for one thing, and files short enough to read."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = sorted((ROOT / "mbkit").rglob("*.py"))
READ = [
    *CODE,
    *sorted((ROOT / "mbkit").rglob("*.j2")),
    *sorted((ROOT / "configs").rglob("*.yaml")),
    *sorted((ROOT / "scripts").glob("*.py")),
    *sorted((ROOT / "examples").glob("*.py")),
]
READ += [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What is retired, as a regular expression (a space also stands for `_`, `-` and a line's end), and what to say instead.
RETIRED = {
    r"slow (critics?|networks?|polic(y|ies)|actors?|q|values?|weights|copy|copies)": "target network, target critics",
    r"step sizes?": "learning rate",
    r"who (acted|acts|learns?|updates?|corrects?|imagines?)": "behaviour policy, actor, learner",
    r"imagin(ed|es|ing)": "model rollouts, model transitions, model steps",
    r"remember(s|ed|ing)?": "stored, stores, retained",
    r"(rows of an|for their) age": "importance weights",
    r"yardsticks?": "baseline",
    r"promis(e|es|ed|ing) too|too hopeful": "overestimates",
    r"too (timid|sure)": "underconfident, overconfident",
    r"waits? for nobody|nobody (waits?|has to wait)": "does not synchronise with the host",
    r"rooms?": "memory, or package",
    r"heed(s|ed|ing)?": "considers",
    r"kin": "which ones",
    r"whoever|whomever": "which one",
    r"the former|likewise": "which one",
    r"doubts?": "uncertainty",
    r"key=value words?": "options, arguments",
}
# The step size of tabular methods and of optimisation theory is the field's own word.
ALLOWED = {r"step sizes?": ("mbkit/tabular/", "mbkit/theory/", "docs/theory/", "docs/tabular", "docs/glossary")}
BANNED = {"found", "seen", "own", "given", "kept"}  # a local name says what it holds


def relative(path: Path) -> str:
    """The path as it is named in messages."""
    return path.relative_to(ROOT).as_posix()


def expression(phrase: str) -> re.Pattern[str]:
    """The compiled phrase, which begins and ends with a word; `_` divides words, so that identifiers are searched too."""
    words = phrase.replace(" ", r"[\s_#-]+")
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE)


def retired_words(text: str, name: str) -> Iterator[str]:
    """One line for each retired word in the text of the file `name`."""
    for phrase, instead in RETIRED.items():
        if name.startswith(ALLOWED.get(phrase, ("nowhere/",))):
            continue
        for match in expression(phrase).finditer(text):
            yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())!r} (say: {instead})"


def bindings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every local name that is bound, with its line: assignments, walrus, loops, `with`, parameters, comprehensions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno


def limit(path: Path) -> int:
    """The most lines that a file may have."""
    name, text = relative(path), path.read_text()
    if name.startswith("mbkit/agents/"):
        return 150 if "@agents.register(" in text else 200
    if name.startswith("mbkit/recipes/") and path.stem != "assembly":
        return 110
    return 300


def test_retired_words_stay_away_from_everything_a_person_reads():
    lines = [line for path in READ for line in retired_words(path.read_text(), relative(path))]
    assert not lines, "\n" + "\n".join(lines)


@pytest.mark.parametrize("text", ["slow_critics", "# the step\nsize", "Whoever", "imagined rows", "a kin", "no_room", "is remembered"])
def test_retired_words_are_seen_in_identifiers_and_across_lines(text):
    assert list(retired_words(text, "mbkit/some.py"))


@pytest.mark.parametrize(
    "text", ["slow learners", "imagination.horizon", "kinds of", "kinematics", "mushroom", "slowly", "time/imagine_seconds"]
)
def test_retired_words_raise_no_false_alarm(text):
    assert not list(retired_words(text, "mbkit/some.py"))


def test_bindings_say_what_they_hold():
    lines = [f"{relative(path)}:{line}: {name}" for path in CODE for name, line in bindings(ast.parse(path.read_text())) if name in BANNED]
    assert not lines, "\n" + "\n".join(lines)


@pytest.mark.parametrize(
    "code",
    [
        "found = 1",
        "x, (seen, y) = z",
        "if own := f(): ...",
        "for given in x: ...",
        "with a as kept: ...",
        "def f(*, seen): ...",
        "[own for own in x]",
    ],
)
def test_bindings_of_every_kind_are_listed(code):
    assert BANNED & {name for name, _ in bindings(ast.parse(code))}


def test_classes_have_names_of_their_own():
    places = defaultdict(list)
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(relative(path))
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_files_are_short_enough_to_read():
    lengths = {path: len(path.read_text().splitlines()) for path in CODE}
    assert not {relative(path): (lines, limit(path)) for path, lines in lengths.items() if lines > limit(path)}
