"""The true model's options and its entry in the registry, which import no simulator: options are checked before one is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbkit.fields import at_least
from mbkit.registry import dynamics

if TYPE_CHECKING:
    from mbkit.dynamics.mujoco.dynamics import MujocoDynamics


@dataclass(frozen=True)
class MujocoConfig:
    """Settings of the true model."""

    threads: int = at_least(0, 0)  # number of simulation threads; 0: as many as torch uses


@dynamics.register("mujoco", MujocoConfig)
def build(*arguments: Any) -> "MujocoDynamics":
    """True dynamics of M live MuJoCo environments of one task."""
    from mbkit.dynamics.mujoco.dynamics import MujocoDynamics

    return MujocoDynamics(*arguments)
