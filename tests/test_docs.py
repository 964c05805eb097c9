"""What the documentation says can be done: its commands parse, its code runs, its links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from mbkit import cli, theory
from mbkit.config import compose, parse_overrides, taken_seeds
from mbkit.sweep.lists import parse_seeds
from mbkit.sweep.planning import planned

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "docs/_build"  # of `make docs`
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(p for p in sorted((ROOT / "docs").rglob("*.md")) if BUILT not in p.parents)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
EXTENDING = ROOT / "docs/extending.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLUGINS = {"linear": "LinearConfig", "climb": "ClimbConfig", "pick": "PickConfig"}  # of docs/extending.md
OF_A_PLUGIN = re.compile(rf"(?:\b(?:agent|dynamics|planner)=|^\w+ )({'|'.join(PLUGINS)})\b")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of one language, as they stand on the page."""
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[list[str]]:
    """The arguments behind `mbkit` of every line that a person may copy."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("mbkit ")]


COMMANDS = [(page.name, arguments) for page in PAGES for arguments in commands(page) if not arguments[0].startswith("-")]
BUILT_IN = [(page, arguments) for page, arguments in COMMANDS if not OF_A_PLUGIN.search(" ".join(arguments))]


def text_only(page: Path) -> str:
    """The page without code, in blocks or in a line."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """What the headings can be linked by."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_commands_are_all_shown():
    assert len(COMMANDS) > 40
    expected = {"train", "resume", "finetune", "evaluate", "report", "export", "list", "config", "theory", "data", "dynamics"}
    expected |= {"sweep", "watch", "card", "push", "pull"}
    assert {arguments[0] for _, arguments in COMMANDS} == expected


