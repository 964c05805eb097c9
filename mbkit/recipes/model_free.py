"""An agent alone: real transitions, replayed; the wiring behind `mbkit train sac` and every other agent's name."""

import torch

from mbkit.buffer import ReplayBuffer
from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.loops import Updates
from mbkit.recipes.parts import Greedy, Parts, make_agent, real_data, spec_of


def build(config: Experiment, env: Environment) -> Parts:
    """The agent acts, its transitions are replayed, and it is updated after every environment step."""
    assert config.agent is not None
    spec = spec_of(config, env)
    agent, buffer = make_agent(config, spec), ReplayBuffer(config.loop.buffer_size, spec)
    updates = Updates(agent, real_data(config, buffer), config.loop, torch.device(config.device), config.agent.name)
    return Parts(agent, buffer, lambda other: Greedy(agent), [updates], {"buffer": buffer, "agent": agent})
