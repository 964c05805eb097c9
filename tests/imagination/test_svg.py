"""Gradients through a model against analytic ones, finite differences and the agent's loss; what must not leak into them."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from systems import SMALL, SPEC, small_ensemble
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mbkit.agents.actor_critic import sac
from mbkit.agents.actor_critic.ascent import SoftPath, ascend_softly
from mbkit.agents.actor_critic.ddpg import DDPG, DDPGConfig
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.actor_critic.td3 import TD3, TD3Config
from mbkit.errors import UserError
from mbkit.imagination.mve import ValueExpansion
from mbkit.imagination.svg import ModelValue
from mbkit.testing import random_batch
from mbkit.types import Rollout, Step

GAMMA = 0.9
F64 = torch.float64
SYNC = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}


class Linear:
    """s' = A s + B a, reward -s'Q s - a'R a; where s_0 > `wall` a row terminates, its successor times `broken`."""

    differentiable = True

    def __init__(self, wall: float = math.inf, broken: float | None = None):
        draw = torch.Generator().manual_seed(0)
        self.a, self.b, q, r = (torch.randn(*size, dtype=F64, generator=draw) for size in ((3, 3), (3, 2), (3, 3), (2, 2)))
        self.a = self.a / 2
        self.q, self.r = q @ q.T, r @ r.T
        self.wall, self.broken = wall, broken

    def init(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, carry: Tensor, action: Tensor, predict: bool = False, grad: bool = False) -> Step:
        with torch.set_grad_enabled(grad):
            beyond = carry[:, 0] > self.wall
            after = carry @ self.a.T + action @ self.b.T
            if self.broken is not None:
                after = after * torch.where(beyond[:, None], torch.tensor(self.broken, dtype=F64), 1.0)
            reward = -((carry @ self.q) * carry).sum(1) - ((action @ self.r) * action).sum(1)
            return Step(after, after, reward, beyond)

    def rollout(self, carry: Tensor, actions: Tensor) -> Rollout:
        raise NotImplementedError


class Gain:
    """The policy a = K s with a bonus of `bonus` |a|^2, and the critic -s'P s."""

    def __init__(self, gain: Tensor, bonus: float = 0.0):
        self.gain, self.bonus = gain.clone().requires_grad_(), bonus
        p = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(5))
        self.p = p @ p.T

    def path_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        action = obs @ self.gain.T
        return action, self.bonus * action.square().sum(1)

    def path_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return -((obs @ self.p) * obs).sum(1)


def gradient_of(model: Linear, obs: Tensor, horizon: int, gain: Tensor, bonus: float = 0.0) -> tuple[Tensor, Tensor]:
    """Values [B], and the gradient of their mean in the gain."""
    policy = Gain(gain, bonus)
    value = ModelValue(model, horizon)(policy, obs, policy.path_action(obs), GAMMA)
    return value.detach(), torch.autograd.grad(value.mean(), policy.gain)[0]


def starts(rows: int = 6) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(rows, 3, dtype=F64, generator=draw), torch.randn(2, 3, dtype=F64, generator=draw) / 2


