"""One-step RL: evaluate the behaviour policy, improve it once (Eysenbach et al. 2023, arXiv:2307.12968; Brandfonbrener et al. 2021).

beta [S, A] is the behaviour policy, Q^beta its value. Where beta is 0 the improved policy is 0 too; nothing is divided by beta.
"""

from collections.abc import Iterator

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import bellman_q, expectation, lse, q_of


def improve(beta: Array, q: Array) -> Array:
    """Improved policy argmax_pi E_pi[log Q] - KL(pi || beta) = beta Q / <beta, Q>, [S, A].

    Raises:
        UserError: some Q on the support of beta is not > 0.
    """
    inside = np.where(beta > 0, q, 0.0)
    if (inside[beta > 0] <= 0).any():
        raise UserError(f"one-step RL takes log Q and needs Q > 0 on the data; the smallest is {q[beta > 0].min():g}")
    return beta * inside / expectation(beta, inside)[:, None]


def improve_exponentially(beta: Array, q: Array, alpha: float) -> Array:
    """Improved policy argmax_pi E_pi[Q] - alpha KL(pi || beta) = beta exp(Q / alpha) / Z, [S, A]; Q of any sign."""
    with np.errstate(divide="ignore"):
        logits = q / alpha + np.log(beta)
    return np.asarray(np.exp(logits - lse(logits)[:, None]))


def one_step_policy(mdp: MDP, beta: Array, alpha: float | None = None) -> Array:
    """One-step policy beta Q^beta / V^beta, or beta exp(Q^beta / alpha) / Z with alpha; Q^beta by a linear solve."""
    q = q_of(mdp, beta)
    return improve(beta, q) if alpha is None else improve_exponentially(beta, q, alpha)


def one_step_iterates(mdp: MDP, beta: Array, q0: Array) -> Iterator[tuple[Array, Array]]:
    """One-step RL by iteration: (Q_t, beta Q_t / V_t) for t = 1, 2, ..., Q_{t+1} = R + gamma P <beta, Q_t> (expected SARSA)."""
    q = q0
    while True:
        q = bellman_q(mdp, beta, q)
        yield q, improve(beta, q)
