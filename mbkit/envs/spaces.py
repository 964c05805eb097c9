"""Maps between Gymnasium's spaces and the agents': actions in [-1, 1] or int64, observations as one float32 vector.

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
MOST_ACTIONS = 10_000  # values over all dimensions of a discrete space, each of which is an output of a policy
NUMERIC = "biuf"  # kinds of NumPy's real numbers


class Misfit(UserError):
    """An observation that is not one of its space; `text` says what was expected and what came."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"observation of {name}: {text}")
        self.text = text


class ActionMap:
    """An agent's actions -> actions of one environment's `action_space`.

    [-1, 1]^A is scaled affinely to a Box of floats with finite bounds and clipped, `dim` = A; int64 0..n-1 is shifted to Discrete(n),
    `dim` = n. MultiDiscrete, MultiBinary and bounded Boxes of whole numbers have a discrete action for each of P dimensions: int64 [P],
    `parts` = their numbers of actions, `dim` = the sum; one of a single dimension is like Discrete. Any other space raises UserError.
    """

    def __init__(self, space: Any, name: str) -> None:
        self.name, self.shape, self.dtype = name, getattr(space, "shape", None), getattr(space, "dtype", None)
        self.parts: tuple[int, ...] = ()  # numbers of actions where there are several discrete ones
        self.row: tuple[int, ...] = ()  # shape of one action
        bounds = discrete_bounds(space, name)
        self.discrete = bounds is not None
        if bounds is not None:
            self.start = np.reshape(bounds[0], space.shape or ())
            sizes = tuple(high - low + 1 for low, high in zip(*bounds, strict=True))
            self.dim = sum(sizes)
            if len(sizes) > 1:
                self.parts, self.row = sizes, (len(sizes),)
            return
        if not isinstance(space, spaces.Box):
            raise UserError(f"action space of {name}: expected Discrete, MultiDiscrete, MultiBinary or a Box, got {space}")
        if not space.is_bounded():
            raise UserError(f"action space of {name}: expected finite bounds, to which [-1, 1] can be scaled, got {space}")
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.low, self.high, self.middle, self.half = low, high, (low + high) / 2, (high - low) / 2
        self.dim = int(np.prod(space.shape))
        self.row = (self.dim,)
        if not self.dim:
            raise UserError(f"action space of {name}: expected at least one number, got {space}")

    @property
    def facts(self) -> dict[str, Any]:
        """The units of the actions as a `dynamics.pt` holds them: lists of A bounds, or the first discrete action, of each of P."""
        if self.discrete:
            return {"action_start": self.start.reshape(-1).tolist() if self.parts else int(self.start.reshape(-1)[0])}
        return {"action_low": self.low.reshape(-1).tolist(), "action_high": self.high.reshape(-1).tolist()}

    def __call__(self, action: Tensor) -> Array:
        """[..., A] in [-1, 1], or int64 [...] or [..., P] -> [..., *space.shape] in the space's dtype; NaN raises UserError."""
        scaled: Array = action.numpy(force=True)
        native: Array = scaled.reshape(*scaled.shape[: scaled.ndim - len(self.row)], *(self.shape or ()))
        if self.discrete:
            return np.asarray(native + self.start).astype(self.dtype)
        if not np.isfinite(scaled).all():
            raise UserError(f"action for {self.name}: expected finite numbers, got {scaled.tolist()}")
        # middle + half * a is the identity to the last digit for a box of +-1; low + (a + 1) / 2 * (high - low) is not
        native = self.middle + self.half * native
        return native.clip(self.low, self.high).astype(self.dtype)


