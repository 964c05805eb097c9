"""An agent alone: real steps, replayed or fresh; the wiring behind `mbkit train sac`, `mbkit train ppo` and every other agent's name."""

import math

from mbkit import registry
from mbkit.config import Experiment, LoopConfig
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.loops import Rollouts
from mbkit.recipes.parts import (
    Greedy,
    Parts,
    acting,
    is_trajectory_learner,
    make_agent,
    prior_of_run,
    real_data,
    room_for_agent,
    spec_of,
    updates_on,
)
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.replay.windows import Newest
from mbkit.types import Source, TrajectoryLearner


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
    return Newest(buffer)


def build(config: Experiment, env: Environment) -> Parts:
    """The agent acts, its steps are remembered, and it is updated after environment steps."""
    assert config.agent is not None
    if is_trajectory_learner(registry.agents[config.agent.name].target):
        return build_from_trajectories(config, env)
    spec, loop = spec_of(config, env), config.loop
    agent = make_agent(config, spec)
    parts, fresh = acting(agent, config, spec), getattr(agent, "on_policy", False)
    source = on_policy_data(config.agent.name, loop, parts.buffer, config.gamma) if fresh else real_data(config, parts.buffer, agent)
    parts.hooks.append(updates_on(source, agent, config))
    return parts


def build_from_trajectories(config: Experiment, env: Environment) -> Parts:
    """The same for an agent that learns from all steps between two updates at once."""
    assert config.agent is not None
    spec, loop, part = spec_of(config, env), config.loop, config.agent
    prior = prior_of_run(part, spec)
    with room_for_agent(part):
        agent: TrajectoryLearner = registry.agents[part.name].target(spec, part.config, config.gamma, **prior)
    check_rollouts(config, agent)
    buffer = TrajectoryBuffer(loop.rollout_steps, loop.num_envs, spec, loop.rollouts_kept)
    hook = Rollouts(agent, buffer, loop, spec.device, part.name, config.steps)
    notes = []
    if (rows := -(-config.steps // loop.num_envs)) < loop.rollout_steps:
        notes.append(
            f"{part.name} never learned: {config.steps} steps are {rows} of each environment, and an update takes {loop.rollout_steps} "
            "(loop.rollout_steps)."
        )
    return Parts(agent, buffer, lambda other: Greedy(agent), hooks=[hook], stateful={"buffer": buffer, "agent": agent}, notes=notes)


def check_rollouts(config: Experiment, agent: TrajectoryLearner) -> None:
    """UserError where an option contradicts learning from one's own fresh steps."""
    name, loop = config.algo, config.loop
    if loop.warmup_steps:
        raise UserError(f"loop.warmup_steps={loop.warmup_steps}: {name} learns from its own actions, not from random ones; expected 0")
    if loop.n_step > 1:
        raise UserError(f"loop.n_step={loop.n_step}: {name} learns from whole trajectories (loop.rollout_steps); expected 1")
    if getattr(config.agent and config.agent.config, "standardize", False) and loop.rollout_steps * loop.num_envs < 2:
        raise UserError(
            "loop.rollout_steps=1 and loop.num_envs=1: one advantage alone is standardised to 0; "
            "expected at least 2 rows, or agent.standardize=false"
        )
    if loop.replays and not agent.replays:
        raise UserError(f"loop.replays={loop.replays}: {name} does not correct for who acted in the past; expected 0, or vtrace, retrace")
    if loop.replays and not loop.rollouts_kept:
        raise UserError(f"loop.replays={loop.replays} needs remembered trajectories; expected loop.rollouts_kept of at least 1, came 0")
