"""Weight of critic regularisation: limits, ties and the published iteration."""

import numpy as np

from mbkit.tabular.critic_regularisation import joint_fixed_point
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.planning import policy_iteration
from mbkit.theory.one_step_equivalence import grid
from mbkit.theory.regularisation_weight import measure, problem, published_iteration, same_argmax, unclipped_policy


def test_same_argmax_compares_ties():
    a = np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    b = np.array([[0.4, 0.4 + 1e-15, 0.2], [0.8, 0.2, 0.0]])
    assert same_argmax(a, b) == 0.5
    assert same_argmax(a, np.array([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]])) == 0.5


def test_unclipped_policy_lambda_1_is_one_step_rl_and_large_lambda_beta():
    mdp, beta = grid(1)
    np.testing.assert_allclose(unclipped_policy(mdp, beta, 1.0), one_step_policy(mdp, beta), atol=1e-14)
    np.testing.assert_allclose(unclipped_policy(mdp, beta, 1e12), beta, atol=1e-10)
    point = measure(mdp, beta, 1.0)
    assert point.same == 1
    assert max(point.critic, point.policy) <= 1e-10
    assert measure(mdp, beta, 0.3).policy == np.inf


def test_joint_fixed_point_lambda_0_is_the_optimum():
    mdp, beta = problem(0)
    best = policy_iteration(mdp).v
    np.testing.assert_allclose(joint_fixed_point(mdp, beta, 1e-6, tol=1e-6).level, best, rtol=1e-3)
    assert (joint_fixed_point(mdp, beta, 1.0).level < 0.99 * best).all()


def test_published_iteration_lambda_above_1_diverges():
    mdp, beta = grid(1)
    assert published_iteration(mdp, beta, 1.0, 1000)[0] == 125
    assert published_iteration(mdp, beta, 10**0.5, 1000) == (0, 0.4)  # argmax of not-a-numbers is action 0
