"""The template of a plug-in package: installed as pip does it, its tests pass, its agent is listed, trains, and serves MBPO."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEMPLATE = ROOT / "examples/mbkit_example_plugin"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A copy of the template, whose wheel is installed beside it in `site`; the checkout stays as it is."""
    pytest.importorskip("setuptools", reason="builds the wheel; torch brings it")
    copy = tmp_path_factory.mktemp("plugin") / "package"
    shutil.copytree(TEMPLATE, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".pytest_cache"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check", "--no-cache-dir")
    run(copy, "-m", "pip", "install", *options, "--target", str(copy.parent / "site"), str(copy), path=())
    return copy


def run(where: Path, *arguments: str, path: tuple[Path, ...]) -> str:
    """What Python prints with these directories and this checkout on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def installed(package: Path, *arguments: str) -> str:
    """As `run`, with the installed package on the path."""
    return run(package, *arguments, path=(package.parent / "site",))


def test_tests_of_the_template_pass(package):
    printed = installed(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(package), str(package / "tests"))
    assert "4 passed" in printed


def test_the_agent_is_listed_and_its_options_are_told(package):
    lines = installed(package, "-m", "mbkit", "list", "agents").splitlines()
    assert next(line for line in lines if line.split()[:1] == ["qt_opt"]).split()[1] == "QT-Opt:"
    assert "number of iterations of the search" in installed(package, "-m", "mbkit", "config", "qt_opt")
    outside = run(package, "-m", "mbkit", "list", "agents", path=())
    assert not any(line.split()[:1] == ["qt_opt"] for line in outside.splitlines())


ALONE = ("qt_opt", "env=Pendulum-v1", "steps=300", "loop.warmup_steps=100")
IN_MBPO = (
    "mbpo", "env=InvertedPendulum-v5", "steps=60", "agent=qt_opt", "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[16]",
    "dynamics.max_epochs=2", "imagination.rollouts_per_step=2", "loop.warmup_steps=30", "loop.fit_every=20", "loop.updates_per_step=1",
)  # fmt: skip


@pytest.mark.parametrize("options", [ALONE, IN_MBPO], ids=["alone", "in mbpo"])
def test_the_agent_trains_alone_and_in_mbpo(package, options):
    small = ("agent.hidden=[16]", "threads=1", "eval.episodes=1", "eval.video=false")
    directory = package.parent / options[0]
    installed(package, "-m", "mbkit", "train", *options, *small, f"run_dir={directory}")
    assert json.loads((directory / "summary.json").read_text())["steps"] == int(options[2].partition("=")[2])
