"""Running statistics of wrappers, which other copies of a task need to normalise observations and rewards in the same way.

They are any mean, variance and count that lie together on a wrapper, or on an object that it holds, such as Gymnasium's RunningMeanStd.
"""

from numbers import Number
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv

from mbkit.errors import UserError
from mbkit.types import State

PARTS = ("mean", "var", "count")


def collect(source: Any) -> State:
    """The statistics of the wrappers, outermost first, around each environment and around the vector environment."""
    vector = _statistics(getattr(source, "vector", None))
    return {"envs": [_saved(_statistics(env)) for env in source.envs], "vector": _saved(vector)}


def assign(source: Any, state: State, frozen: bool, name: str) -> None:
    """Write collected statistics into the wrappers of a task called `name`; `frozen`: wrappers that can do so no longer update them."""
    saved = [*(state["envs"][i % len(state["envs"])] if state["envs"] else [] for i in range(len(source.envs))), state["vector"]]
    for env, numbers in zip((*source.envs, getattr(source, "vector", None)), saved, strict=True):
        statistics = _statistics(env)
        expected, got = [type(wrapper).__name__ for wrapper, _ in statistics], [each["wrapper"] for each in numbers]
        if expected != got:
            raise UserError(f"running statistics of {name}: expected those of the wrappers {expected}, got {got}")
        for (wrapper, statistic), parts in zip(statistics, numbers, strict=True):
            _assign(statistic, parts, name)
            if frozen and hasattr(type(wrapper), "update_running_mean"):
                wrapper.update_running_mean = False


def _statistics(env: Any) -> list[tuple[Any, Any]]:
    """Wrappers that have running statistics, with these, from an environment inwards."""
    pairs = []
    while isinstance(env, gymnasium.Env | VectorEnv):
        inner = vars(env).get("env")
        pairs += [
            (env, each)
            for each in (*vars(env).values(), *([env] if isinstance(inner, gymnasium.Env | VectorEnv) else []))
            if _is_statistic(each)
        ]
        env = inner
    return pairs


def _is_statistic(value: Any) -> bool:
    parts = getattr(value, "__dict__", {})
    return all(isinstance(parts.get(part), Number | np.ndarray) for part in PARTS)


def _saved(statistics: list[tuple[Any, Any]]) -> list[State]:
    parts = [{part: torch.from_numpy(np.array(getattr(each, part))) for part in PARTS} for _, each in statistics]
    return [{"wrapper": type(wrapper).__name__, **numbers} for (wrapper, _), numbers in zip(statistics, parts, strict=True)]


def _assign(statistic: Any, parts: State, name: str) -> None:
    for part in PARTS:
        shape = np.shape(getattr(statistic, part))
        if shape != tuple(parts[part].shape):
            raise UserError(f"running statistics of {name}: expected a {part} of shape {shape}, got {tuple(parts[part].shape)}")
        setattr(statistic, part, parts[part].numpy().copy()[()])
