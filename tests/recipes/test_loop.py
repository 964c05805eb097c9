"""LOOP's wiring: the agent's value closes the plan, its policy proposes, and what the planner does is what the agent learns from."""

import pytest
import torch
from resumption import check_resumption

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError

RUN = ["env=Pendulum-v1", "threads=1", "eval.episodes=1", "eval.video=false"]
LOOP = ["loop.warmup_steps=30", "loop.fit_every=20", "loop.batch_size=16"]
PARTS = ["agent.hidden=[8]", "dynamics.hidden=[8]", "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=2"]
PLAN = ["planner.candidates=8", "planner.elites=4", "planner.iterations=1", "imagination.particles=2", "imagination.proposals=2"]
TINY = [*RUN, *LOOP, *PARTS, *PLAN]


def wired(*options: str):
    return recipes.build(compose("loop", [*TINY, *options]), make("Pendulum-v1"))


def test_loop_value_closes_the_plan_and_the_policy_proposes():
    x = wired()
    actor, agent = x.actor, x.stateful["agent"]
    assert actor.guide.terminal_value == agent.value
    assert actor.guide.propose(x.env.reset()).shape == (1, 2, 3, 1)
    assert actor.gamma == 0.99
    without = wired("imagination.terminal_value=false", "imagination.proposals=0").actor
    assert without.guide.terminal_value is None
    assert without.guide.propose is None


def test_loop_noise_explores_and_is_absent_in_evaluation():
    x = wired("imagination.noise=5.0")
    obs = x.env.reset()
    scored = x.actor_for(x.env)
    torch.manual_seed(0)
    x.actor.reset(torch.ones(1, dtype=torch.bool))
    noisy = x.actor.act(obs, explore=True)
    torch.manual_seed(0)
    scored.reset(torch.ones(1, dtype=torch.bool))
    quiet = scored.act(obs, explore=False)
    assert noisy.abs().max() <= 1
    assert not torch.equal(noisy, quiet)
    assert torch.equal(x.actor.plan.actions[:, 0], quiet)  # the plan itself holds no noise


def test_loop_resumes_bit_for_bit(tmp_path):
    whole, *_ = check_resumption(tmp_path, "loop", *TINY, steps=60, pause=45)
    assert set(whole.parts.stateful) == {"buffer", "agent", "actor", "dynamics"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["dynamics=mujoco"], "loop needs a model that can start from any state; dynamics=mujoco only plans, choose ensemble"),
        (["agent=icem"], "unknown agent 'icem'"),
        (["loop.fit=false"], r"loop\.fit=false and loop\.warmup_steps=30: loop would use a model that learned nothing"),
        (["dynamics=local_linear", "loop.fit=false"], "loop would use a model that learned nothing"),
        (["loop.warmup_steps=0"], r"loop\.warmup_steps=0: loop would use a model that learned nothing"),
        (["imagination.horizon=0"], r"imagination\.horizon=0 is out of range: expected >= 1"),
    ],
)
def test_loop_mistakes_are_named(options, sentence):
    habits = [*RUN, *PLAN, "loop.warmup_steps=30"]
    with pytest.raises(UserError, match=sentence):
        recipes.build(compose("loop", [*habits, *options]), make("Pendulum-v1"))


def test_loop_plans_without_a_score_end_the_run(tmp_path, broken_after_its_fit):
    with pytest.raises(UserError, match=r"the model diverged: 1 of 1 plans' scores are not finite at step 31, expected finite numbers"):
        mbkit.train("loop", *TINY, "steps=60", "loop.log_every=5", f"run_dir={tmp_path}/run")


def test_loop_plans_that_a_reset_dropped_are_read_a_step_later(tmp_path):
    """Episodes end whenever scores are due: a new plan has no score, and nothing is wrong."""
    options = ["env_kwargs.max_episode_steps=5", "loop.log_every=5", "steps=38"]
    assert mbkit.train("loop", *TINY, *options, f"run_dir={tmp_path}/run").loop.step == 38
    options = ["loop.num_envs=8", "loop.warmup_steps=33", "loop.log_every=40", "steps=48"]  # at 40 nothing was planned yet
    assert mbkit.train("loop", *TINY, *options, f"run_dir={tmp_path}/many").loop.step == 48
