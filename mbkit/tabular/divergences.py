"""Policy improvement under a KL divergence in every state: as a penalty or a constraint, in either direction.

b [S, A] is the reference policy, adv [S, A] the advantages. Donsker & Varadhan 1975; Peters et al. 2010 (REPS); Schulman et al. 2015.
"""

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import Array
from mbkit.tabular.operators import expectation, kl, lse, softmax

HALVINGS = 200  # bisection steps, more than float64 can resolve


def log_partition(b: Array, adv: Array, eta: float | Array) -> Array:
    """eta log E_b exp(adv / eta) = max_pi <pi, adv> - eta KL(pi || b) (Donsker-Varadhan), [S]."""
    eta = np.broadcast_to(np.asarray(eta, float), adv.shape[:-1])
    with np.errstate(divide="ignore"):
        return np.asarray(eta * lse(adv / eta[..., None] + np.log(b)))


def reverse_kl_policy(b: Array, adv: Array, eta: float | Array) -> Array:
    """Maximiser of <pi, adv> - eta KL(pi || b): b exp(adv / eta) / Z, [S, A]."""
    eta = np.broadcast_to(np.asarray(eta, float), adv.shape[:-1])
    with np.errstate(divide="ignore"):
        return softmax(adv / eta[..., None] + np.log(b))


def constrained_policy(b: Array, adv: Array, delta: float) -> tuple[Array, Array]:
    """Maximiser of <pi, adv> subject to KL(pi || b) <= delta in every state: (pi [S, A], eta [S]), eta by bisection on its logarithm.

    Where the greedy policy on b's support satisfies the constraint, eta tends to 0 and pi is that policy.
    """
    if not delta > 0:
        raise UserError(f"the KL constraint needs delta > 0, not {delta!r}")
    span = np.where(b > 0, adv, -np.inf).max(-1) - np.where(b > 0, adv, np.inf).min(-1)
    low = np.log(np.maximum(span, 1e-300)) - 30  # here exp(adv / eta) is one-hot
    high = np.log(np.maximum(span, 1e-300)) + 30 - 0.5 * np.log(delta)  # and here constant
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        far = kl(reverse_kl_policy(b, adv, np.exp(middle)), b) > delta
        low, high = np.where(far, middle, low), np.where(far, high, middle)
    eta = np.exp(high)
    return reverse_kl_policy(b, adv, eta), eta


def constraint_dual(b: Array, adv: Array, delta: float, eta: float | Array) -> Array:
    """Dual eta delta + eta log E_b exp(adv / eta), [S]; its minimum over eta > 0 is the constrained maximum."""
    return np.asarray(eta * delta + log_partition(b, adv, eta))


def forward_kl_policy(b: Array, adv: Array, weight: float) -> Array:
    """Maximiser of <pi, adv> - weight KL(b || pi): weight b / (nu - adv), [S, A]; nu > max adv normalises it, by bisection."""
    top = np.where(b > 0, adv, -np.inf).max(-1)
    low, high = top, top + weight

    def policy(nu: Array) -> Array:
        gap = np.where(b > 0, nu[..., None] - adv, 1.0)
        return np.where(b > 0, weight * b / np.maximum(gap, np.finfo(float).tiny), 0.0)

    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        too_low = policy(middle).sum(-1) > 1
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    pi = policy(high)
    return np.asarray(pi / pi.sum(-1, keepdims=True))


def constrained_gain(b: Array, adv: Array, delta: float) -> Array:
    """Gain <pi, adv> of `constrained_policy`, [S]."""
    return expectation(constrained_policy(b, adv, delta)[0], adv)
