"""From environments to updates: the same trajectories however environments are reset, replays of who acted, runs that go on bit for bit."""

from pathlib import Path

import gymnasium
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

import mbkit
from mbkit import envs, recording
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.config import LoopConfig, compose
from mbkit.errors import UserError
from mbkit.loops import Online, Rollouts
from mbkit.recipes import model_free
from mbkit.recipes.parts import make_agent, spec_of
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.types import Metrics, Trajectory

M, T, WINDOWS = 3, 16, 5


class Log:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def log(self, step: int, values: dict[str, float]) -> None:
        self.rows.append(values)

    def event(self, step: int, values: dict[str, float]) -> None:
        pass


class Falling:
    """Pushes the cart away from under the pole: some episodes end by falling, some by time; keeps what it should learn from."""

    replays = True

    def __init__(self) -> None:
        self.seen: list[Trajectory] = []
        self.remaining: list[float] = []

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        return (obs[..., 2] < 0).long()

    def reset(self, mask: Tensor) -> None:
        pass

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """A number that tells which update it was, and the row."""
        return len(self.seen) + obs[..., 0]

    def anneal(self, remaining: float) -> None:
        self.remaining.append(remaining)

    def update(self, trajectory: Trajectory) -> Metrics:
        self.seen.append(trajectory)
        return {"critic/loss": trajectory.reward.mean()}


def wrapped(mode: AutoresetMode) -> envs.Environment:
    made = [lambda: gymnasium.make("CartPole-v1", max_episode_steps=8)] * M
    return envs.wrap(SyncVectorEnv(made, autoreset_mode=mode), seed=5)


def own() -> envs.Environment:
    return envs.make("CartPole-v1", num_envs=M, seed=5, env_kwargs={"max_episode_steps": 8})


def windows(env: envs.Environment, **options: int) -> tuple[Falling, Online]:
    """What an agent is updated on."""
    agent, buffer = Falling(), TrajectoryBuffer(T, M, env.spec, options.get("rollouts_kept", 0))
    online = Online(env, agent, buffer)
    online.recorder = Log()
    hook = Rollouts(agent, buffer, LoopConfig(rollout_steps=T, num_envs=M, **options), env.spec.device, "falling", 10_000)
    online.start()
    fresh_only = 1 + options.get("replays", 0)
    while len(agent.seen) < WINDOWS * fresh_only:
        online.run(online.step + M, [hook])
    return agent, online


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_wrapped_environments_give_the_same_trajectories(mode):
    ours, theirs = windows(own())[0].seen, windows(wrapped(mode))[0].seen
    assert any(t.ended.any() and t.discount.all(1).any() for t in ours)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)


def test_where_a_reset_takes_a_step_of_its_own_nothing_of_it_is_learned():
    """The first window is the same; later ones begin where the slowest environment is, with steps that exist and in their order."""
    ours, theirs = windows(own())[0].seen, windows(wrapped(AutoresetMode.NEXT_STEP))[0].seen
    for x, y in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(x, y)
    all_of_ours = [torch.cat([t[k] for t in ours]) for k in range(6)]  # without log_prob, which tells the window
    for window in theirs[: WINDOWS - 1]:
        for i in range(M):
            column = all_of_ours[0][:, i]
            begin = int((column == window.obs[0, i]).all(-1).nonzero()[0])
            part = slice(begin, begin + T)
            assert len(column[part]) == T
            assert all(torch.equal(whole[part, i], x[:, i]) for whole, x in zip(all_of_ours, window, strict=False))


def test_truncated_steps_bootstrap_and_terminated_ones_do_not():
    seen = torch.cat([t.discount[t.ended] for t in windows(own())[0].seen])
    assert 0 < seen.mean() < 1


def test_successors_are_the_next_steps_unless_an_episode_ended():
    for t in windows(own())[0].seen:
        on = ~t.ended[:-1]
        assert torch.equal(t.next_obs[:-1][on], t.obs[1:][on])
        assert not torch.equal(t.next_obs[:-1][~on], t.obs[1:][~on])


