"""Conservative Q-learning: SAC's policy, critics low where there are no data, every kind of backup and push, the multiplier, cloning."""

import math
from copy import deepcopy

import pytest
import torch
from recorded_batches import recorded
from toys import SPEC, WIDE, bandit, learn_bandit

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.conservative import conservative_gap, log_sum_exp, proposals, sampled_actions, uniform_actions
from mbkit.agents.offline.cql import CQL, CQLConfig, cloned_loss
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.testing import check_agent, random_batch, random_recorded
from mbkit.types import Targets


def make(spec=WIDE, gamma: float = 0.9, **options) -> CQL:
    torch.manual_seed(0)
    return CQL(spec, CQLConfig(**{"hidden": (16, 16), "samples": 3, **options}), gamma=gamma)


def test_weight_0_has_the_critics_of_sac_without_entropy_in_the_backup():
    agent, batch = make(conservative_weight=0.0), random_batch(WIDE, 32)
    old = deepcopy(agent)
    torch.manual_seed(1)
    metrics = agent.update(batch)
    torch.manual_seed(1)
    with torch.no_grad():
        next_q = old.target_critics(batch.next_obs, old.policy.rsample(batch.next_obs)[0]).amin(0)
        error = old.critics(batch.obs, batch.action) - batch.reward - 0.9 * batch.discount * next_q
    assert metrics["critic/loss"].item() == pytest.approx(error.square().mean(1).sum().item())


def test_policy_and_temperature_are_those_of_sac():
    agent, twin = make(policy_lr=3e-4), SAC(WIDE, SACConfig(hidden=(16, 16)), gamma=0.9)
    for name in ("policy", "critics"):
        weights = {k: v for k, v in getattr(agent, name).state_dict().items() if not k.startswith("inputs")}
        getattr(twin, name).load_state_dict(weights)
    obs = random_batch(WIDE, 32).obs
    agent.update_critics = lambda batch: {}  # the policies' steps alone
    torch.manual_seed(3)
    metrics = agent.update(random_batch(WIDE, 32))
    torch.manual_seed(3)
    twin.update_policy(obs, twin.policy.sampled(obs), twin.log_alpha.detach().exp())
    torch.testing.assert_close(torch.stack((metrics["actor/loss"], metrics["actor/entropy"])), twin.last)
    torch.testing.assert_close(agent.log_alpha, twin.log_alpha)
    torch.testing.assert_close(list(agent.policy.net.parameters()), list(twin.policy.net.parameters()))


@pytest.mark.parametrize("samples", [1, 10])
def test_gap_is_over_exactly_3n_samples(samples):
    """Critics that are constant: the gap is the log of the sum of 3N inverse densities, without -log 3N, whatever the constant."""
    agent, batch = make(samples=samples), random_recorded(WIDE, 16)
    with torch.no_grad():
        for w, b in agent.critics.net.layers:
            w.zero_()
            b.zero_()
        agent.critics.net.bias[-1].fill_(7.0)
    torch.manual_seed(2)
    gap = agent.update(batch)["critic/gap"]
    torch.manual_seed(2)
    agent = make(samples=samples)
    torch.manual_seed(2)
    agent.target(agent, batch, 0.9)
    _, log_density = proposals(agent.policy, batch.obs, batch.next_obs, samples)
    assert log_density.shape == (16, 3 * samples)
    assert gap.item() == pytest.approx((-log_density).logsumexp(-1).mean().item(), rel=1e-5)


def test_gap_is_the_metric_of_the_loss_without_weight_and_multiplier():
    agent, batch = make(conservative_weight=3.0, lagrange=2.0), random_recorded(WIDE, 32)
    with torch.no_grad():
        agent.log_multiplier.fill_(math.log(0.5))
    old = deepcopy(agent)
    torch.manual_seed(4)
    metrics = agent.update(batch)
    torch.manual_seed(4)
    y = old.target(old, batch, 0.9)
    action, log_density = proposals(old.policy, batch.obs, batch.next_obs, 3)
    with torch.no_grad():
        q = old.critics(batch.obs, batch.action)
        sampled = torch.stack([old.critics(batch.obs, action[:, m]) for m in range(9)], -1)
        gap = (log_sum_exp(sampled, log_density) - q).mean(1)
        loss = (q - y.target).square().mean(1).sum() + 0.5 * 3 * gap.sum()
    assert metrics["critic/gap"].item() == pytest.approx(gap.mean().item(), rel=1e-4)
    assert metrics["critic/loss"].item() == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["critic/multiplier"].item() == pytest.approx(0.5)  # before its step
    direction = math.copysign(1, 3 * gap.mean().item() - 2)
    assert math.copysign(1, agent.log_multiplier.item() - math.log(0.5)) == direction


