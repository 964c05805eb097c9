"""Finite Markov decision processes as arrays. Letters: S states, A actions.

A terminal state is absorbing: every action leads back to it and pays nothing, so `(I - gamma P_pi)` needs no masks and its values are 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
RewardSampler = Callable[[np.random.Generator, int, int, int], float]  # (rng, s, a, s') -> r

ROUNDING = 1e-9  # how far a sum of probabilities may be from 1


class TabularError(ValueError):
    """A mistake of the user's: one sentence naming the culprit, what was expected and what came.

    The rest of the toolkit raises `mbkit.types.UserError`; importing that would import torch, and the theory needs NumPy alone.
    """


class Sample(NamedTuple):
    """One sampled step; `discount` is 0 where the process terminated, else 1, as everywhere in the toolkit."""

    reward: float
    next_state: int
    discount: float


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP; its arrays are float64 copies that cannot be written to.

    Raises:
        TabularError: a shape does not fit, a row is not a distribution, a terminal state is not absorbing, or gamma = 1 although
            some policy can avoid the terminal states for ever (its value would be infinite).
    """

    P: Array  # [S, A, S] probability of s' after a in s
    R: Array  # [S, A] mean reward
    mu0: Array  # [S] distribution of the first state
    gamma: float  # discount in [0, 1]
    terminal: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # [S]; empty: there is none
    reward_sampler: RewardSampler | None = None  # draws rewards for `step`; its mean must be R. None: every reward is R[s, a]

    def __post_init__(self) -> None:
        """Copy, freeze and check."""
        for name in ("P", "R", "mu0"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        if self.P.ndim != 3 or self.P.shape[0] != self.P.shape[2] or self.P.size == 0:
            raise TabularError(f"P must be [S, A, S] and not empty, not an array of shape {self.P.shape}")
        terminal = np.asarray(self.terminal)
        object.__setattr__(self, "terminal", frozen(terminal if terminal.size else np.zeros(self.S), bool))
        for name, shape in (("R", (self.S, self.A)), ("mu0", (self.S,)), ("terminal", (self.S,))):
            if getattr(self, name).shape != shape:
                raise TabularError(f"{name} must have shape {shape} to fit P of shape {self.P.shape}, not {getattr(self, name).shape}")
        if not np.isfinite(self.R).all():
            raise TabularError(f"R must be finite; R{list(np.argwhere(~np.isfinite(self.R))[0].tolist())} is not")
        check_distribution(self.P, "P")
        check_distribution(self.mu0, "mu0")
        self._check_absorbing()
        self._check_gamma()

    def _check_absorbing(self) -> None:
        for s in np.flatnonzero(self.terminal):
            if (self.P[s, :, s] < 1 - ROUNDING).any() or (self.R[s] != 0).any():
                stay, reward = self.P[s, :, s].min(), self.R[s][np.abs(self.R[s]).argmax()]
                raise TabularError(f"terminal state {s} must lead to itself with reward 0; came probability {stay:g}, reward {reward:g}")

    def _check_gamma(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise TabularError(f"gamma must lie in [0, 1], not {self.gamma!r}")
        if self.gamma < 1:
            return
        trap = ~self.terminal  # shrinks to the states from which some policy stays among non-terminal ones for ever
        for _ in range(self.S):
            trap = trap & (self.P[:, :, ~trap].sum(-1) <= 0).any(-1)
        if trap.any():
            raise TabularError(
                f"gamma = 1 needs every policy to terminate, but one can go on for ever from state {np.flatnonzero(trap)[0]}"
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
        """Draw a first state from mu0."""
        return draw(rng, self.mu0)

    @cached_property
    def cumulative(self) -> Array:
        """P summed up along s', [S, A, S]; kept, because `step` reads a row of it each time."""
        return np.asarray(frozen(self.P.cumsum(-1)))

    def step(self, rng: np.random.Generator, s: int, a: int) -> Sample:
        """Draw what follows action a in state s."""
        next_state = draw_cumulative(rng, self.cumulative[s, a])
        reward = float(self.R[s, a]) if self.reward_sampler is None else float(self.reward_sampler(rng, s, a, next_state))
        return Sample(reward, next_state, 0.0 if self.terminal[next_state] else 1.0)


def frozen(values: ArrayLike, dtype: type = np.float64) -> NDArray[Any]:
    """A copy of `values` that cannot be written to."""
    array: NDArray[Any] = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def draw(rng: np.random.Generator, probabilities: Array) -> int:
    """Sample an index with one uniform number."""
    return draw_cumulative(rng, probabilities.cumsum())


def draw_cumulative(rng: np.random.Generator, cumulative: Array) -> int:
    """The same from probabilities that are summed up already."""
    return int(cumulative.searchsorted(rng.random() * cumulative[-1], "right"))


def check_distribution(p: Array, name: str) -> None:
    """TabularError unless every row p[..., :] is a probability distribution."""
    wrong = ~((p >= 0).all(-1) & (np.abs(p.sum(-1) - 1) <= ROUNDING))  # a NaN row is wrong too
    if wrong.any():
        at = np.argwhere(np.atleast_1d(wrong))[0].tolist() if p.ndim > 1 else []
        row = p[tuple(at)] if at else p
        came = f"it sums to {row.sum():g} and its smallest entry is {row.min():g}"
        raise TabularError(f"{name}{at or ''} must be a probability distribution; {came}")


def check_policy(mdp: MDP, pi: Array, name: str = "pi") -> None:
    """TabularError unless pi [S, A] is a policy of the MDP."""
    if pi.shape != (mdp.S, mdp.A):
        raise TabularError(f"{name} must have shape {(mdp.S, mdp.A)}, not {pi.shape}")
    check_distribution(pi, name)


def uniform_policy(mdp: MDP) -> Array:
    """The policy [S, A] that prefers nothing."""
    return np.full((mdp.S, mdp.A), 1.0 / mdp.A)


def random_policy(mdp: MDP, rng: np.random.Generator) -> Array:
    """A policy [S, A] with rows uniform on the simplex."""
    return rng.dirichlet(np.ones(mdp.A), size=mdp.S)