def test_replays_keep_the_log_probabilities_of_who_acted():
    agent, _ = windows(own(), rollouts_kept=2, replays=3)
    fresh, replayed = agent.seen[::4], [t for i, t in enumerate(agent.seen) if i % 4]
    for k, t in enumerate(fresh):
        assert torch.equal(t.log_prob, 4 * k + t.obs[..., 0])  # asked before the update, once
    assert len({float(t.log_prob.sum()) for t in replayed}) > 2
    for k, t in enumerate(replayed):
        newest = k // 3
        assert any(t is old for old in fresh[max(0, newest - 1) : newest + 1])


def test_what_remains_of_the_run_is_counted_from_the_windows_beginning():
    agent, _ = windows(own())
    assert agent.remaining == pytest.approx([1 - k * T * M / 10_000 for k in range(WINDOWS)])


def test_a_diverged_agent_is_named():
    agent, online = windows(own())
    agent.update = lambda trajectory: {"critic/loss": torch.tensor(torch.nan)}
    hook = Rollouts(agent, online.buffer, LoopConfig(rollout_steps=T), torch.device("cpu"), "falling", 10_000)
    with pytest.raises(UserError, match=r"falling diverged: critic/loss is nan"):
        online.run(online.step + T * M, [hook])


def test_the_log_probabilities_are_those_of_the_acting_policy():
    """Also where observations are normalised by statistics that move with every update."""
    torch.manual_seed(0)
    env = own()
    agent = PPO(env.spec, PPOConfig(normalize_obs=True, epochs=1, minibatch=T * M, hidden=(8,)))
    buffer, acted, asked = TrajectoryBuffer(T, M, env.spec), [], []
    act, update = agent.act, agent.update

    def acting(obs: Tensor, explore: bool = True) -> Tensor:
        action = act(obs, explore)
        acted.append(agent.log_prob(obs, action))
        return action

    def updating(trajectory: Trajectory) -> Metrics:
        asked.append(trajectory.log_prob)
        return update(trajectory)

    agent.act, agent.update = acting, updating
    assert isinstance(agent, nn.Module)
    online = Online(env, agent, buffer)
    online.recorder = Log()
    online.start()
    online.run(3 * T * M, [Rollouts(agent, buffer, LoopConfig(rollout_steps=T), env.spec.device, "ppo", 1000)])
    torch.testing.assert_close(torch.cat(asked), torch.stack(acted))


# ------------------------------------------------------------------------------------------------------------------ whole runs

TINY = (
    "env=CartPole-v1", "threads=1", "eval.episodes=2", "eval.video=false", "loop.num_envs=3", "loop.rollout_steps=16", "agent.hidden=[8]",
    "checkpoint.every=0", "preset=null",
)  # fmt: skip
PPO_WORDS = ("agent.minibatch=20", "agent.epochs=2", "agent.normalize_obs=true", "agent.lr=3e-4", "agent.anneal_lr=false")
REPLAYING = ("loop.rollouts_kept=3", "loop.replays=2", "agent.anneal_lr=false")


def final_state(directory: Path) -> dict:
    """The last checkpoint without clocks and scores."""
    _, state = recording.load_checkpoint(directory / "checkpoint")
    return {name: part for name, part in state.items() if name not in ("recorder", "best")}


