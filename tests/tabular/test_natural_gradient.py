"""Policy gradients of softmax tables and closed forms of natural gradient steps."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import random_policy, uniform_policy
from mbkit.tabular.natural_gradient import entropy_npg_step, fisher, npg_step, policy_gradient
from mbkit.tabular.operators import kl, performance, soft_q_of, softmax
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration

MDP = garnet(8, 3, 3)
RNG = np.random.default_rng(0)


def test_policy_gradient_equals_finite_differences() -> None:
    theta, h = RNG.normal(size=(8, 3)), 1e-5
    exact = policy_gradient(MDP, softmax(theta))
    for s, a in np.ndindex(8, 3):
        bump = np.zeros_like(theta)
        bump[s, a] = h
        slope = (performance(MDP, softmax(theta + bump)) - performance(MDP, softmax(theta - bump))) / (2 * h)
        assert abs(slope - exact[s, a]) <= 1e-6


def test_npg_step_is_the_closed_form() -> None:
    theta, eta = RNG.normal(size=(8, 3)), 0.05
    pi = softmax(theta)
    direction = np.linalg.pinv(fisher(MDP, pi), rcond=1e-12) @ policy_gradient(MDP, pi).ravel()
    stepped = softmax(theta + eta * direction.reshape(8, 3))
    assert np.abs(stepped - npg_step(MDP, pi, eta)).max() <= 1e-10


def test_npg_step_does_not_depend_on_the_parameterisation() -> None:
    """theta = M phi with an invertible M: the plain step depends on M, the natural step does not."""
    theta, eta = RNG.normal(size=(8, 3)), 0.05
    pi, M = softmax(theta), RNG.normal(size=(24, 24)) + 5 * np.eye(24)
    gradient, F = policy_gradient(MDP, pi).ravel(), fisher(MDP, pi)
    phi_step = np.linalg.pinv(M.T @ F @ M, rcond=1e-12) @ (M.T @ gradient)
    natural = softmax(theta + eta * (M @ phi_step).reshape(8, 3))
    vanilla = softmax(theta + eta * (M @ (M.T @ gradient)).reshape(8, 3))
    assert np.abs(natural - npg_step(MDP, pi, eta)).max() <= 1e-10
    assert np.abs(vanilla - softmax(theta + eta * gradient.reshape(8, 3))).max() > 1e-3


@pytest.mark.parametrize("delta", [1e-4, 1e-3, 1e-2])
def test_fisher_scaled_step_meets_its_kl_limit(delta: float) -> None:
    """sqrt(2 delta / g F^-1 g) gives a mean KL of about delta; sqrt(2 delta / g F g) exceeds it by an order of magnitude."""
    theta = RNG.normal(size=(8, 3))
    pi = softmax(theta)
    g, F = policy_gradient(MDP, pi).ravel(), fisher(MDP, pi)
    x = np.linalg.pinv(F, rcond=1e-12) @ g
    d = F.reshape(8, 3, 8, 3)[np.arange(8), 0, np.arange(8), 0] / (pi[:, 0] * (1 - pi[:, 0]))  # the occupancy, recovered from F

    def spent(step: float) -> float:
        return float(d @ kl(pi, softmax(theta + step * x.reshape(8, 3)))) / delta

    assert 0.9 <= spent(np.sqrt(2 * delta / (g @ x))) <= 1.1
    assert spent(np.sqrt(2 * delta / (g @ F @ g))) > 10


def test_npg_step_repeated_reaches_the_optimum() -> None:
    pi = uniform_policy(MDP)
    returns = [performance(MDP, pi)]
    for _ in range(200):
        pi = npg_step(MDP, pi, 1.0)
        returns.append(performance(MDP, pi))
    assert (np.diff(returns) >= -1e-10).all()
    assert MDP.mu0 @ policy_iteration(MDP).v - returns[-1] < 1e-6


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 1.0])
def test_entropy_npg_step_converges_at_the_guaranteed_rate(share: float) -> None:
    """|Q* - Q_{t+1}| <= C gamma (1 - eta tau)^t with C = |Q* - Q_0| + 2 tau (1 - eta tau / (1 - gamma)) |log pi* - log pi_0|."""
    tau = 0.3
    eta = share * (1 - MDP.gamma) / tau
    best = soft_policy_iteration(MDP, tau, tol=1e-13)
    pi0 = random_policy(MDP, np.random.default_rng(4))
    log_pi = np.log(pi0)
    start = np.abs(best.q - soft_q_of(MDP, pi0, tau)).max()
    C = start + 2 * tau * (1 - share) * np.abs(np.log(best.pi) - log_pi).max()
    for t in range(150):
        log_pi = entropy_npg_step(MDP, log_pi, eta, tau)
        q = soft_q_of(MDP, np.exp(log_pi), tau)
        rate = (1 - eta * tau) ** t
        assert np.abs(best.q - q).max() <= C * MDP.gamma * rate + 1e-10
        assert np.abs(np.log(best.pi) - log_pi).max() <= 2 * C / tau * rate + 1e-10


def test_entropy_npg_step_largest_learning_rate_is_soft_policy_iteration() -> None:
    tau, log_pi = 0.3, np.log(uniform_policy(MDP))
    stepped = entropy_npg_step(MDP, log_pi, (1 - MDP.gamma) / tau, tau)
    expected = softmax(soft_q_of(MDP, np.exp(log_pi), tau), tau)
    assert np.abs(np.exp(stepped) - expected).max() <= 1e-10
    with pytest.raises(UserError, match="eta must lie in"):
        entropy_npg_step(MDP, log_pi, 1.0, tau)
