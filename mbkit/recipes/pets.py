"""PETS: probabilistic ensemble, trajectory sampling, MPC (Chua et al. 2018, arXiv:1805.12114)."""

from dataclasses import replace

from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.planning.mpc import MPC, MPCConfig
from mbkit.recipes.parts import Parts, make_dynamics, make_planner, spec_of
from mbkit.registry import recipes
from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import Learnable


@recipes.register("pets", MPCConfig, env="cartpole", steps=3000, dynamics={"name": "ensemble"}, planner={"name": "icem"})
def build(config: Experiment, env: Environment) -> Parts:
    """PETS: a probabilistic ensemble, trajectory sampling and model-predictive control."""
    assert config.agent is not None  # every recipe has an agent group
    spec, mpc = spec_of(config, env), config.agent.config
    if config.dynamics is not None and config.dynamics.name == "mujoco":
        mpc = replace(mpc, particles=1)  # the true model is deterministic: more particles would be the same one
    dynamics_for, planner = make_dynamics(config, env), make_planner(config, spec)

    def actor_for(other: Environment) -> MPC:
        return MPC(spec, planner, dynamics_for(other), mpc)

    actor, buffer = actor_for(env), ReplayBuffer(config.loop.buffer_size, spec)
    parts = Parts(actor, buffer, actor_for, stateful={"buffer": buffer, "actor": actor})
    model = actor.dynamics
    if isinstance(model, Learnable):
        parts.hooks += parts.adopt(model, config)
    return parts
