"""PETS: probabilistic ensemble, trajectory sampling, MPC (Chua et al. 2018, arXiv:1805.12114)."""

from collections.abc import Callable
from dataclasses import replace

from mbkit.config import PlanLoop
from mbkit.imagination.pessimism import Penalized
from mbkit.loops import PlanScores
from mbkit.planning.mpc import MPC, MPCConfig
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.distill import DistillConfig, distil
from mbkit.recipes.measures import measure
from mbkit.registry import recipes
from mbkit.types import Dynamics, Learnable


@recipes.register(
    "pets",
    MPCConfig,
    loop=PlanLoop,
    imagination=DistillConfig,
    defaults={"env": "cartpole", "steps": 3000, "gamma": 1.0, "dynamics": {"name": "ensemble"}, "planner": {"name": "icem"}},
)
def build(x: Assembly[PlanLoop], cfg: MPCConfig) -> None:
    """PETS: a probabilistic ensemble, trajectory sampling and model-predictive control."""
    if x.part("dynamics").name == "mujoco":
        cfg = replace(cfg, particles=1)  # the true model is deterministic: more particles would be the same one
    dynamics_for, planner, spec, gamma = x.dynamics_for(), x.planner(), x.spec, x.experiment.gamma
    judged = penalized(x, cfg)
    actor = x.acts(lambda env: MPC(spec, planner, judged(dynamics_for(env)), cfg, gamma))
    model = actor.dynamics.model if isinstance(actor.dynamics, Penalized) else actor.dynamics
    if isinstance(model, Learnable):  # the true model is not fitted
        x.at_each_fit(model)
    x.every_step(PlanScores(actor, x.loop))
    distil(x, x.part("imagination").config, actor)


def penalized(x: Assembly[PlanLoop], cfg: MPCConfig) -> Callable[[Dynamics], Dynamics]:
    """A model as plans see it: itself, or with rewards less the penalty of `agent.measure`."""
    if cfg.penalty == 0:
        return lambda model: model
    u = measure(cfg.measure, "agent.measure", x.part("dynamics"))
    return lambda model: Penalized(model, u, cfg.penalty)
