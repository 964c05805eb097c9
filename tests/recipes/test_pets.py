"""PETS' wiring: dynamics and planners by name, a model that is fitted, and the true model of each environment."""

import gym_toys  # noqa: F401  # registers its tasks
import pytest
import torch
from resumption import check_resumption

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.imagination.pessimism import Penalized
from mbkit.loops import ModelFits, PlanScores
from mbkit.recipes.measures import MEASURES
from mbkit.types import Dynamics

SMALL = ["planner.candidates=20", "planner.elites=4", "planner.iterations=1"]


def wired(*options: str, num_envs: int = 1):
    return recipes.build(compose("pets", ["env=cartpole", *options]), make("cartpole", num_envs=num_envs))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ensemble", ["agent.particles=5", "dynamics.hidden=[8]", *SMALL]),
        ("local_linear", ["agent.particles=5", *SMALL]),
        ("mujoco", SMALL),
        ("mbrl", ["agent.particles=5", *SMALL]),
    ],
)
def test_pets_plans_with_the_dynamics_of_a_name(name, options):
    if name == "mbrl":
        pytest.importorskip("mbrl")
    x = wired(f"dynamics={name}", *options)
    assert isinstance(x.actor.dynamics, Dynamics)
    assert ("dynamics" in x.stateful) == (name != "mujoco")
    assert [type(hook) for hook in x.hooks] == ([PlanScores] if name == "mujoco" else [ModelFits, PlanScores])
    assert x.actor.act(x.env.reset()).shape == (1, 1)


@pytest.mark.parametrize("planner", ["icem", "cem", "mppi", "shooting"])
def test_pets_plans_with_the_planner_of_a_name(planner):
    x = wired(f"planner={planner}", "planner.candidates=40", "agent.horizon=3", "dynamics.hidden=[8]", num_envs=2)
    assert x.actor.act(x.env.reset()).shape == (2, 1)


def test_pets_true_model_is_that_of_the_environment_it_plans_for():
    x, evaluation = wired("dynamics=mujoco"), make("cartpole", seed=2, num_envs=3)
    assert len(x.actor_for(evaluation).dynamics.envs) == 3
    assert len(x.actor.dynamics.envs) == 1


def test_pets_true_model_needs_one_particle():
    assert wired("dynamics=mujoco").actor.cfg.particles == 1
    assert wired("agent.particles=7").actor.cfg.particles == 7


@pytest.mark.parametrize(("options", "gamma"), [([], 1.0), (["gamma=0.9"], 0.9)])
def test_pets_discounts_plans_by_gamma(options, gamma):
    assert wired(*options).actor.gamma == gamma


def test_pets_with_the_true_model_resumes_bit_for_bit(tmp_path):
    options = ["env=cartpole", "dynamics=mujoco", "threads=1", "eval.episodes=1", "eval.video=false", "env_kwargs.max_episode_steps=25"]
    whole, *_ = check_resumption(
        tmp_path, "pets", *options, *SMALL, "agent.horizon=3", "loop.warmup_steps=10", "loop.log_every=10", steps=40, pause=28
    )
    assert set(whole.parts.stateful) == {"actor", "buffer"}


STEERING = (
    "env=Steering-v0", "threads=1", "eval.video=false", "seed=1", "planner=discrete_cem", "planner.candidates=40", "planner.elites=5",
    "planner.iterations=3", "agent.horizon=3", "agent.particles=3", "dynamics.hidden=[32]", "dynamics.members=3", "dynamics.elites=3",
    "dynamics.batch=32", "dynamics.lr=3e-3", "dynamics.reward=gym_toys:steering_reward", "loop.fit_every=100",
)  # fmt: skip


def test_pets_steers_by_several_discrete_actions_at_once(tmp_path):
    """Random actions have a return of -13; the best are near -1."""
    options = ("steps=150", "dynamics.max_epochs=100", "loop.warmup_steps=120", "eval.episodes=10", f"run_dir={tmp_path / 'run'}")
    run = mbkit.train("pets", *STEERING, *options)
    assert run.env.spec.parts == (3, 2)
    assert run.scores["eval/return"] > -7


def test_pets_with_several_discrete_actions_resumes_bit_for_bit(tmp_path):
    options = ("dynamics.max_epochs=2", "loop.warmup_steps=20", "loop.log_every=10", "eval.episodes=1", "agent.replan_every=2")
    check_resumption(tmp_path, "pets", *STEERING, *options, steps=40, pause=29)


def test_pets_continuous_planner_of_several_discrete_actions_names_the_one_to_use():
    with pytest.raises(UserError, match=r"needs continuous actions, the environment has 5 discrete ones; use discrete_cem"):
        recipes.build(compose("pets", ["env=Steering-v0"]), make("Steering-v0"))


LEARNED = ["dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2", "agent.particles=4", "agent.horizon=3", *SMALL]


def planned(*options: str):
    """An actor, and its first action and the score of its plan, by the same random numbers."""
    torch.manual_seed(0)
    x = wired(*LEARNED, *options)
    torch.manual_seed(1)
    return x, x.actor.act(torch.tensor([[0.1, -0.2, 0.3, 0.0]])), x.actor.score


def test_pets_penalty_0_is_the_plan_without_one_bit_for_bit():
    (plain, action, score), (x, same_action, same_score) = planned(), planned("agent.penalty=0")
    assert x.actor.dynamics is x.dynamics
    assert torch.equal(action, same_action)
    assert torch.equal(score, same_score)
    assert plain.actor.cfg.penalty == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_pets_plans_on_rewards_less_a_penalty(measure):
    (_, _, score), (x, _, penalised) = planned(), planned("agent.penalty=2", f"agent.measure={measure}")
    assert isinstance(x.actor.dynamics, Penalized)
    assert x.actor.dynamics.model is x.dynamics  # the one that is fitted
    assert x.actor.dynamics.measure is MEASURES[measure]
    assert penalised < score
    assert "dynamics" in x.stateful


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dynamics=local_linear", "agent.penalty=1"], r"agent\.measure=disagreement is measured on the members of an ensemble"),
        (
            ["dynamics.members=1", "dynamics.elites=1", "agent.penalty=1"],
            r"agent\.measure=disagreement cannot be measured on a model of 1 mem",
        ),
        (
            ["dynamics.probabilistic=false", "agent.penalty=1", "agent.measure=max_aleatoric"],
            "a model of 5 deterministic members; expected",
        ),
        (["dynamics=mujoco", "agent.penalty=1"], r"agent\.penalty counts only where dynamics!=mujoco"),
        (["agent.measure=disagreement"], r"agent\.measure counts only where agent\.penalty!=0"),
        (["agent.penalty=-1"], r"agent\.penalty"),
    ],
)
def test_pets_penalties_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        wired(*options)
    assert "\n" not in str(caught.value)


def test_pets_plans_with_a_fixed_model_and_a_penalty_and_resumes_bit_for_bit(tmp_path):
    """`mbkit train pets dynamics.load=F loop.fit=false agent.penalty=1 agent.measure=disagreement`."""
    file = tmp_path / "dynamics.pt"
    wired(*LEARNED).dynamics.save(file, env="cartpole")
    options = ["env=cartpole", "threads=1", "eval.episodes=1", "eval.video=false", "eval.max_steps=3", "loop.warmup_steps=5", *SMALL]
    options += [f"dynamics.load={file}", "loop.fit=false", "agent.penalty=1", "agent.measure=disagreement", "agent.particles=4"]
    check_resumption(tmp_path, "pets", *options, "agent.horizon=3", "loop.log_every=5", steps=20, pause=13)