@pytest.mark.parametrize(("page", "arguments"), BUILT_IN, ids=[f"{page}: {' '.join(arguments)}" for page, arguments in BUILT_IN])
def test_commands_parse(page, arguments):
    """Options by the command line's own parser, then what stands behind them."""
    name, *rest = arguments
    command = typer.main.get_command(cli.app).commands[name]
    while hasattr(command, "commands"):  # a group of commands
        command = command.commands[rest.pop(0)]
    parsed = command.make_context(name, list(rest)).params
    if name in ("train", "config"):
        _, options, _ = taken_seeds(parsed["options"] or [], {})
        experiment = compose(parsed["algo"], options)
        for key in parse_overrides(options):
            assert hasattr(experiment, key)
    if name == "sweep":
        assert planned(parsed["algorithms"], parsed["options"] or [], parse_seeds(parsed["seeds"])).runs
    if name == "list":
        assert parsed["what"] in [*cli.listing.LISTED, "envs", "presets", "experiments"]
    if name == "theory":
        assert theory.find(parsed["name"])
    if name == "resume":
        options = [option for option in parsed["options"] or [] if "=" in option]
        assert set(parse_overrides(options)) <= {
            "steps",
            "threads",
            "device",
            "dynamics",
        }


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A directory with the modules of docs/extending.md and their entry points, as pip would leave them."""
    here = tmp_path_factory.mktemp("site")
    for block in blocks(EXTENDING, "python"):
        if block.startswith("# my_package/"):
            path = here / block.split("\n", 1)[0].removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
    facts = here / "my_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    groups = tomllib.loads("".join(blocks(EXTENDING, "toml")))["project"]["entry-points"]
    lines = [line for group, points in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return here


def python(package: Path, where: Path, *arguments: str) -> str:
    """What a Python that can import the package prints."""
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}  # this checkout, whichever is installed
    result = subprocess.run(
        [sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_extending_code_runs(package, tmp_path):
    scripts = [block for block in blocks(EXTENDING, "python") if not block.startswith("# my_package/")]
    assert len(scripts) == 3
    python(package, tmp_path, "-c", "\n".join(scripts))
    assert (tmp_path / "runs/linear/summary.json").is_file()
    assert (tmp_path / "runs/picked/dynamics.pt").is_file()


def test_extending_plugins_register_by_entry_point(package, tmp_path):
    typed = [arguments for page, arguments in COMMANDS if OF_A_PLUGIN.search(" ".join(arguments))]
    assert {arguments[0] for arguments in typed} == {"train", "config"}
    code = "from mbkit.config import compose; import json, sys; "
    code += "experiments = [compose(*arguments) for arguments in json.loads(sys.argv[1])]; "
    code += "print([(e.agent, e.dynamics, e.planner) for e in experiments])"
    printed = python(package, tmp_path, "-c", code, json.dumps([(algo, options) for _, algo, *options in typed]))
    names = [name for arguments in typed for name in OF_A_PLUGIN.findall(" ".join(arguments))]
    assert set(names) == set(PLUGINS)
    assert all(printed.count(f"config={config}(") == names.count(name) for name, config in PLUGINS.items())
    assert "changes tried per round" in python(package, tmp_path, "-m", "mbkit", "config", "pets", "planner=climb")


def test_contracts_of_the_testing_page_hold(package, tmp_path):
    """The parts of docs/extending.md pass the checks as docs/testing.md writes them."""
    contracts, environments = blocks(ROOT / "docs/testing.md", "python")
    python(package, tmp_path, "-c", f"{contracts}\n\ntest_contracts()\ntest_the_model()\n{environments}")


def test_environments_functions_are_rewards_and_terminations(tmp_path, monkeypatch):
    import torch

    from mbkit.envs.known import load_fn

    code = next(block for block in blocks(ROOT / "docs/environments.md", "python") if block.startswith("# my_tasks.py"))
    (tmp_path / "my_tasks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    rows = torch.randn(5, 3), torch.rand(5, 1), torch.randn(5, 3)
    assert load_fn("my_tasks:calm")(*rows).shape == (5,)
    assert load_fn("my_tasks:spun")(*rows).dtype == torch.bool


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_python_blocks_compile(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_only(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_name_no_path_of_one_machine(page):
    assert not re.search(r"(?<![\w.:/])/(home|root|Users|work|tmp|mnt|opt|usr|var)/", page.read_text())


def listed(page: Path) -> list[Path]:
    """The pages in the tables of contents of a page, notebooks included."""
    tables = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    names = [line for table in tables for line in table.split("\n") if line and not line.startswith(":")]
    return [next(file for kind in (".md", ".ipynb") if (file := page.parent / f"{name}{kind}").is_file()) for name in names]


def test_tables_of_contents_list_every_page_once():
    pages, stack = [], [ROOT / "docs/index.md"]
    while stack:
        pages.append(stack.pop())
        stack += listed(pages[-1]) if pages[-1].suffix == ".md" else []
    every = [*PAGES[2:], *(ROOT / "docs").rglob("*.ipynb")]
    assert sorted(pages) == sorted(page for page in every if BUILT not in page.parents)


def test_sidebar_has_groups():
    tables = re.findall(r"^```\{toctree\}\n(.*?)^```", (ROOT / "docs/index.md").read_text(), re.MULTILINE | re.DOTALL)
    captions = [re.search(r"^:caption: (.+)$", table, re.MULTILINE) for table in tables]
    assert len(captions) > 5
    assert all(captions)
    assert max(len(table.splitlines()) for table in tables) < 15


GROUPS = ("index", "continuous", "discrete", "policy_gradients", "with_a_model", "offline", "offline_with_a_model")
ALGORITHMS = [page for page in sorted((ROOT / "docs/algorithms").glob("*.md")) if page.stem not in GROUPS]


@pytest.mark.parametrize("page", ALGORITHMS, ids=[page.stem for page in ALGORITHMS])
def test_algorithms_pages_have_one_form(page):
    titles = re.findall(r"^## (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    assert {"Idea", "Equations", "Implementation details", "How to run", "Options", "Results"} <= set(titles)
    assert re.search(r"\b(19|20)\d\d\b", page.read_text().split("## ")[0])  # the source
