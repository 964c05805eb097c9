"""The natural policy gradient does not depend on the parameterization; in a table it has a closed form."""

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, bandit, greedy_reward
from torch import Tensor, nn

from mbkit.agents.policy_gradient.npg import NPG, NPGConfig, normalized_step
from mbkit.agents.policy_gradient.on_policy import AdvantageBatch
from mbkit.networks.distributions import Categorical, ClippedGaussian
from mbkit.testing import random_trajectory

DOUBLE = torch.float64
EXACT = {"damping": 0.0, "cg_iterations": 80, "hidden": (3,), "value_epochs": 1}

QUICK = {"value_epochs": 2, "minibatch": 256}


class Scaled(nn.Module):
    """A net of one hidden layer with weights divided by scales as parameters: the function does not depend on the scales."""

    def __init__(self, weights: list[Tensor], scales: list[Tensor], discrete: bool) -> None:
        super().__init__()
        self.free = nn.ParameterList([w / s for w, s in zip(weights, scales, strict=True)])
        self.scales, self.discrete = scales, discrete

    def forward(self, obs: Tensor) -> Categorical | ClippedGaussian:
        first, bias, last, log_std = (s * p for s, p in zip(self.scales, self.free, strict=True))
        out = (obs @ first + bias).tanh() @ last
        return Categorical(out + log_std) if self.discrete else ClippedGaussian(out, log_std.expand_as(out))


def one_hidden_layer(scales: list[Tensor], discrete: bool) -> Scaled:
    g = torch.Generator().manual_seed(3)
    weights = [0.5 * torch.randn(*shape, generator=g, dtype=DOUBLE) for shape in ((3, 3), (3,), (3, 2), (2,))]
    return Scaled(weights, scales, discrete)


def moved(scales: list[Tensor], discrete: bool, size: float, natural: bool) -> tuple[Tensor, ...]:
    """How the policy's parameters, at some observations, changed in one update, over its size."""
    torch.manual_seed(0)
    spec = DISCRETE._replace(obs_dim=3, action_dim=2, discrete=discrete)
    agent = NPG(spec, NPGConfig(step="fixed", eta=size, **EXACT)).double()
    agent.policy = one_hidden_layer(scales, discrete)
    steps = random_trajectory(spec, 16, 4)
    steps = steps._replace(**{k: v.double() for k, v in steps._asdict().items() if v.is_floating_point()})
    steps = steps._replace(log_prob=agent.log_prob(steps.obs, steps.action))
    obs = steps.obs[0]
    before = agent.policy(obs)
    if natural:
        agent.update(steps)
    else:
        gradient = agent.direction(agent.prepare(steps))[1]
        parts = gradient.split([p.numel() for p in agent.params])
        with torch.no_grad():
            for p, part in zip(agent.params, parts, strict=True):
                p += size * part.view_as(p)
    after = agent.policy(obs)
    if isinstance(after, Categorical):
        return (((after.log_probs() - before.log_probs()) / size).detach(),)
    return tuple(((b - a) / size).detach() for a, b in zip(before, after, strict=True))


SHAPES = ((3, 3), (3,), (3, 2), (2,))
ONES = [torch.ones(*shape, dtype=DOUBLE) for shape in SHAPES]
UNEVEN = [torch.logspace(-0.5, 0.5, steps=one.numel(), dtype=DOUBLE).reshape(one.shape) for one in ONES]


@pytest.mark.parametrize("discrete", [True, False])
def test_npg_step_does_not_depend_on_the_parameterization(discrete):
    """To first order in the step; that of the plain gradient does."""
    plain = [moved(scales, discrete, 1e-7, natural=False) for scales in (ONES, UNEVEN)]
    natural = [moved(scales, discrete, 1e-7, natural=True) for scales in (ONES, UNEVEN)]
    for one, other in zip(*natural, strict=True):
        assert one.abs().max() > 0.005
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3 * one.abs().max().item())
    assert any((a - b).abs().max() > 0.2 * a.abs().max() for a, b in zip(*plain, strict=True))


def test_direction_in_a_table_multiplies_by_the_exponential_of_the_advantage():
    """pi' = pi exp(eta A), normalised, with exact advantages (PG5 without 1 / (1 - gamma), which the state distribution would carry)."""
    states, actions, eta = 4, 3, 0.7
    spec = DISCRETE._replace(obs_dim=states, action_dim=actions)
    agent = NPG(spec, NPGConfig(**EXACT)).double()
    agent.policy = nn.Sequential(nn.Linear(states, actions, bias=False).double(), Softmax())
    torch.manual_seed(1)
    nn.init.normal_(agent.policy[0].weight)
    advantage = torch.randn(states, actions, dtype=DOUBLE)
    obs, action = torch.eye(states, dtype=DOUBLE).repeat_interleave(actions, 0), torch.arange(actions).repeat(states)
    uniform = torch.full((states * actions,), -torch.tensor(3.0, dtype=DOUBLE).log().item(), dtype=DOUBLE)
    rows = AdvantageBatch(obs, action, uniform, advantage.flatten(), torch.zeros(states * actions, dtype=DOUBLE))
    x, _, _ = agent.direction(rows)
    before = agent.policy[0].weight.T
    expected = (before.log_softmax(1) + eta * advantage).softmax(1)
    torch.testing.assert_close((before + eta * x.view(actions, states).T).softmax(1), expected, rtol=1e-6, atol=1e-9)


class Softmax(nn.Module):
    def forward(self, logits: Tensor) -> Categorical:
        return Categorical(logits)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("delta", [1e-4, 1e-3])
def test_npg_normalized_step_has_kl_delta(spec, delta):
    torch.manual_seed(0)
    agent = NPG(spec, NPGConfig(delta=delta, damping=1e-8, cg_iterations=50, hidden=())).double()
    metrics = agent.update(bandit(agent, spec, dtype=DOUBLE))
    assert metrics["actor/kl"].item() == pytest.approx(delta, rel=0.1)


def test_normalized_step_without_gradient_is_zero():
    assert normalized_step(torch.zeros(3), torch.zeros(3), 0.01).item() == 0
    torch.manual_seed(0)
    agent = NPG(DISCRETE, NPGConfig(hidden=(8,), normalize_advantage=False))
    nothing = bandit(agent, DISCRETE)
    rows = agent.prepare(nothing)._replace(advantage=torch.zeros(256))
    x, g, _ = agent.direction(rows)
    assert not g.any()
    assert not x.any()


@pytest.mark.parametrize("step", ["fixed", "normalized"])
@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.9), (CONTINUOUS, -0.03), (SEVERAL, 0.9)])
def test_npg_learns_the_bandit(spec, worst, step):
    torch.manual_seed(0)
    agent = NPG(spec, NPGConfig(step=step, delta=0.03, eta=0.2, hidden=(16,), damping=1e-2, log_std=-0.5, **QUICK))
    before = greedy_reward(agent, spec)
    for _ in range(30):
        agent.update(bandit(agent, spec))
    assert greedy_reward(agent, spec) > worst > before
