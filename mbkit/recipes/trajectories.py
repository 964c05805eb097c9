"""An agent alone that learns from trajectories: the wiring behind `mbkit train ppo`, `mbkit train vtrace` and the like."""

from mbkit.config import OldTrajectoryLoop, TrajectoryLoop
from mbkit.errors import UserError
from mbkit.loops import TrajectoryUpdates
from mbkit.recipes.assembly import Assembly
from mbkit.replay.trajectory import TrajectoryBuffer


def build(x: Assembly[TrajectoryLoop]) -> None:
    """The agent acts, and every T steps it is updated on the trajectories of all environments."""
    loop, steps, name = x.loop, x.experiment.steps, x.experiment.algo
    check(x.part("agent").config, loop)
    agent = x.trajectory_agent()
    buffer = x.stores(TrajectoryBuffer(loop.rollout_steps, loop.num_envs, x.spec, getattr(loop, "stored_rollouts", 0)))
    x.every_step(TrajectoryUpdates(name, agent, buffer, loop, x.spec.device, steps))
    if (rows := -(-steps // loop.num_envs)) < loop.rollout_steps:
        x.notes.append(
            f"{name} never learned: {steps} steps are {rows} of each environment, and an update takes {loop.rollout_steps} "
            "(loop.rollout_steps)."
        )


def check(agent: object, loop: TrajectoryLoop) -> None:
    """UserError where a single advantage would be standardised to 0, or off-policy updates have nothing to draw from."""
    if getattr(agent, "normalize_advantage", False) and loop.rollout_steps * loop.num_envs < 2:
        raise UserError(
            "loop.rollout_steps=1 and loop.num_envs=1: one advantage alone is standardised to 0; "
            "expected at least 2 rows, or agent.normalize_advantage=false"
        )
    if isinstance(loop, OldTrajectoryLoop) and loop.off_policy_updates and not loop.stored_rollouts:
        raise UserError(
            f"loop.off_policy_updates={loop.off_policy_updates} needs stored trajectories; "
            "expected loop.stored_rollouts of at least 1, came 0"
        )
