"""An agent alone on trajectories: runs that go on bit for bit, schedules, and contradictions named."""

import gym_toys  # noqa: F401  # registers its tasks
import pytest
from resumption import check_resumption, final_state, same

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError

TINY = (
    "env=CartPole-v1", "threads=1", "eval.episodes=2", "eval.video=false", "loop.num_envs=3", "loop.rollout_steps=16", "agent.hidden=[8]",
    "checkpoint.every=0",
)  # fmt: skip
PPO = ("agent.minibatch=20", "agent.epochs=2", "agent.normalize_obs=true", "agent.lr=3e-4")
OFF_POLICY = ("loop.stored_rollouts=3", "loop.off_policy_updates=2", "agent.anneal_lr=false")


@pytest.mark.parametrize(
    ("name", "options"), [("ppo", (*PPO, "agent.anneal_lr=false")), ("vtrace", OFF_POLICY), ("retrace", OFF_POLICY), ("trpo", ())]
)
def test_trajectories_resume_between_updates_bit_for_bit(tmp_path, name, options):
    """240 steps are five trajectories; the break after 111 is in the third."""
    check_resumption(tmp_path, name, *TINY, *options, steps=240, pause=111)


@pytest.mark.parametrize(("name", "options"), [("ppo", PPO), ("retrace", (*OFF_POLICY, "agent.samples=3"))])
@pytest.mark.parametrize("env", ["Steering-v0", "SteeringBox-v0"])
def test_trajectories_with_several_discrete_actions_resume_bit_for_bit(tmp_path, env, name, options):
    check_resumption(tmp_path, name, *TINY, *options, f"env={env}", steps=240, pause=111)


def test_ppo_steers_by_several_discrete_actions_at_once(tmp_path):
    """Random actions have a return of -13; the best are near -1."""
    options = ("steps=4800", "agent.hidden=[32]", "agent.lr=3e-3", "agent.epochs=5", "loop.num_envs=4", "loop.rollout_steps=120")
    run = mbkit.train("ppo", *TINY, *options, "env=SteeringBox-v0", "seed=1", "eval.episodes=10", f"run_dir={tmp_path / 'run'}")
    assert run.scores["eval/return"] > -3


def test_trajectories_learning_rate_schedule_goes_on_where_it_was(tmp_path):
    """The learning rate falls to the end of the same run: one whose last checkpoint is lost ends alike."""
    options = (*TINY, *PPO, "agent.anneal_lr=true", "checkpoint.every=111", "checkpoint.keep=all", "steps=240")
    mbkit.train("ppo", *options, f"run_dir={tmp_path / 'run'}")
    whole = final_state(tmp_path / "run")
    for path in (tmp_path / "run/checkpoint").iterdir():
        if "111" not in path.name:
            path.unlink()
    assert final_state(tmp_path / "run")["loop"]["step"] == 111
    mbkit.resume(tmp_path / "run")
    assert same(whole, final_state(tmp_path / "run"))
    rate = whole["parts"]["agent"]["_extra_state"]["networks"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(3e-4 * (1 - 192 / 240))


def wired(name: str, *options: str):
    return recipes.build(compose(name, ["env=CartPole-v1", *options]), make("CartPole-v1", num_envs=8))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ppo", ["loop.warmup_steps=10"], r"loop\.warmup_steps has no meaning for ppo, which learns from trajectories"),
        ("ppo", ["loop.rollout_steps=1", "loop.num_envs=1"], r"rollout_steps=1 and loop.num_envs=1: one advantage .* at least 2 rows"),
        ("trpo", ["loop.n_step=3"], r"loop\.n_step has no meaning for trpo, which learns from trajectories"),
        (
            "npg",
            ["loop.off_policy_updates=1"],
            r"loop\.off_policy_updates has no meaning for npg, which learns from trajectories of its policy;",
        ),
        ("soft_pg", ["loop.off_policy_updates=2"], r"loop\.off_policy_updates has no meaning for soft_pg"),
        ("vtrace", ["loop.stored_rollouts=0"], r"loop.off_policy_updates=1 needs stored trajectories; .* at least 1, came 0"),
        ("retrace", ["loop.stored_rollouts=0"], r"loop.off_policy_updates=4 needs stored trajectories"),
    ],
)
def test_trajectories_contradictions_are_named(name, options, message):
    with pytest.raises(UserError, match=message):
        wired(name, *options)


@pytest.mark.parametrize(("steps", "notes"), [(1023, 0), (1016, 1)])
def test_trajectories_run_too_short_for_an_update_has_a_note(steps, notes):
    x = wired("npg", f"steps={steps}", "loop.num_envs=8", "loop.rollout_steps=128")
    assert len(x.notes) == notes
    start = "npg never learned: 1016 steps are 127 of each environment, and an update takes 128"
    assert all(note.startswith(start) for note in x.notes)


@pytest.mark.parametrize("name", ["vtrace", "retrace"])
def test_trajectories_agents_with_importance_weights_learn_from_stored_ones(name):
    x = wired(name, "loop.stored_rollouts=2", "loop.off_policy_updates=5")
    assert (x.store.capacity, x.hooks[0].off_policy_updates) == (2, 5)
    assert wired("ppo").store.capacity == 0
