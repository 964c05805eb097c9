"""AWAC: advantages by hand, weights by the critics before their step, and limits: a plain clone, and better actions than the data's."""

from copy import deepcopy

import pytest
import torch
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.offline.awac import AWAC, AWACConfig
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.behaviour import advantage
from mbkit.agents.offline.cloning import exp_weights, weighted_log_likelihood_loss
from mbkit.errors import UserError
from mbkit.networks.values import regression_loss
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch


def make(**options) -> AWAC:
    torch.manual_seed(0)
    return AWAC(WIDE, AWACConfig(**{"hidden": (16, 16), **options}), gamma=0.9)


def test_advantage_by_hand():
    q = torch.tensor([[1.0, 5.0], [2.0, 3.0]], requires_grad=True)
    policy_q = torch.tensor([[[0.0, 2.0], [1.0, 7.0]], [[4.0, 1.0], [5.0, 5.0]]])  # minima: 0, 1 and 1, 5
    share = torch.full((2, 2), 0.5).log()
    assert advantage(q, policy_q, share).tolist() == pytest.approx([1 - 0.5, 3 - 3])
    assert not advantage(q, policy_q, share).requires_grad


def test_advantage_is_no_error_of_the_critic():
    """Where Q is exact its error is 0, and weights by it would clone the data; the advantage still tells the actions apart."""
    q, policy_q = torch.tensor([[0.0, 1.0]]), torch.full((1, 2, 1), 0.5)  # of two actions that the policy takes equally often
    weight = exp_weights(advantage(q, policy_q, torch.zeros(2, 1)), 0.5, 100.0)
    assert (weight[1] / weight[0]).item() == pytest.approx(2.718281828**2)


def test_loss_gradient_by_finite_differences():
    weight = exp_weights(torch.tensor([0.3, -0.4, 9.0]).double(), 0.5, 4.0)
    log_prob = torch.tensor([-0.2, 0.7, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: weighted_log_likelihood_loss(x, weight), (log_prob,))
    assert torch.autograd.grad(weighted_log_likelihood_loss(log_prob, weight), log_prob)[0].tolist() == pytest.approx(
        (-weight / 3).tolist()
    )


@pytest.mark.parametrize("samples", [1, 4])
def test_update_weighs_by_the_critics_before_their_step(samples):
    agent, batch = make(lr=0.1, temperature=0.05, weight_clip=1.1, samples=samples), random_batch(WIDE, 32)
    old = deepcopy(agent)
    torch.manual_seed(1)
    metrics = agent.update(batch)
    torch.manual_seed(1)
    with torch.no_grad():
        y = one_step(old, batch, 0.9)
        policy, q = old.policy(batch.obs), old.critics(batch.obs, batch.action)
        sampled = torch.addcmul(policy.mean.repeat(samples, 1), policy.log_std.exp().repeat(samples, 1), torch.randn(32 * samples, 2))
        policy_q = old.critics(batch.obs.repeat(samples, 1), sampled.clamp(-1, 1))
        weight = ((q.amin(0) - policy_q.amin(0).view(samples, 32).mean(0)) / 0.05).exp().clamp(max=1.1)
    assert (weight == 1.1).any()
    assert (weight < 1.1).any()
    torch.testing.assert_close(metrics["critic/loss"], regression_loss(q, y))
    torch.testing.assert_close(metrics["actor/weight"], weight.mean())
    torch.testing.assert_close(metrics["actor/loss"], -(weight * policy.log_prob(batch.action)).mean())
    torch.testing.assert_close(metrics["critic/overestimation"], (policy_q[0].view(samples, 32).mean(0) - q[0]).mean())
    for target, before, online in zip(
        agent.target_critics.parameters(), old.target_critics.parameters(), agent.critics.parameters(), strict=True
    ):
        torch.testing.assert_close(target, torch.lerp(before, online, 0.005))


def test_backup_takes_the_policy_s_action_and_the_smaller_target_critic():
    agent, obs = make(), random_batch(WIDE, 64).obs
    torch.manual_seed(3)
    action, bonus = agent.backup_action(obs)
    torch.manual_seed(3)
    assert torch.equal(action, agent.policy(obs).sample())
    assert not bonus.any()
    assert torch.equal(agent.backup_q(obs, action), agent.target_critics(obs, action).detach())


def test_infinite_temperature_is_cloning():
    agent, clone = make(temperature=1e30), BC(WIDE, BCConfig(hidden=(16, 16), policy="gaussian"))
    clone.policy.load_state_dict(agent.policy.state_dict())
    for seed in range(3):
        batch = random_batch(WIDE, 32, seed)
        assert agent.update(batch)["actor/loss"] == clone.update(batch)["actor/loss"]
    assert all(map(torch.equal, agent.policy.parameters(), clone.policy.parameters()))


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent, clone = AWAC(SPEC, AWACConfig(hidden=(32,), lr=1e-2, temperature=0.1)), BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.6 * learn_bandit(clone, 300)


@pytest.mark.parametrize("options", [{}, {"critics": 1, "samples": 3}])
def test_awac_options_keep_the_contract(options):
    check_agent(lambda spec: AWAC(spec, AWACConfig(hidden=(16,), **options)))


def test_discrete_actions_are_refused():
    with pytest.raises(UserError, match="awac needs continuous actions"):
        AWAC(WIDE._replace(discrete=True), AWACConfig())
