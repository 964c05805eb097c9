"""NAF: its quadratic against brute force, its maximum, its noise, and a bandit."""

import numpy as np
import pytest
import torch
from toys import SPEC, WIDE, bandit, learn_bandit

from mbkit.agents.actor_critic.naf import NAF, NAFConfig, Quadratic, QuadraticNet, action_value, saturation
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch


def scattered(actions: int, rows: int = 20) -> tuple[QuadraticNet, Quadratic]:
    """A network with large random weights, so that its curvature differs from state to state; float64."""
    torch.manual_seed(0)
    net = QuadraticNet(3, actions, (16,), layer_norm=False).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
        return net, net(torch.randn(rows, 3, dtype=torch.float64))


@pytest.mark.parametrize("actions", [1, 2, 4])
def test_action_value_by_brute_force(actions):
    _, terms = scattered(actions)
    action = torch.randn(20, actions, dtype=torch.float64)
    for i, q in enumerate(action_value(terms, action).tolist()):
        factor, distance = terms.factor[i].numpy(), (action[i] - terms.mode[i]).numpy()
        assert np.allclose(factor, np.tril(factor))
        precision = factor @ factor.T
        assert np.linalg.eigvalsh(precision).min() > 0  # not only semi-definite: the maximum is unique
        assert q == pytest.approx(terms.value[i].item() - 0.5 * distance @ precision @ distance, abs=1e-9)


def test_factor_diagonal_is_the_exponential_of_the_output():
    net, _ = scattered(2)
    obs = torch.randn(5, 3, dtype=torch.float64)
    raw, factor = net.net(obs)[0], net(obs).factor
    torch.testing.assert_close(factor[:, 0, 0], raw[:, 3].clamp(-5, 5).exp())
    torch.testing.assert_close(factor[:, 1, 0], raw[:, 4])
    torch.testing.assert_close(factor[:, 1, 1], raw[:, 5].clamp(-5, 5).exp())


def test_action_value_maximum_is_the_value():
    _, terms = scattered(2, rows=6)
    assert terms.mode.abs().max() <= 1
    side = torch.linspace(-3, 3, 61, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    for i in range(6):
        one = Quadratic(*(x[i : i + 1].expand(len(grid), *x.shape[1:]) for x in terms))
        q = action_value(one, grid)
        assert q.max() <= terms.value[i] + 1e-12
        steepest = torch.linalg.eigvalsh(terms.factor[i] @ terms.factor[i].T).max()
        assert q.max() >= terms.value[i] - 0.5 * steepest * 2 * 0.05**2  # mu lies within half a cell of the grid, in the box
    torch.testing.assert_close(action_value(terms, terms.mode), terms.value)  # attained, at mu


def test_backup_is_the_target_network_s_value():
    agent, batch = NAF(WIDE, NAFConfig(hidden=(16,)), gamma=0.9), random_batch(WIDE, 8)
    for p in agent.target_critic.parameters():
        p.add_(0.2)
    y = one_step(agent, batch, 0.9).target
    torch.testing.assert_close(y, batch.reward + 0.9 * batch.discount * agent.target_critic(batch.next_obs).value)
    torch.testing.assert_close(agent.value(batch.obs), agent.target_critic(batch.obs).value)
    assert agent.backup_q(batch.obs, batch.action).shape == (1, 8)


def test_saturation_penalises_only_where_tanh_is_flat():
    raw = torch.tensor([[0.0, 2.0], [-2.0, 3.0], [-4.0, 1.0]], requires_grad=True)
    saturation(raw).backward()
    assert saturation(raw).item() == pytest.approx((1 + 4) / 6)
    torch.testing.assert_close(raw.grad, torch.tensor([[0.0, 0.0], [0.0, 2 / 6], [-4 / 6, 0.0]]))


def test_saturation_penalty_keeps_mu_out_of_corners():
    reach = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        agent = NAF(SPEC, NAFConfig(hidden=(32,), lr=1e-2, saturation_penalty=weight))
        for _ in range(300):
            obs, action = torch.rand(64, 2) * 2 - 1, torch.rand(64, 1) * 2 - 1
            agent.update(bandit(action, obs)._replace(reward=torch.full((64,), -100.0)))
        reach.append(agent.critic(obs).raw.abs().mean().item())
    assert reach[1] < 3, reach
    assert reach[0] > 5, reach


def test_update_moves_the_target_network_by_tau():
    agent = NAF(WIDE, NAFConfig(hidden=(16,), tau=0.1))
    before = [p.clone() for p in agent.target_critic.parameters()]
    agent.update(random_batch(WIDE, 16))
    for old, new, now in zip(before, agent.critic.parameters(), agent.target_critic.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * old + 0.1 * new.detach())


@pytest.mark.parametrize("noise", ["gaussian", "precision"])
def test_sample_has_the_covariance_of_its_noise(noise):
    torch.manual_seed(1)
    agent = NAF(WIDE, NAFConfig(hidden=(16,), noise=noise, noise_scale=0.05))
    obs = torch.randn(1, 3).expand(40_000, 3)
    terms = agent.critic(obs[:1])
    covariance = torch.cov((agent.sample(obs) - terms.mode).T) / 0.05**2
    expected = torch.eye(2) if noise == "gaussian" else torch.linalg.inv(terms.factor[0] @ terms.factor[0].T)
    torch.testing.assert_close(covariance, expected.detach(), atol=0.05, rtol=0.03)


def test_naf_noise_precision_keeps_the_contract():
    check_agent(lambda spec: NAF(spec, NAFConfig(hidden=(16,), noise="precision", layer_norm=True)))


def test_update_on_a_bandit_learns_its_best_action():
    torch.manual_seed(0)
    assert learn_bandit(NAF(SPEC, NAFConfig(hidden=(32,), lr=1e-2)), 200) < 0.1
