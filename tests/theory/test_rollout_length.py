"""Rollout length: model errors and bounds."""

import numpy as np
import pytest

from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.operators import q_of
from mbkit.theory.rollout_length import branched_bound, expansion_bound, expansion_errors, mbpo_bound, model_of, padded, perfect_model


def test_padded_has_the_same_values() -> None:
    mdp, rng = garnet(8, 3, 3), np.random.default_rng(0)
    pi = random_policy(mdp, rng)
    both_pi = np.concatenate([pi, pi[:1]])
    np.testing.assert_allclose(q_of(padded(mdp), both_pi)[:-1], q_of(mdp, pi), atol=1e-12)
    assert (q_of(padded(mdp), both_pi)[-1] == 0).all()


def test_model_of_many_rows_is_accurate() -> None:
    mdp = garnet(8, 3, 3)
    apart = [total_variation(padded(mdp).P, model_of(mdp, n, np.random.default_rng(0)).P).max() for n in (2000, 200_000)]
    assert 0 < apart[1] < apart[0] / 4
    few = model_of(mdp, 1, np.random.default_rng(0))
    assert (few.P[:-1, :, -1] == 1).sum() == 8 * 3 - 1


def test_expansion_bound_holds() -> None:
    source, rng = garnet(8, 3, 3), np.random.default_rng(1)
    mdp, model = padded(source), model_of(source, 300, rng)
    pi = random_policy(mdp, rng)
    q = q_of(mdp, pi) + rng.standard_normal((9, 3)) * ~mdp.terminal[:, None]
    bound, errors = expansion_bound(mdp, model, pi, q, 40), expansion_errors(mdp, model, pi, q)
    assert bound[0] == pytest.approx(errors[0, 0])
    assert (errors[:, 0] <= bound + 1e-12).all()
    np.testing.assert_allclose(expansion_bound(mdp, mdp, pi, q, 40), bound[0] * 0.9 ** np.arange(41))
    largest, off = perfect_model(0)
    assert largest <= 1 + 1e-12
    assert off < 1e-12


def test_mbpo_bound_and_branched_bound_by_hand() -> None:
    mdp = garnet(8, 3, 3)
    r_max = float(mdp.R.max())
    assert mbpo_bound(mdp, 0.1) == pytest.approx(2 * 0.9 * r_max * 0.1 / 0.01)
    assert mbpo_bound(mdp, 0.1, 0.2) == pytest.approx(2 * 0.9 * r_max * 0.5 / 0.01 + 4 * r_max * 0.2 / 0.1)
    assert branched_bound(mdp, 0, 0.3, 0.2) == pytest.approx(2 * r_max * (0.9 * 0.2 / 0.01 + 0.2 / 0.1))
    assert branched_bound(mdp, 3, 0.3, 0.0) == pytest.approx(2 * r_max * 3 * 0.3 / 0.1)