def same(a, b) -> bool:
    """Deep equality, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize(("name", "words"), [("ppo", PPO_WORDS), ("vtrace", REPLAYING), ("retrace", REPLAYING), ("trpo", ())])
def test_resume_in_mid_window_equals_uninterrupted(tmp_path, name, words):
    """240 steps are five windows; the break after 111 is in the third."""
    mbkit.train(name, *TINY, *words, f"run_dir={tmp_path / 'whole'}", "steps=240")
    mbkit.train(name, *TINY, *words, f"run_dir={tmp_path / 'halves'}", "steps=111")
    torch.rand(17)  # a resumed process has another past
    halfway = final_state(tmp_path / "halves")
    mbkit.resume(tmp_path / "halves", steps=240)
    whole, halves = final_state(tmp_path / "whole"), final_state(tmp_path / "halves")
    assert halfway["loop"]["step"] == 111
    assert not same(whole, halfway)
    assert same(whole, halves)


def test_a_schedule_goes_on_where_it_was(tmp_path):
    """The step size falls to the end of the same run: one whose last checkpoint is lost ends alike."""
    words = (*TINY, *PPO_WORDS, "agent.anneal_lr=true", "checkpoint.every=111", "checkpoint.keep=all", "steps=240")
    mbkit.train("ppo", *words, f"run_dir={tmp_path / 'run'}")
    whole = final_state(tmp_path / "run")
    for path in (tmp_path / "run/checkpoint").iterdir():
        if "111" not in path.name:
            path.unlink()
    assert final_state(tmp_path / "run")["loop"]["step"] == 111
    mbkit.resume(tmp_path / "run")
    assert same(whole, final_state(tmp_path / "run"))
    rate = whole["parts"]["agent"]["_extra_state"]["networks"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(3e-4 * (1 - 192 / 240))


# ---------------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("ppo", "loop.warmup_steps=10", r"loop.warmup_steps=10: ppo learns from its own actions, not from random ones; expected 0"),
        ("ppo", "loop.rollout_steps=1 loop.num_envs=1", r"rollout_steps=1 and loop.num_envs=1: one advantage .* at least 2 rows"),
        ("trpo", "loop.n_step=3", r"loop.n_step=3: trpo learns from whole trajectories \(loop.rollout_steps\); expected 1"),
        ("npg", "loop.replays=1", r"loop.replays=1: npg does not correct for who acted in the past; expected 0, or vtrace, retrace"),
        ("soft_pg", "loop.replays=2", r"loop.replays=2: soft_pg does not correct"),
        ("vtrace", "loop.rollouts_kept=0", r"loop.replays=1 needs remembered trajectories; .* at least 1, came 0"),
        ("retrace", "loop.rollouts_kept=0", r"loop.replays=4 needs remembered trajectories"),
    ],
)
def test_contradictions_are_named(name, word, message):
    env = envs.make("CartPole-v1", num_envs=8)
    with pytest.raises(UserError, match=message):
        model_free.build(compose(name, ["env=CartPole-v1", *word.split()]), env)


@pytest.mark.parametrize(("steps", "notes"), [(1023, 0), (1016, 1)])
def test_a_run_too_short_for_an_update_says_so(steps, notes):
    config = compose("npg", ["env=CartPole-v1", f"steps={steps}", "loop.num_envs=8", "loop.rollout_steps=128"])
    found = model_free.build(config, envs.make("CartPole-v1", num_envs=8)).notes
    assert [n for n in found if n.startswith("npg never learned: 1016 steps are 127 of each environment, and an update takes 128")] == found
    assert len(found) == notes


@pytest.mark.parametrize(("env", "other"), [("CartPole-v1", "dqn"), ("Pendulum-v1", "sac")])
def test_a_recipe_of_transitions_names_an_agent_that_fits(env, other):
    config = compose("mbpo", [f"env={env}", "agent=ppo"])
    with pytest.raises(UserError, match=f"'ppo' learns from whole trajectories, but mbpo offers transitions; e.g. agent={other}"):
        make_agent(config, spec_of(config, envs.make(env, num_envs=1)))


@pytest.mark.parametrize("name", ["vtrace", "retrace"])
def test_who_corrects_may_replay(name):
    config = compose(name, ["env=CartPole-v1", "loop.rollouts_kept=2", "loop.replays=5"])
    parts = model_free.build(config, envs.make("CartPole-v1", num_envs=8))
    assert (parts.buffer.kept, parts.hooks[0].cfg.replays) == (2, 5)
