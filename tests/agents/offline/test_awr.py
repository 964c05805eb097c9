"""Advantage-weighted regression: labels by hand, their renewal, and the weighted policy of a bandit in closed form."""

import math

import pytest
import torch
from recorded_batches import recorded, rows_of
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.offline.awr import AWR, AWRConfig, normalized, trajectory_returns, value_loss
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.errors import UserError
from mbkit.testing import check_agent, random_batch, random_recorded
from mbkit.types import EnvSpec, Transition

CPU = torch.device("cpu")


def make(spec=WIDE, gamma: float = 0.9, **options) -> AWR:
    torch.manual_seed(0)
    return AWR(spec, AWRConfig(**{"hidden": (16,), **options}), gamma=gamma)


def two_episodes():
    """Rewards 1 2 3 of an episode that terminates, 10 20 of one that is cut."""
    obs = torch.arange(5.0)[:, None].expand(-1, 3).clone()
    return recorded(obs, torch.zeros(5, 2), torch.tensor([1.0, 2, 3, 10, 20]), obs + 1, torch.tensor([1.0, 1, 0, 1, 1]), [3, 2])


def test_trajectory_returns_by_hand():
    data, value = two_episodes(), torch.tensor([1.0, 2, 100, 4, 5])
    last, cut = 3.0, 20 + 0.9 * 5
    middle = 2 + 0.9 * (0.5 * 2 + 0.5 * last)
    expected = [1 + 0.9 * (0.5 * 1 + 0.5 * middle), middle, last, 10 + 0.9 * (0.5 * 4 + 0.5 * cut), cut]
    assert trajectory_returns(data, value, 0.9, 0.5).tolist() == pytest.approx(expected)
    assert trajectory_returns(data, value, 0.9, 0.0).tolist() == pytest.approx([1.9, 3.8, 3, 13.6, 24.5])  # one step
    monte_carlo = [1 + 0.9 * (2 + 0.9 * 3), 2 + 0.9 * 3, 3, 10 + 0.9 * cut, cut]
    assert trajectory_returns(data, value, 0.9, 1.0).tolist() == pytest.approx(monte_carlo)


def test_losses_by_hand():
    assert value_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == pytest.approx((1 + 4) / 4)
    assert normalized(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-1, 1], rel=1e-4)
    assert normalized(torch.ones(3)).tolist() == [0, 0, 0]


def test_value_loss_gradient_by_finite_differences():
    value = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: value_loss(v, torch.arange(4.0).double()), (value,))


@pytest.mark.parametrize("normalize", [True, False])
def test_update_by_hand_uses_v_before_its_step(normalize):
    agent, data = make(normalize_advantage=normalize, temperature=0.5, weight_clip=1.2), two_episodes()
    agent.prepare(data)
    index = torch.tensor([4, 0, 1, 3])
    batch = rows_of(data, index)
    with torch.no_grad():
        label = trajectory_returns(data, agent.v(data.next_obs), 0.9, 0.95)[index]
        advantage = label - agent.v(batch.obs)
        scaled = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-5) if normalize else advantage
        weight = (scaled / 0.5).exp().clamp(max=1.2)
        policy_loss = -(weight * agent.policy(batch.obs).log_prob(batch.action)).mean()
    metrics = agent.update(batch)
    assert metrics["critic/loss"].item() == pytest.approx(0.5 * advantage.square().mean().item(), rel=1e-5)
    assert metrics["actor/loss"].item() == pytest.approx(policy_loss.item(), rel=1e-5)
    assert metrics["actor/weight"].item() == pytest.approx(weight.mean().item(), rel=1e-5)


def test_labels_are_renewed_every_so_many_updates_for_all_rows():
    agent, data = make(relabel_every=3, lr=0.1), random_recorded(WIDE, 40)
    agent.prepare(data)
    address = agent.labels.data_ptr()
    before = agent.labels.clone()
    for n in range(7):
        with torch.no_grad():
            expected = trajectory_returns(data, agent.v(data.next_obs), 0.9, 0.95)
        agent.update(rows_of(data, torch.arange(8)))
        assert torch.equal(agent.labels, expected if n % 3 == 0 else before)
        before = agent.labels.clone()
    assert agent.labels.data_ptr() == address
    assert agent.cycle == 3


def test_labels_travel_with_the_checkpoint_in_the_middle_of_a_cycle():
    agent, data = make(relabel_every=50, lr=0.05), random_recorded(WIDE, 40)
    agent.prepare(data)
    for _ in range(10):
        agent.update(data)
    loaded = make(relabel_every=50, lr=0.05)
    loaded.prepare(data)
    address = loaded.labels.data_ptr()
    loaded.load_state_dict(agent.state_dict())
    assert loaded.labels.data_ptr() == address
    assert agent.update(data)["critic/loss"] == loaded.update(data)["critic/loss"]
    started = make(relabel_every=50)  # the other way round: loaded, and then new rows
    started.load_state_dict(agent.state_dict())
    started.prepare(data)
    assert torch.equal(started.labels, trajectory_returns(data, started.value(data.next_obs), 0.9, 0.95))
    elsewhere = make(relabel_every=50)  # acting needs no data
    elsewhere.load_state_dict(agent.state_dict())
    assert torch.equal(elsewhere.state_dict()["_extra_state"]["labels"], agent.labels)
    assert elsewhere.labels is not agent.labels


def test_rows_without_a_trajectory_have_one_step_labels():
    agent, batch = make(), random_batch(WIDE, 16)
    agent.prepare(random_recorded(WIDE, 40))
    with torch.no_grad():
        expected = batch.reward + 0.9 * batch.discount * agent.v(batch.next_obs)
    assert torch.equal(agent.label(batch), expected)
    assert torch.equal(agent.label(random_recorded(WIDE, 40)), agent.labels)


def test_policy_of_a_bandit_is_the_weighted_one_in_closed_form():
    """One state, V the mean reward b r: pi = b exp(A / temperature) / Z with the normalised advantage."""
    rewards, shares = torch.tensor([0.0, 0.3, 0.6, 1.0]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    action = torch.repeat_interleave(torch.arange(4), (10 * shares).round().long())
    rows = Transition(torch.zeros(10, 1), action, rewards[action], torch.zeros(10, 1), torch.zeros(10))
    agent = make(EnvSpec(1, 4, CPU, True), lr=1e-2)
    for _ in range(400):
        agent.update(rows)
    mean = float((shares * rewards).sum())
    std = math.sqrt(float((shares * (rewards - mean).square()).sum()))
    exact = shares * ((rewards - mean) / std).exp()
    assert agent.value(torch.zeros(1, 1)).item() == pytest.approx(mean, abs=0.01)
    torch.testing.assert_close(agent.policy(torch.zeros(1, 1)).log_probs().exp()[0], exact / exact.sum(), atol=0.01, rtol=0)


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent, clone = AWR(SPEC, AWRConfig(hidden=(32,), lr=1e-2, temperature=0.3)), BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.6 * learn_bandit(clone, 300)


@pytest.mark.parametrize("options", [{"relabel_every": 2}, {"relabel_every": 1, "normalize_advantage": False, "temperature": 3.0}])
def test_awr_options_keep_the_contract(options):
    check_agent(lambda spec: AWR(spec, AWRConfig(hidden=(16,), **options)))


def test_several_discrete_actions_are_refused():
    with pytest.raises(UserError, match="awr takes one discrete action at a time"):
        AWR(EnvSpec(3, 5, CPU, True, (3, 2)), AWRConfig())
