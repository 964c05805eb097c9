"""Models of the environment: learned ensemble, ground-truth MuJoCo, mbrl-lib's models. Importing this package registers them."""

from mbkit.dynamics import ensemble, mbrl, mujoco

__all__ = ["ensemble", "mbrl", "mujoco"]
