"""Critic regularisation: closed forms, fixed points and their equality with one-step RL, by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from tabular_problems import OFFLINE

from mbkit.errors import UserError
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
from mbkit.tabular.mdp import MDP, random_policy, uniform_policy
from mbkit.tabular.offline import behaviour
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.operators import backup, bellman_q, expectation, greedy, q_of, value_of

Table = np.ndarray
RNG = np.random.default_rng(0)
LAMBDAS = [0.3, 1.0, 3.0, 100.0]


def grid() -> tuple[MDP, Table]:
    return one_step_grid(1), behaviour(grid_episodes(1), 25, 5)


def gap(mdp: MDP, beta: Table) -> tuple[Table, Table, Table]:
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return q, v, q - v


def test_fixed_policy_iterates_lambda_1_are_those_of_beta() -> None:
    """lambda = 1, any Q_0 > 0, stochastic P: Q_t = Q^beta_t beta / pi for all t, relative 1e-12."""
    for beta, pi in [(random_policy(OFFLINE, RNG), random_policy(OFFLINE, RNG)) for _ in range(5)]:
        q0 = RNG.uniform(0.1, 5, size=beta.shape)
        q_beta = q0 * pi / beta
        for _, q in zip(range(200), fixed_policy_iterates(OFFLINE, beta, pi, 1.0, q0), strict=False):
            q_beta = bellman_q(OFFLINE, beta, q_beta)
            assert np.abs(q / (q_beta * beta / pi) - 1).max() <= 1e-12


def test_fixed_policy_iterates_unvisited_actions_are_those_of_beta() -> None:
    mdp, beta = grid()
    pi = uniform_policy(mdp)
    q_beta = np.ones_like(beta)
    for _, q in zip(range(100), fixed_policy_iterates(mdp, beta, pi, 1.0, beta / pi), strict=False):
        q_beta = bellman_q(mdp, beta, q_beta)
        assert np.abs(q - q_beta * beta / pi).max() <= 1e-12 * np.abs(q).max()


def test_normalised_target_is_exact_only_for_deterministic_dynamics() -> None:
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
def test_critic_closed_form_is_stationary(loss: Loss) -> None:
    """The stationarity condition, and an objective that increases on both sides (Itakura-Saito: a local minimum)."""
    y = RNG.uniform(0.5, 3, size=(50, 4))
    beta, pi = RNG.dirichlet(5 * np.ones(4), 50), RNG.dirichlet(5 * np.ones(4), 50)
    lam = 0.1
    q = critic(y, beta, pi, lam, loss)
    assert np.abs(beta * loss.slope(q, y) + lam * (pi - beta)).max() <= 1e-12
    for h in (-1e-3, 1e-3):
        assert (objective(q + h * q, y, beta, pi, lam, loss) > objective(q, y, beta, pi, lam, loss)).all()


def test_critic_cross_entropy_and_poisson_are_equal() -> None:
    y, beta, pi = RNG.uniform(0.5, 3, (50, 4)), RNG.dirichlet(np.ones(4), 50), RNG.dirichlet(np.ones(4), 50)
    for lam in (0.0, 0.3, 1.0):
        q = critic(y, beta, pi, lam, CROSS_ENTROPY)
        expected = y * beta / ((1 - lam) * beta + lam * pi)
        assert np.abs(q / expected - 1).max() <= 1e-12
        np.testing.assert_array_equal(q, critic(y, beta, pi, lam, POISSON))


@pytest.mark.parametrize("lam", [0.1, 0.5, 0.9])
def test_harmonic_mixture_has_the_value_of_the_fixed_policy_critic(lam: float) -> None:
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
def test_joint_fixed_point_without_clipping_is_the_closed_form(loss: Loss, scale: int, lam: float) -> None:
    """Without clipping y = Q^beta and pi = beta (1 + A / (lambda V^scale)); otherwise `clipped` is true."""
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
def test_water_fill_leaves_no_better_action(loss: Loss, lam: float) -> None:
    """All actions with pi > 0 have the level as Q and the others at most that: the actor cannot improve."""
    y, beta = RNG.uniform(0.5, 3, (50, 4)), RNG.dirichlet(np.ones(4), 50)
    beta[:10, 1] = 0
    beta /= beta.sum(1, keepdims=True)
    pi, level = water_fill(y, beta, lam, loss)
    assert np.abs(pi.sum(1) - 1).max() <= 1e-12
    assert (pi[beta == 0] == 0).all()
    slope = loss.slope(level[:, None], y)
    assert np.abs(beta * slope + lam * (pi - beta))[pi > 0].max() <= 1e-9  # stationary at the level where pi > 0
    assert ((beta * slope - lam * beta)[(pi == 0) & (beta > 0)] >= -1e-9).all()  # where pi = 0 the loss decreases below the level
    if loss.name != "huber" and lam <= 0.2:
        assert (level >= expectation(beta, y) - 1e-12).all()  # clipping can only increase it


def test_water_fill_huber_does_not_evaluate_beta() -> None:
    """Its slope saturates and is then no multiple of Q - y: the level is not the mean, unlike for every Bregman loss."""
    y, beta = np.array([[0.0, 0.0, 0.0, 10.0]]), np.full((1, 4), 0.25)
    assert abs(water_fill(y, beta, 5.0, MSE)[1][0] - 2.5) < 1e-9
    assert abs(water_fill(y, beta, 5.0, huber(1.0))[1][0] - 1 / 3) < 1e-9  # 3 c = 1
    assert abs(water_fill(y, beta, 5.0, huber(100.0))[1][0] - 2.5) < 1e-9


def test_exactness_threshold_cross_entropy_clips_only_below_it() -> None:
    beta = random_policy(OFFLINE, RNG)
    threshold = exactness_threshold(OFFLINE, beta)
    assert not joint_fixed_point(OFFLINE, beta, 1.0001 * threshold).clipped
    below = joint_fixed_point(OFFLINE, beta, 0.9 * threshold)
    assert below.clipped
    assert np.abs(below.y - q_of(OFFLINE, beta)).max() > 1e-4
    assert (below.y >= q_of(OFFLINE, beta) - 1e-9).all()


def test_multiplicative_actor_converged_critic_gives_one_step_rl() -> None:
    for mdp, beta in [(OFFLINE, random_policy(OFFLINE, RNG)), grid()]:
        pi = random_policy(mdp, RNG)
        *_, q = (q for _, q in zip(range(900), fixed_policy_iterates(mdp, beta, pi, 1.0, np.ones_like(pi)), strict=False))
        assert np.abs(multiplicative_actor(pi, q) - one_step_policy(mdp, beta)).max() <= 1e-9


def test_protocol_reproduces_the_published_trace() -> None:
    """|pi_CR - pi_1step| after iterations 0, 1000 and 10 000; iteration t is after t + 1 updates."""
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


def test_joint_fixed_point_terminal_states_have_value_0() -> None:
    mdp = exit_or_loop(0.9)
    beta = np.full((2, 2), 0.5)
    q, v, advantage = gap(mdp, beta)
    rest = joint_fixed_point(mdp, beta, 1.0)
    np.testing.assert_allclose(rest.pi[0], (beta * (1 + advantage / np.where(v > 0, v, 1)))[0], atol=1e-9)
    np.testing.assert_allclose(rest.y, q, atol=1e-9)
    assert shift_rewards(mdp, 0.5).R.tolist() == [[1.5, 0.5], [0.0, 0.0]]


def test_critic_without_minimum_names_state_and_action() -> None:
    y, beta, pi = np.ones((1, 2)), np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    for lam, loss in ((4.0, CROSS_ENTROPY), (1.0, huber(0.5)), (4.0, ITAKURA_SAITO)):
        with pytest.raises(UserError, match=rf"{loss.name} has no minimum at state 0, action 0 \(pi 0.1, beta 0.9, lambda"):
            critic(y, beta, pi, lam, loss)
    with pytest.raises(UserError, match="mse has no minimum at state 0, action 1"):
        critic(y, np.array([[1.0, 0.0]]), pi, 1.0, MSE)
    assert critic(y, np.array([[1.0, 0.0]]), pi, 1.0, CROSS_ENTROPY)[0, 1] == 0
    for call, message in (
        (lambda: huber(0.0), "delta"),
        (lambda: joint_fixed_point(OFFLINE, uniform_policy(OFFLINE), 0.0), "lambda must be > 0"),
    ):
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.parametrize("iterates", ["fixed", "published"])
def test_fixed_policy_iterates_and_protocol_negative_rewards_are_refused(iterates):
    mdp = garnet(6, 2, 2)
    negative, pi = replace(mdp, R=mdp.R - 1), uniform_policy(mdp)
    q0 = np.ones((mdp.S, mdp.A))
    run = fixed_policy_iterates(negative, pi, pi, 1.0, q0) if iterates == "fixed" else protocol(negative, pi, q0)
    with pytest.raises(UserError, match=r"cross.entropy needs rewards > 0; the smallest is -0.*shift_rewards\(mdp, smallest=0.1\)"):
        next(run)
