"""The only place that reads `info`, autoreset and time limits: environments by name, and a user's own."""

from mbkit.envs.environment import Environment, EnvStep, NoRenderer, wrap
from mbkit.envs.make import available, make, names

__all__ = ["EnvStep", "Environment", "NoRenderer", "available", "make", "names", "wrap"]
