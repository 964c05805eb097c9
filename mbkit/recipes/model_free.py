"""An agent alone: real transitions, replayed or fresh; the wiring behind `mbkit train sac` and every other agent's name."""

import math

import torch

from mbkit.buffer import ReplayBuffer
from mbkit.config import Experiment, LoopConfig
from mbkit.envs import Environment
from mbkit.recipes.parts import Parts, acting, make_agent, real_data, spec_of, updates_on
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
    """The newest rows; UserError where a row would be used more than once, or more rewards be asked for than a newest row has."""
    if loop.n_step > 1:
        raise UserError(f"loop.n_step={loop.n_step}: {name} learns from the newest transitions, after which nothing is known; expected 1")
    often = loop.updates_per_step * loop.num_envs  # updates for each step of all environments
    new = loop.num_envs * math.floor(1 / often + 1e-9) if often else math.inf  # the fewest rows that arrive between two updates
    if loop.batch_size > new:
        raise UserError(
            f"{name} learns on-policy, from each transition once: of loop.batch_size={loop.batch_size} as few as {new} are new each time; "
            f"choose less of it or of loop.updates_per_step={loop.updates_per_step:g}, or another loop.num_envs, now {loop.num_envs}"
        )
    return Newest(buffer, loop.n_step, gamma)


def build(config: Experiment, env: Environment) -> Parts:
    """The agent acts, its transitions are remembered, and it is updated after environment steps."""
    assert config.agent is not None
    spec, loop = spec_of(config, env), config.loop
    agent = make_agent(config, spec)
    parts, fresh = acting(agent, config, spec), getattr(agent, "on_policy", False)
    source = on_policy_data(config.agent.name, loop, parts.buffer, config.gamma) if fresh else real_data(config, parts.buffer)
    parts.hooks.append(updates_on(source, agent, config))
    return parts
