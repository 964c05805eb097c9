"""The whole grid is checked before anything starts, with one composition per cell."""

import json

import pytest

from mbkit.errors import UserError
from mbkit.sweep import values
from mbkit.sweep.assembling import MOST, check_assembly, representatives
from mbkit.sweep.planning import default_directory, opened, planned
from mbkit.sweep.values import explained


def test_a_grid_of_algorithms_environments_and_options():
    plan = planned("dqn,double_dqn", ["env=CartPole-v1,Acrobot-v1", "agent.lr=1e-4,3e-4", "double_dqn:agent.hidden=[8],[8,8]"], [1, 2])
    assert len(plan.runs) == 2 * (2 * 2 + 2 * 2 * 2)
    names = [run.name for run in plan.runs]
    assert len(set(names)) == len(names)
    assert names[0] == "dqn_CartPole-v1_lr=1e-4/seed-1"
    assert names[-1] == "double_dqn_Acrobot-v1_lr=3e-4_hidden=8,8/seed-2"
    assert plan.runs[0].arguments(3) == ["env=CartPole-v1", "agent.lr=1e-4", "seed=1", "threads=3"]


def test_threads_that_are_typed_stay():
    run = planned("dqn", ["env=CartPole-v1", "threads=2"], [1]).runs[0]
    assert run.arguments(7) == ["env=CartPole-v1", "threads=2", "seed=1"]


@pytest.mark.parametrize(
    ("algorithms", "options", "sentence"),
    [
        ("sac", ["env=Pendulum-v1", "agent.lr=1e-4,-1"], "agent.lr=-1.0 is out of range"),
        ("sac", ["env=Pendulum-v1", "agent.lr=1e-4,fast"], "agent.lr='fast' does not fit"),
        ("sac", ["env=Pendulum-v1", "agent.lr=log(1e-5..1e-3)", "agent.lrr=1"], "unknown option agent.lrr"),
        ("sac", ["env=Pendulum-v1", "gamma=0.9,1.5"], "gamma=1.5 is out of range"),
        ("sac", ["env=Pendulum-v1", "loop.batch_size=int(0..8)"], "loop.batch_size=0 is out of range"),
        ("sac", ["env=Pendulum-v1", "agent.hidden=choice([8],[x])"], "agent.hidden=['x'] does not fit"),
        ("sac", ["env=Pendulum-v1", "device=cpu,gpu"], "device='gpu' does not fit"),
        ("pets", ["env=cartpole", "planner=cem,icme"], "unknown planner 'icme'; did you mean 'icem'?"),
        ("sac", ["env=Pendulum-v1", "preset=fast"], "there is no preset 'fast'"),
        ("mbpo,sac", ["env=Pendulum-v1", "imagination.horizon=1,2"], "mbpo:imagination.horizon=... gives an option to one algorithm"),
    ],
)
def test_a_value_that_train_would_refuse_is_named(algorithms, options, sentence):
    with pytest.raises(UserError) as refused:
        planned(algorithms, options, [0])
    assert sentence in str(refused.value)


@pytest.mark.parametrize("gates", ["m2ac,none", "none,m2ac", "m2ac,macura"])
def test_an_option_that_has_no_meaning_beside_one_of_the_values_is_refused_in_every_order(gates):
    with pytest.raises(UserError, match=r"imagination\.keep_ratio has no meaning here: .*imagination\.gate=m2ac"):
        planned("mbpo", ["env=Hopper-v5", f"imagination.gate={gates}", "imagination.keep_ratio=0.3,0.5"], [0])
    assert len(planned("mbpo", ["env=Hopper-v5", "imagination.gate=m2ac", "imagination.keep_ratio=0.3,0.5"], [0]).groups) == 2


def test_the_advice_names_the_other_algorithm():
    plan = planned("mbpo,sac", ["env=Pendulum-v1", "mbpo:imagination.horizon=1,2"], [0])
    assert [group.name for group in plan.groups] == ["mbpo_horizon=1", "mbpo_horizon=2", "sac"]
    grids = list(plan.grids)
    assert str(explained(UserError("x"), grids[:1], grids[0])) == "x"
    assert str(explained(UserError("x"), grids, grids[1])) == "sac: x"


