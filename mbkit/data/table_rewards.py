"""Rewards of a table: a column of it, or a function of the user's.

Letters: B rows, O observation, A action.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from mbkit.config.imports import FUNCTION, import_module_of
from mbkit.data.columns import Array
from mbkit.data.table_files import TableFile
from mbkit.errors import UserError, guarded
from mbkit.registry import nearest
from mbkit.types import EnvSpec

NO_REWARDS = "there are no rewards: only a model can be learned from these rows; --reward names a column, or a function pkg.mod:fn"


class TableReward(NamedTuple):
    """Where the reward of a row comes from: the column of this name, or a function."""

    name: str  # as the user typed it
    function: Callable[..., Any] | None = None

    def computed(self, obs: Array, action: Array, next_obs: Array) -> Array:
        """The function's rewards, float64 [B], of obs [B, O], action [B, A] in [-1, 1] or int64 [B], and next_obs [B, O].

        Raises:
            UserError: it fails, or returns something else than B numbers.
        """
        if self.function is None:
            raise TypeError("this reward is a column")
        actions = action if action.dtype.kind == "i" else action.astype(np.float64)
        rows = [torch.from_numpy(np.ascontiguousarray(x)) for x in (obs.astype(np.float64), actions, next_obs.astype(np.float64))]
        function = self.function
        compute = guarded(lambda *rows: np.asarray(torch.as_tensor(function(*rows)).detach().double()), f"reward {self.name}")
        reward: Array = compute(*rows)
        if reward.shape != (len(obs),):
            raise UserError(f"reward {self.name}: expected shape {[len(obs)]}, got {list(reward.shape)}")
        return reward

    def notes(self, zeros: int) -> list[str]:
        """A sentence where the function meets `zeros` rows without a successor."""
        if self.function is None or not zeros:
            return []
        return [f"{self.name} is called with the observation itself in place of the successor of {zeros} terminal rows, which have none"]


def reward_of(table: TableFile, name: str | None, obs_dim: int, action_dim: int, choices: int | None) -> TableReward | None:
    """What --reward names, None where there are no rewards; a function is tried once.

    Raises:
        UserError: no such column, or a function that cannot be imported or returns no rewards.
    """
    if name is None or (name == "none" and name not in table.names):
        return None
    if name in table.names:
        return TableReward(name)
    if not FUNCTION.fullmatch(name):
        raise UserError(f"{table.path}: --reward: expected a column, pkg.mod:fn or none, got {name!r}; {nearest(name, table.names)}")
    from mbkit.envs.known import check_fn, load_fn  # imports Gymnasium

    import_module_of(name, here=True)
    function = load_fn(name)
    check_fn(function, name, EnvSpec(obs_dim, choices or action_dim, torch.device("cpu"), choices is not None), "reward")
    return TableReward(name, function)
