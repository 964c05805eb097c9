"""LOOP's wiring: the agent's value closes the plan, its policy proposes, and what the planner does is what the agent learns from."""

import pytest
import torch

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError

TINY = [
    "env=Pendulum-v1",
    "steps=60",
    "threads=1",
    "eval.episodes=1",
    "eval.video=false",
    "loop.warmup_steps=30",
    "loop.fit_every=20",
    "loop.batch_size=16",
    "agent.hidden=[8]",
    "dynamics.hidden=[8]",
    "dynamics.members=2",
    "dynamics.elites=2",
    "dynamics.max_epochs=2",
    "planner.candidates=8",
    "planner.elites=4",
    "planner.iterations=1",
    "imagination.particles=2",
    "imagination.proposals=2",
]


def parts_of(*words: str):
    env = make("Pendulum-v1")
    return recipes.build(compose("loop", [*TINY, *words]), env), env


def test_the_value_closes_the_plan_and_the_policy_proposes():
    parts, env = parts_of()
    actor, agent = parts.actor, parts.stateful["agent"]
    assert actor.terminal_value == agent.value
    assert actor.propose(env.reset()).shape == (1, 2, 3, 1)
    assert actor.cfg.gamma == 0.99
    without = parts_of("imagination.value=false", "imagination.proposals=0")[0].actor
    assert without.terminal_value is None
    assert without.propose is None


def test_noise_explores_and_is_absent_when_scored():
    parts, env = parts_of("imagination.noise=5.0")
    obs = env.reset()
    scored = parts.actor_for(env)
    torch.manual_seed(0)
    parts.actor.reset(torch.ones(1, dtype=torch.bool))
    noisy = parts.actor.act(obs, explore=True)
    torch.manual_seed(0)
    scored.reset(torch.ones(1, dtype=torch.bool))
    quiet = scored.act(obs, explore=False)
    assert noisy.abs().max() <= 1
    assert not torch.equal(noisy, quiet)
    assert torch.equal(parts.actor.plan.actions[:, 0], quiet)  # the plan itself holds no noise


def test_trains_and_resumes_bit_for_bit(tmp_path):
    whole = mbkit.train("loop", *TINY, f"run_dir={tmp_path}/whole")
    mbkit.train("loop", *TINY, "steps=45", f"run_dir={tmp_path}/half")
    again = mbkit.resume(f"{tmp_path}/half", "steps=60")
    for name in ("agent", "dynamics"):
        mine, other = whole.parts.stateful[name].state_dict(), again.parts.stateful[name].state_dict()
        assert all(torch.equal(v, other[k]) for k, v in mine.items() if isinstance(v, torch.Tensor)), name


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dynamics=mujoco"], "loop imagines with a model that can start from any state; dynamics=mujoco only plans, choose ensemble"),
        (["agent=icem"], "unknown agent 'icem'"),
        (["loop.fit=false"], "loop.fit=false and loop.warmup_steps=30: loop would ask a model that learned nothing"),
        (["dynamics=local_linear", "loop.fit=false"], "loop would ask a model that learned nothing"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0: loop would ask a model that learned nothing"),
        (["imagination.horizon=0"], "imagination.horizon=0 is out of range: expected >= 1"),
    ],
)
def test_mistakes(words, sentence):
    plain = [w for w in TINY if not w.startswith(("dynamics.", "agent."))]
    with pytest.raises(UserError, match=sentence):
        recipes.build(compose("loop", [*plain, *words]), make("Pendulum-v1"))


def test_plans_without_a_score_end_the_run(tmp_path, broken_after_its_fit):
    with pytest.raises(UserError, match=r"the model diverged: 1 of 1 plans' scores are not finite at step 31, expected finite numbers"):
        mbkit.train("loop", *TINY, "loop.log_every=5", f"run_dir={tmp_path}/run")


def test_plans_that_were_forgotten_are_looked_at_a_step_later(tmp_path):
    """Episodes end with every look: a fresh plan has no score, and nothing is wrong."""
    words = ["env_kwargs.max_episode_steps=5", "loop.log_every=5", "steps=38"]
    assert mbkit.train("loop", *TINY, *words, f"run_dir={tmp_path}/run").loop.step == 38
    words = ["loop.num_envs=8", "loop.warmup_steps=33", "loop.log_every=40", "steps=48"]  # at 40 nothing was planned yet
    assert mbkit.train("loop", *TINY, *words, f"run_dir={tmp_path}/many").loop.step == 48