@pytest.mark.parametrize("typed", ["report=false", "agent.lrr=1"])
def test_an_option_that_no_algorithm_has_is_not_advised_to_another(typed):
    with pytest.raises(UserError) as refused:
        planned("dqn,ppo", ["env=CartPole-v1", typed], [0])
    assert "unknown option" in str(refused.value)
    assert "gives an option to one algorithm" not in str(refused.value)


def test_a_thousand_runs_are_composed_once_for_each_algorithm_environment_and_preset(monkeypatch):
    calls, compose = [], values.compose
    monkeypatch.setattr(values, "compose", lambda *arguments: calls.append(arguments) or compose(*arguments))
    options = ["env=CartPole-v1,Acrobot-v1", "agent.lr=1e-4,3e-4,1e-3,3e-3,1e-2", "loop.batch_size=32,64,128,256,512"]
    plan = planned("dqn,double_dqn", options, range(1, 11))
    assert len(plan.runs) == 1000
    assert len(calls) == 2 * 2


def test_what_only_the_environment_refuses_is_refused_before_the_start():
    with pytest.raises(UserError, match=r"double_dqn_Pendulum-v1: .*discrete actions"):
        check_assembly(planned("double_dqn", ["env=CartPole-v1,Pendulum-v1"], [0]))
    with pytest.raises(UserError, match="CartPol-v1"):
        check_assembly(planned("dqn", ["env=CartPol-v1"], [0]))


def test_of_many_groups_those_are_built_in_which_every_value_occurs():
    plan = planned("dqn,double_dqn", ["agent.lr=1e-4,3e-4,1e-3,3e-3,1e-2", "loop.batch_size=32,64,128,256,512", "gamma=0.9,0.99"], [0])
    chosen = representatives(plan)
    assert len(plan.groups) > MOST > len(chosen)
    shown = {(group.algo, argument) for group in chosen for argument in group.arguments}
    assert shown == {(group.algo, argument) for group in plan.groups for argument in group.arguments}


def test_the_same_command_has_the_same_directory_and_another_has_another():
    plan, again, other = (planned("dqn", [f"agent.lr={lr}"], [1]) for lr in ("1e-4", "1e-4", "1e-3"))
    assert default_directory(plan) == default_directory(again) != default_directory(other)
    assert default_directory(plan) != default_directory(planned("dqn", ["agent.lr=1e-4"], [2]))


def test_another_sweep_in_the_same_directory_is_a_mistake_that_names_the_difference(tmp_path):
    plan = planned("dqn", ["agent.lr=1e-4,1e-3"], [1, 2])
    opened(tmp_path, plan, 1, None)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert opened(tmp_path, plan, 4, None) == content  # threads stay those of the first call
    assert content["threads"] == 1
    assert [group["name"] for group in content["groups"]] == ["dqn_lr=1e-4", "dqn_lr=1e-3"]
    for algo, options, seeds, sentence in (
        ("double_dqn", ["agent.lr=1e-4,1e-3"], [1, 2], "its algorithms are dqn, here double_dqn"),
        ("dqn", ["agent.lr=1e-4,2e-3"], [1, 2], "options differ in agent.lr=1e-4,2e-3, which only this command has"),
        ("dqn", ["agent.lr=1e-4,1e-3"], [1], "seeds differ in 2, which only the sweep there has"),
        ("dqn", ["agent.lr=1e-4,1e-3"], [2, 1], "seeds differ in their order"),
    ):
        with pytest.raises(UserError) as refused:
            opened(tmp_path, planned(algo, options, seeds), 1, None)
        assert sentence in str(refused.value)


def test_a_directory_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="no directory of a sweep"):
        opened(tmp_path, planned("dqn", [], [1]), 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
