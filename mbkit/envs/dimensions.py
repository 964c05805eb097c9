"""What the numbers of an observation are called, in reports."""

from typing import Any

from gymnasium import spaces

NAMES = {  # of tasks whose documentation names them
    "Acrobot-v1": ("cos angle 1", "sin angle 1", "cos angle 2", "sin angle 2", "velocity 1", "velocity 2"),
    "CartPole-v1": ("position", "velocity", "angle", "angular velocity"),
    "InvertedPendulum-v5": ("position", "angle", "velocity", "angular velocity"),
    "MountainCar-v0": ("position", "velocity"),
    "MountainCarContinuous-v0": ("position", "velocity"),
    "Pendulum-v1": ("cos angle", "sin angle", "angular velocity"),
    "cartpole": ("position", "angle", "velocity", "angular velocity"),
}


def dimension_names(name: str, space: spaces.Space[Any]) -> list[str]:
    """A name for each number of an observation vector: the task's, else keys of Dict and numbers of Tuple parts, else obs 0, obs 1, ..."""
    known = NAMES.get(name.removeprefix("mbkit/").removesuffix("-v0") if name.startswith("mbkit/") else name, ())
    size = spaces.flatdim(space)
    if len(known) == size:
        return list(known)
    return _parts(space, "") if isinstance(space, spaces.Dict | spaces.Tuple) else [f"obs {i}" for i in range(size)]


def _parts(space: spaces.Space[Any], prefix: str) -> list[str]:
    """ "arm.angle 0", "arm.angle 1", "goal", in the order in which Gymnasium flattens the parts."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        pairs = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        return [name for key, part in pairs for name in _parts(part, f"{prefix}.{key}" if prefix else str(key))]
    size = spaces.flatdim(space)
    return [prefix] if size == 1 else [f"{prefix} {i}" for i in range(size)]
