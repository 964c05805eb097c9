"""Planners: searches over action sequences that see an objective, never a model. Importing this package registers them all."""

from mbkit.planning import cem, discrete, icem, mppi, shooting
from mbkit.planning.mpc import MPC, Guide, MPCConfig, Receding
from mbkit.planning.objective import open_loop_return, policy_proposals

__all__ = ["MPC", "Guide", "MPCConfig", "Receding", "cem", "discrete", "icem", "mppi", "open_loop_return", "policy_proposals", "shooting"]
