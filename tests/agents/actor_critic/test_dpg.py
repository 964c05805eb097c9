"""DPG: the theorem on a linear-quadratic regulator, targets without a target network, each transition used once."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toys import LQR, SPEC, WIDE, bandit, regret

from mbkit import envs, registry
from mbkit.agents.actor_critic.ddpg import policy_loss
from mbkit.agents.actor_critic.dpg import DPG, DPGConfig
from mbkit.config import FreshLoop, compose
from mbkit.errors import UserError
from mbkit.loops import Updates
from mbkit.loops.clock import Clock
from mbkit.recipes import fresh, replay
from mbkit.recipes.assembly import Assembly
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
    """The regulator's Q for one gain, as a critic."""

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
def test_policy_loss_gradient_on_a_regulator_by_finite_differences(k):
    lqr, eps = LQR(), 1e-6
    up, down = (lqr.objective(torch.tensor(k + e, dtype=torch.float64)) for e in (eps, -eps))
    torch.testing.assert_close(gradient(lqr, k), (up - down) / (2 * eps), atol=1e-7, rtol=1e-7)


def test_policy_loss_gradient_vanishes_at_the_riccati_gain():
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


def test_backup_uses_the_critic_itself():
    agent, batch = DPG(WIDE, DPGConfig()), random_batch(WIDE, 8)
    y = one_step(agent, batch, 0.9).target
    q = agent.critics(batch.next_obs, agent.policy(batch.next_obs))[0]
    torch.testing.assert_close(y, (batch.reward + 0.9 * batch.discount * q).detach())
    assert registry.agents["dpg"].learns_from == ("fresh",)
    assert not [name for name, _ in agent.named_modules() if "target" in name]


def numbered(first: int, m: int) -> Experience:
    """m rows whose first observation is the number of the row."""
    obs = torch.arange(first, first + m).float()[:, None].expand(m, 2)
    never = torch.zeros(m, dtype=torch.bool)
    return Experience(obs, torch.zeros(m, 1), obs[:, 0], obs + 1, never, never)


class Steps(Clock):
    """Steps of environments whose rows are numbered."""

    def __init__(self, buffer: ReplayBuffer, num_envs: int) -> None:
        super().__init__(num_envs)
        self.buffer, self.recorder = buffer, SimpleNamespace(log=lambda step, metrics: None)

    def advance(self) -> None:
        self.buffer.extend(numbered(self.step, self.stride))
        self.step += self.stride


@pytest.mark.parametrize(("num_envs", "batch_size"), [(1, 4), (3, 12), (4, 4), (3, 3)])
def test_updates_use_every_transition_once(num_envs, batch_size):
    buffer, used = ReplayBuffer(1000, SPEC), []
    agent = DPG(SPEC, DPGConfig(hidden=(4,)))
    agent.update = lambda batch: used.extend(batch.obs[:, 0].tolist()) or {"critic/loss": torch.zeros(())}
    loop = FreshLoop(batch_size=batch_size, updates_per_step=1 / batch_size, num_envs=num_envs)
    fresh.check("dpg", loop)
    Steps(buffer, num_envs).run(48 * num_envs, [Updates("dpg", agent, Newest(buffer), loop, SPEC.device)])
    assert used == [float(i) for i in range(len(used))]
    assert len(used) > 48 * num_envs - batch_size


@pytest.mark.parametrize(
    ("option", "culprit"),
    [("loop.updates_per_step=1", "updates_per_step"), ("loop.num_envs=9", "num_envs"), ("loop.batch_size=16", "batch_size")],
)
def test_loop_reuse_of_transitions_is_refused(option, culprit):
    with pytest.raises(UserError, match=culprit):
        fresh.build(Assembly(compose("dpg", ["env=Pendulum-v1", option]), envs.make("Pendulum-v1")))


def test_recipe_fresh_learner_gets_the_newest_rows_and_others_the_replay():
    env = envs.make("Pendulum-v1")
    newest, replayed = (Assembly(compose(name, ["env=Pendulum-v1"]), env) for name in ("dpg", "ddpg"))
    fresh.build(newest)
    replay.build(replayed)
    assert isinstance(newest.hooks[0].source, Newest)
    assert replayed.hooks[0].source is replayed.replay


def test_update_on_a_bandit_learns_from_its_own_actions():
    torch.manual_seed(0)
    agent = DPG(SPEC, DPGConfig(hidden=(32,), lr=1e-2, policy_lr=1e-2, noise_scale=0.5))
    for _ in range(200):
        obs = torch.rand(64, 2) * 2 - 1
        agent.update(bandit(agent.act(obs), obs))
    assert regret(agent) < 0.1
