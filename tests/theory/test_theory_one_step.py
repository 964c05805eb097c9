"""What the experiments d1, d2, d3 and n2 measure with: closed forms, limits, finite differences; and C7a-e on their problems."""

import numpy as np
import pytest
import torch

from mbkit.tabular.critic_losses import CROSS_ENTROPY, ITAKURA_SAITO, LOSSES, MSE
from mbkit.tabular.critic_regularisation import exactness_threshold, joint_fixed_point, normalised_target
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.operators import q_of, value_of
from mbkit.tabular.planning import policy_iteration
from mbkit.theory import d1, d2, d3, n2
from mbkit.theory import learned_critics as critics

RNG = np.random.default_rng(0)


# --------------------------------------------------------------------------------------------------------------------------- d1
@pytest.mark.parametrize("which", ["garnet", "grid 1", "grid 3"])
def test_c7a_c7e_hold_and_what_is_often_claimed_does_not(which):
    mdp, beta = d1.random_problem(3) if which == "garnet" else d1.grid(int(which[-1]))
    errors = d1.exact_errors(mdp, beta, 3)
    assert max(errors.iterates, errors.one_step, errors.rest) <= 1e-10
    assert errors.moving > 1e-3
    assert (errors.normalised <= 1e-10) == which.startswith("grid")  # deterministic


def test_published_run_meets_its_first_points():
    trace = d1.published_run(1, 1000).trace
    assert trace.shape == (1001,)
    assert round(float(trace[0]), 4) == 1.0262
    assert round(float(trace[1000]), 4) == 0.7511
    assert abs(d1.published_run(1, 10, seed=1).trace[0] - trace[0]) > 1e-6


def test_returns_are_ordered_as_they_must_be():
    rows = {name: np.array(j) for name, *j in d1.returns({k: one_step_policy(*d1.grid(k)) for k in (1, 2, 3)})}
    assert (rows["optimal"] >= np.stack(list(rows.values())) - 1e-9).all()
    assert (rows["one-step RL"] >= rows["behaviour"] - 1e-12).all()  # one step of improvement improves
    np.testing.assert_array_equal(rows["critic regularisation"], rows["one-step RL"])


# --------------------------------------------------------------------------------------------------------------------------- d2
@pytest.mark.parametrize("name", d2.POWER)
def test_c7d_on_a_garnet(name):
    mdp, beta = d3.problem(1)
    k = d2.POWER[name]
    limit = d2.unclipped_from(mdp, beta, k)
    above, below = (d2.measure(mdp, beta, factor * limit, LOSSES[name]) for factor in (1.001, 0.9))
    assert not above.clipped
    assert max(above.critic, above.policy) <= 1e-10
    assert below.clipped
    assert below.policy > 1e-6
    wrong = np.abs(d2.expected_rest(mdp, beta, 1.001 * limit, k + 1) - joint_fixed_point(mdp, beta, 1.001 * limit, LOSSES[name]).pi)
    assert wrong.max() > 1e-4


def test_the_threshold_of_cross_entropy_is_the_one_of_tabular():
    mdp, beta = d3.problem(2)
    assert d2.unclipped_from(mdp, beta, 1) == pytest.approx(exactness_threshold(mdp, beta), abs=1e-14)


@pytest.mark.parametrize(("loss", "k"), [(CROSS_ENTROPY, 1), (MSE, 0), (ITAKURA_SAITO, 2)], ids=["ce", "mse", "is"])
def test_lambda_carries_the_unit_of_the_reward(loss, k):
    mdp, beta = d3.problem(0)
    assert d2.unit_error(mdp, beta, loss, k) <= 1e-8
    assert d2.unit_error(mdp, beta, loss, k + 1) > 1e-3


# --------------------------------------------------------------------------------------------------------------------------- d3
def test_ties_count_as_ties():
    a = np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    b = np.array([[0.4, 0.4 + 1e-15, 0.2], [0.8, 0.2, 0.0]])
    assert d3.same_argmax(a, b) == 0.5
    assert d3.same_argmax(a, np.array([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]])) == 0.5


def test_lambda_one_is_one_step_rl_and_infinity_the_behaviour():
    mdp, beta = d1.grid(1)
    np.testing.assert_allclose(d3.unclipped_policy(mdp, beta, 1.0), one_step_policy(mdp, beta), atol=1e-14)
    np.testing.assert_allclose(d3.unclipped_policy(mdp, beta, 1e12), beta, atol=1e-10)
    point = d3.measure(mdp, beta, 1.0)
    assert point.same == 1
    assert max(point.critic, point.policy) <= 1e-10
    assert d3.measure(mdp, beta, 0.3).policy == np.inf


def test_lambda_zero_is_the_best_inside_the_data():
    mdp, beta = d3.problem(0)
    best = policy_iteration(mdp).v
    np.testing.assert_allclose(joint_fixed_point(mdp, beta, 1e-6, tol=1e-6).level, best, rtol=1e-3)
    assert (joint_fixed_point(mdp, beta, 1.0).level < 0.99 * best).all()


def test_the_published_iteration_leaves_the_numbers_above_one():
    mdp, beta = d1.grid(1)
    assert d3.published_iteration(mdp, beta, 1.0, 1000)[0] == 125
    assert d3.published_iteration(mdp, beta, 10**0.5, 1000) == (0, 0.4)  # argmax of not-a-numbers is action 0


