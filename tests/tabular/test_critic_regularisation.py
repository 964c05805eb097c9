"""C7 and the exact part of the one-step / critic-regularisation connection, closed forms against brute force."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from mbkit.tabular.critic_losses import CROSS_ENTROPY, ITAKURA_SAITO, LOSSES, MSE, POISSON, Loss, huber, shift_rewards
from mbkit.tabular.critic_regularisation import (
    critic,
    damped_actor,
    exactness_threshold,
    fixed_policy_iterates,
    harmonic_mixture,
    joint_fixed_point,
    multiplicative_actor,
    normalised_target,
    objective,
    protocol,
    water_fill,
)
from mbkit.tabular.environments import exit_or_loop, garnet, grid_episodes, one_step_grid
from mbkit.tabular.mdp import MDP, TabularError, random_policy, uniform_policy
from mbkit.tabular.offline import behaviour
from mbkit.tabular.one_step import improve, one_step_iterates, one_step_policy
from mbkit.tabular.operators import backup, bellman_q, expectation, greedy, kl, q_of, value_of

Table = np.ndarray
RNG = np.random.default_rng(0)
OFFLINE = garnet(20, 4, 5, seed=0, low=0.1)
LAMBDAS = [0.3, 1.0, 3.0, 100.0]


def grid() -> tuple[MDP, Table]:
    return one_step_grid(1), behaviour(grid_episodes(1), 25, 5)


def gap(mdp: MDP, beta: Table) -> tuple[Table, Table, Table]:
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return q, v, q - v


def test_c7a_fixed_policy_iterates_are_those_of_beta() -> None:
    """lambda = 1, any Q_0 > 0, stochastic P: Q_t = Q^beta_t beta / pi for all t, relative 1e-12."""
    for beta, pi in [(random_policy(OFFLINE, RNG), random_policy(OFFLINE, RNG)) for _ in range(5)]:
        q0 = RNG.uniform(0.1, 5, size=beta.shape)
        q_beta = q0 * pi / beta
        for _, q in zip(range(200), fixed_policy_iterates(OFFLINE, beta, pi, 1.0, q0), strict=False):
            q_beta = bellman_q(OFFLINE, beta, q_beta)
            assert np.abs(q / (q_beta * beta / pi) - 1).max() <= 1e-12


def test_c7a_on_the_grid_with_unvisited_actions() -> None:
    mdp, beta = grid()
    pi = uniform_policy(mdp)
    q_beta = np.ones_like(beta)
    for _, q in zip(range(100), fixed_policy_iterates(mdp, beta, pi, 1.0, beta / pi), strict=False):
        q_beta = bellman_q(mdp, beta, q_beta)
        assert np.abs(q - q_beta * beta / pi).max() <= 1e-12 * np.abs(q).max()


def test_normalised_weights_need_deterministic_dynamics() -> None:
    mdp, beta = grid()
    v = RNG.uniform(0, 5, 25)
    np.testing.assert_allclose(normalised_target(mdp, v), backup(mdp, v), rtol=1e-12)
    assert (normalised_target(OFFLINE, v[:20]) < backup(OFFLINE, v[:20]) - 1e-3).all()
    coin = MDP(np.array([[[0.0, 0.5, 0.5]], [[0.0, 1, 0]], [[0.0, 0, 1]]]), np.ones((3, 1)), np.eye(3)[0], 0.5)
    assert abs(normalised_target(coin, np.array([0.0, 0.0, 4.0]))[0, 0] - (1 / 2 + 3 / 4) / (1 / 2 + 1 / 4)) < 1e-12  # y is 1 or 3
    pi = uniform_policy(mdp)
    plain = fixed_policy_iterates(mdp, beta, pi, 1.0, beta)
    normalised = fixed_policy_iterates(mdp, beta, pi, 1.0, beta, normalized=True)
    for _, a, b in zip(range(50), plain, normalised, strict=False):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_c7b_closed_form_is_where_the_slope_vanishes(loss: Loss) -> None:
    """The stationarity condition, and the objective really rises on both sides of it (Itakura-Saito: a local minimum)."""
    y = RNG.uniform(0.5, 3, size=(50, 4))
    beta, pi = RNG.dirichlet(5 * np.ones(4), 50), RNG.dirichlet(5 * np.ones(4), 50)
    lam = 0.1
    q = critic(y, beta, pi, lam, loss)
    assert np.abs(beta * loss.slope(q, y) + lam * (pi - beta)).max() <= 1e-12
    for h in (-1e-3, 1e-3):
        assert (objective(q + h * q, y, beta, pi, lam, loss) > objective(q, y, beta, pi, lam, loss)).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_c7b_slope_is_the_ratio_of_derivatives(loss: Loss) -> None:
    q, y, h = RNG.uniform(0.5, 3, 100), RNG.uniform(0.5, 3, 100), 1e-6
    slope = (loss.value(q + h, y) - loss.value(q - h, y)) / (loss.penalty(q + h) - loss.penalty(q - h))
    np.testing.assert_allclose(slope, loss.slope(q, y), atol=1e-7)


def test_c7b_cross_entropy_and_poisson_share_the_weighted_classifier() -> None:
    y, beta, pi = RNG.uniform(0.5, 3, (50, 4)), RNG.dirichlet(np.ones(4), 50), RNG.dirichlet(np.ones(4), 50)
    for lam in (0.0, 0.3, 1.0):
        q = critic(y, beta, pi, lam, CROSS_ENTROPY)
        expected = y * beta / ((1 - lam) * beta + lam * pi)
        assert np.abs(q / expected - 1).max() <= 1e-12
        np.testing.assert_array_equal(q, critic(y, beta, pi, lam, POISSON))


@pytest.mark.parametrize("lam", [0.1, 0.5, 0.9])
def test_c7c_fixed_policy_value_is_that_of_a_harmonic_mixture(lam: float) -> None:
    for _ in range(10):
        beta, pi = random_policy(OFFLINE, RNG), random_policy(OFFLINE, RNG)
        h = harmonic_mixture(beta, pi, lam)
        assert (h.sum(1) <= 1 + 1e-12).all()
        *_, q = (q for _, q in zip(range(400), fixed_policy_iterates(OFFLINE, beta, pi, lam, np.ones_like(pi)), strict=False))
        v = expectation(pi, q)
        assert np.abs(v - value_of(OFFLINE, h)).max() <= 1e-9
        assert (v <= value_of(OFFLINE, (1 - lam) * pi + lam * beta) + 1e-9).all()


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize(
    ("loss", "scale"), [(CROSS_ENTROPY, 1), (POISSON, 1), (MSE, 0), (ITAKURA_SAITO, 2)], ids=lambda x: getattr(x, "name", x)
)
def test_c7d_joint_fixed_point_is_one_step_rl(loss: Loss, scale: int, lam: float) -> None:
    """No clipping: y = Q^beta and pi = beta (1 + A / (lambda V^scale)); with clipping the form is another, and `clipped` says so."""
    beta = random_policy(OFFLINE, RNG)
    q, v, advantage = gap(OFFLINE, beta)
    expected = beta * (1 + advantage / (lam * v**scale))
    rest = joint_fixed_point(OFFLINE, beta, lam, loss)
    assert rest.clipped == bool((expected < 0).any())
    if not rest.clipped:
        assert np.abs(rest.y - q).max() <= 1e-9
        assert np.abs(rest.pi - expected).max() <= 1e-9
        assert np.abs(rest.level - v[:, 0]).max() <= 1e-9


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("lam", [0.02, 0.2, 1.0, 5.0])
def test_water_filling_leaves_no_better_action(loss: Loss, lam: float) -> None:
    """The critic gives every chosen action the level and no other more: nothing an actor could gain."""
    y, beta = RNG.uniform(0.5, 3, (50, 4)), RNG.dirichlet(np.ones(4), 50)
    beta[:10, 1] = 0
    beta /= beta.sum(1, keepdims=True)
    pi, level = water_fill(y, beta, lam, loss)
    assert np.abs(pi.sum(1) - 1).max() <= 1e-12
    assert (pi[beta == 0] == 0).all()
    slope = loss.slope(level[:, None], y)
    assert np.abs(beta * slope + lam * (pi - beta))[pi > 0].max() <= 1e-9  # the level is where the chosen are stationary
    assert ((beta * slope - lam * beta)[(pi == 0) & (beta > 0)] >= -1e-9).all()  # the others' loss still falls below it
    if loss.name != "huber" and lam <= 0.2:
        assert (level >= expectation(beta, y) - 1e-12).all()  # clipping can only raise it


def test_huber_does_not_evaluate_beta() -> None:
    """Its slope is no multiple of Q - y once it saturates: the level is no longer the mean, unlike with every Bregman loss."""
    y, beta = np.array([[0.0, 0.0, 0.0, 10.0]]), np.full((1, 4), 0.25)
    assert abs(water_fill(y, beta, 5.0, MSE)[1][0] - 2.5) < 1e-9
    assert abs(water_fill(y, beta, 5.0, huber(1.0))[1][0] - 1 / 3) < 1e-9  # 3 c = 1
    assert abs(water_fill(y, beta, 5.0, huber(100.0))[1][0] - 2.5) < 1e-9


def test_c7d_cross_entropy_clips_below_its_threshold_only() -> None:
    beta = random_policy(OFFLINE, RNG)
    threshold = exactness_threshold(OFFLINE, beta)
    assert not joint_fixed_point(OFFLINE, beta, 1.0001 * threshold).clipped
    below = joint_fixed_point(OFFLINE, beta, 0.9 * threshold)
    assert below.clipped
    assert np.abs(below.y - q_of(OFFLINE, beta)).max() > 1e-4
    assert (below.y >= q_of(OFFLINE, beta) - 1e-9).all()


def test_c7e_the_multiplicative_actor_arrives_in_one_step() -> None:
    for mdp, beta in [(OFFLINE, random_policy(OFFLINE, RNG)), grid()]:
        pi = random_policy(mdp, RNG)
        *_, q = (q for _, q in zip(range(900), fixed_policy_iterates(mdp, beta, pi, 1.0, np.ones_like(pi)), strict=False))
        assert np.abs(multiplicative_actor(pi, q) - one_step_policy(mdp, beta)).max() <= 1e-9


def test_one_step_rl_as_iterations_and_as_optimum() -> None:
    beta = random_policy(OFFLINE, RNG)
    *_, (q, pi) = (x for _, x in zip(range(400), one_step_iterates(OFFLINE, beta, np.ones_like(beta)), strict=False))
    assert np.abs(pi - one_step_policy(OFFLINE, beta)).max() <= 1e-12
    best = expectation(pi, np.log(q)) - kl(pi, beta)
    tilted = one_step_policy(OFFLINE, beta, alpha=0.5)
    best_tilted = expectation(tilted, q) - 0.5 * kl(tilted, beta)
    for _ in range(50):
        other = random_policy(OFFLINE, RNG)
        assert (expectation(other, np.log(q)) - kl(other, beta) <= best + 1e-12).all()
        assert (expectation(other, q) - 0.5 * kl(other, beta) <= best_tilted + 1e-12).all()
    assert (value_of(OFFLINE, pi) >= value_of(OFFLINE, beta) - 1e-12).all()  # one improvement step improves


def test_d1_protocol_has_the_published_trace() -> None:
    """|pi_CR - pi_1step| after iterations 0, 1k, 10k, counted from 0, so that number t is seen after t + 1 updates."""
    mdp, beta = grid()
    target = one_step_policy(mdp, beta)
    trace = {}
    for t, (_, pi) in zip(range(10_001), protocol(mdp, beta, np.random.RandomState(0).normal(size=(25, 5))), strict=False):
        if t in (0, 1000, 10_000):
            trace[t] = round(float(np.linalg.norm(pi - target)), 4)
    assert trace == {0: 1.0262, 1000: 0.7511, 10_000: 0.1497}


def test_damped_actor_moves_towards_the_greedy_policy() -> None:
    pi, q = uniform_policy(OFFLINE), RNG.normal(size=(20, 4))
    np.testing.assert_allclose(damped_actor(pi, q, 0.1), pi + 0.1 * (greedy(q) - pi), atol=1e-15)
    np.testing.assert_array_equal(damped_actor(pi, q, 1.0), greedy(q))


def test_positive_losses_name_the_smallest_reward(caplog: pytest.LogCaptureFixture) -> None:
    negative = replace(OFFLINE, R=OFFLINE.R - 0.5)
    beta = random_policy(negative, RNG)
    smallest = f"{negative.R.min():g}"
    with pytest.raises(TabularError, match=f"cross_entropy needs rewards > 0; the smallest is {smallest}"):
        joint_fixed_point(negative, beta, 1.0)
    assert np.isfinite(joint_fixed_point(negative, beta, 10.0, MSE).pi).all()
    with caplog.at_level(logging.WARNING):
        shifted = shift_rewards(negative, 0.1)
    assert "rewards shifted by" in caplog.text
    assert abs(shifted.R.min() - 0.1) < 1e-15
    joint_fixed_point(shifted, beta, 1.0)
    with pytest.raises(TabularError, match="cross_entropy needs rewards > 0; the smallest is 0"):
        joint_fixed_point(replace(OFFLINE, R=np.zeros((20, 4))), beta, 1.0)
    with pytest.raises(TabularError, match="needs Q > 0 where the data are"):
        improve(beta, negative.R)


def test_terminal_states_do_not_disturb_positive_losses() -> None:
    mdp = exit_or_loop(0.9)
    beta = np.full((2, 2), 0.5)
    q, v, advantage = gap(mdp, beta)
    rest = joint_fixed_point(mdp, beta, 1.0)
    np.testing.assert_allclose(rest.pi[0], (beta * (1 + advantage / np.where(v > 0, v, 1)))[0], atol=1e-9)
    np.testing.assert_allclose(rest.y, q, atol=1e-9)
    assert shift_rewards(mdp, 0.5).R.tolist() == [[1.5, 0.5], [0.0, 0.0]]


def test_losses_without_a_minimum_say_where() -> None:
    y, beta, pi = np.ones((1, 2)), np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    for lam, loss in ((4.0, CROSS_ENTROPY), (1.0, huber(0.5)), (4.0, ITAKURA_SAITO)):
        with pytest.raises(TabularError, match=rf"{loss.name} has no minimum at state 0, action 0 \(pi 0.1, beta 0.9, lambda"):
            critic(y, beta, pi, lam, loss)
    with pytest.raises(TabularError, match="mse has no minimum at state 0, action 1"):
        critic(y, np.array([[1.0, 0.0]]), pi, 1.0, MSE)
    assert critic(y, np.array([[1.0, 0.0]]), pi, 1.0, CROSS_ENTROPY)[0, 1] == 0
    for bad, words in (
        (lambda: huber(0.0), "delta"),
        (lambda: joint_fixed_point(OFFLINE, uniform_policy(OFFLINE), 0.0), "lambda must be > 0"),
    ):
        with pytest.raises(TabularError, match=words):
            bad()


@pytest.mark.parametrize("iterates", ["held", "published"])
def test_negative_rewards_are_refused_by_the_iterations_too(iterates):
    mdp = garnet(6, 2, 2)
    negative, pi = replace(mdp, R=mdp.R - 1), uniform_policy(mdp)
    q0 = np.ones((mdp.S, mdp.A))
    made = fixed_policy_iterates(negative, pi, pi, 1.0, q0) if iterates == "held" else protocol(negative, pi, q0)
    with pytest.raises(TabularError, match=r"cross.entropy needs rewards > 0; the smallest is -0.*shift_rewards\(mdp, smallest=0.1\)"):
        next(made)


@pytest.mark.parametrize("smallest", [0.0, -1.0, float("nan")])
def test_a_shift_to_what_is_not_positive_is_refused(smallest):
    with pytest.raises(TabularError, match=r"smallest=.*expected a number > 0"):
        shift_rewards(garnet(6, 2, 2), smallest)
