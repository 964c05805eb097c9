"""What stands between a task as the user wrapped it and its physics: wrappers and replaced methods that may change what a step brings."""

from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium import wrappers
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.common import PassiveEnvChecker
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVectorStatistics

UNCHANGING = (  # wrappers that neither change actions, observations, rewards and terminations nor the physics
    PassiveEnvChecker,
    wrappers.HumanRendering,
    wrappers.OrderEnforcing,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.RenderCollection,
    wrappers.TimeLimit,
    RecordVectorStatistics,
)


def changes(env: Any, vector: Any = None) -> str:
    """The first part of an environment, outermost first, that may change its steps; "" where there is none.

    Args:
        env: an environment, whose physics is simulated without its wrappers.
        vector: the vector environment that it stands in, if any.
    """
    for layer in _layers(env, vector):
        name = type(layer).__name__
        replaced = [method for method in vars(layer) if callable(getattr(type(layer), method, None))]
        if replaced:
            return f"a {name} whose {replaced[0]} was replaced"
        if isinstance(layer, VectorWrapper | gymnasium.Wrapper):
            if type(layer) not in UNCHANGING:
                return f"the wrapper {name}"
        elif isinstance(layer, VectorEnv):
            if type(layer) is not SyncVectorEnv:
                return f"the vector environment {name}"
        elif layer is not layer.unwrapped:  # a task of the user's round another one
            return f"a {name} round another environment"
    return ""


def _layers(env: Any, vector: Any) -> Iterator[Any]:
    """Wrappers and what they wrap, from the vector environment's to the task itself."""
    while isinstance(vector, VectorWrapper):
        yield vector
        vector = vector.env
    if vector is not None:
        yield vector
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env
