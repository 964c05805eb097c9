"""Running statistics of wrappers, which other copies of a task need to normalise observations and rewards in the same way."""

from typing import Any

import numpy as np
import torch
from gymnasium.wrappers.utils import RunningMeanStd

from mbkit.errors import UserError
from mbkit.types import State


def collect(source: Any) -> State:
    """Mean, variance and count of every RunningMeanStd on the wrappers of each environment, outermost first, and of a vector environment."""
    return {
        "envs": [[_numbers(*each) for each in _found(env)] for env in source.envs],
        "vector": [_numbers(*each) for each in _found(getattr(source, "vector", None))],
    }


def assign(source: Any, state: State, frozen: bool, name: str) -> None:
    """Write collected statistics into the wrappers of a task called `name`; `frozen`: wrappers that can do so no longer update them."""
    vectors = [(_found(getattr(source, "vector", None)), state["vector"])]
    singles = [(_found(env), state["envs"][i % len(state["envs"])] if state["envs"] else []) for i, env in enumerate(source.envs)]
    for wrappers, numbers in vectors + singles:
        expected, got = [type(wrapper).__name__ for wrapper, _ in wrappers], [each["wrapper"] for each in numbers]
        if expected != got:
            raise UserError(f"running statistics of {name}: expected those of the wrappers {expected}, got {got}")
        for (wrapper, statistic), saved in zip(wrappers, numbers, strict=True):
            before = (statistic.mean, statistic.var)
            statistic.mean, statistic.var = (_like(old, saved[part], name) for old, part in zip(before, ("mean", "var"), strict=True))
            statistic.count = saved["count"]
            if frozen and hasattr(type(wrapper), "update_running_mean"):
                wrapper.update_running_mean = False


def _found(env: Any) -> list[tuple[Any, RunningMeanStd]]:
    """The wrappers around an environment that have running statistics, with these."""
    pairs = []
    while env is not None:
        pairs += [(env, value) for value in vars(env).values() if isinstance(value, RunningMeanStd)]
        env = vars(env).get("env")
    return pairs


def _numbers(wrapper: Any, statistic: RunningMeanStd) -> State:
    mean, variance = (torch.from_numpy(np.array(part)) for part in (statistic.mean, statistic.var))
    return {"wrapper": type(wrapper).__name__, "mean": mean, "var": variance, "count": float(statistic.count)}


def _like(old: Any, saved: torch.Tensor, name: str) -> Any:
    """A copy of saved numbers; UserError if their shape is not that of the wrapper's."""
    if np.shape(old) != tuple(saved.shape):
        raise UserError(f"running statistics of {name}: expected shape {np.shape(old)}, got {tuple(saved.shape)}")
    return saved.numpy().copy()[()]
