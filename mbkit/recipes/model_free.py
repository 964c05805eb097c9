"""An agent alone: real transitions, replayed or fresh; the wiring behind `mbkit train sac` and every other agent's name."""

import torch

from mbkit.buffer import ReplayBuffer
from mbkit.config import Experiment, LoopConfig
from mbkit.envs import Environment
from mbkit.loops import Updates
from mbkit.recipes.parts import Greedy, Parts, make_agent, real_data, spec_of
from mbkit.types import Source, Transition, UserError


class Newest:
    """The newest transitions instead of random ones, for whoever learns on-policy: `steps` real rewards in each."""

    def __init__(self, buffer: ReplayBuffer, steps: int, gamma: float) -> None:
        self.buffer, self.transitions = buffer, buffer.n_step(steps, gamma)

    def sample(self, n: int) -> Transition:
        """The last n rows [B], oldest first; where there are fewer, the first of all is repeated."""
        sequence = self.buffer.total - n + torch.arange(n, device=self.buffer.total.device)
        return self.transitions.at(sequence.clamp(min=0) % self.buffer.capacity)


def on_policy_data(name: str, loop: LoopConfig, buffer: ReplayBuffer, gamma: float) -> Source:
    """The newest rows; UserError where a row would be used more than once."""
    often = loop.batch_size * loop.updates_per_step
    if often > 1 + 1e-9:
        raise UserError(
            f"{name} learns on-policy, from each transition once: loop.batch_size * loop.updates_per_step must be at most 1, not {often:g}"
        )
    if loop.num_envs > loop.batch_size:
        raise UserError(
            f"{name} learns on-policy, from the newest loop.batch_size={loop.batch_size} transitions; expected at least "
            f"loop.num_envs={loop.num_envs}, those of one step"
        )
    return Newest(buffer, loop.n_step, gamma)


def build(config: Experiment, env: Environment) -> Parts:
    """The agent acts, its transitions are remembered, and it is updated after environment steps."""
    assert config.agent is not None
    spec, loop = spec_of(config, env), config.loop
    agent, buffer = make_agent(config, spec), ReplayBuffer(loop.buffer_size, spec)
    fresh = getattr(agent, "on_policy", False)
    source = on_policy_data(config.agent.name, loop, buffer, config.gamma) if fresh else real_data(config, buffer)
    updates = Updates(agent, source, loop, torch.device(config.device), config.agent.name)
    return Parts(agent, buffer, lambda other: Greedy(agent), [updates], {"buffer": buffer, "agent": agent})
