"""What all agents share: one step of an optimizer, the critics' loss, and the contract, on every agent."""

import pytest
import torch
from torch import nn
from toys import WIDE

from mbkit import recipes, registry  # noqa: F401  # agents register when recipes are imported
from mbkit.agents.base import LearningAgent, descend, descend_each, regression_loss
from mbkit.errors import UserError
from mbkit.networks.optimizers import FusedAdam
from mbkit.testing import check_agent
from mbkit.types import Targets

LEARNERS = [e for e in registry.agents if isinstance(e.target, type) and issubclass(e.target, LearningAgent)]
NAMES = [e.name for e in LEARNERS]


def test_agents_registry_has_all_families():
    assert {"sac", "td3", "ddpg", "dpg", "naf", "dqn", "double_dqn", "ppo"} <= set(NAMES)


@pytest.mark.parametrize("entry", LEARNERS, ids=NAMES)
def test_agents_with_defaults_keep_the_contract(entry):
    check_agent(lambda spec: entry.target(spec, entry.config()))


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg", "dpg", "naf"])
def test_needs_continuous_discrete_actions_are_refused(name):
    entry = registry.agents[name]
    with pytest.raises(UserError, match=rf"{name} needs continuous actions.* 2 discrete"):
        entry.target(WIDE._replace(discrete=True), entry.config())


@pytest.mark.parametrize("name", ["dqn", "double_dqn"])
def test_needs_discrete_continuous_actions_are_refused(name):
    entry = registry.agents[name]
    with pytest.raises(UserError, match=rf"{name} needs discrete actions.* of 2 dimensions"):
        entry.target(WIDE, entry.config())


SEVERAL = WIDE._replace(discrete=True, action_dim=5, parts=(3, 2))
ON_POLICY = ["a2c", "npg", "ppo", "reinforce", "retrace", "soft_pg", "trpo", "vtrace"]


@pytest.mark.parametrize("entry", LEARNERS, ids=NAMES)
def test_agents_take_several_actions_or_name_those_that_do(entry):
    if entry.name in ON_POLICY:
        action = entry.target(SEVERAL, entry.config()).act(torch.zeros(4, 3))
        assert action.shape == (4, 2)
        return
    with pytest.raises(UserError) as refused:
        entry.target(SEVERAL, entry.config())
    sentence = str(refused.value)
    assert sentence.startswith(entry.name)
    assert all(name in sentence for name in (*ON_POLICY, "discrete_cem"))


def test_descend_moves_only_the_optimizer_s_parameters():
    mine, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = FusedAdam([mine], lr=0.1)  # whose first step is lr times the sign of the gradient
    loss = descend(optimizer, (mine * other).sum())
    torch.testing.assert_close(mine.data, torch.full((2,), 0.9))
    assert other.grad is None
    assert loss.item() == 2
    assert not loss.requires_grad


def test_descend_takes_any_optimizer_of_torch():
    first, second = (nn.Parameter(torch.tensor([3.0, 4.0])) for _ in range(2))
    descend(torch.optim.SGD([first], lr=0.1), first.square().sum())
    descend(torch.optim.SGD([second], lr=0.1), second.square().sum(), max_grad_norm=1.0)
    torch.testing.assert_close(first.detach(), torch.tensor([2.4, 3.2]))
    torch.testing.assert_close(second.detach(), torch.tensor([2.94, 3.92]))
    assert first.grad is None


def test_descend_each_equals_descend_by_itself():
    start = [torch.randn(3), torch.randn(2, 2), torch.randn(4)]
    results = []
    for together in (True, False):
        a, b, c = (nn.Parameter(x.clone()) for x in start)
        steps = [(FusedAdam([a, b], lr=0.1), a.square().sum() + b.sin().sum()), (FusedAdam([c], lr=0.2), (c**3).sum())]
        losses = descend_each(*steps) if together else [descend(*step) for step in steps]
        assert not any(loss.requires_grad for loss in losses)
        results.append([*losses, a.detach(), b.detach(), c.detach()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_regression_loss_by_hand_sums_over_critics_and_averages_rows():
    q, target = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([0.0, 1.0])
    y = Targets(torch.zeros(2, 1), torch.zeros(2, 1), target, torch.tensor([1.0, 0.5]))
    expected = 0.5 * ((1 * 1 + 0.5 * 1) / 2 + (0 + 0.5 * 9) / 2)
    assert regression_loss(q, y).item() == pytest.approx(expected)