# --------------------------------------------------------------------------------------------------------------------------- n2
@pytest.mark.parametrize("name", critics.NAMES)
def test_pushes_are_derivatives_in_log_q(name):
    loss, h = LOSSES.get(name, CROSS_ENTROPY), 1e-6
    u, y, beta, x = RNG.normal(size=50), RNG.uniform(0.2, 3, 50), RNG.uniform(0.1, 1, 50), RNG.normal(size=50)

    def objective(u):
        return beta * loss.value(np.exp(u), y) + x * loss.penalty(np.exp(u))

    found = critics.PUSHES[name](*map(torch.as_tensor, (np.exp(u), y, beta, x))).numpy()
    np.testing.assert_allclose(found, (objective(u + h) - objective(u - h)) / (2 * h), atol=1e-6)


def test_biased_targets_are_those_of_normalised_weights():
    it = n2.problem(0)
    v = RNG.uniform(1, 5, 25)
    samples = it.mdp.R[..., None] + it.mdp.gamma * v
    found = critics.biased(torch.as_tensor(it.mdp.P.copy()), torch.as_tensor(samples)).numpy()
    np.testing.assert_allclose(found, normalised_target(it.mdp, v), atol=1e-12)


def test_polynomials_of_degree_four_are_every_table():
    basis = critics.polynomials(4)
    np.testing.assert_allclose(basis.T @ basis, 25 * np.eye(25), atol=1e-10)
    row, column = np.divmod(np.arange(25), 5)
    plane = 0.3 + row - 2.0 * column + row * column
    for degree, fits in ((0, False), (1, True)):
        x = critics.polynomials(degree)
        assert (np.abs(x @ np.linalg.lstsq(x, plane, rcond=None)[0] - plane).max() < 1e-10) == fits


@pytest.mark.parametrize("name", critics.NAMES)
def test_rests_are_stationary(name):
    """The level is shared where pi > 0, and the targets are those of the level."""
    it = n2.problem(1)
    lam = critics.own_unit(name, 2.0, it.mean)
    pi, q = n2.rest_of(it.mdp, it.beta, lam, name)
    level = (pi * q).sum(1)
    assert np.abs(np.where(pi > 0, q - level[:, None], 0)).max() <= 1e-9
    assert (q <= level[:, None] + 1e-9).all()
    y = normalised_target(it.mdp, level) if name == critics.NORMALISED else it.mdp.R + it.mdp.gamma * it.mdp.P @ level
    loss = LOSSES.get(name, CROSS_ENTROPY)
    assert np.abs(it.beta * loss.slope(q, y) + lam * (pi - it.beta)).max() <= 1e-8
    if name not in (critics.NORMALISED, "huber"):
        np.testing.assert_allclose(y, q_of(it.mdp, it.beta), atol=1e-8)


def test_own_units():
    assert [critics.own_unit(name, 0.5, 4.0) for name in ("cross_entropy", "mse", "itakura_saito")] == [0.5, 2.0, 0.125]


def test_training_a_table_reaches_the_closed_form_and_repeats_itself():
    run = critics.Run([n2.problem(5)], np.array([1.0]), ("cross_entropy", critics.NORMALISED))
    trained = critics.train(run, critics.polynomials(4), (), critics.Training(steps=600), 0)
    assert trained.pi.shape == (9, 2, 1, 1, 25, 5)
    np.testing.assert_allclose(trained.pi[0, 0, 0, 0], run.problems[0].beta, atol=1e-6)  # the actor waits a quarter
    far = n2.apart(trained.pi[-1], n2.closed_forms(run).pi)[:, 0, 0]
    assert far.max() < 1e-3
    apart = n2.apart(trained.pi[-1, 1], trained.pi[-1, 0])
    assert (apart > 1e-3).all()  # the two weights do not rest at the same policy
    short = [critics.train(run, critics.polynomials(1), (4,), critics.Training(steps=20), 3).q for _ in range(2)]
    np.testing.assert_array_equal(*short)


def test_rows_tend_to_the_truth_and_the_equality_holds_on_any():
    run = critics.Run([n2.problem(0)], np.array([1.0]), ("cross_entropy", "poisson"))
    exact = n2.closed_forms(run).q
    few, many = (n2.on_rows(run, run.lambdas, rows, exact) for rows in (30, 3000))
    assert max(few.unlike, many.unlike) <= 1e-8
    assert 0 < many.wrong.max() < 0.5 * few.wrong.min()
    assert 0 < many.apart.max() < 0.5 * few.apart.min()


def test_measures():
    x = np.linspace(0, 1, 20)
    n, slope, intercept, linear, rank = n2.regression([(x, 0.1 + 2 * x), (np.array([n2.LOST]), np.array([9.0]))])
    assert n == 20
    np.testing.assert_allclose([slope, intercept, linear, rank], [2, 0.1, 1, 1])
    assert n2.runaway(np.array([[[0.1, 99.0]], [[np.nan, np.inf]]])) == [1, 2]
    assert n2.apart(np.array([[[2.0, 2.0]]]), np.array([[[1.0, 0.0]]])) == 0.5
    it = n2.problem(0)
    assert n2.error(critics.Run([it], np.array([1.0])), np.full((1, 25, 5), it.mean), np.zeros((1, 25, 5)), it.beta) == pytest.approx(1.0)
    assert value_of(it.mdp, it.beta).min() > 1  # targets are clamped to what a return can be
