"""The true dynamics of MuJoCo tasks; the simulator is imported with `MujocoDynamics`, when that is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mbkit.dynamics.mujoco.config import MujocoConfig

if TYPE_CHECKING:
    from mbkit.dynamics.mujoco.dynamics import MujocoDynamics

__all__ = ["MujocoConfig", "MujocoDynamics"]


def __getattr__(name: str) -> Any:
    """`MujocoDynamics`, imported when it is first used."""
    if name == "MujocoDynamics":
        return import_module("mbkit.dynamics.mujoco.dynamics").MujocoDynamics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
