"""Test MDPs: random MDPs, grids, and small examples of one effect each. S states, A actions.

The linear-quadratic regulator has a continuous state; it is a set of functions with its exact solution.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array, RewardSampler

DOWN, RIGHT, UP, LEFT, STAY = range(5)
SIDE = 5  # cells per side of the grid


def garnet(nS: int = 30, nA: int = 4, nB: int = 4, seed: int = 0, gamma: float = 0.9, low: float = 0.0, sparse: bool = False) -> MDP:
    """Random MDP (Archibald et al. 1995): nB distinct successors of each (s, a), with probabilities from random cuts of [0, 1].

    Args:
        nS: number of states.
        nA: number of actions.
        nB: successors of each state and action, at most nS.
        seed: random seed.
        gamma: discount.
        low: lower limit of the rewards, which are uniform on (low, 1) for each (s, a).
        sparse: only a tenth of the states have rewards.
    """
    if not 1 <= nB <= nS:
        raise UserError(f"the branching nB must lie in [1, {nS}], the number of states, not {nB}")
    rng = np.random.default_rng(seed)
    P = np.zeros((nS, nA, nS))
    for s, a in np.ndindex(nS, nA):
        cuts = np.sort(rng.random(nB - 1))
        P[s, a, rng.choice(nS, nB, replace=False)] = np.diff(cuts, prepend=0.0, append=1.0)
    R = rng.uniform(low, 1.0, (nS, nA))
    if sparse:
        rewarding = rng.choice(nS, max(1, nS // 10), replace=False)
        R *= np.isin(np.arange(nS), rewarding)[:, None]
    return MDP(P, R, np.full(nS, 1 / nS), gamma)


# ----------------------------------------------------------------------------------------------------------------- the 5x5 grid
class Episodes(NamedTuple):
    """Data set of a finite MDP, N transitions in order; the last step of a trajectory, whose next action is unknown, may be left out."""

    state: NDArray[np.int64]  # [N]
    action: NDArray[np.int64]  # [N]
    reward: Array  # [N]
    next_state: NDArray[np.int64]  # [N]
    next_action: NDArray[np.int64]  # [N]
    discount: Array  # [N] 0 where the episode terminated, else 1


def one_step_grid(experiment: int) -> MDP:
    """5x5 grids of the first experiments of arXiv:2307.12968: s = 5 i + j, deterministic, no terminal state, gamma 0.95.

    Args:
        experiment: 1: reward 1 in the far corner, state 24. 2: reward 2, 1 less in states 1..3 and 1.5 more in state 4. 3: reward 0.01
            in state 4. The reward is that of the current state.
    """
    s = np.arange(SIDE * SIDE)
    rewards = {1: 1.0 * (s == 24), 2: 2.0 - ((s >= 1) & (s <= 3)) + 1.5 * (s == 4), 3: 0.01 * (s == 4)}
    if experiment not in rewards:
        raise UserError(f"one_step_grid has experiments 1, 2 and 3, not {experiment!r}")
    P = np.zeros((s.size, 5, s.size))
    for a, (di, dj) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1), (0, 0)]):
        target = SIDE * np.clip(s // SIDE + di, 0, SIDE - 1) + np.clip(s % SIDE + dj, 0, SIDE - 1)
        P[s, a, target] = 1.0
    return MDP(P, np.repeat(rewards[experiment][:, None], 5, axis=1), np.eye(s.size)[0], 0.95)


def grid_episodes(experiment: int) -> Episodes:
    """Data sets of the grid experiments.

    1 and 2: 20 trajectories of 50 uniform actions from RandomState(0), 980 rows. 3: one trajectory of 10 steps along the left and
    the lower wall, then up, then staying.
    """
    mdp = one_step_grid(experiment)
    if experiment == 3:
        actions = np.array([[DOWN] + [RIGHT] * 4 + [UP] + [STAY] * 4])
    else:
        actions = np.random.RandomState(0).randint(5, size=(20, 50))
    rows = []
    for trajectory in actions:
        s = 0
        for a, next_a in pairwise(trajectory):
            next_s = int(mdp.P[s, a].argmax())
            rows.append((s, a, mdp.R[s, a], next_s, next_a))
            s = next_s
    state, action, reward, next_state, next_action = zip(*rows, strict=True)
    return Episodes(np.array(state), np.array(action), np.array(reward), np.array(next_state), np.array(next_action), np.ones(len(rows)))


# ------------------------------------------------------------------------------------------------------- examples of one effect
def bandit(means: Array, sigma: float = 1.0, gamma: float = 0.0) -> MDP:
    """Bandit as an MDP: state 0 has reward N(mean_a, sigma^2) and leads to the terminal state 1."""
    P = np.zeros((2, len(means), 2))
    P[:, :, 1] = 1.0

    def pull(rng: np.random.Generator, s: int, a: int, next_s: int) -> float:
        return float(rng.normal(means[a], sigma)) if s == 0 else 0.0

    sampler: RewardSampler | None = pull if sigma > 0 else None
    return MDP(P, np.stack([means, np.zeros(len(means))]), np.array([1.0, 0.0]), gamma, np.array([False, True]), sampler)


BANDIT_10 = np.linspace(0.0, 1.0, 10)  # means of the arms in the experiment on maximisation bias


def soft_trap(alpha: float, gamma: float = 0.99) -> MDP:
    """MDP with a large loss of the soft policy: it gives up alpha / 2 per step for a state with three actions of reward 0.

    Any action in 0 leads to 1. There action 0 has reward alpha / 2 and leads to 2, where action 0 has reward alpha / 2 for ever and the
    others -1000 alpha; actions 1 and 2 lead to 3, where all three have reward 0 for ever and entropy alpha ln 3 per step.
    """
    P, R = np.zeros((4, 3, 4)), np.zeros((4, 3))
    P[0, :, 1] = P[1, 0, 2] = P[1, 1:, 3] = P[2, :, 2] = P[3, :, 3] = 1.0
    R[1, 0] = R[2, 0] = 0.5 * alpha
    R[2, 1:] = -1000 * alpha
    return MDP(P, R, np.eye(4)[0], gamma)


def exit_or_loop(gamma: float = 0.99) -> MDP:
    """MDP on which entropy and KL differ: in state 0 action 0 exits with reward 1, action 1 loops with 0 and collects entropy."""
    P, R = np.zeros((2, 2, 2)), np.zeros((2, 2))
    P[0, 0, 1] = P[0, 1, 0] = P[1, :, 1] = 1.0
    R[0, 0] = 1.0
    return MDP(P, R, np.array([1.0, 0.0]), gamma, np.array([False, True]))


# ------------------------------------------------------------------------------------------------------------- linear-quadratic
class LQR(NamedTuple):
    """One-dimensional linear-quadratic regulator: s' = a s + b u + noise xi, r = -(s^2 + cost u^2), s0 ~ N(0, 1), xi ~ N(0, 1)."""

    a: float = 0.9
    b: float = 0.5
    noise: float = 0.1
    cost: float = 0.1
    gamma: float = 0.9

    def reward(self, s: Array, u: Array) -> Array:
        """Reward -(s^2 + cost u^2), of the shape of s and u."""
        return -(s**2 + self.cost * u**2)

    def step(self, rng: np.random.Generator, s: Array, u: Array) -> Array:
        """Sample s'."""
        return np.asarray(self.a * s + self.b * u + self.noise * rng.standard_normal(np.shape(s)))


