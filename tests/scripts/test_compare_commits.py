"""Times of two checkouts: their summary, and that workloads run on this one."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/compare_commits.py"


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("compare_commits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_summary_compares_cpu_times_round_by_round(script):
    a, b = [(1.0, 0.1), (2.0, 0.2), (4.0, 0.4)], [(2.0, 0.2), (2.0, 0.2), (4.0, 0.2)]
    expected = {"a_ms": 200, "b_ms": 200, "ratio": 1.0, "low": 0.75, "high": 1.5, "wall_ratio": 1.0}
    assert script.summary(a, b) == pytest.approx(expected)


def test_summary_single_round_has_no_spread(script):
    assert script.summary([(1.0, 1.0)], [(3.0, 2.0)]) == pytest.approx(
        {"a_ms": 1000, "b_ms": 2000, "ratio": 2, "low": 2, "high": 2, "wall_ratio": 3}
    )


def test_find_takes_the_first_place_that_exists(script):
    from mbkit.replay.buffer import ReplayBuffer

    assert script.find("mbkit.no_module:ReplayBuffer", "mbkit.replay.buffer:NoClass", "mbkit.replay.buffer:ReplayBuffer") is ReplayBuffer


@pytest.mark.parametrize("name", ["branch", "ppo_update"])
def test_workloads_run_on_this_tree(script, name, monkeypatch):
    monkeypatch.setattr(script, "HIDDEN", (8,))
    monkeypatch.setattr(script, "ROWS", 500)
    script.WORKLOADS[name]()()


def test_worker_answers_rounds_and_names_its_package(script):
    worker = script.Worker(SCRIPT.parents[1], "dqn_updates")
    wall, cpu = worker.round()
    worker.stop()
    assert wall > 0
    assert cpu > 0
    assert worker.process.returncode == 0


def test_worker_refuses_a_tree_without_the_package(script, tmp_path):
    with pytest.raises(SystemExit, match="holds no package mbkit"):
        script.Worker(tmp_path, "dqn_updates")
