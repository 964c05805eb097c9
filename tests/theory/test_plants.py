"""Control problems: Gymnasium's pendulum, closed forms and recorded data."""

import gymnasium
import numpy as np
import pytest

from mbkit.tabular.environments import LQR, lqr_q
from mbkit.theory import plants


def test_pendulum_step_equals_gymnasium():
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


def test_swing_up_reaches_and_holds_the_upright_position():
    state = plants.PLANTS[1].reset(np.random.default_rng(0), 64)
    for _ in range(200):
        _, state = plants.pendulum_step(np.random.default_rng(0), state, plants.swing_up(state))
    assert (np.abs(plants.wrapped(state[:, 0])) < 0.1).mean() > 0.9


def test_lqr_noisy_q_satisfies_the_bellman_equation():
    lqr, gain, sigma, s, u = LQR(), 0.7, 0.4, np.array([0.5, -1.0]), np.array([0.3, 0.2])
    np.testing.assert_allclose(plants.lqr_noisy_q(gain, 0.0, s, u), lqr_q(lqr, gain, s, u), rtol=1e-12)
    x, w = np.polynomial.hermite_e.hermegauss(20)
    w = w / w.sum()
    after = lqr.a * s[:, None] + lqr.b * u[:, None] + lqr.noise * x  # [2, 20]
    action = -gain * after[..., None] + sigma * x
    ahead = plants.lqr_noisy_q(gain, sigma, np.broadcast_to(after[..., None], action.shape), action) @ w @ w
    np.testing.assert_allclose(plants.lqr_noisy_q(gain, sigma, s, u), lqr.reward(s, u) + lqr.gamma * ahead, rtol=1e-10)


@pytest.mark.parametrize("plant", plants.PLANTS, ids=lambda p: p.name)
def test_record_rows_are_consecutive(plant):
    rows = plants.record(plant, "medium", np.random.default_rng(0), 3 * plant.steps)
    np.testing.assert_array_equal(rows.next_obs[:3], rows.obs[3:6])  # three episodes side by side
    np.testing.assert_array_equal(rows.next_action[:3], rows.action[3:6])
    assert all(len(x) == 3 * plant.steps and np.isfinite(x).all() for x in rows)
    assert np.abs(rows.action).max() <= 1


def test_record_rewards_increase_with_the_quality_of_the_controller():
    for plant in plants.PLANTS:
        chance, medium, both = (plants.record(plant, kind, np.random.default_rng(0), 4000).reward.mean() for kind in plants.KINDS)
        assert chance < medium < both
