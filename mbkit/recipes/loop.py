"""LOOP: planning a few steps ahead, with a learned value at the end of the plan (Sikchi et al. 2020, arXiv:2008.10066).

An off-policy actor-critic learns from what the planner does; its value closes every plan, its policy proposes candidates. Kin: TD-MPC
(arXiv:2203.04955). Short plans alone fail where episodes terminate: what kills only after the horizon looks harmless.
"""

from dataclasses import dataclass

from mbkit.accelerate import Mode
from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.fields import at_least
from mbkit.loops import WatchPlans
from mbkit.planning.mpc import MPC, MPCConfig
from mbkit.planning.objective import policy_proposals
from mbkit.recipes.parts import Parts, learned_model, make_planner, make_replaying_agent, real_data, spec_of, updates_on
from mbkit.registry import recipes
from mbkit.replay.buffer import ReplayBuffer


@dataclass(frozen=True)
class LOOPConfig:
    """The plan: H model steps, then the agent's value."""

    horizon: int = at_least(3, 1)  # steps looked ahead. Paper: 3
    particles: int = at_least(4, 1)  # model rollouts averaged per candidate. Paper: 4
    proposals: int = at_least(5, 0)  # candidates that the policy plays out in the model. Paper: 5 % of 100
    value: bool = True  # the agent's value closes the plan; False: what comes after the horizon counts nothing
    noise: float = at_least(0.1, 0)  # standard deviation of exploration noise on executed actions
    replan_every: int = at_least(1, 1)  # actions executed per plan
    mode: Mode = "eager"  # "cudagraph": the whole plan is one CUDA graph


@recipes.register(
    "loop",
    LOOPConfig,
    env="Hopper-v5",
    steps=10_000,
    agent={"name": "sac"},
    dynamics={"name": "ensemble", "reward": "learned"},
    planner={"name": "cem", "candidates": 100, "elites": 20, "iterations": 5},
    loop={"warmup_steps": 1000, "fit_every": 250},
)
def build(config: Experiment, env: Environment) -> Parts:
    """LOOP: model-predictive control with a learned terminal value and candidates from the policy."""
    assert config.imagination is not None
    cfg: LOOPConfig = config.imagination.config
    spec, loop = spec_of(config, env), config.loop
    agent, buffer = make_replaying_agent(config, spec), ReplayBuffer(loop.buffer_size, spec)
    model, planner = learned_model(config, env), make_planner(config, spec)
    # Paper: the policy's candidates are drawn anew in every iteration of CEM; here: once per plan, each played out under its own particle
    propose = policy_proposals(agent.sample, model, cfg.proposals, cfg.horizon) if cfg.proposals else None
    mpc = MPCConfig(cfg.horizon, cfg.particles, cfg.replan_every, config.gamma, cfg.noise, cfg.mode)

    def actor_for(other: Environment) -> MPC:
        return MPC(spec, planner, model, mpc, terminal_value=agent.value if cfg.value else None, propose=propose)

    actor = actor_for(env)
    parts = Parts(actor, buffer, actor_for, stateful={"buffer": buffer, "agent": agent, "actor": actor})
    updates = updates_on(real_data(config, buffer, agent), agent, config)
    parts.hooks = [*parts.adopt(model, config), updates, WatchPlans(actor, loop)]
    return parts
