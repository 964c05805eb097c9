"""Exact policy gradient and natural policy gradient of tabular softmax policies (Kakade 2001; Cen et al. 2020, arXiv:2007.06558).

J = mu0 . V; pi = softmax(theta), theta [S, A]. Gradients include the factor 1 / (1 - gamma) and the discounted occupancy.
"""

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.occupancy import discounted
from mbkit.tabular.operators import expectation, log_softmax, log_table, q_of, soft_q_of


def policy_gradient(mdp: MDP, pi: Array) -> Array:
    """Policy gradient dJ/dtheta(s,a) = d_gamma(s) pi(a|s) A(s,a) / (1 - gamma), [S, A]."""
    q = q_of(mdp, pi)
    advantage = q - expectation(pi, q)[:, None]
    return np.asarray(discounted(mdp, pi)[:, None] * pi * advantage / (1 - mdp.gamma))


def fisher(mdp: MDP, pi: Array) -> Array:
    """Fisher matrix F = E_{d_gamma, pi}[grad log pi grad log pi^T], [S A, S A]; singular: a constant per state changes nothing."""
    S, A = pi.shape
    blocks = np.einsum("sa,ab->sab", pi, np.eye(A)) - pi[:, :, None] * pi[:, None, :]
    F = np.zeros((S, A, S, A))
    F[np.arange(S), :, np.arange(S)] = discounted(mdp, pi)[:, None, None] * blocks
    return F.reshape(S * A, S * A)


def npg_step(mdp: MDP, pi: Array, eta: float) -> Array:
    """Natural gradient step theta + eta F^+ dJ/dtheta in closed form: pi' proportional to pi exp(eta A / (1 - gamma)); [S, A]."""
    q = q_of(mdp, pi)
    return np.asarray(np.exp(log_softmax(log_table(pi) + eta * q / (1 - mdp.gamma))))


def entropy_npg_step(mdp: MDP, log_pi: Array, eta: float, tau: float) -> Array:
    """Entropy-regularised step: log of pi' proportional to pi^{1 - eta tau / (1-gamma)} exp(eta Q_tau / (1-gamma)) (Cen et al., eq. 18).

    Q_tau - Q*_tau decreases like gamma (1 - eta tau)^t; eta = (1 - gamma) / tau is soft policy iteration.

    Raises:
        UserError: eta is outside (0, (1 - gamma) / tau].
    """
    if not 0 < eta <= (1 - mdp.gamma) / tau * (1 + 1e-12):
        raise UserError(f"eta must lie in (0, (1 - gamma) / tau] = (0, {(1 - mdp.gamma) / tau:g}], not {eta!r}")
    q = soft_q_of(mdp, np.exp(log_pi), tau)
    return log_softmax((1 - eta * tau / (1 - mdp.gamma)) * log_pi + eta * q / (1 - mdp.gamma))
