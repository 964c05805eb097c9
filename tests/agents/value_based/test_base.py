"""What learners of discrete values share: the regression and its backward pass, epsilon-greedy acting, the two kinds of target networks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import WIDE

from mbkit.agents.value_based.base import (
    EpsilonGreedy,
    EpsilonGreedyConfig,
    ValueAgent,
    ValueConfig,
    linear_decay,
)
from mbkit.agents.value_based.regression import regression, taken_slope
from mbkit.errors import UserError
from mbkit.networks.heads import ActionValues, taken
from mbkit.testing import random_batch
from mbkit.types import Targets

DISCRETE = WIDE._replace(discrete=True, action_dim=4)
CFG = ValueConfig(hidden=(16, 16))


class Plain(ValueAgent):
    """The base class under the name of an algorithm."""

    name = "plain"


def make(**options) -> Plain:
    torch.manual_seed(0)
    return Plain(DISCRETE, replace(CFG, **options), gamma=0.9)


def rows(n: int = 20, critics: int = 2) -> tuple[torch.Tensor, Targets]:
    """Values [K, N, A] in float64, and targets with errors on both sides of 1 and unequal weights."""
    draw = torch.Generator().manual_seed(3)
    values = torch.randn(critics, n, 4, generator=draw, dtype=torch.float64)
    action = torch.randint(4, (n,), generator=draw)
    target, weight = 2 * torch.randn(n, generator=draw, dtype=torch.float64), torch.rand(n, generator=draw, dtype=torch.float64)
    return values, Targets(torch.zeros(n, 3), action, target, weight)


# --------------------------------------------------------------------------------------------------------------------- regression
def test_taken_by_hand():
    q = torch.arange(24.0).reshape(2, 3, 4)
    assert taken(q, torch.tensor([3, 0, 1])).tolist() == [[3, 4, 9], [15, 16, 21]]
    assert taken(q[0], torch.tensor([3, 0, 1])).tolist() == [3, 4, 9]


def test_regression_by_hand():
    q = torch.tensor([[0.5, 3.0], [-2.0, 0.0]])
    y = Targets(torch.zeros(2, 1), torch.zeros(2), torch.zeros(2), torch.tensor([1.0, 0.5]))
    assert regression(q, y, "mse").item() == pytest.approx((0.125 + 0.5 * 4.5) / 2 + (2.0 + 0) / 2)
    assert regression(q, y, "huber").item() == pytest.approx((0.125 + 0.5 * 2.5) / 2 + (1.5 + 0) / 2)  # |d| - 1/2 beyond 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_taken_slope_is_the_gradient_of_regression(loss, weighted):
    values, y = rows()
    y = y if weighted else y._replace(weight=None)
    slope, q = taken_slope(values.requires_grad_(), y, loss)
    assert not q.requires_grad
    torch.testing.assert_close(q, taken(values, y.action).detach(), rtol=0, atol=0)
    plain = torch.autograd.grad(regression(taken(values, y.action), y, loss), values)[0]
    torch.testing.assert_close(slope, plain, rtol=1e-12, atol=1e-16)
    beyond = (q - y.target).abs() > 1
    assert beyond.any()
    assert not beyond.all()
    ones = y._replace(weight=torch.ones_like(y.target))
    assert weighted or torch.equal(slope, taken_slope(values, ones, loss)[0])


def test_taken_slope_huber_of_small_errors_is_that_of_the_squared_error():
    values, y = rows()
    near = y._replace(target=taken(values, y.action)[0] + 0.9)
    assert torch.equal(taken_slope(values[:1], near, "huber")[0], taken_slope(values[:1], near, "mse")[0])


# ----------------------------------------------------------------------------------------------------------------------- exploring
@given(begin=st.floats(0, 1), end=st.floats(0, 1), steps=st.integers(1, 1000), now=st.integers(0, 3000))
def test_linear_decay_stays_between_its_ends(begin, end, steps, now):
    value = linear_decay(begin, end, steps, now)
    assert min(begin, end) - 1e-12 <= value <= max(begin, end) + 1e-12
    assert value == pytest.approx(end) if now >= steps else True
    assert linear_decay(begin, end, steps, 0) == begin


def test_epsilon_decays_with_exploratory_steps_of_all_environments():
    agent = make(epsilon=1.0, final_epsilon=0.2, epsilon_steps=100)
    obs = random_batch(DISCRETE, 10).obs
    agent.act(obs)
    assert agent.epsilon == pytest.approx(1 - 0.8 * 0.1)
    agent.act(obs, explore=False)
    agent.sample(obs)  # of model rollouts
    assert agent.explored == 10
    for _ in range(20):
        agent.act(obs)
    assert agent.epsilon == pytest.approx(0.2)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_sample_has_the_share_epsilon_of_random_actions(epsilon):
    """The greedy action is taken with probability 1 - epsilon + epsilon / A, any other with epsilon / A."""
    agent, n = make(epsilon=epsilon, final_epsilon=epsilon), 20_000
    obs = random_batch(DISCRETE, 1).obs.expand(n, -1)
    action, greedy = agent.sample(obs), agent.act(obs[:1], explore=False)
    share = torch.bincount(action, minlength=4) / n
    expected = torch.full((4,), epsilon / 4)
    expected[greedy] += 1 - epsilon
    torch.testing.assert_close(share, expected, rtol=0, atol=5 * (0.25 / n) ** 0.5)


def test_act_uses_the_network_and_value_the_target_network():
    agent, obs = make(), random_batch(DISCRETE, 8).obs
    for p in agent.q.parameters():
        p.data.normal_()
    assert torch.equal(agent.act(obs, explore=False), agent.q(obs)[0].argmax(-1))
    assert torch.equal(agent.value(obs), agent.target_q(obs)[0].amax(-1))
    action, bonus = agent.backup_action(obs)
    assert torch.equal(agent.backup_q(obs, action)[0], agent.value(obs))
    assert not bonus.any()


def test_value_of_several_critics_is_their_minimum():
    class Twins(ValueAgent):
        name = "twins"

        def make_network(self, spec):
            return ActionValues(2, spec.obs_dim, spec.action_dim, self.cfg.hidden)

    agent, obs = Twins(DISCRETE, CFG), random_batch(DISCRETE, 8).obs
    pessimist = agent.target_q(obs).amin(0)
    assert torch.equal(agent.value(obs), pessimist.amax(-1))
    assert torch.equal(agent.backup_action(obs)[0], pessimist.argmax(-1))
    assert agent.backup_q(obs, agent.backup_action(obs)[0]).shape == (2, 8)


# ------------------------------------------------------------------------------------------------------------------ target network
def test_update_target_every_3_copies_every_third_time():
    agent = make(target_every=3)
    for n in range(1, 8):
        before = [p.clone() for p in agent.target_q.parameters()]
        agent.update(random_batch(DISCRETE, 16, n))
        after = list(agent.target_q.parameters())
        if n % 3:
            assert all(map(torch.equal, before, after))
        else:
            assert all(map(torch.equal, after, agent.q.parameters()))
            assert not any(map(torch.equal, before, after))


@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
def test_update_target_every_0_weighs_new_parameters_by_tau(tau):
    """target <- (1 - tau) target + tau online: tau is the weight of the new ones, as in DDPG, TD3 and SAC."""
    agent = make(target_every=0, tau=tau)
    before = [p.clone() for p in agent.target_q.parameters()]
    agent.update(random_batch(DISCRETE, 16))
    for old, target, new in zip(before, agent.target_q.parameters(), agent.q.parameters(), strict=True):
        torch.testing.assert_close(target, (1 - tau) * old + tau * new)
        assert tau != 0 or torch.equal(target, old)
        assert tau != 1 or torch.equal(target, new)


def test_state_dict_holds_epsilon_and_the_updates_since_the_copy():
    first, second = make(target_every=3, epsilon_steps=100), make(target_every=3, epsilon_steps=100)
    first.act(random_batch(DISCRETE, 7).obs)
    first.update(random_batch(DISCRETE, 16))
    first.update(random_batch(DISCRETE, 16))
    second.load_state_dict(first.state_dict())
    assert second.epsilon == first.epsilon
    assert not torch.equal(second.target_q.net.weight[0], second.q.net.weight[0])
    second.update(random_batch(DISCRETE, 16))  # the third
    assert torch.equal(second.target_q.net.weight[0], second.q.net.weight[0])


# -------------------------------------------------------------------------------------------------------------------------- update
def test_max_grad_norm_scales_a_larger_gradient_down():
    agent = make(max_grad_norm=1e-3, lr=1e-3, loss="mse")
    gradients = []
    agent.optimizers["q"].descend = lambda grads, divisor: gradients.extend(grad / divisor for grad in grads)
    batch = random_batch(DISCRETE, 16)
    agent.update(batch._replace(reward=batch.reward * 1e4))
    assert torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients])).item() == pytest.approx(1e-3, rel=1e-3)


def test_update_changes_only_the_taken_actions():
    agent = make(target_every=0, tau=0.0)
    batch = random_batch(DISCRETE, 16)._replace(action=torch.full((16,), 2))
    last = agent.q.net.weight[-1].clone()
    agent.update(batch)
    moved = (agent.q.net.weight[-1] != last).any(1)[0]
    assert moved.tolist() == [False, False, True, False]


@pytest.mark.parametrize("cls", [EpsilonGreedy, ValueAgent])
def test_value_agent_continuous_actions_are_refused(cls):
    climber = type("Climber", (cls,), {"name": "climber"})
    with pytest.raises(UserError, match="climber needs discrete actions, but the environment has continuous ones, of 2 dimensions"):
        climber(WIDE, EpsilonGreedyConfig() if cls is EpsilonGreedy else CFG)
