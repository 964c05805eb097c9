"""What surrounds the package: one version everywhere, a wheel that works without the repository, workflows, names of extras."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import mbkit
from mbkit.config.presets import presets

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A directory with the content of the built wheel, and nothing else of the repository."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    [built] = wheel.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *arguments: str) -> str:
    """The output of mbkit, imported from the wheel alone, elsewhere."""
    code = "import sys, mbkit; from mbkit.cli import main; assert mbkit.__file__.startswith(sys.argv.pop(1)); main()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", code, str(site), *arguments]
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def test_wheel_holds_presets_templates_and_the_mark_of_types(site):
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {f"mbkit/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "configs").rglob("*.yaml")} <= names
    assert {file.relative_to(ROOT).as_posix() for file in (ROOT / "mbkit").rglob("*.j2")} <= names
    assert "mbkit/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def test_wheel_lists_presets_and_composes_with_them(site):
    lines = run(site, "list", "presets").splitlines()
    assert len(lines) == len(presets()) + 2  # a head, and how to use them
    assert "steps: 15000" in run(site, "config", "mbpo", "env=Hopper-v5", "--yaml")


def test_wheel_has_the_command(site):
    [facts] = site.glob("mbkit-*.dist-info")
    assert facts.name == f"mbkit-{mbkit.__version__}.dist-info"
    assert "mbkit = mbkit.cli:main" in (facts / "entry_points.txt").read_text()


def test_version_is_the_same_everywhere():
    assert PROJECT["version"] == mbkit.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == mbkit.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == mbkit.__version__


def test_extras_in_pages_and_messages_exist_and_are_named_alike():
    texts = {path: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "mbkit").rglob("*.py")]}
    named = {extra for text in texts.values() for match in re.findall(r"mbkit\[([\w,]+)\]", text) for extra in match.split(",")}
    assert {"dmc", "wandb", "hub"} <= named <= set(PROJECT["optional-dependencies"])
    assert not [str(path) for path, text in texts.items() if re.search(r"\.\[\w+\]\"", text) and path.suffix == ".md"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid_and_call_what_exists(path):
    content = yaml.safe_load(path.read_text())
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all("timeout-minutes" in job or "needs" in job for job in content["jobs"].values())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {target for step in steps for target in re.findall(r"make ([a-z-]+)", step.get("run", ""))}
    assert called <= targets | {"docs"}


def test_workflows_are_those_of_tests_documentation_and_release():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "docs.yml", "release.yml"]


def test_root_pages_lead_to_the_documentation_and_back():
    for name in ("contributing", "security"):
        root, page = (ROOT / f"{name.upper()}.md").read_text(), (ROOT / f"docs/{name}.md").read_text()
        assert f"docs/{name}.md" in root
        assert f"`{name.upper()}.md` at the top of the repository" in page
