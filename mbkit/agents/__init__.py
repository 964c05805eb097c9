"""Learners, one file per algorithm; importing the package registers them all."""

from mbkit.agents import ddpg, double_dqn, dpg, dqn, naf, ppo, sac, td3

__all__ = ["ddpg", "double_dqn", "dpg", "dqn", "naf", "ppo", "sac", "td3"]
