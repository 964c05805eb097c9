"""CQL beside one-step RL: the exact critic against a minimiser and its limits, plants against Gymnasium and closed forms, losses."""

import gymnasium
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from mbkit.tabular.environments import LQR, garnet, lqr_q
from mbkit.tabular.mdp import TabularError, random_policy, uniform_policy
from mbkit.tabular.operators import entropy, expectation, greedy, lse, q_of, softmax
from mbkit.tabular.planning import value_iteration
from mbkit.theory import conservative as cql
from mbkit.theory import conservative_nets as nets
from mbkit.theory import n1, n3, plants


def tables_of(mdp, beta):
    return cql.Tables(mdp.P[None], mdp.R[None], beta[None], mdp.terminal[None], mdp.gamma)


# ---------------------------------------------------------------------------------------------------------------------- n1
@pytest.mark.parametrize("lam", [0.01, 1.0, 30.0])
def test_the_critic_minimises_its_loss(lam):
    rng = np.random.default_rng(0)
    beta, y = rng.dirichlet(np.ones(4)), 3 * rng.normal(size=4)

    def loss(q):
        return 0.5 * (beta * (q - y) ** 2).sum() + lam * (logsumexp(q) - beta @ q)

    q, mu, level = cql.critic(y[None], beta[None], np.array(lam))
    least = minimize(loss, y, method="BFGS", options={"gtol": 1e-9})
    assert loss(q[0]) <= least.fun + 1e-12
    np.testing.assert_allclose(q[0], least.x, atol=1e-3)
    np.testing.assert_allclose(mu, softmax(q), atol=1e-12)
    np.testing.assert_allclose(level, lse(q), atol=1e-10)


def test_actions_without_data_get_no_mass_and_the_rest_is_solved_without_them():
    beta, y = np.array([[0.0, 0.3, 0.7]]), np.array([[9.0, 1.0, 2.0]])
    q, mu, _ = cql.critic(y, beta, np.array(0.5))
    inner, inner_mu, _ = cql.critic(y[:, 1:], beta[:, 1:], np.array(0.5))
    assert mu[0, 0] == 0
    np.testing.assert_allclose(q[:, 1:], inner, atol=1e-12)
    np.testing.assert_allclose(mu[:, 1:], inner_mu, atol=1e-12)


@pytest.mark.parametrize("lam", [1e-6, 0.1, 5.0, 1e3, 1e6])
def test_newton_ends_at_the_root_for_every_lambda(lam):
    rng = np.random.default_rng(1)
    beta, y = rng.dirichlet(np.full(5, 0.3), 50), 10 * rng.normal(size=(50, 5))
    q, mu, _ = cql.critic(y, beta, np.array(lam))
    np.testing.assert_allclose(softmax(q), mu, atol=1e-9)
    np.testing.assert_allclose(expectation(beta, q), expectation(beta, y), atol=1e-8)


def test_the_jacobian_of_the_critic_is_a_stochastic_matrix():
    rng = np.random.default_rng(2)
    beta, y, step = rng.dirichlet(np.ones(4)), rng.normal(size=4), 1e-6
    ends = [cql.critic(y + sign * step * np.eye(4), np.tile(beta, (4, 1)), np.array(2.0))[0] for sign in (1, -1)]
    jacobian = (ends[0] - ends[1]) / (2 * step)  # [by which y, of which Q]
    assert jacobian.min() > 0
    np.testing.assert_allclose(jacobian.sum(0), 1, atol=1e-8)


def test_the_rest_is_a_fixed_point_and_its_ends_are_value_iteration_and_cloning():
    mdp = garnet(8, 3, 3, seed=1)
    beta = random_policy(mdp, np.random.default_rng(0))
    lams = np.array([1e-8, 1.0, 1e5])
    found = cql.conservative(tables_of(mdp, beta), lams, tol=1e-8)
    again = mdp.R + mdp.gamma * (mdp.P @ found.q[1, 0].max(-1)) - lams[1] * (softmax(found.q[1, 0]) / beta - 1)
    np.testing.assert_allclose(found.q[1, 0], again, atol=1e-7)
    np.testing.assert_allclose(found.q[0, 0], value_iteration(mdp, tol=1e-10).q, atol=1e-4)
    np.testing.assert_allclose(found.mu[2, 0], beta, atol=1e-3)
    np.testing.assert_allclose(found.y[2, 0], q_of(mdp, beta, cql.far_bonus(beta)), atol=1e-2)
    assert (found.y[2, 0] > q_of(mdp, beta) + 0.1).all()  # not V^beta: the greedy backup overestimates it


def test_the_far_bonus_is_zero_for_uniform_data_alone():
    mdp = garnet(8, 3, 3)
    np.testing.assert_allclose(cql.far_bonus(uniform_policy(mdp)), 0, atol=1e-15)
    beta = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(cql.far_bonus(beta), [entropy(beta)[0] + np.log(0.5), 0], atol=1e-15)


def test_data_of_one_action_leave_lambda_nothing_to_do():
    mdp = garnet(8, 3, 3)
    beta = greedy(q_of(mdp, uniform_policy(mdp)))
    found = cql.conservative(tables_of(mdp, beta), np.array([0.01, 10.0]))
    np.testing.assert_allclose(found.mu, np.broadcast_to(beta, found.mu.shape), atol=1e-12)


def test_a_tolerance_below_rounding_is_told_instead_of_spinning():
    mdp = garnet(8, 3, 3)
    with pytest.raises(TabularError):
        cql.conservative(tables_of(mdp, random_policy(mdp, np.random.default_rng(0))), np.array([1e9]), tol=1e-12)