# ------------------------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_linear_quadratic_gradient_is_the_analytic_one(horizon):
    """P_H = -P, P_t = -(Q + K'R K) + gamma M'P_{t+1} M with M = A + B K; dJ/dK = sum_t 2 gamma^t (gamma B'P_{t+1} M - R K) s_t s_t'."""
    model, (obs, k) = Linear(), starts()
    value, gradient = gradient_of(model, obs, horizon, k)
    m, p = model.a + model.b @ k, [-Gain(k).p]
    for _ in range(horizon):
        p.insert(0, -(model.q + k.T @ model.r @ k) + GAMMA * m.T @ p[0] @ m)
    expected, s = torch.zeros_like(k), obs
    for t in range(horizon):
        slope = 2 * GAMMA**t * (GAMMA * model.b.T @ p[t + 1] @ m - model.r @ k)
        expected += slope @ (s.T @ s) / len(s)
        s = s @ m.T
    torch.testing.assert_close(value, ((obs @ p[0]) * obs).sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


PLAIN, MEAN, FIXED = SACConfig(hidden=(16,)), SACConfig(hidden=(16,), critics=5, policy_q="mean"), SACConfig(temperature=0.2)


@pytest.mark.parametrize("cfg", [PLAIN, MEAN, FIXED, replace(PLAIN, loss="hl_gauss")])
def test_horizon_0_is_the_policy_step_of_sac(cfg, monkeypatch):
    torch.manual_seed(0)
    agent, obs = SAC(SPEC, cfg), torch.randn(32, 3)
    if cfg.loss == "hl_gauss":
        agent.critics.outputs.scale.fill_(0.2)
        agent.log_alpha.data.fill_(-16.0)  # so small that a step of Adam shows its gradient, beside its epsilon
    other, grads = deepcopy(agent), []
    alpha = agent.alpha
    monkeypatch.setattr(sac, "descend_together", lambda *steps: grads.append(steps[0][1]) or [o.descend(g) for o, g in steps])
    descend = other.optimizers["policy"].descend
    monkeypatch.setattr(other.optimizers["policy"], "descend", lambda g, divisor=None: grads.append(g) or descend(g, divisor))
    torch.manual_seed(1)
    agent.update_policy(obs, agent.policy.sampled(obs), alpha)
    torch.manual_seed(1)
    last = ascend_softly(other, ModelValue(Linear(), 0), obs, alpha, cfg.policy_q == "mean")
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert any(float(g.abs().max()) > 1e-3 for g in grads[0])
    torch.testing.assert_close(agent.log_alpha, other.log_alpha, rtol=0, atol=1e-5)
    torch.testing.assert_close(last, agent.last)  # loss and entropy


@pytest.mark.parametrize(("agent", "cfg"), [(DDPG, DDPGConfig(hidden=(16,))), (TD3, TD3Config(hidden=(16,), delay=1))])
def test_horizon_0_is_the_update_of_deterministic_policies(agent, cfg):
    torch.manual_seed(0)
    plain, batch = agent(SPEC, cfg), random_batch(SPEC, 32)
    torch.manual_seed(0)
    other = agent(SPEC, cfg, objective=ModelValue(Linear(), 0))
    for learner in (plain, other):
        torch.manual_seed(1)
        learner.update(batch)
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_without_an_objective_sac_draws_and_learns_as_ever():
    """The same numbers by an agent whose class knows of no objective: the parent's arguments alone."""
    batch, ends = random_batch(SPEC, 32), []
    for arguments in ((), (0.99, ValueExpansion(Linear(), 0)), (0.99, ValueExpansion(Linear(), 0), None)):
        torch.manual_seed(0)
        agent = SAC(SPEC, SACConfig(hidden=(16,)), *arguments)
        agent.update(batch)
        ends.append((torch.rand(2), [p.detach() for p in agent.parameters()]))
    assert torch.equal(ends[1][0], ends[2][0])
    assert all(torch.equal(a, b) for a, b in zip(ends[1][1], ends[2][1], strict=True))


@pytest.mark.parametrize("propagation", ["ts_inf", "ts1"])
def test_gradient_through_the_ensemble_equals_finite_differences(propagation):
    model = small_ensemble(replace(SMALL, propagation=propagation))
    torch.manual_seed(3)
    agent, obs = SAC(SPEC, SACConfig(hidden=(32,))), torch.randn(64, 3)
    path, objective = SoftPath(agent.policy, agent.critics, torch.tensor(0.1)), ModelValue(model, 3)
    params = list(agent.policy.parameters())

    def mean_value() -> Tensor:
        torch.manual_seed(4)
        return objective(path, obs, path.path_action(obs), GAMMA).double().mean()

    grads = torch.autograd.grad(mean_value(), params)
    direction = [g / sum(x.square().sum() for x in grads).sqrt() for g in grads]
    expected = float(sum((g * d).sum() for g, d in zip(grads, direction, strict=True)))
    size = 1e-2
    with torch.no_grad():
        torch._foreach_add_(params, direction, alpha=size)
        above = mean_value()
        torch._foreach_add_(params, direction, alpha=-2 * size)
        below = mean_value()
    assert expected > 0.1
    assert float(above - below) / (2 * size) == pytest.approx(expected, rel=0.01)


# ---------------------------------------------------------------------------------------------------------- what must not leak


def by_hand(model: Linear, obs: Tensor, horizon: int, gain: Tensor, bonus: float) -> tuple[Tensor, Tensor]:
    """The same for one row after the other, which ends where it terminates."""
    policy, values = Gain(gain, bonus), []
    for s in obs:
        s, value = s[None], torch.zeros((), dtype=F64)
        for t in range(horizon):
            action, extra = policy.path_action(s)
            step = model.step(s, action, grad=True)
            value, ended, s = value + GAMMA**t * (step.reward + extra)[0], bool(step.terminated), step.obs
            if ended:
                break
        else:
            value = value + GAMMA**horizon * (policy.path_value(s, s) + policy.path_action(s)[1])[0]
        values.append(value)
    value = torch.stack(values)
    return value.detach(), torch.autograd.grad(value.mean(), policy.gain)[0]


@pytest.mark.parametrize("wall", [-0.5, 0.5])
@pytest.mark.parametrize("bonus", [0.0, 0.7])
def test_nothing_follows_a_termination(wall, bonus):
    obs, k = starts(20)
    results = [call(Linear(wall), obs, 4, k, bonus) for call in (gradient_of, by_hand)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(gradient_of(Linear(), obs, 4, k, bonus)[1], results[0][1])


@pytest.mark.parametrize("broken", [math.nan, math.inf, 1e300])
def test_rows_that_are_not_finite_have_no_part_in_the_gradient(broken):
    """Rows beyond the wall have a successor that is not finite, or makes the next one so."""
    obs, k = starts(20)
    objective, policy = ModelValue(Linear(0.5, broken), 4), Gain(k)
    value = objective(policy, obs, policy.path_action(obs), GAMMA)
    gradient = torch.autograd.grad(value.mean(), policy.gain)[0]
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    counts = objective.counters.take()
    assert (counts["rows"], counts["asked"]) == (20, 20)
    if broken == 1e300:  # it is finite, and the end: nothing comes after it
        assert counts["broken"] == 0
        return
    m, s, lost = Linear().a + Linear().b @ k, obs, torch.zeros(20, dtype=torch.bool)
    for _ in range(4):
        lost, s = lost | (s[:, 0] > 0.5), s @ m.T
    assert counts["broken"] == lost.sum() > 0
    rest, expected = gradient_of(Linear(), obs[~lost], 4, k)
    torch.testing.assert_close(value[~lost], rest)
    assert (value[lost] == 0).all()
    torch.testing.assert_close(gradient, expected * (~lost).double().mean(), rtol=1e-11, atol=1e-11)


def test_a_gradient_that_is_not_finite_stays_in_its_row():
    class Root(Linear):
        def step(self, carry, action, predict=False, grad=False):
            step = super().step(carry, action, predict, grad)
            return step._replace(reward=step.reward + (carry[:, 0] - carry[:, 0].detach().clamp(min=0)).relu().sqrt())

    class Steep(Linear):
        """Slopes of 1e10 in every step, of rows beyond a line."""

        def step(self, carry, action, predict=False, grad=False):
            step = super().step(carry, action, predict, grad)
            after = step.obs + 1e10 * (step.obs - step.obs.detach()) * (carry[:, :1] > 0).double()
            return step._replace(state=after, obs=after)

    obs, k = starts(20)
    assert gradient_of(Root(), obs, 3, k)[1].isfinite().all()
    assert gradient_of(Steep(), obs, 5, k)[1].abs().max() < 1e17


@pytest.mark.parametrize("bound", [1e-3, 1e6])
def test_the_norm_of_the_gradient_is_bounded(bound, monkeypatch):
    torch.manual_seed(0)
    agent, grads = SAC(SPEC, SACConfig(hidden=(16,)), objective=ModelValue(small_ensemble(), 3, bound)), []
    optimizer = agent.optimizers["policy"]
    monkeypatch.setattr(optimizer, "descend", lambda g, divisor: grads.append(torch.cat([x.flatten() for x in g]) / divisor))
    agent.update(random_batch(SPEC, 32))
    norm = float(grads[0].norm())
    assert norm == pytest.approx(bound, rel=2e-2) if bound < 1 else norm < bound


def test_critics_model_and_temperature_get_no_gradient_from_the_policy():
    model = small_ensemble()
    agent = SAC(SPEC, SACConfig(hidden=(16,)), objective=ModelValue(model, 2))
    agent.update(random_batch(SPEC, 32))
    assert all(p.grad is None for p in [*agent.parameters(), *model.network.parameters()])
    obs = torch.randn(8, 3)
    path = SoftPath(agent.policy, agent.critics, agent.log_alpha.detach().exp())
    value = agent.objective(path, obs, path.path_action(obs), GAMMA).sum()
    others = [*agent.critics.parameters(), *model.network.parameters()]
    assert all(g is None for g in torch.autograd.grad(value, [*agent.policy.parameters(), *others], allow_unused=True)[-len(others) :])


def test_an_update_does_not_synchronise():
    torch.manual_seed(0)
    objective, obs = ModelValue(small_ensemble(), 2), torch.randn(31, 3)
    agent = SAC(SPEC, SACConfig(hidden=(16,)))
    path = SoftPath(agent.policy, agent.critics, torch.tensor(0.1))
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        objective(path, obs, path.path_action(obs), GAMMA).mean().backward()
    assert not {event.name for event in recorded.events()} & SYNC


# ---------------------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_named():
    class Simulator:
        pass

    with pytest.raises(UserError, match=r"Simulator has no gradient, and a policy objective is differentiated through its model"):
        ModelValue(Simulator(), 2)
    with pytest.raises(UserError, match=r"imagination\.horizon=-1: expected at least 0"):
        ModelValue(Linear(), -1)