REAL = (torch.arange(16) < 6).float()  # the first rows of a batch are recorded, the others a model's


@pytest.mark.parametrize("push_down", ["all", "model"])
@pytest.mark.parametrize("push", ["logsumexp", "policy", "uniform"])
def test_gap_of_a_batch_with_rows_of_a_model(push, push_down):
    """Row by row: pushed down at all states or at those of the model, up at the recorded pairs alone (COMBO, eq. 2)."""
    agent, batch = make(push=push, push_down=push_down), random_batch(WIDE, 16)._replace(real=REAL)
    torch.manual_seed(3)
    level, q = agent.level(batch), agent.critics(batch.obs, batch.action)
    torch.manual_seed(3)
    if push == "logsumexp":
        action, log_density = proposals(agent.policy, batch.obs, batch.next_obs, 3)
    else:
        action, log_density = sampled_actions(agent.policy, batch.obs, 3)
        action = uniform_actions(action)[0] if push == "uniform" else action
    expected = []
    for k in range(2):
        down, up = [], []
        for row in range(16):
            values = torch.stack([agent.critics(batch.obs[row : row + 1], action[row, m][None])[k, 0] for m in range(action.shape[1])])
            if push_down == "all" or not REAL[row]:
                down.append((values - log_density[row]).logsumexp(0) if push == "logsumexp" else values.mean())
            if REAL[row]:
                up.append(q[k, row])
        expected.append(sum(down) / len(down) - sum(up) / 6)
    torch.testing.assert_close(conservative_gap(level, q, REAL), torch.stack(expected), atol=1e-5, rtol=1e-5)
    torch.manual_seed(3)
    agent.target = lambda agent, batch, gamma: Targets(batch.obs, batch.action, batch.reward, torch.ones(16))  # draws nothing
    assert agent.update_critics(batch)["critic/gap"].item() == pytest.approx(sum(expected).item() / 2, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("push_down", ["all", "model"])
def test_a_batch_that_does_not_tell_its_rows_apart_is_recorded(push_down):
    updates = []
    for down, real in (("all", None), (push_down, None), ("all", torch.ones(16))):
        agent = make(push_down=down)
        torch.manual_seed(1)
        updates.append(agent.update(random_batch(WIDE, 16)._replace(real=real)))
    assert updates[0] == updates[1]
    torch.testing.assert_close(updates[2]["critic/gap"], updates[0]["critic/gap"])


@pytest.mark.parametrize("push", ["policy", "uniform"])
def test_push_of_a_distribution_is_the_mean_of_q_under_it(push):
    agent, batch = make(push=push, samples=2000), random_recorded(WIDE, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        level = agent.level(batch)
        if push == "policy":
            action = torch.stack([agent.policy.rsample(batch.obs)[0] for _ in range(2000)])
        else:
            action = 2 * torch.rand(2000, 2, 2) - 1
        mean = torch.stack([agent.critics(batch.obs, a) for a in action]).mean((0, 2))
    torch.testing.assert_close(level, mean, atol=7e-3, rtol=0)


@pytest.mark.parametrize("backup", ["sample", "mean", "max"])
def test_backup_by_hand(backup):
    agent, obs = make(backup=backup, samples=50), torch.randn(6, 3)
    action, bonus = agent.backup_action(obs)
    assert torch.equal(bonus, torch.zeros(6))
    if backup == "mean":
        assert torch.equal(action, agent.policy.mode(obs))
    if backup == "max":  # no single sample is likely to be better than the best of 50
        values = torch.stack([agent.backup_q(obs, agent.sample(obs)).amin(0) for _ in range(30)])
        best = agent.backup_q(obs, action).amin(0)
        assert (best >= values.mean(0)).all()
        assert (best > values).float().mean() > 0.9


def test_cloned_loss_by_hand_and_uses_the_recorded_actions():
    loss = cloned_loss(torch.tensor([-1.0, 1.0]), torch.tensor([-3.0, -1.0]), torch.tensor(0.5))
    assert loss.item() == pytest.approx((-0.5 + 3 + 0.5 + 1) / 2)
    one, other, batch = make(bc_updates=1), make(bc_updates=1), random_recorded(WIDE, 64)
    moved = batch._replace(action=-batch.action)
    losses = []
    for agent, rows in ((one, batch), (other, moved)):
        agent.update_critics = lambda batch: {}
        torch.manual_seed(0)
        losses.append(agent.update(rows)["actor/loss"])
    assert losses[0] != losses[1]  # a fresh sample in place of the recorded action would make them equal
    assert not torch.equal(one.policy.net.weight[-1], other.policy.net.weight[-1])


def test_bc_updates_are_the_first_ones_alone():
    torch.manual_seed(0)
    obs = torch.randn(64, 2)
    agent, rows = make(SPEC, bc_updates=100, policy_lr=1e-2, temperature=1e-3), bandit(torch.full((64, 1), 0.5), obs)
    for _ in range(100):
        agent.update(rows)
    assert (agent.act(obs, explore=False) - 0.5).abs().mean() < 0.1
    assert agent.updates == 100
    other = make(SPEC, policy_lr=1e-2, temperature=1e-3)
    other.load_state_dict(agent.state_dict())
    losses = []
    for each in (agent, other):
        torch.manual_seed(1)
        losses.append(each.update(rows)["actor/loss"])
    assert losses[0] == losses[1]  # from here on that of an agent that never cloned


def test_optimizers_hold_the_temperature_and_the_multiplier_after_loading():
    agent, loaded = make(lagrange=1.0), make(lagrange=1.0)
    for seed in range(3):
        agent.update(random_recorded(WIDE, 16, seed))
    loaded.load_state_dict(agent.state_dict())
    before = loaded.log_alpha.clone(), loaded.log_multiplier.clone()
    loaded.update(random_recorded(WIDE, 16, 9))
    assert loaded.log_alpha != before[0]
    assert loaded.log_multiplier != before[1]
    assert loaded.optimizers["alpha"].param_groups[0]["params"][0] is loaded.log_alpha


def test_learning_rates_of_critics_and_policy():
    agent = make(lr=1e-3, policy_lr=1e-5, lagrange=1.0)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in agent.optimizers.items()}
    assert rates == {"policy": 1e-5, "alpha": 1e-5, "critics": 1e-3, "multiplier": 1e-3}
    assert set(make(temperature=0.2).optimizers) == {"policy", "critics"}


def test_lagrange_takes_none_or_a_number():
    assert compose("cql", ["data=D.h5"]).agent.config.lagrange == "none"
    assert compose("cql", ["data=D.h5", "agent.lagrange=none"]).agent.config.lagrange == "none"
    assert [compose("cql", ["data=D.h5", f"agent.lagrange={x}"]).agent.config.lagrange for x in ("5", "2.5")] == [5, 2.5]
    with pytest.raises(UserError, match=r"agent\.lagrange=some: expected none or a number"):
        make(lagrange="some")


def test_normalizer_is_inside_every_network():
    agent, data = make(), random_recorded(WIDE, 100)
    assert all(network.inputs is agent.normalizer for network in (agent.policy, agent.critics, agent.target_critics))
    shifted = data._replace(obs=100 * data.obs + 7, next_obs=100 * data.next_obs + 7)
    agent.prepare(shifted)
    other = make(normalize_obs=False)
    normal = shifted._replace(obs=agent.normalizer(shifted.obs), next_obs=agent.normalizer(shifted.next_obs))
    torch.manual_seed(0)
    mine = agent.update(shifted)
    torch.manual_seed(0)
    theirs = other.update(normal)
    assert mine["critic/loss"] == theirs["critic/loss"]
    assert mine["actor/loss"] == theirs["actor/loss"]


@pytest.mark.parametrize(
    "options",
    [
        {"push": "policy"},
        {"push": "uniform", "backup": "mean"},
        {"lagrange": 5.0, "bc_updates": 3},
        {"backup": "max", "critics": 1, "temperature": 0.1},
        {"precision": "bfloat16"},
    ],
)
def test_cql_options_keep_the_contract(options):
    check_agent(lambda spec: CQL(spec, CQLConfig(hidden=(16,), samples=3, **options)))


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent = make(SPEC, hidden=(32,), lr=1e-2, policy_lr=1e-2, conservative_weight=0.2)
    assert learn_bandit(agent, 200) < 0.6 * learn_bandit(BC(SPEC, BCConfig(hidden=(32,), lr=1e-2)), 300)


def test_critics_are_low_where_there_are_no_data_and_the_policy_stays_at_them():
    """Recorded actions lie in [0.5, 0.9], all of the same reward: without the gap nothing keeps the policy there."""
    torch.manual_seed(0)
    obs = torch.rand(256, 2) * 2 - 1
    rows = bandit(0.5 + 0.4 * torch.rand(256, 1), obs)._replace(reward=torch.zeros(256))
    agent = make(SPEC, hidden=(32,), lr=3e-3, policy_lr=1e-2, samples=4, temperature=0.01)
    agent.prepare(recorded(*rows[:5], [256]))
    for _ in range(150):
        metrics = agent.update(rows)
    with torch.no_grad():
        inside, outside = (agent.critics(obs, torch.full((256, 1), a)).mean() for a in (0.7, -0.7))
    assert inside > outside + 1
    action = agent.act(obs, explore=False)
    assert ((action > 0.4) & (action < 1)).all()
    assert metrics["critic/overestimation"] < 1
