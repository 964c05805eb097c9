"""Agents by name: a learner with its prior, made for an experiment."""

from typing import Any

from mbkit import registry
from mbkit.agents.prior import PriorConfig
from mbkit.config import Part
from mbkit.errors import UserError
from mbkit.loops import refuse_oversized
from mbkit.recipes.priors import prior_of_run
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Learner, PolicyObjective, TargetFn, TrajectoryLearner


def make_learner(part: Part, spec: EnvSpec, gamma: float, target: TargetFn = one_step, objective: PolicyObjective | None = None) -> Learner:
    """The learner from transitions that `part` names; UserError where a plug-in's lacks a method, or where it takes no objective."""
    if objective is not None and not getattr(registry.agents[part.name].target, "takes_objective", False):
        takers = ", ".join(sorted(entry.name for entry in registry.agents if getattr(entry.target, "takes_objective", False)))
        raise UserError(f"agent {part.name!r} takes no objective for its policy; expected one of {takers}")
    agent = made(part, (spec, part.config, gamma, target, *(() if objective is None else (objective,))), spec)
    if not isinstance(agent, Learner):
        raise UserError(f"agent {part.name!r} does not learn from batches of transitions: it lacks a method of mbkit.types.Learner")
    return agent


def make_trajectory_learner(part: Part, spec: EnvSpec, gamma: float) -> TrajectoryLearner:
    """The learner from trajectories that `part` names; UserError where a plug-in's lacks a method."""
    agent = made(part, (spec, part.config, gamma), spec)
    if not isinstance(agent, TrajectoryLearner):
        raise UserError(f"agent {part.name!r} does not learn from trajectories: it lacks a method of mbkit.types.TrajectoryLearner")
    return agent


def made(part: Part, arguments: tuple[Any, ...], spec: EnvSpec) -> Any:
    """The agent's class called with `arguments`, and with the policy of a run where that is its prior."""
    prior = prior_of_run(part.config, spec) if isinstance(part.config, PriorConfig) else None
    with refuse_oversized(f"agent {part.name!r} (agent.hidden={list(getattr(part.config, 'hidden', ()))})"):
        return registry.agents[part.name].target(*arguments, **({} if prior is None else {"prior": prior}))
