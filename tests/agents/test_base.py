"""What all agents share: one step of an optimizer, the critics' loss, and the contract, on every agent."""

import pytest
import torch
from torch import nn
from toys import WIDE

from mbkit import recipes, registry  # noqa: F401  # agents register when recipes are imported
from mbkit.agents.base import LearningAgent, descend, descend_each, excess
from mbkit.errors import UserError
from mbkit.networks.optimizers import FusedAdam
from mbkit.networks.values import regression_loss, regression_slope
from mbkit.testing import check_agent, random_batch
from mbkit.types import Targets

LEARNERS = [e for e in registry.agents if isinstance(e.target, type) and issubclass(e.target, LearningAgent)]
NAMES = [e.name for e in LEARNERS]


def test_agents_registry_has_all_families():
    assert {"sac", "td3", "ddpg", "dpg", "naf", "dqn", "double_dqn", "ppo"} <= set(NAMES)


@pytest.mark.parametrize("entry", LEARNERS, ids=NAMES)
def test_agents_with_defaults_keep_the_contract(entry):
    cfg = entry.config(relabel_every=5) if entry.name == "awr" else entry.config()  # whole cycles of updates are made
    check_agent(lambda spec: entry.target(spec, cfg))


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


@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 100.0])
def test_descend_each_equals_descend_by_itself(max_grad_norm):
    """Of a loss known by itself, and of one known by its gradient: that of |c|^2 / 2 is c."""
    start = [torch.randn(3), torch.randn(2, 2), torch.randn(4)]
    results = []
    for together in (True, False):
        a, b, c = (nn.Parameter(x.clone()) for x in start)
        first, second = FusedAdam([a, b], lr=0.1), FusedAdam([c], lr=0.2)
        loss, out = a.square().sum() + b.sin().sum(), c.exp()
        if together:
            descend_each((first, [(loss, None)]), (second, [(out, out.detach())]), max_grad_norm=max_grad_norm)
        else:
            descend(first, loss, max_grad_norm)
            descend(second, 0.5 * out.square().sum(), max_grad_norm)
        results.append([a.detach(), b.detach(), c.detach()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_excess_is_what_scales_the_norm_of_all_gradients_down_to_its_maximum():
    grads = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    assert excess(grads, 2.0).item() == pytest.approx(2.5, rel=1e-6)
    assert excess(grads, 7.0).item() == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_slope_is_the_gradient_of_the_loss_bit_for_bit(weighted):
    q, target = torch.randn(3, 48, requires_grad=True), torch.randn(48)
    y = Targets(torch.zeros(48, 1), torch.zeros(48, 1), target, torch.rand(48) if weighted else None)
    assert torch.equal(regression_slope(q, y), torch.autograd.grad(regression_loss(q, y), q)[0])
    ones = y._replace(weight=torch.ones(48))
    assert weighted or torch.equal(regression_loss(q, y), regression_loss(q, ones))
    assert weighted or torch.equal(regression_slope(q, y), regression_slope(q, ones))


def test_regression_loss_by_hand_sums_over_critics_and_averages_rows():
    q, target = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([0.0, 1.0])
    y = Targets(torch.zeros(2, 1), torch.zeros(2, 1), target, torch.tensor([1.0, 0.5]))
    expected = 0.5 * ((1 * 1 + 0.5 * 1) / 2 + (0 + 0.5 * 9) / 2)
    assert regression_loss(q, y).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["ddpg", "td3", "sac", "kl_sac", "naf", "dqn", "double_dqn", "soft_q", "munchausen_dqn", "sac_discrete"])
def test_update_rows_of_weight_one_change_nothing_and_rows_of_weight_zero_do_not_count(name):
    entry, spec = registry.agents[name], WIDE._replace(discrete="q" in name or "discrete" in name)
    plain = random_batch(spec, 16, seed=0)
    half = torch.tensor([2.0] * 8 + [0.0] * 8)
    spoilt = plain._replace(reward=torch.where(half > 0, plain.reward, 100.0), weight=half)
    states = []
    for batch in (plain, plain._replace(weight=torch.ones(16)), plain._replace(weight=half), spoilt):
        torch.manual_seed(0)
        agent = entry.target(spec, entry.config())
        agent.update(batch)
        states.append({key: value for key, value in agent.state_dict().items() if isinstance(value, torch.Tensor)})
    none, ones, weighted, without = states
    assert all(torch.equal(none[key], ones[key]) for key in none)
    assert all(torch.equal(weighted[key], without[key]) for key in none if "last" not in key)  # metrics of the policy's loss
    assert not all(torch.equal(none[key], weighted[key]) for key in none)


FALLING = ["dqn", "double_dqn", "soft_q", "munchausen_dqn", "td3", "sac", "ddpg"]


def falling(name, **options):
    entry = registry.agents[name]
    spec = WIDE._replace(discrete=True) if "q" in name else WIDE
    return entry.target(spec, entry.config(hidden=(8,), **options)), random_batch(spec, 16)


@pytest.mark.parametrize("name", FALLING)
def test_anneal_lets_all_rates_fall_along_a_line_to_the_final_one(name):
    agent, batch = falling(name, lr=2e-3, final_lr=5e-4)
    for remaining, rate in ((1.0, 2e-3), (0.75, 1.625e-3), (0.5, 1.25e-3), (0.0, 5e-4)):
        agent.anneal(remaining)
        assert [o.param_groups[0]["lr"] for o in agent.optimizers.values()] == [pytest.approx(rate)] * len(agent.optimizers)
    agent, _ = falling(name, lr=2e-3, final_lr=0.0)
    agent.anneal(0.0)
    before = [p.clone() for o in agent.optimizers.values() for p in o.param_groups[0]["params"]]
    for _ in range(agent.cycle):
        agent.update(batch)
    assert all(map(torch.equal, before, [p for o in agent.optimizers.values() for p in o.param_groups[0]["params"]]))


@pytest.mark.parametrize("name", FALLING)
def test_anneal_without_a_final_rate_changes_nothing(name):
    agent, _ = falling(name)
    before = {n: o.param_groups[0]["lr"] for n, o in agent.optimizers.items()}
    agent.anneal(0.25)
    assert {n: o.param_groups[0]["lr"] for n, o in agent.optimizers.items()} == before


def test_anneal_of_two_rates_keeps_their_proportion():
    agent, _ = falling("sac", lr=1e-3, policy_lr=4e-4, final_lr=1e-4)
    agent.anneal(0.5)
    rates = {name: o.param_groups[0]["lr"] for name, o in agent.optimizers.items()}
    assert rates == {"critics": pytest.approx(5.5e-4), "policy": pytest.approx(2.2e-4), "alpha": pytest.approx(2.2e-4)}


def test_anneal_writes_into_rates_on_the_device():
    agent, _ = falling("td3", lr=1e-3, final_lr=0.0)
    rate = agent.optimizers["policy"].param_groups[0]["lr"] = torch.tensor(1e-3)  # as on a GPU
    agent.anneal(0.5)
    assert agent.optimizers["policy"].param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(5e-4)


@pytest.mark.parametrize("name", FALLING)
def test_final_rate_above_the_first_is_refused(name):
    with pytest.raises(UserError, match=r"agent\.final_lr=0\.01: expected at most agent\.lr=0\.001, from where it falls"):
        falling(name, lr=1e-3, final_lr=1e-2)
