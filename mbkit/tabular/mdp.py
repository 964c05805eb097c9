"""Finite Markov decision processes as arrays. Letters: S states, A actions.

A terminal state is absorbing: every action leads back to it with reward 0, so `(I - gamma P_pi)` needs no masks and its value is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mbkit.errors import UserError

Array = NDArray[np.float64]
RewardSampler = Callable[[np.random.Generator, int, int, int], float]  # (rng, s, a, s') -> r

ROUNDING = 1e-9  # tolerance of a sum of probabilities


class Sample(NamedTuple):
    """One sampled transition; `discount` is 0 where the episode terminated, else 1, as everywhere in the toolkit."""

    reward: float
    next_state: int
    discount: float


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP with read-only float64 copies of its arrays.

    Raises:
        UserError: a shape does not fit, a row is not a distribution, a terminal state is not absorbing, or gamma = 1 although
            some policy can avoid the terminal states for ever (its value would be infinite).
    """

    P: Array  # [S, A, S] transition probabilities P(s' | s, a)
    R: Array  # [S, A] mean reward
    mu0: Array  # [S] initial state distribution
    gamma: float  # discount in [0, 1]
    terminal: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # [S]; empty: no terminal state
    reward_sampler: RewardSampler | None = None  # samples rewards for `step` with mean R. None: every reward is R[s, a]

    def __post_init__(self) -> None:
        """Copy the arrays, make them read-only and validate them."""
        for name in ("P", "R", "mu0"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        if self.P.ndim != 3 or self.P.shape[0] != self.P.shape[2] or self.P.size == 0:
            raise UserError(f"P must be [S, A, S] and not empty, not an array of shape {self.P.shape}")
        terminal = np.asarray(self.terminal)
        object.__setattr__(self, "terminal", frozen(terminal if terminal.size else np.zeros(self.S), bool))
        for name, shape in (("R", (self.S, self.A)), ("mu0", (self.S,)), ("terminal", (self.S,))):
            if getattr(self, name).shape != shape:
                raise UserError(f"{name} must have shape {shape} to fit P of shape {self.P.shape}, not {getattr(self, name).shape}")
        if not np.isfinite(self.R).all():
            raise UserError(f"R must be finite; R{list(np.argwhere(~np.isfinite(self.R))[0].tolist())} is not")
        check_distribution(self.P, "P")
        check_distribution(self.mu0, "mu0")
        self._check_absorbing()
        self._check_gamma()

    def _check_absorbing(self) -> None:
        for s in np.flatnonzero(self.terminal):
            if (self.P[s, :, s] < 1 - ROUNDING).any() or (self.R[s] != 0).any():
                stay, reward = self.P[s, :, s].min(), self.R[s][np.abs(self.R[s]).argmax()]
                raise UserError(f"terminal state {s} must lead to itself with reward 0, not with probability {stay:g}, reward {reward:g}")

    def _check_gamma(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise UserError(f"gamma must lie in [0, 1], not {self.gamma!r}")
        if self.gamma < 1:
            return
        trap = ~self.terminal  # shrinks to the states from which some policy avoids terminal states for ever
        for _ in range(self.S):
            trap = trap & (self.P[:, :, ~trap].sum(-1) <= 0).any(-1)
        if trap.any():
            raise UserError(
                f"gamma = 1 needs every policy to terminate, but some policy never terminates from state {np.flatnonzero(trap)[0]}"
            )

    @property
    def S(self) -> int:
        """Number of states."""
        return int(self.P.shape[0])

    @property
    def A(self) -> int:
        """Number of actions."""
        return int(self.P.shape[1])

    def reset(self, rng: np.random.Generator) -> int:
        """Sample an initial state from mu0."""
        return draw(rng, self.mu0)

    @cached_property
    def cumulative(self) -> Array:
        """Cumulative sums of P along s', [S, A, S]; cached, because `step` reads a row of them each time."""
        return np.asarray(frozen(self.P.cumsum(-1)))

    def step(self, rng: np.random.Generator, s: int, a: int) -> Sample:
        """Sample the transition of action a in state s."""
        next_state = draw_cumulative(rng, self.cumulative[s, a])
        reward = float(self.R[s, a]) if self.reward_sampler is None else float(self.reward_sampler(rng, s, a, next_state))
        return Sample(reward, next_state, 0.0 if self.terminal[next_state] else 1.0)


def frozen(values: ArrayLike, dtype: type = np.float64) -> NDArray[Any]:
    """Read-only copy of `values`."""
    array: NDArray[Any] = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def draw(rng: np.random.Generator, probabilities: Array) -> int:
    """Sample an index from probabilities with one uniform random number."""
    return draw_cumulative(rng, probabilities.cumsum())


def draw_cumulative(rng: np.random.Generator, cumulative: Array) -> int:
    """Sample an index from cumulative probabilities with one uniform random number."""
    return int(cumulative.searchsorted(rng.random() * cumulative[-1], "right"))


def check_distribution(p: Array, name: str) -> None:
    """Raise UserError unless every row p[..., :] is a probability distribution."""
    invalid = ~((p >= 0).all(-1) & (np.abs(p.sum(-1) - 1) <= ROUNDING))  # a row with NaN is invalid too
    if invalid.any():
        at = np.argwhere(np.atleast_1d(invalid))[0].tolist() if p.ndim > 1 else []
        row = p[tuple(at)] if at else p
        reason = f"it sums to {row.sum():g} and its smallest entry is {row.min():g}"
        raise UserError(f"{name}{at or ''} must be a probability distribution; {reason}")


def check_policy(mdp: MDP, pi: Array, name: str = "pi") -> None:
    """Raise UserError unless pi [S, A] is a policy of the MDP."""
    if pi.shape != (mdp.S, mdp.A):
        raise UserError(f"{name} must have shape {(mdp.S, mdp.A)}, not {pi.shape}")
    check_distribution(pi, name)


def uniform_policy(mdp: MDP) -> Array:
    """Policy [S, A] with the same probability for every action."""
    return np.full((mdp.S, mdp.A), 1.0 / mdp.A)


def random_policy(mdp: MDP, rng: np.random.Generator) -> Array:
    """Random policy [S, A] with rows uniform on the simplex."""
    return rng.dirichlet(np.ones(mdp.A), size=mdp.S)
