"""Trained policies as users call them: what comes in is checked here, so that learners' inner loops need not.

Letters: M observations, O observation, A action.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbkit.envs.spaces import ActionMap, ObservationMap
from mbkit.errors import UserError
from mbkit.types import Actor, EnvSpec


def to_vectors(obs: Any, spec: EnvSpec, name: str) -> tuple[Tensor, bool]:
    """Observations as float32 [M, O] on the agent's device, and whether it was a single one, [O].

    Args:
        obs: array, tensor or nested list of real numbers, [O] or [M, O], of any type and device.
        spec: the agent's dimensions and device.
        name: of the environment, for messages.

    Raises:
        UserError: another shape, something else than real numbers, or numbers that are not finite in float32.
    """
    wanted = f"observation for {name}: expected {spec.obs_dim} finite numbers, or several such rows"
    if not isinstance(obs, Tensor):
        try:
            array = np.asarray(obs)
        except ValueError as error:
            raise UserError(f"{wanted}; came rows of different lengths") from error
        if array.dtype.kind not in "fiub":
            raise UserError(f"{wanted}; came a {type(obs).__name__} of {array.dtype}")
        with np.errstate(over="ignore"):  # told below
            obs = torch.from_numpy(np.array(array, dtype=np.float32))
    elif obs.is_complex():
        raise UserError(f"{wanted}; came {obs.dtype}")
    if obs.ndim not in (1, 2) or obs.shape[-1] != spec.obs_dim or len(obs) == 0:
        raise UserError(f"{wanted}; came shape {tuple(obs.shape)}")
    rows = obs.detach().to(spec.device, torch.float32)
    if not rows.isfinite().all():
        raise UserError(f"{wanted}; came NaN or infinity")
    return rows.reshape(-1, spec.obs_dim), obs.ndim == 1


class CheckedActor:
    """A run's actor for users: `act` takes NumPy arrays or tensors and checks them; all else is the actor's own."""

    def __init__(self, actor: Actor, spec: EnvSpec, name: str) -> None:
        self.actor, self._spec, self._name = actor, spec, name

    def act(self, obs: Any, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A] in [-1, 1] (discrete: int64 [M]), or [O] -> [A]; see `to_vectors` for types and errors."""
        rows, single = to_vectors(obs, self._spec, self._name)
        action = self.actor.act(rows, explore=explore)
        return action[0] if single else action

    def reset(self, mask: Tensor) -> None:
        """These environments, bool [M], begin a new episode."""
        self.actor.reset(mask)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "actor":
            raise AttributeError(name)
        return getattr(self.actor, name)


class TaskPolicy:
    """A policy in the task's own terms: observations as its `reset` and `step` return them, actions as its `step` takes them."""

    def __init__(self, actor: Actor, spec: EnvSpec, observation: ObservationMap, action: ActionMap) -> None:
        self.actor, self.spec, self.map, self.native = actor, spec, observation, action
        self.rows = 0  # observations of the last call; a planner has a plan for each

    def __call__(self, obs: Any, explore: bool = False, new_episode: bool = False) -> NDArray[Any]:
        """One action, or M of them for M observations, in the shape and type of the task's action space."""
        rows, single = self.vectors(obs)
        if new_episode or len(rows) != self.rows:
            self.actor.reset(torch.ones(len(rows), dtype=torch.bool))
        self.rows = len(rows)
        action: NDArray[Any] = self.native(self.actor.act(rows, explore=explore))
        return action[0] if single else action

    def vectors(self, obs: Any) -> tuple[Tensor, bool]:
        """Observations as [M, O], and whether it was a single one; parts of a Dict, Tuple or Discrete space are flattened."""
        shape = None if isinstance(obs, Mapping | tuple | list) else tuple(np.shape(obs))
        parts = isinstance(obs, Mapping | tuple) or (shape == self.map.shape and not self.map.plain)
        if parts:
            obs = self.map(obs)
        elif self.map.plain and shape is not None and self.map.shape is not None:
            several = len(shape) - len(self.map.shape)
            if several in (0, 1) and shape[several:] == self.map.shape:  # a box of another number of axes than one
                obs = obs.reshape(*shape[:several], self.spec.obs_dim) if hasattr(obs, "reshape") else [obs]
        return to_vectors(obs, self.spec, self.native.name)
