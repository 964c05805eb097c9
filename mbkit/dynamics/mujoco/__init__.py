"""The true dynamics of MuJoCo tasks; the simulator is imported with `MujocoDynamics`, when that is first used."""

from typing import TYPE_CHECKING, Any

from mbkit.dynamics.mujoco.config import MujocoConfig
from mbkit.registry import dynamics

if TYPE_CHECKING:
    from mbkit.dynamics.mujoco.dynamics import MujocoDynamics

__all__ = ["MujocoConfig", "MujocoDynamics"]


@dynamics.register("mujoco", MujocoConfig)
def build(*arguments: Any) -> "MujocoDynamics":
    """True dynamics of M live MuJoCo environments of one task."""
    from mbkit.dynamics.mujoco.dynamics import MujocoDynamics

    return MujocoDynamics(*arguments)


def __getattr__(name: str) -> Any:
    """`MujocoDynamics`, imported when it is first used."""
    if name == "MujocoDynamics":
        from mbkit.dynamics.mujoco.dynamics import MujocoDynamics

        return MujocoDynamics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
