"""Dynamics by name: a model of the experiment's task, learned or true."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mbkit import registry
from mbkit.accelerate import same_random_numbers
from mbkit.config import Experiment, OfflineLoop, Part
from mbkit.errors import UserError
from mbkit.loops import refuse_oversized
from mbkit.types import Dynamics, EnvSpec, Learnable, LearnedDynamics

if TYPE_CHECKING:  # options are checked before a simulator is imported
    from mbkit.envs import Environment


def make_dynamics(experiment: Experiment, part: Part, spec: EnvSpec) -> Any:
    """The model that `part` names, over the experiment's observations and actions."""
    from mbkit.envs import task_knowledge

    cfg = part.config
    reward, termination = (  # a plug-in's configuration need not have them
        experiment.objects.get(f"dynamics.{name}", getattr(cfg, name, "auto")) for name in ("reward", "termination")
    )
    task = task_knowledge(experiment.env, spec, experiment.env_kwargs, reward, termination)
    with refuse_oversized(f"dynamics {part.name!r} (dynamics.hidden={getattr(cfg, 'hidden', None)})"):
        return registry.dynamics[part.name].target(spec, cfg, task)


def dynamics_for(experiment: Experiment, part: Part, spec: EnvSpec) -> "Callable[[Environment], Dynamics]":
    """Environment -> the dynamics that plans for it: one shared model, or, by dynamics=mujoco, that very environment's own physics."""
    if part.name == "mujoco":
        return lambda env: registry.dynamics[part.name].target(env, part.config)  # type: ignore[no-any-return]
    model: Dynamics = make_dynamics(experiment, part, spec)
    return lambda env: model


def make_learned(experiment: Experiment, part: Part, spec: EnvSpec) -> LearnedDynamics:
    """The one model behind all model steps; making it spends none of the run's random numbers.

    Raises:
        UserError: a dynamics that cannot start from any state (`mujoco`), lacks a method, or has other dimensions than the environment.
    """
    if part.name == "mujoco":
        raise UserError(f"{experiment.algo} needs a model that can start from any state; dynamics=mujoco only plans, choose ensemble")
    with same_random_numbers():
        model = make_dynamics(experiment, part, spec)
    if not isinstance(model, LearnedDynamics):
        raise UserError(f"dynamics {part.name!r} lacks a method of mbkit.types.LearnedDynamics, which {experiment.algo} needs")
    other: EnvSpec = getattr(model, "spec", spec)
    if other._replace(device=spec.device) != spec:
        has, wants = (f"{s.obs_dim} observations and {in_words(s)}" for s in (other, spec))
        raise UserError(f"dynamics {part.name!r} has {has}; the agent expects {wants}")
    return model


def in_words(spec: EnvSpec) -> str:
    """The actions of a specification, for messages."""
    several = f" in parts of {', '.join(map(str, spec.parts))}" if spec.parts else ""
    return f"{spec.action_dim} {'discrete ' * spec.discrete}actions{several}"


def check_learned(experiment: Experiment, model: object) -> None:
    """UserError where a model would be used before it learned anything: it is neither loaded, nor fitted when the warm-up ends."""
    loop, part = experiment.loop, experiment.dynamics
    if isinstance(loop, OfflineLoop) or part is None or not isinstance(model, Learnable) or getattr(part.config, "load", None) is not None:
        return
    if not (loop.fit and loop.warmup_steps >= 2):
        came = f"loop.fit={str(loop.fit).lower()} and loop.warmup_steps={loop.warmup_steps}"
        instead = ", or dynamics.load" if hasattr(part.config, "load") else ""
        raise UserError(
            f"{came}: {experiment.algo} would use a model that learned nothing; expected loop.fit=true and loop.warmup_steps >= 2{instead}"
        )


def model_notes(experiment: Experiment, part: Part) -> list[str]:
    """What the user should know of the model: that its reward is learned, or that its episodes never terminate."""
    from mbkit.envs import knowledge_notes

    reward, termination = getattr(part.config, "reward", ""), getattr(part.config, "termination", "")
    return knowledge_notes(experiment.env, experiment.env_kwargs, reward, termination, part.name == "ensemble")
