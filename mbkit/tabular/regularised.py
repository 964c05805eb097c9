"""Approximate value iteration with KL and entropy regularisation (Vieillard et al. 2020, arXiv:2003.14089, and 2007.14430 for Munchausen).

lambda is the weight of KL(pi || previous pi), tau that of the entropy; beta = lambda / (lambda + tau). Policies are stored as log pi
[S, A], because probabilities underflow for a small lambda. q [S, A]; `errors(k)` is eps_k [S, A], added to q_k, k >= 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import backup, expectation, greedy, log_softmax, log_table, lse

Errors = Callable[[int], Array]  # k -> eps_k [S, A]
Evaluate = Literal["full", "entropy", "none"]  # which regularisers the evaluation step includes; "full" is type 1


class Iterate(NamedTuple):
    """One iterate: q_k and log pi_k, the regularised greedy policy of q_{k-1}."""

    q: Array  # [S, A]
    log_pi: Array  # [S, A]


def greedy_step(q: Array, log_mu: Array, lam: float, tau: float) -> Array:
    """Regularised greedy step G_mu^{lambda,tau}(q): log of pi proportional to mu^beta exp(q / (lambda + tau)); both 0: hard greedy."""
    if lam < 0 or tau < 0:
        raise UserError(f"lambda and tau must be >= 0, not {lam!r} and {tau!r}")
    if lam + tau == 0:
        return log_table(greedy(q))
    return log_softmax(q + lam * log_mu if lam > 0 else q, lam + tau)


def regularised_backup(mdp: MDP, log_pi: Array, log_mu: Array, q: Array, lam: float, tau: float) -> Array:
    """Regularised backup T^{lambda,tau}_{pi|mu} q = R + gamma P (<pi, q> - lambda KL(pi || mu) + tau H(pi))."""
    inner = q
    if lam > 0:
        inner = inner - lam * (log_pi - log_mu)
    if tau > 0:
        inner = inner - tau * log_pi
    return backup(mdp, expectation(np.exp(log_pi), inner))


def uniform_log(mdp: MDP) -> Array:
    """Log of the uniform policy, the initial policy of every iteration here."""
    return np.full((mdp.S, mdp.A), -np.log(mdp.A))


def _error(errors: Errors | None, k: int) -> Array | float:
    return 0.0 if errors is None else errors(k)


def avi(mdp: MDP, q0: Array, errors: Errors | None = None) -> Iterator[Iterate]:
    """Approximate value iteration: q_{k+1} = T* q_k + eps_{k+1}."""
    yield from md_vi(mdp, q0, 0.0, 0.0, errors)


def md_vi(
    mdp: MDP, q0: Array, lam: float, tau: float, errors: Errors | None = None, m: int = 1, evaluate: Evaluate = "full"
) -> Iterator[Iterate]:
    """MD-VI(lambda, tau), and MD-MPI for m > 1: pi_{k+1} = G_{pi_k}(q_k), q_{k+1} = (T_{pi_{k+1}|pi_k})^m q_k + eps_{k+1}.

    Args:
        mdp: the model.
        q0: initial q [S, A]; pi_0 is uniform.
        lam: weight of the KL to the previous policy.
        tau: weight of the entropy.
        errors: k -> eps_k.
        m: number of evaluation steps.
        evaluate: "full" is the paper's type 1; type 2 omits the KL ("entropy") or both ("none") from the evaluation.
    """
    inner_lam = lam if evaluate == "full" else 0.0
    inner_tau = 0.0 if evaluate == "none" else tau
    q, log_mu, k = q0, uniform_log(mdp), 0
    while True:
        k += 1
        log_pi = greedy_step(q, log_mu, lam, tau)
        for _ in range(m):
            q = regularised_backup(mdp, log_pi, log_mu, q, inner_lam, inner_tau)
        q = q + _error(errors, k)
        log_mu = log_pi
        yield Iterate(q, log_pi)


def da_vi(mdp: MDP, q0: Array, lam: float, errors: Errors | None = None) -> Iterator[Iterate]:
    """DA-VI(lambda, 0): h_{k+1} = (k+1)/(k+2) h_k + q_{k+1}/(k+2), pi_{k+1} = softmax((k+1) h_k / lambda); h_k is the mean of q_0..q_k.

    No policy is stored: <pi, q> - lambda KL is the difference of lambda log sum exp((k+1) h_k / lambda) and its previous value.
    """
    if not lam > 0:
        raise UserError(f"DA-VI(lambda, 0) needs lambda > 0, not {lam!r}")
    h, last, k = q0, lse(np.zeros_like(q0), lam), 0
    while True:
        current = lse((k + 1) * h, lam)
        q = backup(mdp, current - last) + _error(errors, k + 1)
        log_pi = log_softmax((k + 1) * h, lam)
        h = ((k + 1) * h + q) / (k + 2)
        last, k = current, k + 1
        yield Iterate(q, log_pi)


def da_vi_entropy(mdp: MDP, q0: Array, lam: float, tau: float, errors: Errors | None = None) -> Iterator[Iterate]:
    """DA-VI(lambda, tau), tau > 0: h_k = beta h_{k-1} + (1 - beta) q_k, h_{-1} = 0, pi_{k+1} = softmax(h_k / tau)."""
    if not tau > 0:
        raise UserError(f"da_vi_entropy needs tau > 0, not {tau!r}; for tau = 0 use da_vi")
    beta = lam / (lam + tau)
    q, h, k = q0, np.zeros_like(q0), 0
    while True:
        k += 1
        last, h = h, beta * h + (1 - beta) * q
        q = backup(mdp, (lam + tau) * (lse(h, tau) - beta * lse(last, tau)) / tau) + _error(errors, k)
        yield Iterate(q, log_softmax(h, tau))


def munchausen_vi(
    mdp: MDP, q0: Array, alpha: float = 0.9, tau: float = 0.03, l0: float = -np.inf, errors: Errors | None = None
) -> Iterator[Iterate]:
    """M-VI: pi = softmax(q / tau), q' = R + alpha [tau log pi]_{l0}^0 + gamma P <pi, q - tau log pi>; = MD-VI(alpha tau, (1-alpha) tau).

    Args:
        mdp: the model.
        q0: initial q [S, A].
        alpha: weight of the log-policy in the reward. Paper: 0.9.
        tau: temperature. Paper: 0.03.
        l0: lower clipping limit of tau log pi. Paper: -1; here: none (clipping breaks the equivalence).
        errors: k -> eps_k.
    """
    q, k = q0, 0
    while True:
        k += 1
        log_pi = log_softmax(q, tau)
        bonus = np.where(mdp.terminal[:, None], 0.0, alpha * np.clip(tau * log_pi, l0, 0.0))
        q = bonus + backup(mdp, expectation(np.exp(log_pi), q - tau * log_pi)) + _error(errors, k)
        yield Iterate(q, log_pi)


@dataclass(frozen=True)
class SpecialCase:
    """Algorithm as a special case of the two weights (table 1 of arXiv:2003.14089)."""

    kl: bool  # lambda > 0
    entropy: bool  # tau > 0
    evaluate: Evaluate  # regularisers of its evaluation step

    def iterate(self, mdp: MDP, q0: Array, lam: float, tau: float, errors: Errors | None = None, m: int = 1) -> Iterator[Iterate]:
        """Exact iteration of the algorithm; a weight that it does not use must be 0.

        Raises:
            UserError: a weight that the algorithm uses is 0, or one that it does not use is not.
        """
        for name, value, used in (("lambda", lam, self.kl), ("tau", tau, self.entropy)):
            if (value > 0) != used:
                raise UserError(f"{name} must be {'> 0' if used else '0'} in this special case, not {value!r}")
        return md_vi(mdp, q0, lam, tau, errors, m, self.evaluate)


SPECIAL_CASES = {
    "vi": SpecialCase(False, False, "full"),  # also modified policy iteration with m > 1, DQN in the limit
    "soft_vi": SpecialCase(False, True, "full"),  # soft Q-learning, SAC
    "dpp": SpecialCase(True, False, "full"),  # dynamic policy programming, up to a change of variables
    "trpo": SpecialCase(True, False, "none"),  # also MPO and Politex: KL in the improvement step only
    "mpo": SpecialCase(True, False, "none"),
    "politex": SpecialCase(True, False, "none"),
    "momentum_vi": SpecialCase(True, False, "none"),  # the limit lambda -> 0: argmax of the averaged q
    "cvi": SpecialCase(True, True, "full"),  # conservative value iteration
    "munchausen_vi": SpecialCase(True, True, "full"),  # lambda = alpha tau', tau = (1 - alpha) tau'
}


def take(iterates: Iterator[Iterate], n: int) -> list[Iterate]:
    """First n iterates."""
    return [next(iterates) for _ in range(n)]
