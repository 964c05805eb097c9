"""DPG: the theorem on a linear-quadratic regulator, its own target, and that every transition is used once."""

import pytest
import torch
from torch import nn
from toys import LQR, SPEC, WIDE, bandit, regret

from mbkit import envs
from mbkit.agents.actor_critic.ddpg import policy_loss
from mbkit.agents.actor_critic.dpg import DPG, DPGConfig
from mbkit.config import LoopConfig, compose
from mbkit.errors import UserError
from mbkit.loops import Updates
from mbkit.recipes import model_free
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import Newest
from mbkit.targets import one_step
from mbkit.testing import random_batch


class Gain(nn.Module):
    """u = -k s."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, obs):
        return -self.k * obs


class Exact:
    """The regulator's own Q for one gain, as a critic."""

    def __init__(self, lqr: LQR, gain: torch.Tensor) -> None:
        self.lqr, self.gain = lqr, gain

    def first(self, obs, action):
        return self.lqr.q(self.gain, obs, action)


def gradient(lqr: LQR, k: float) -> torch.Tensor:
    """The theorem's gradient of J, from the loss that DPG descends on: exact Q, states with the discounted second moment."""
    policy, fixed = Gain(k), torch.tensor(k, dtype=torch.float64)
    spread = lqr.second_moment(fixed).sqrt()
    states = torch.stack([-spread, spread])[:, None]
    policy_loss(policy, Exact(lqr, fixed), states).backward()
    return -policy.k.grad / (1 - lqr.gamma)


@pytest.mark.parametrize("k", [-0.1, 0.4, 1.0, 2.0])
def test_theorem_against_finite_differences(k):
    lqr, eps = LQR(), 1e-6
    up, down = (lqr.objective(torch.tensor(k + e, dtype=torch.float64)) for e in (eps, -eps))
    torch.testing.assert_close(gradient(lqr, k), (up - down) / (2 * eps), atol=1e-7, rtol=1e-7)


def test_gradient_vanishes_at_the_riccati_gain():
    lqr, p = LQR(), 1.0
    for _ in range(200):
        gain = lqr.gamma * lqr.a * lqr.b * p / (lqr.cost + lqr.gamma * lqr.b**2 * p)
        p = 1 + lqr.gamma * lqr.a * p * (lqr.a - lqr.b * gain)
    assert abs(gain - lqr.riccati) < 1e-6
    assert abs(gradient(lqr, gain)) < 1e-9
    k = 0.2
    for _ in range(200):
        k += 0.2 * gradient(lqr, k).item()
    assert abs(k - lqr.riccati) < 1e-6


def test_target_is_its_own_critic():
    agent, batch = DPG(WIDE, DPGConfig()), random_batch(WIDE, 8)
    y = one_step(agent, batch, 0.9).target
    q = agent.critics(batch.next_obs, agent.policy(batch.next_obs))[0]
    torch.testing.assert_close(y, (batch.reward + 0.9 * batch.discount * q).detach())
    assert agent.on_policy
    assert not [name for name, _ in agent.named_modules() if "slow" in name]


def numbered(first: int, m: int) -> Experience:
    """m rows whose first observation is their own number."""
    obs = torch.arange(first, first + m).float()[:, None].expand(m, 2)
    never = torch.zeros(m, dtype=torch.bool)
    return Experience(obs, torch.zeros(m, 1), obs[:, 0], obs + 1, never, never)


@pytest.mark.parametrize("capacity", [7, 100])
def test_newest_are_the_last_rows(capacity):
    buffer, written = ReplayBuffer(capacity, SPEC), 0
    newest = Newest(buffer)
    for _ in range(8):
        buffer.extend(numbered(written, 3))
        written += 3
        batch = newest.sample(5)
        assert batch.obs[:, 0].tolist() == [max(0, written - 5 + i) for i in range(5)]
        assert torch.equal(batch.reward, batch.obs[:, 0])
        assert torch.equal(batch.next_obs, batch.obs + 1)


class Loop:
    """What the hook sees of an online loop."""

    def __init__(self, num_envs: int) -> None:
        self.step, self.env = 0, type("Env", (), {"num_envs": num_envs})()
        self.recorder = type("Recorder", (), {"log": lambda *_: None})()

    def passed(self, every: int) -> bool:
        return False


@pytest.mark.parametrize(("num_envs", "batch_size"), [(1, 4), (3, 12), (4, 4), (3, 3)])
def test_every_transition_is_used_once(num_envs, batch_size):
    buffer, loop, seen = ReplayBuffer(1000, SPEC), Loop(num_envs), []
    agent = DPG(SPEC, DPGConfig(hidden=(4,)))
    agent.update = lambda batch: seen.extend(batch.obs[:, 0].tolist()) or {"critic/loss": torch.zeros(())}
    cfg = LoopConfig(warmup_steps=0, batch_size=batch_size, updates_per_step=1 / batch_size, num_envs=num_envs)
    updates = Updates(agent, model_free.on_policy_data("dpg", cfg, buffer, 0.9), cfg, SPEC.device)
    for _ in range(48):
        buffer.extend(numbered(loop.step, num_envs))
        loop.step += num_envs
        updates(loop)
    assert seen == [float(i) for i in range(len(seen))]
    assert len(seen) > 48 * num_envs - batch_size


@pytest.mark.parametrize(
    ("words", "culprit"),
    [(["loop.updates_per_step=1"], "updates_per_step"), (["loop.num_envs=9"], "num_envs"), (["loop.batch_size=16"], "batch_size")],
)
def test_reuse_is_refused(words, culprit):
    with pytest.raises(UserError, match=culprit):
        model_free.build(compose("dpg", ["env=Pendulum-v1", *words]), envs.make("Pendulum-v1"))


def test_recipe_gives_it_the_newest_rows_and_others_random_ones():
    env = envs.make("Pendulum-v1")
    parts = {name: model_free.build(compose(name, ["env=Pendulum-v1"]), env) for name in ("dpg", "ddpg")}
    assert isinstance(parts["dpg"].hooks[0].source, Newest)
    assert parts["ddpg"].hooks[0].source is parts["ddpg"].buffer


def test_learns_a_bandit_from_its_own_actions():
    torch.manual_seed(0)
    agent = DPG(SPEC, DPGConfig(hidden=(32,), lr=1e-2, policy_lr=1e-2, noise_scale=0.5))
    for _ in range(200):
        obs = torch.rand(64, 2) * 2 - 1
        agent.update(bandit(agent.act(obs), obs))
    assert regret(agent) < 0.1
