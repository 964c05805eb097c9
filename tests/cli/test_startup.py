"""What the command imports before it answers: help and mistakes need no torch, options no simulator. Asserted on modules, not on time."""

import json
import subprocess
import sys
from importlib.resources import files

import pytest

from mbkit import theory
from mbkit.cli.experiments import experiments

HEAVY = ("torch", "scipy.stats", "matplotlib", "gymnasium", "mujoco", "jinja2", "h5py", "moviepy")
CODE = f"""
import atexit, json, os, sys
names = {HEAVY!r}
atexit.register(lambda: print("imported", json.dumps([[n for n in names if n in sys.modules], os.environ.get("OMP_WAIT_POLICY")])))
from mbkit.cli import main
sys.argv = ["mbkit", *sys.argv[1:]]
main()
"""


def answered(*arguments: str) -> tuple[set[str], str, int]:
    """Which heavy modules a command had imported when it ended, its variable for idle threads, and its exit status."""
    result = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, timeout=120, check=False)
    modules, waiting = json.loads(result.stdout.rpartition("imported ")[2])
    return set(modules), waiting, result.returncode


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        ("train --help", 0),
        ("trian", 2),
        ("train", 2),
        ("list planer", 2),
        ("list experiments", 0),
        ("theory occupansy", 2),
        ("evaluate . --episodes 0", 2),
        ("resume . stepz=3", 2),
        ("train pets --quiet --verbose", 2),
        ("sweep --help", 0),
        ("sweep sac --seeds 5..1", 2),
        ("data --help", 0),
        ("data convert --help", 0),
        ("data inspekt", 2),
        ("data convert a b --episodes 3", 2),
        ("data collect --help", 0),
        ("data collect random --out d.h5", 2),
        ("data collect run --replay --steps 3 --out d.h5", 2),
    ],
)
def test_main_answers_without_torch(line, status):
    modules, _, ended = answered(*line.split())
    assert (modules, ended) == (set(), status)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("list agents", 0),
        ("list recipes", 0),
        ("config pets dynamics=mujoco", 0),
        ("config kl_sac --yaml", 0),
        ("train pots", 2),
        ("train mbpo env=Hopper-v5 imagination.gaet=m2ac", 2),
    ],
)
def test_main_checks_options_without_a_simulator(line, status):
    modules, _, ended = answered(*line.split())
    assert (modules - {"numpy"}, ended) == ({"torch"}, status)


def test_main_lets_idle_threads_sleep_unless_the_user_decided(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert answered("--version")[1] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert answered("--version")[1] == "active"


def test_import_mbkit_imports_no_torch():
    code = "import sys, mbkit; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_experiments_are_those_that_are_registered():
    assert [(listed.name, listed.summary) for listed in experiments()] == [(e.name, e.summary) for e in theory.registered()]


def test_package_is_typed():
    assert (files("mbkit") / "py.typed").is_file()