def lqr_value(lqr: LQR, gain: float) -> tuple[float, float]:
    """Value (p, c) of V(s) = -(p s^2 + c) under u = -gain s; raises UserError where it is infinite, gamma (a - b gain)^2 >= 1."""
    closed = (lqr.a - lqr.b * gain) ** 2
    if lqr.gamma * closed >= 1:
        raise UserError(f"under the gain {gain:g} the return is infinite: gamma (a - b gain)^2 = {lqr.gamma * closed:g} must be < 1")
    p = (1 + lqr.cost * gain**2) / (1 - lqr.gamma * closed)
    return p, lqr.gamma * p * lqr.noise**2 / (1 - lqr.gamma)


def lqr_q(lqr: LQR, gain: float, s: Array, u: Array) -> Array:
    """Closed-form Q of the policy u = -gain s."""
    p, c = lqr_value(lqr, gain)
    return np.asarray(lqr.reward(s, u) - lqr.gamma * (p * ((lqr.a * s + lqr.b * u) ** 2 + lqr.noise**2) + c))


def lqr_return(lqr: LQR, gain: float) -> float:
    """Expected return J = E V(s0)."""
    p, c = lqr_value(lqr, gain)
    return -(p + c)


def riccati_gain(lqr: LQR, tol: float = 1e-14) -> float:
    """Optimal gain, by iterating the discounted Riccati equation; 1.324624 for the default parameters."""
    p, before = 0.0, np.inf
    while abs(p - before) > tol * max(1.0, p):
        gain = lqr.gamma * lqr.a * lqr.b * p / (lqr.cost + lqr.gamma * lqr.b**2 * p)
        before, p = p, 1 + lqr.cost * gain**2 + lqr.gamma * (lqr.a - lqr.b * gain) ** 2 * p
    return float(lqr.gamma * lqr.a * lqr.b * p / (lqr.cost + lqr.gamma * lqr.b**2 * p))
