"""mbrl-lib's models as dynamics, and its files."""

from mbkit.dynamics.mbrl.dynamics import MbrlConfig, MbrlDynamics, build, load

__all__ = ["MbrlConfig", "MbrlDynamics", "build", "load"]
