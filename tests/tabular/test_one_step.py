"""One-step RL: iterates, closed form and optimality."""

import numpy as np
from tabular_problems import OFFLINE

from mbkit.tabular.mdp import random_policy
from mbkit.tabular.one_step import one_step_iterates, one_step_policy
from mbkit.tabular.operators import expectation, kl, value_of

RNG = np.random.default_rng(0)


def test_one_step_policy_is_the_limit_of_the_iterates_and_the_optimum() -> None:
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
