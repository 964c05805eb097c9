"""Equality of critic regularisation and one-step RL, and the published run."""

import numpy as np
import pytest

from mbkit.tabular.one_step import one_step_policy
from mbkit.theory.one_step_equivalence import exact_deviations, grid, published_run, random_problem, returns


@pytest.mark.parametrize("which", ["garnet", "grid 1", "grid 3"])
def test_exact_deviations_vanish_except_for_common_claims(which):
    mdp, beta = random_problem(3) if which == "garnet" else grid(int(which[-1]))
    errors = exact_deviations(mdp, beta, 3)
    assert max(errors.iterates, errors.one_step, errors.fixed_point) <= 1e-10
    assert errors.moving > 1e-3
    assert (errors.normalised <= 1e-10) == which.startswith("grid")  # deterministic


def test_published_run_reproduces_its_first_points():
    trace = published_run(1, 1000).trace
    assert trace.shape == (1001,)
    assert round(float(trace[0]), 4) == 1.0262
    assert round(float(trace[1000]), 4) == 0.7511
    assert abs(published_run(1, 10, seed=1).trace[0] - trace[0]) > 1e-6


def test_returns_optimal_policy_has_the_largest_return():
    rows = {name: np.array(j) for name, *j in returns({k: one_step_policy(*grid(k)) for k in (1, 2, 3)})}
    assert (rows["optimal"] >= np.stack(list(rows.values())) - 1e-9).all()
    assert (rows["one-step RL"] >= rows["behaviour policy"] - 1e-12).all()  # one improvement step improves the policy
    np.testing.assert_array_equal(rows["critic regularisation"], rows["one-step RL"])
