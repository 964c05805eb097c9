"""Models of the environment: learned ensemble, local linear, true MuJoCo, mbrl-lib's. Importing this package registers them."""

from mbkit.dynamics import ensemble, local_linear, mbrl, mujoco

__all__ = ["ensemble", "local_linear", "mbrl", "mujoco"]