def discrete_bounds(space: spaces.Space[Any], name: str) -> tuple[list[int], list[int]] | None:
    """The lowest and the highest value of every dimension of a space of discrete actions; None for any other space.

    Raises:
        UserError: a Box of whole numbers without finite bounds; in any space but Discrete no values, or more than `MOST_ACTIONS`.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.start)], [int(space.start + space.n) - 1]
    if isinstance(space, spaces.MultiDiscrete):
        low = space.start.astype(np.int64)
        high = low + space.nvec.astype(np.int64) - 1
    elif isinstance(space, spaces.MultiBinary):
        low, high = np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)
    elif isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating):
        if not space.is_bounded():
            raise UserError(f"action space of {name}: expected finite bounds of whole numbers, got {space}")
        low, high = space.low, space.high
    else:
        return None
    lowest, highest = ([int(value) for value in bound.flat] for bound in (low, high))
    values = sum(highest) - sum(lowest) + len(lowest)
    if not 0 < values <= MOST_ACTIONS:
        advice = "; a Box of floats, which the environment rounds, has no such limit" if values else ""
        raise UserError(f"action space of {name}: expected 1 to {MOST_ACTIONS} discrete actions in all dimensions, got {values}{advice}")
    return lowest, highest


class ObservationMap:
    """Observations of one environment's `observation_space` -> float32 vectors of `dim` numbers.

    A Box of at most two axes is flattened, Discrete, MultiDiscrete and MultiBinary are one-hot encoded, the parts of Dict and Tuple are
    concatenated (Dict by sorted key, as in Gymnasium). Images and spaces of varying size raise UserError.
    """

    def __init__(self, space: Any, name: str) -> None:
        _refuse(space, name, "")
        self.space, self.name = space, name
        self.plain, self.discrete = isinstance(space, spaces.Box), _has_discrete(space)
        self.shape, self.dim = space.shape, spaces.flatdim(space)
        if not self.dim:
            raise UserError(f"observation space of {name}: expected at least one number, got {space}")

    def __call__(self, obs: Any) -> Array:
        """One observation -> [O], which may share memory with it; UserError if its shape is not that of its space."""
        try:
            row: Array = np.asarray(obs if self.plain else spaces.flatten(self.space, obs))
            if self.discrete:
                _check_discrete(self.space, obs)
        except (AttributeError, AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._misfit(self.space, obs) from error
        if row.shape != (self.shape if self.plain else (self.dim,)) or row.dtype.kind not in NUMERIC:
            raise self._misfit(self.space, obs)
        return row.reshape(-1)

    def stack(self, batched: spaces.Space[Any], obs: Any) -> Array:
        """Observations of a vector environment whose `observation_space` is `batched` -> new float32 [M, O]."""
        if not self.plain:
            return np.stack([self(one) for one in iterate(batched, obs)]).astype(np.float32)
        try:
            rows: Array = np.asarray(obs)
        except (TypeError, ValueError) as error:
            raise self._misfit(batched, obs) from error
        if rows.shape != batched.shape or rows.dtype.kind not in NUMERIC:
            raise self._misfit(batched, obs)
        return rows.reshape(len(rows), -1).astype(np.float32)

    def _misfit(self, space: spaces.Space[Any], obs: Any) -> Misfit:
        return Misfit(self.name, f"expected {_outline_of_space(space)} as in its observation space, got {_outline(obs)}")


def component_names(space: spaces.Space[Any], name: str = "obs") -> list[str]:
    """A name for each of the O numbers that `ObservationMap` makes of an observation: `obs[3]`, `arm.angle[0]`, `gear=2` (one-hot)."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        prefix = "" if name == "obs" else f"{name}."
        return [number for key, part in parts for number in component_names(part, f"{prefix}{key}")]
    if isinstance(space, spaces.Discrete):
        return [f"{name}={space.start + i}" for i in range(space.n)]
    return [f"{name}[{i}]" for i in range(spaces.flatdim(space))]


def _outline_of_space(space: spaces.Space[Any]) -> str:
    return f"shape {space.shape}" if isinstance(space, spaces.Box) else str(space)


def _outline(obs: Any) -> str:
    """The shapes of an observation's parts, for a message."""
    if isinstance(obs, Mapping):
        return "{" + ", ".join(f"{key}: {_outline(part)}" for key, part in obs.items()) + "}"
    if isinstance(obs, tuple):
        return "(" + ", ".join(map(_outline, obs)) + ")"
    if isinstance(obs, np.ndarray) and obs.ndim:
        return f"shape {obs.shape}" if obs.dtype.kind in NUMERIC else f"{obs.dtype} of shape {obs.shape}"
    return reprlib.repr(obs)


def _has_discrete(space: spaces.Space[Any]) -> bool:
    """Whether the space, or a part of it, holds choices."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return any(map(_has_discrete, space.values() if isinstance(space, spaces.Dict) else space))
    return not isinstance(space, spaces.Box)


def _check_discrete(space: spaces.Space[Any], obs: Any) -> None:
    """ValueError where a choice lies outside its space: as an index, -1 would silently stand for the last one."""
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            _check_discrete(part, obs[key])
    elif isinstance(space, spaces.Tuple):
        for part, value in zip(space, obs, strict=True):
            _check_discrete(part, value)
    elif not isinstance(space, spaces.Box):
        start, count = (0, 2) if isinstance(space, spaces.MultiBinary) else (space.start, getattr(space, "n", getattr(space, "nvec", 0)))  # type: ignore[attr-defined]
        index = np.asarray(obs) - start
        if index.dtype.kind not in "biu" or not np.all((index >= 0) & (index < count)):
            raise ValueError(obs)


def _refuse(space: spaces.Space[Any], name: str, where: str) -> None:
    """UserError if the space, or a part of it, cannot be flattened to a vector; `where` is the path to the part."""
    culprit = f"observation space {where[1:]!r} of {name}" if where else f"observation space of {name}"
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in parts:
            _refuse(part, name, f"{where}.{key}")
    elif isinstance(space, spaces.Box):
        if len(space.shape) >= 3 or (space.dtype == np.uint8 and len(space.shape) == 2):
            raise UserError(f"{culprit}: expected vectors, got an image, {space.dtype} {space.shape}; mbkit learns from vectors only")
    elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise UserError(f"{culprit}: expected a space that can be flattened to a vector (Box, Discrete, Dict, Tuple), got {space}")
