"""Temporal-difference control: update rules, convergence on the grid, maximisation bias, and batches on the empirical MDP."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from mbkit.errors import UserError
from mbkit.tabular.control import (
    batch_evaluation,
    batch_optimality_backup,
    batch_policy_backup,
    batch_q_iteration,
    batch_sarsa_backup,
    double_estimator,
    double_q_learning,
    dyna_q,
    expected_sarsa,
    q_learning,
    q_learning_on,
    sarsa,
    single_estimator,
    synchronous_q_learning,
    td_control,
)
from mbkit.tabular.environments import BANDIT_10, Episodes, bandit, exit_or_loop, garnet, grid_episodes, one_step_grid
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.offline import empirical_mdp, fitted_q_iteration
from mbkit.tabular.operators import greedy, performance, q_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.sampling import constant, epsilon_greedy, polynomial, rescaled_linear, rows_of, sample_episodes, sample_rows


@pytest.fixture(scope="module")
def grid() -> MDP:
    return one_step_grid(1)


def chance_of_being_largest(means: Array) -> Array:
    """P(argmax of N(means, 1) = a), by quadrature."""
    others = [np.delete(means, a) for a in range(means.size)]
    return np.array(
        [
            quad(lambda x, m=m, o=o: math.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) * ndtr(x - o).prod(), -12, 12)[0]
            for m, o in zip(means, others, strict=True)
        ]
    )


def ten_arms_ahead() -> MDP:
    """As in Sutton & Barto, example 6.7: a step with reward 0, then ten arms N(-0.1, 1)."""
    P, R = np.zeros((3, 10, 3)), np.zeros((3, 10))
    P[0, :, 1] = P[1, :, 2] = P[2, :, 2] = 1.0
    R[1] = -0.1
    return MDP(P, R, np.eye(3)[0], 1.0, np.arange(3) == 2, lambda rng, s, a, next_s: float(rng.normal(-0.1, 1)) if s == 1 else 0.0)


def steps_to_optimum(mdp: MDP, planning_steps: int, seed: int, longest: int) -> int:
    """Environment steps after which the greedy policy is within 1 % of the optimum, evaluated every 100."""
    best = performance(mdp, policy_iteration(mdp).pi)
    for steps in range(100, longest, 100):  # the same seed gives the same first steps
        q = dyna_q(mdp, np.random.default_rng(seed), steps, planning_steps, epsilon=0.2, episode_steps=50).q
        if performance(mdp, greedy(q)) >= 0.99 * best:
            return steps
    return longest


def test_td_control_one_update_by_hand() -> None:
    """From Q(s') = (1, 5, 3), epsilon 0.3, a' = 2: 3; 0.8 * 5 + 0.1 * (1 + 3); 5. Terminal states have value 0."""
    q, pi = np.array([1.0, 5.0, 3.0]), epsilon_greedy(np.array([1.0, 5.0, 3.0]), 0.3)
    assert (sarsa(q, pi, 2), q_learning(q, pi, 2)) == (3.0, 5.0)
    assert expected_sarsa(q, pi, 2) == pytest.approx(4.4)
    out = td_control(exit_or_loop(), np.random.default_rng(0), 1, epsilon=1.0, learning_rate=constant(0.5), start=np.full((2, 2), 10.0))
    (s, a) = np.argwhere(out.updates)[0]
    assert out.q[s, a] == pytest.approx([(10 + 1) / 2, (10 + 0.99 * 10) / 2][a])


def test_expected_sarsa_greedy_policy_is_q_learning() -> None:
    """So is SARSA, whose a' is then the maximum; with exploration all three differ."""
    mdp = garnet(8, 3, 3, seed=1)
    start = np.random.default_rng(0).normal(size=(8, 3))

    def learn(rule, epsilon: float) -> Array:  # type: ignore[no-untyped-def]
        return td_control(mdp, np.random.default_rng(3), 400, rule, epsilon, constant(0.3), start=start).q

    on_greedy = [learn(rule, 0.0) for rule in (sarsa, expected_sarsa, q_learning)]
    assert np.allclose(on_greedy[0], on_greedy[2], atol=1e-12)
    assert np.allclose(on_greedy[1], on_greedy[2], atol=1e-12)
    exploring = [learn(rule, 0.3) for rule in (sarsa, expected_sarsa, q_learning)]
    assert not np.allclose(exploring[0], exploring[1])
    assert not np.allclose(exploring[1], exploring[2])


def test_expected_sarsa_is_the_mean_of_sarsa() -> None:
    q, pi = np.random.default_rng(0).normal(size=5), np.random.default_rng(1).dirichlet(np.ones(5))
    assert expected_sarsa(q, pi, 0) == pytest.approx(sum(pi[a] * sarsa(q, pi, a) for a in range(5)))


def test_td_control_epsilon_1_sarsa_evaluates_the_behaviour_policy() -> None:
    """With epsilon = 1 SARSA and expected SARSA evaluate the uniform policy, Q-learning the optimal one."""
    mdp = garnet(5, 2, 3, seed=0, gamma=0.7)
    uniform, best = q_of(mdp, np.full((5, 2), 0.5)), policy_iteration(mdp).q
    for rule, truth in ((sarsa, uniform), (expected_sarsa, uniform), (q_learning, best)):
        out = td_control(mdp, np.random.default_rng(0), 5000, rule, 1.0, polynomial(0.75))
        assert np.abs(out.q - truth).max() < 0.15
    assert np.abs(uniform - best).max() > 0.3
    assert out.updates.sum() == 5000


def test_interact_episode_steps_truncates_and_counts_episodes() -> None:
    """The grid has no terminal state: 230 steps are four episodes of 50; every exit of `exit_or_loop` has reward 1."""
    assert td_control(one_step_grid(2), np.random.default_rng(0), 230, episode_steps=50).returns.shape == (4,)
    out = td_control(exit_or_loop(), np.random.default_rng(0), 300)
    assert out.returns.tolist() == [1.0] * int(out.updates[0, 0])


def test_q_learning_on_grid_converges_to_the_optimum(grid: MDP) -> None:
    """4e5 updates at uniform pairs, learning rate 1 / (1 + (1 - gamma) n): sup error below 0.1 where Q* reaches 20."""
    best = policy_iteration(grid).q
    assert best.max() == pytest.approx(20)
    rows = sample_rows(grid, np.random.default_rng(0), 400_000)
    out = q_learning_on(rows, np.zeros((25, 5)), grid.gamma, rescaled_linear(grid.gamma))
    assert np.abs(out - best).max() < 0.1


def test_synchronous_q_learning_grid_has_the_closed_form_error(grid: MDP) -> None:
    """Without noise the error at the corner is 20 prod_k (1 - alpha_k (1 - gamma)) = 19 / (1 + 0.05 (K - 1)), and largest there."""
    best = policy_iteration(grid).q
    for sweeps in (1, 100, 4000):
        out = synchronous_q_learning(grid, np.random.default_rng(0), sweeps, rescaled_linear(grid.gamma))
        assert best[24, 4] - out[24, 4] == pytest.approx(19 / (1 + 0.05 * (sweeps - 1)), abs=1e-9)
    assert np.abs(out - best).max() < 0.1


def test_synchronous_q_learning_noisy_rewards_converges() -> None:
    """Random successors and random rewards; terminal states have value 0."""
    mdp = garnet(8, 3, 3, seed=0)
    out = synchronous_q_learning(mdp, np.random.default_rng(0), 8000, rescaled_linear(mdp.gamma))
    assert np.abs(out - policy_iteration(mdp).q).max() < 0.1
    arms = bandit(np.array([0.0, 1.0]), sigma=1.0, gamma=0.9)
    pulled = synchronous_q_learning(arms, np.random.default_rng(0), 4000, rescaled_linear(0.0), start=np.full((2, 2), 9.0))
    assert np.abs(pulled[0] - [0, 1]).max() < 4 / math.sqrt(4000)
    assert np.array_equal(pulled[1], [0, 0])


def test_q_learning_on_rows_equals_online_updates() -> None:
    """Q-learning on the rows of an online run gives the same table."""
    mdp = garnet(8, 3, 3, seed=1)
    pi = random_policy(mdp, np.random.default_rng(0))
    rows = rows_of(sample_episodes(mdp, pi, np.random.default_rng(1), 5, 40))
    q, n = np.zeros((8, 3)), np.zeros((8, 3))
    for s, a, r, next_s, _, d in zip(*rows, strict=True):
        q[s, a] += polynomial(0.6)(n[s, a]) * (r + mdp.gamma * d * q[next_s].max() - q[s, a])
        n[s, a] += 1
    assert np.allclose(q_learning_on(rows, np.zeros((8, 3)), mdp.gamma, polynomial(0.6)), q, atol=1e-12)


@pytest.mark.parametrize(("means", "maximum", "double"), [(np.zeros(10), 1.53875, 0.0), (BANDIT_10, 1 + 1.123, 1 - 0.336)])
def test_single_and_double_estimator_bias_matches_quadrature(means: Array, maximum: float, double: float) -> None:
    """E max by quadrature and by sampling within 4 standard errors, and likewise for a second sample at the argmax of the first."""
    exact_max = quad(lambda x: 1 - ndtr(x - means).prod() - ndtr(-x - means).prod(), 0, 14)[0]
    exact_double = chance_of_being_largest(means) @ means
    assert exact_max == pytest.approx(maximum, abs=1e-3)
    assert exact_double == pytest.approx(double, abs=1e-3)
    a, b = means + np.random.default_rng(0).standard_normal((2, 100_000, 10))
    for sample, exact in ((single_estimator(a), exact_max), (double_estimator(a, b), exact_double)):
        assert abs(sample.mean() - exact) < 4 * sample.std() / math.sqrt(sample.size)
    assert exact_double <= means.max() <= exact_max


def test_double_q_learning_noisy_arms_is_less_biased() -> None:
    """The first step has value -0.1. With learning rate 0.1 estimates have variance 0.1 / 1.9; the bias is 1.54 times its root."""
    single, double = [], []
    for seed in range(6):
        arguments = (ten_arms_ahead(), np.random.default_rng(seed), 1600)
        single.append(td_control(*arguments, epsilon=1.0, learning_rate=constant(0.1)).q[0].mean())
        double.append(double_q_learning(*arguments, epsilon=1.0, learning_rate=constant(0.1)).q[0].mean())
    assert np.mean(single) == pytest.approx(-0.1 + 1.53875 * math.sqrt(0.1 / 1.9), abs=0.1)
    assert np.mean(double) == pytest.approx(-0.1, abs=0.1)


def test_double_q_learning_garnet_converges_to_the_optimum() -> None:
    mdp = garnet(5, 2, 3, seed=0, gamma=0.7)
    out = double_q_learning(mdp, np.random.default_rng(0), 10_000, epsilon=1.0, learning_rate=polynomial(0.75))
    assert np.abs(out.q - policy_iteration(mdp).q).max() < 0.15
    assert out.updates.sum() == 10_000


def test_dyna_q_needs_fewer_environment_steps_than_q_learning(grid: MDP) -> None:
    pairs = [(steps_to_optimum(grid, 20, seed, 600), steps_to_optimum(grid, 0, seed, 1500)) for seed in range(2)]
    assert all(2 * dyna <= plain for dyna, plain in pairs)
    assert max(dyna for dyna, _ in pairs) < 600


def test_dyna_q_planning_steps_0_is_q_learning(grid: MDP) -> None:
    plain = td_control(grid, np.random.default_rng(0), 300, epsilon=0.2, episode_steps=50)
    dyna = dyna_q(grid, np.random.default_rng(0), 300, 0, epsilon=0.2, episode_steps=50)
    assert np.array_equal(plain.q, dyna.q)
    assert np.array_equal(plain.returns, dyna.returns)


def test_dyna_q_random_successors_solves_the_empirical_mdp() -> None:
    """With random successors planning on all stored outcomes converges to the optimum of the empirical MDP."""
    mdp = garnet(5, 2, 3, seed=0, gamma=0.7)
    out = dyna_q(mdp, np.random.default_rng(0), 1500, 10, epsilon=1.0, learning_rate=polynomial(0.75))
    assert np.abs(out.q - policy_iteration(mdp).q).max() < 0.1
    assert out.updates.sum() == 1500


def test_batch_backups_are_dynamic_programming_on_the_empirical_mdp() -> None:
    """On data with terminal steps, repeated outcomes and pairs without data."""
    base = garnet(8, 3, 3, seed=2)
    P, R = base.P.copy(), base.R.copy()
    P[7], R[7] = np.eye(8)[7], 0.0
    mdp = MDP(P, R, base.mu0, 0.9, np.arange(8) == 7)
    rows = sample_rows(mdp, np.random.default_rng(0), 60)
    model = empirical_mdp(rows, 8, 3, 0.9, base.mu0)
    pi = random_policy(mdp, np.random.default_rng(1))
    zeros = np.zeros((8, 3))
    assert np.abs(batch_q_iteration(rows, zeros, 0.9) - policy_iteration(model).q[:8]).max() < 1e-9
    assert np.abs(batch_q_iteration(rows, zeros, 0.9) - fitted_q_iteration(rows, 8, 3, 0.9, 400)).max() < 1e-9
    assert np.abs(batch_evaluation(rows, pi, 0.9) - q_of(model, np.vstack([pi, pi[:1]]))[:8]).max() < 1e-9
    unseen = np.bincount(rows.state * 3 + rows.action, minlength=24).reshape(8, 3) == 0
    assert unseen.any()
    sevens = np.full((8, 3), 7.0)
    for out in (batch_optimality_backup(rows, sevens, 0.9), batch_policy_backup(rows, sevens, pi, 0.9)):
        assert np.array_equal(out == 7, unseen)


def test_batch_sarsa_backup_evaluates_the_behaviour_policy_of_the_data() -> None:
    """For next actions that depend on the state only; a row without next action is refused."""
    rows = grid_episodes(3)
    q = np.zeros((25, 5))
    for _ in range(500):
        q = batch_sarsa_backup(rows, q, 0.95)
    taken = np.zeros((25, 5))
    taken[rows.state, rows.action] = 1.0
    taken[14] = np.eye(5)[4]
    taken[taken.sum(1) == 0] = 0.2
    assert np.abs(q - batch_evaluation(rows, taken / taken.sum(1, keepdims=True), 0.95)).max() < 1e-9
    unknown = Episodes(*(x[:2] for x in rows))._replace(next_action=np.array([1, -1]))
    with pytest.raises(UserError, match="row 1 has none"):
        batch_sarsa_backup(unknown, q, 0.95)
    assert batch_sarsa_backup(unknown._replace(discount=np.array([1.0, 0.0])), q, 0.95).shape == (25, 5)


def test_first_table_wrong_shape_is_refused(grid: MDP) -> None:
    with pytest.raises(UserError, match="start must have shape"):
        td_control(grid, np.random.default_rng(0), 1, start=np.zeros((5, 25)))