def test_ties_count_as_the_same_arg_max():
    reference = np.array([[0.4, 0.4, 0.2], [0.2, 0.5, 0.3]])
    assert n1.same_argmax(np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0]]), reference).tolist() == [1, 0]


def test_the_networks_loss_rests_where_the_exact_critic_does():
    rng = np.random.default_rng(3)
    n, y, lam = rng.random((2, 6, 4)), rng.normal(size=(2, 6, 4)), np.array([0.7, 20.0])
    n /= n.sum((1, 2), keepdims=True)
    q, _, _ = cql.critic(y, n / n.sum(-1, keepdims=True), lam[:, None, None])
    leaf = torch.tensor(q, requires_grad=True)
    n1.network_loss(leaf, torch.tensor(y), torch.tensor(n), torch.tensor(lam)).backward()
    assert leaf.grad.abs().max() < 1e-10
    n1.network_loss(other := torch.tensor(q + 1, requires_grad=True), torch.tensor(y), torch.tensor(n), torch.tensor(lam)).backward()
    assert other.grad.abs().max() > 1e-3


# ---------------------------------------------------------------------------------------------------------------------- n3
def test_the_pendulum_is_gymnasiums():
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    state = np.array(env.state)
    for _ in range(50):
        a = rng.uniform(-1, 1, 1)
        obs, reward, *_ = env.step(plants.TORQUE * a)
        mine, state = plants.pendulum_step(rng, state, a)
        assert 10 * mine == pytest.approx(reward, rel=1e-6)
        np.testing.assert_allclose(plants.PLANTS[1].observe(state) * [1, 1, 4], obs, atol=1e-5)


def test_the_controller_swings_the_pendulum_up_and_holds_it():
    state = plants.PLANTS[1].reset(np.random.default_rng(0), 64)
    for _ in range(200):
        _, state = plants.pendulum_step(np.random.default_rng(0), state, plants.swing_up(state))
    assert (np.abs(plants.wrapped(state[:, 0])) < 0.1).mean() > 0.9


def test_the_noisy_lqrs_value_obeys_bellman_and_without_noise_is_the_known_one():
    lqr, gain, sigma, s, u = LQR(), 0.7, 0.4, np.array([0.5, -1.0]), np.array([0.3, 0.2])
    np.testing.assert_allclose(plants.lqr_noisy_q(gain, 0.0, s, u), lqr_q(lqr, gain, s, u), rtol=1e-12)
    x, w = np.polynomial.hermite_e.hermegauss(20)
    w = w / w.sum()
    after = lqr.a * s[:, None] + lqr.b * u[:, None] + lqr.noise * x  # [2, 20]
    action = -gain * after[..., None] + sigma * x
    ahead = plants.lqr_noisy_q(gain, sigma, np.broadcast_to(after[..., None], action.shape), action) @ w @ w
    np.testing.assert_allclose(plants.lqr_noisy_q(gain, sigma, s, u), lqr.reward(s, u) + lqr.gamma * ahead, rtol=1e-10)


def test_least_squares_finds_the_closed_form_q():
    assert n3.least_squares_errors(5) < 0.15


@pytest.mark.parametrize("plant", plants.PLANTS, ids=lambda p: p.name)
def test_rows_follow_each_other(plant):
    rows = plants.record(plant, "medium", np.random.default_rng(0), 3 * plant.steps)
    np.testing.assert_array_equal(rows.next_obs[:3], rows.obs[3:6])  # three episodes side by side
    np.testing.assert_array_equal(rows.next_action[:3], rows.action[3:6])
    assert all(len(x) == 3 * plant.steps and np.isfinite(x).all() for x in rows)
    assert np.abs(rows.action).max() <= 1


def test_the_expert_earns_more_than_the_medium_controller_and_that_more_than_chance():
    for plant in plants.PLANTS:
        chance, medium, both = (plants.record(plant, kind, np.random.default_rng(0), 4000).reward.mean() for kind in plants.KINDS)
        assert chance < medium < both


def test_densities_and_divergences_are_torchs():
    torch.manual_seed(0)
    mean, log_std, other, wide = torch.randn(4, 3, 5, 2)
    p, q = (torch.distributions.Normal(m, s.exp()) for m, s in ((mean, log_std), (other, wide)))
    torch.testing.assert_close(nets.gaussian_kl(mean, log_std, other, wide), torch.distributions.kl_divergence(p, q).sum(-1))
    squashed = torch.distributions.TransformedDistribution(p, torch.distributions.TanhTransform())
    torch.testing.assert_close(nets.log_density(mean, log_std, other), squashed.log_prob(other.tanh()).sum(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(nets.unsquash(torch.tensor([0.5, -0.9, 1.0])).tanh(), torch.tensor([0.5, -0.9, nets.EDGE]))


def test_proposals_estimate_the_integral_of_exp_q():
    a = torch.rand(1, 1, 200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    level = nets.push_down(3 * a, torch.full_like(a, -np.log(2)))
    assert level.item() == pytest.approx(np.log((np.exp(3) - np.exp(-3)) / 3), abs=0.01)


def test_without_lambda_the_critics_loss_is_regression_and_shifted_rewards_are_positive():
    q, y, level = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[9.0, 9.0]])
    assert nets.critic_loss(q, y, level, torch.zeros(1)).item() == pytest.approx(1.25)
    assert nets.critic_loss(q, y, level, torch.ones(1)).item() == pytest.approx(1.25 + 7)
    data = nets.gather(plants.PLANTS[0], [0], 200)
    assert (data.rows.reward + data.shift[:, None]).min() > 0
