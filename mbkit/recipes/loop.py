"""LOOP: planning a few steps ahead, with a learned value at the end of the plan (Sikchi et al. 2020, arXiv:2008.10066).

An off-policy actor-critic learns from the planner's steps; its value closes every plan, its policy proposes candidates. TD-MPC
(arXiv:2203.04955) is similar. Short plans alone fail where episodes terminate: a fall that comes only after the horizon looks harmless.
"""

from dataclasses import dataclass

from mbkit.accelerate import Mode
from mbkit.config import ModelLoop
from mbkit.fields import at_least
from mbkit.loops import PlanScores
from mbkit.planning.mpc import MPC, Guide, MPCConfig
from mbkit.planning.objective import policy_proposals
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.distill import DistillConfig, distil
from mbkit.registry import recipes


@dataclass(frozen=True)
class LOOPConfig(DistillConfig):
    """The plan: H model steps, then the agent's value; and a policy that may learn from plans."""

    horizon: int = at_least(3, 1)  # planning horizon H, steps. Paper: 3
    particles: int = at_least(4, 1)  # model rollouts averaged per candidate. Paper: 4
    proposals: int = at_least(5, 0)  # candidates proposed by the policy. Paper: 5 % of 100
    terminal_value: bool = True  # the agent's value at the end of the plan; false: nothing counts after the horizon
    noise: float = at_least(0.1, 0, when="actions=continuous")  # exploration noise, standard deviation on executed actions
    replan_every: int = at_least(1, 1)  # executed actions per plan
    mode: Mode = "auto"  # execution mode; cudagraph, auto on CUDA: the whole plan is one CUDA graph


@recipes.register(
    "loop",
    LOOPConfig,
    loop=ModelLoop,
    defaults={
        "env": "Hopper-v5",
        "steps": 10_000,
        "agent": {"name": "sac"},
        "dynamics": {"name": "ensemble", "reward": "learned"},
        "planner": {"name": "cem", "candidates": 100, "elites": 20, "iterations": 5},
        "loop": {"warmup_steps": 1000, "fit_every": 250},
    },
)
def build(x: Assembly[ModelLoop], cfg: LOOPConfig) -> None:
    """LOOP: model-predictive control with a learned terminal value and candidates from the policy."""
    agent, model, planner, spec, gamma = x.agent(), x.model(), x.planner(), x.spec, x.experiment.gamma
    # Paper: the policy's candidates are drawn anew in every iteration of CEM; here: once per plan, each played out under its own particle
    propose = policy_proposals(agent.sample, model, cfg.proposals, cfg.horizon) if cfg.proposals else None
    guide = Guide(agent.value if cfg.terminal_value else None, propose)
    noise = 0.0 if x.spec.discrete else cfg.noise
    mpc = MPCConfig(cfg.horizon, cfg.particles, cfg.replan_every, noise, mode=cfg.mode)
    actor = x.acts(lambda env: MPC(spec, planner, model, mpc, gamma, guide))
    x.at_each_fit(model)
    x.every_step(x.updates(agent, x.real_data(agent)), PlanScores(actor, x.loop))
    distil(x, cfg, actor)
