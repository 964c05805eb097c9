"""Cost of a temperature: regrets, residuals and losses with known values."""

import math

import numpy as np
import pytest

from mbkit.tabular.bounds import lambert_w, softmax_regret
from mbkit.tabular.environments import exit_or_loop, garnet
from mbkit.theory.temperature import exits_of, optima, regret, sweep, trap


@pytest.mark.parametrize("A", [2, 3, 4])
def test_regret_maximum_is_given_by_lambert_w(A: int) -> None:
    gap = 1 + lambert_w((A - 1) / math.e)
    near = regret(np.array([gap - 1e-3, gap, gap + 1e-3]), A)
    assert near[1] == pytest.approx(softmax_regret(A, 1.0), abs=1e-12)
    assert near.argmax() == 1
    assert regret(np.zeros(1), A)[0] == 0


def test_sweep_trap_and_exits_of_known_values() -> None:
    assert trap(0.99) == pytest.approx(49.5, abs=1e-3)
    assert trap(0.9) == pytest.approx(4.4831, abs=1e-3)
    assert exits_of(2.0) == pytest.approx((0.963, 0.498), abs=5e-4)
    low, high, soft_low, soft_high, loss = sweep(garnet(seed=1), 0.3)
    most = 0.9 * 0.3 * math.log(4)
    assert 0 < low < high <= most
    assert -most <= soft_low < soft_high < 0
    assert 0 < loss <= most / 0.1
    assert sweep(garnet(seed=1), 1e-3)[4] < loss


def test_optima_without_terminal_states_differ_by_a_constant() -> None:
    near, soft = optima(garnet(seed=2), 0.5)
    np.testing.assert_allclose(soft - near, 0.9 * 0.5 * math.log(4) / 0.1, atol=1e-8)
    near, soft = optima(exit_or_loop(), 0.5)
    assert np.ptp((soft - near)[0]) > 1
