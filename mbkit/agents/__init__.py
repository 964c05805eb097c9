"""Learners, one file per algorithm; importing the package registers them all."""

from mbkit.agents import ddpg, dpg, naf, sac, td3

__all__ = ["ddpg", "dpg", "naf", "sac", "td3"]
