"""The true dynamics of MuJoCo tasks."""

from mbkit.dynamics.mujoco.dynamics import MujocoConfig, MujocoDynamics

__all__ = ["MujocoConfig", "MujocoDynamics"]
