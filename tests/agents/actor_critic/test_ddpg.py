"""DDPG: target and gradient by brute force, its noise, and a bandit."""

import pytest
import torch
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.actor_critic.ddpg import DDPG, DDPGConfig, policy_gradient, policy_loss
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch


def make(spec=WIDE, **options) -> DDPG:
    torch.manual_seed(0)
    return DDPG(spec, DDPGConfig(hidden=(16, 16), **options), gamma=0.9)


def test_backup_uses_the_target_networks():
    agent, batch = make(), random_batch(WIDE, 8)
    for p in agent.target_policy.parameters():
        p.add_(0.1)  # away from the policy
    y = one_step(agent, batch, 0.9).target
    for i in range(8):
        s = batch.next_obs[i : i + 1]
        q = agent.target_critics(s, agent.target_policy(s))[0, 0]
        torch.testing.assert_close(y[i], batch.reward[i] + 0.9 * batch.discount[i] * q)


def test_policy_loss_gradient_by_finite_differences():
    agent = make().double()
    obs = random_batch(WIDE, 8).obs.double()
    policy_loss(agent.policy, agent.critics, obs).backward(inputs=list(agent.policy.parameters()))
    for p in agent.policy.parameters():
        flat, grad, eps = p.data.view(-1), p.grad.view(-1), 1e-6
        for i in range(0, len(flat), max(1, len(flat) // 5)):
            values = []
            for sign in (1, -1):
                flat[i] += sign * eps
                values.append(-agent.critics(obs, agent.policy(obs))[0].mean())
                flat[i] -= sign * eps
            torch.testing.assert_close(grad[i], ((values[0] - values[1]) / (2 * eps)).detach(), atol=1e-8, rtol=1e-4)


def test_policy_loss_gradient_is_the_theorem_s():
    """-mean of J_mu(s)^T grad_a Q(s, a) at a = mu(s), the two factors apart."""
    agent, obs = make().double(), random_batch(WIDE, 6).obs.double()
    params = list(agent.policy.parameters())
    grads = torch.autograd.grad(policy_loss(agent.policy, agent.critics, obs), params)
    action = agent.policy(obs).detach().requires_grad_()
    (slope,) = torch.autograd.grad(agent.critics(obs, action)[0].sum(), action)
    expected = torch.autograd.grad(agent.policy(obs), params, grad_outputs=-slope / len(obs))
    torch.testing.assert_close(grads, expected)
    loss, direct = policy_gradient(agent.policy, agent.critics, obs)
    torch.testing.assert_close(tuple(direct), grads)
    torch.testing.assert_close(loss, policy_loss(agent.policy, agent.critics, obs).detach())


def test_update_moves_target_networks_by_tau():
    agent = make(tau=0.1)
    before = [p.clone() for p in (*agent.target_policy.parameters(), *agent.target_critics.parameters())]
    agent.update(random_batch(WIDE, 16))
    online = (*agent.policy.parameters(), *agent.critics.parameters())
    targets = (*agent.target_policy.parameters(), *agent.target_critics.parameters())
    for old, new, now in zip(before, online, targets, strict=True):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * new.detach())


def test_noise_ou_changes_only_while_exploring():
    agent, obs = make(noise="ou", noise_scale=0.2), random_batch(WIDE, 4).obs
    agent.act(obs)
    noise = agent.noise.state.clone()
    agent.act(obs, explore=False)
    agent.sample(random_batch(WIDE, 50).obs)
    assert torch.equal(agent.noise.state, noise)
    assert noise.abs().min() > 0
    agent.reset(torch.tensor([True, False, False, False]))
    assert agent.noise.state[0].abs().max() == 0
    assert torch.equal(agent.noise.state[1:], noise[1:])
    other = make(noise="ou", noise_scale=0.2)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.noise.state, agent.noise.state)


@pytest.mark.parametrize("options", [{"noise": "ou"}, {"critics": 3}])
def test_ddpg_options_keep_the_contract(options):
    check_agent(lambda spec: DDPG(spec, DDPGConfig(hidden=(16,), **options)))


def test_update_on_a_bandit_learns_its_best_action():
    torch.manual_seed(0)
    assert learn_bandit(DDPG(SPEC, DDPGConfig(hidden=(32,), lr=1e-2)), 300) < 0.15
