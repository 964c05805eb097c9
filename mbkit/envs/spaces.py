"""Between Gymnasium's spaces and what agents see: actions in [-1, 1] or int64, observations as one float32 vector.

Letters: M environments, O observation, A action.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray
from torch import Tensor

from mbkit.errors import UserError

Array = NDArray[Any]


class ActionMap:
    """What agents act in -> what one environment's `action_space` takes.

    A Box with finite bounds is reached from [-1, 1]^A, `dim` = A, affinely and clipped; Discrete(n) from int64 0..n-1, `dim` = n.
    Any other space raises UserError.
    """

    def __init__(self, space: spaces.Space[Any], name: str) -> None:
        self.name = name
        self.discrete = isinstance(space, spaces.Discrete)
        self.row: tuple[int, ...] = ()  # shape of one action
        if isinstance(space, spaces.Discrete):
            self.dim, self.start = int(space.n), space.start
            return
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise UserError(f"action space of {name}: expected Discrete or a Box of floats, got {space}")
        if not space.is_bounded():
            raise UserError(f"action space of {name}: expected finite bounds, to which [-1, 1] can be scaled, got {space}")
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.low, self.high, self.middle, self.half = low, high, (low + high) / 2, (high - low) / 2
        self.dim, self.shape, self.dtype = int(np.prod(space.shape)), space.shape, space.dtype
        self.row = (self.dim,)

    def __call__(self, action: Tensor) -> Array:
        """[..., A] in [-1, 1] -> [..., *space.shape] in the Box's own dtype, or int64 [...] -> int64 [...]; NaN raises UserError."""
        given: Array = action.numpy(force=True)
        if self.discrete:
            return np.asarray(given + self.start)
        if not np.isfinite(given).all():
            raise UserError(f"action for {self.name}: expected finite numbers, got {given.tolist()}")
        # middle + half * a leaves a box of +-1 as it is to the last digit, which low + (a + 1) / 2 * (high - low) does not
        native: Array = self.middle + self.half * given.reshape(*given.shape[:-1], *self.shape)
        return native.clip(self.low, self.high).astype(self.dtype)


class ObservationMap:
    """One environment's `observation_space` -> a float32 vector of `dim` numbers.

    Box of at most two axes is ravelled, Discrete, MultiDiscrete and MultiBinary become one-hot, Dict and Tuple are concatenated
    (Dict by sorted key, as Gymnasium does). Images and spaces of varying size raise UserError.
    """

    def __init__(self, space: spaces.Space[Any], name: str) -> None:
        _refuse(space, name, "")
        self.space, self.name = space, name
        self.plain = isinstance(space, spaces.Box)
        self.shape, self.dim = space.shape, spaces.flatdim(space)

    def __call__(self, obs: Any) -> Array:
        """One observation -> [O], which may share memory with it; UserError where it has not its space's shape."""
        try:
            row: Array = np.asarray(obs if self.plain else spaces.flatten(self.space, obs))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise self._misfit(self.space, obs) from error
        if row.shape != (self.shape if self.plain else (self.dim,)):
            raise self._misfit(self.space, obs)
        return row.reshape(-1)

    def stack(self, batched: spaces.Space[Any], obs: Any) -> Array:
        """Observations of a vector environment, laid out as its `observation_space` `batched` says -> new float32 [M, O]."""
        if not self.plain:
            return np.stack([self(one) for one in iterate(batched, obs)]).astype(np.float32)
        try:
            rows: Array = np.array(obs, np.float32)
        except (TypeError, ValueError) as error:
            raise self._misfit(batched, obs) from error
        if rows.shape != batched.shape:
            raise self._misfit(batched, obs)
        return rows.reshape(len(rows), -1)

    def _misfit(self, space: spaces.Space[Any], obs: Any) -> UserError:
        return UserError(
            f"observation of {self.name}: expected {_outline_of_space(space)} as in its observation space, got {_outline(obs)}"
        )


def _outline_of_space(space: spaces.Space[Any]) -> str:
    return f"shape {space.shape}" if isinstance(space, spaces.Box) else str(space)


def _outline(obs: Any) -> str:
    """The shapes an observation is made of, for a message."""
    if isinstance(obs, Mapping):
        return "{" + ", ".join(f"{key}: {_outline(part)}" for key, part in obs.items()) + "}"
    if isinstance(obs, tuple):
        return "(" + ", ".join(map(_outline, obs)) + ")"
    return f"shape {obs.shape}" if isinstance(obs, np.ndarray) else reprlib.repr(obs)


def _refuse(space: spaces.Space[Any], name: str, where: str) -> None:
    """UserError where no vector can be made of a part of the space; `where` is the path to it."""
    culprit = f"observation space {where[1:]!r} of {name}" if where else f"observation space of {name}"
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in parts:
            _refuse(part, name, f"{where}.{key}")
    elif isinstance(space, spaces.Box):
        if len(space.shape) >= 3 or (space.dtype == np.uint8 and len(space.shape) == 2):
            raise UserError(f"{culprit}: expected vectors, got an image, {space.dtype} {space.shape}; mbkit learns from vectors only")
    elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise UserError(f"{culprit}: expected something a vector can be made of (Box, Discrete, Dict, Tuple), got {space}")
