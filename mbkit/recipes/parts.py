"""What a recipe hands to a run, and how the parts that recipes share are made from names."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mbkit import registry
from mbkit.accelerate import rng_state, set_rng_state
from mbkit.agents.prior import policy_of
from mbkit.config import Experiment, Part, from_dict, read_yaml
from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.mbrl import dynamics as mbrl
from mbkit.dynamics.mujoco.dynamics import MujocoDynamics
from mbkit.envs import Environment, known
from mbkit.errors import UserError
from mbkit.loops import FitModel, Hook, Updates, enough_room
from mbkit.recording import load_checkpoint
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.targets import one_step
from mbkit.types import Actor, Dynamics, EnvSpec, Learnable, Learner, RewardFn, Source, Stateful, TargetFn, TerminationFn, TrajectoryLearner


@dataclass
class Parts:
    """Who acts, what is remembered, who learns after each step, and what a checkpoint holds."""

    actor: Actor
    buffer: Any  # what the loop stores steps in: a ReplayBuffer, or a TrajectoryBuffer for who learns from whole trajectories
    actor_for: Callable[[Environment], Actor]  # a fresh actor with the same learned parts, for evaluation and video
    hooks: list[Hook] = field(default_factory=list)
    stateful: dict[str, Stateful] = field(default_factory=dict)
    dynamics: Any = None  # the learned model, for diagnostics and dynamics.pt
    notes: list[str] = field(default_factory=list)  # what the user should know: why a reward is learned, for example

    def adopt(self, model: Any, config: Experiment) -> list[Hook]:
        """Take in the learned model, diagnosed and checkpointed from now on; returns the hook that fits it, none without loop.fit."""
        self.dynamics = self.stateful["dynamics"] = model
        self.notes += model_notes(config)
        return [FitModel(model, self.buffer, config.loop)] if config.loop.fit else []


def spec_of(config: Experiment, env: Environment) -> EnvSpec:
    """What agents and models are told: the environment's dimensions, on the experiment's device."""
    return env.spec._replace(device=torch.device(config.device))


class Greedy:
    """An agent without exploration, for evaluation: it shares the networks and leaves the agent's own episodes alone."""

    def __init__(self, agent: Learner | TrajectoryLearner) -> None:
        self.agent = agent

    def act(self, obs: Tensor, explore: bool = False) -> Tensor:
        """obs [M, O] -> [M, A]."""
        return self.agent.act(obs, explore=False)

    def reset(self, mask: Tensor) -> None:
        """Remembers nothing, so nothing to forget."""


def is_trajectory_learner(made_for: type) -> bool:
    """Whether a class learns from trajectories, by the methods that it has."""
    return all(hasattr(made_for, name) for name in ("log_prob", "anneal", "replays"))


def room_for_agent(part: Part) -> AbstractContextManager[None]:
    """Inside, a network larger than the memory is the user's mistake."""
    return enough_room(f"agent {part.name!r} (agent.hidden={list(getattr(part.config, 'hidden', ()))})")


def make_agent(config: Experiment, spec: EnvSpec, target: TargetFn = one_step) -> Learner:
    """The learner from transitions that stands in the experiment."""
    assert config.agent is not None  # the registry entry has a default
    made_for = registry.agents[config.agent.name].target
    if is_trajectory_learner(made_for):
        other = "dqn" if spec.discrete else "sac"
        raise UserError(
            f"agent {config.agent.name!r} learns from whole trajectories, but {config.algo} offers transitions; e.g. agent={other}"
        )
    prior = prior_of_run(config.agent, spec)
    with room_for_agent(config.agent):
        made = made_for(spec, config.agent.config, config.gamma, target, **prior)
    if not isinstance(made, Learner):
        raise UserError(f"agent {config.agent.name!r} does not learn from batches of transitions, which {config.algo} needs")
    return made


def prior_of_run(part: Part, spec: EnvSpec) -> dict[str, Any]:
    """Where `agent.prior` is the directory of a run: its agent's policy as it stood at the last checkpoint, for the constructor.

    Raises:
        UserError: no run there, one with other dimensions, or one whose policy has no probabilities.
    """
    name = getattr(part.config, "prior", None)
    if not isinstance(name, str) or ":" in name or not Path(name).is_dir():
        return {}
    file, before = Path(name) / "config.yaml", rng_state()
    if not file.is_file():
        raise UserError(f"agent.prior={name}: expected the directory of a run; it has no config.yaml")
    try:
        run = from_dict(read_yaml(file.read_text(), str(file)))
        if run.agent is None:
            raise UserError(f"{run.algo} learns no policy")
        _, state = load_checkpoint(Path(name) / "checkpoint")
        made_for, config = registry.agents[run.agent.name].target, run.agent.config
        arguments = (spec, config, run.gamma) if is_trajectory_learner(made_for) else (spec, config, run.gamma, one_step)
        agent = made_for(*arguments, **prior_of_run(run.agent, spec))
        saved = state["parts"]["agent"]
        if any(isinstance(x, Tensor) and k in saved and saved[k].shape != x.shape for k, x in agent.state_dict().items()):
            raise UserError(f"its networks were made for other dimensions, those of {run.env}")
        agent.load_state_dict(saved)
        policy = policy_of(agent, spec.discrete)
    except (UserError, KeyError, RuntimeError) as error:
        here = f"{spec.obs_dim} observations and {spec.action_dim} {'choices' if spec.discrete else 'action dimensions'}"
        raise UserError(f"agent.prior={name} can be no prior of {here}: {str(error).splitlines()[0]}") from error
    set_rng_state(before)  # making it spends none of the run's random numbers
    return {"prior": policy}


def make_replaying_agent(config: Experiment, spec: EnvSpec, target: TargetFn = one_step) -> Learner:
    """The same, and it may be updated on old and on imagined transitions; UserError where it learns on-policy."""
    made, name = make_agent(config, spec, target), config.agent.name if config.agent else ""
    if getattr(made, "on_policy", False):
        raise UserError(f"{name} learns on-policy, but {config.algo} replays transitions; expected another, e.g. agent=sac")
    return made


def acting(agent: Learner, config: Experiment, spec: EnvSpec) -> Parts:
    """An agent that acts itself and remembers what comes of it."""
    buffer = ReplayBuffer(config.loop.buffer_size, spec)
    return Parts(agent, buffer, lambda other: Greedy(agent), stateful={"buffer": buffer, "agent": agent})


def updates_on(source: Source, agent: Learner, config: Experiment, rate: float | None = None) -> Updates:
    """The hook that updates the agent on batches of `source`."""
    assert config.agent is not None  # the registry entry has a default
    return Updates(agent, source, config.loop, torch.device(config.device), config.agent.name, rate)


def real_data(config: Experiment, buffer: ReplayBuffer, agent: Learner) -> Source:
    """What an agent draws real transitions from: one-step rows, or n-step sums of them, with what its soft backups pay on the way."""
    if config.loop.n_step == 1:
        return buffer
    return NStep(buffer, config.loop.n_step, config.gamma, getattr(agent, "path_bonus", None))


def make_planner(config: Experiment, spec: EnvSpec) -> Any:
    """The planner that stands in the experiment."""
    assert config.planner is not None  # the recipe's registry entry has a default
    return registry.planners[config.planner.name].target(spec, config.planner.config)


def make_dynamics(config: Experiment, env: Environment) -> Callable[[Environment], Dynamics]:
    """Environment -> the dynamics that plans for it: one shared learned model, or that very environment's own physics."""
    assert config.dynamics is not None  # the recipe's registry entry has a default
    name, cfg = config.dynamics
    if name == "mujoco":
        return lambda other: MujocoDynamics(other, cfg)
    reward, termination = reward_and_termination(config, env.spec)
    spec, processing = spec_of(config, env), (known.preprocess(config.env), known.absolute_dims(config.env))
    model: Any
    with enough_room(f"dynamics {name!r} (dynamics.hidden={getattr(cfg, 'hidden', None)})"):
        if name == "ensemble":
            model = Ensemble(spec, cfg if cfg.load is None else files.config(cfg.load, cfg), reward, termination, *processing)
            if cfg.load is not None:
                model.load(cfg.load)
        elif name == "mbrl":
            given = (reward, termination, *processing)
            model = mbrl.build(spec, cfg, *given) if cfg.load is None else mbrl.load(cfg.load, spec, cfg, *given)
        else:  # a user's own, from an entry point
            model = registry.dynamics[name].target(spec, cfg, reward, termination)
    return lambda other: model


def learned_model(config: Experiment, env: Environment) -> Any:
    """The one model that all imagine with; making it spends none of the run's random numbers.

    Raises:
        UserError: the dynamics is not one that a single object stands for (`mujoco` belongs to one environment each), or has
            other dimensions than the environment.
    """
    assert config.dynamics is not None
    if config.dynamics.name == "mujoco":
        raise UserError(f"{config.algo} imagines with a model that can start from any state; dynamics=mujoco only plans, choose ensemble")
    before = rng_state()
    model = make_dynamics(config, env)(env)
    set_rng_state(before)
    own: EnvSpec = getattr(model, "spec", env.spec)
    if (own.obs_dim, own.action_dim, own.discrete) != (env.spec.obs_dim, env.spec.action_dim, env.spec.discrete):
        has, wants = (f"{s.obs_dim} observations and {s.action_dim} {'discrete ' * s.discrete}actions" for s in (own, env.spec))
        raise UserError(f"dynamics {config.dynamics.name!r} has {has}; the agent expects {wants}")
    return model


def check_learned(config: Experiment, model: Any) -> None:
    """UserError where a model would be asked before it learned anything: it is neither loaded, nor fitted when the warm-up ends."""
    loop, part = config.loop, config.dynamics
    if part is None or not isinstance(model, Learnable) or getattr(part.config, "load", None) is not None:
        return
    if not (loop.fit and loop.warmup_steps >= 2):
        came = f"loop.fit={str(loop.fit).lower()} and loop.warmup_steps={loop.warmup_steps}"
        instead = ", or dynamics.load" if hasattr(part.config, "load") else ""
        raise UserError(
            f"{came}: {config.algo} would ask a model that learned nothing; expected loop.fit=true and loop.warmup_steps >= 2{instead}"
        )


def check_branches(config: Experiment) -> None:
    """UserError where a recipe with rollouts of its own would make none, or none before the agent's first update."""
    for name, value in (("fit_every", config.loop.fit_every), ("warmup_steps", config.loop.warmup_steps)):
        if value < 1:
            raise UserError(
                f"loop.{name}={value}: {config.algo} imagines when the warm-up ends and every loop.fit_every steps, expected at least 1"
            )


def reward_and_termination(config: Experiment, spec: EnvSpec) -> tuple[RewardFn | None, TerminationFn | None]:
    """The functions a model is given; None for a reward: it is learned; None for a termination: learned, or there is none."""
    assert config.dynamics is not None
    cfg = config.dynamics.config
    reward, termination = getattr(cfg, "reward", "auto"), getattr(cfg, "termination", "auto")
    if reward == "auto":
        reward_fn = known.reward_fn(config.env, config.env_kwargs)
    else:
        reward_fn = None if reward == "learned" else own_function(reward, spec, "reward")
    if termination == "auto":
        return reward_fn, known.termination_fn(config.env, config.env_kwargs)
    return reward_fn, None if termination in ("learned", "never") else own_function(termination, spec, "termination")


def own_function(path: str, spec: EnvSpec, kind: Literal["reward", "termination"]) -> Any:
    """A function of the user's, tried once on zeros."""
    fn = known.load_fn(path)
    known.check_fn(fn, path, spec.obs_dim, spec.action_dim, spec.discrete, kind)
    return fn


def model_notes(config: Experiment) -> list[str]:
    """What the user may not expect of the model: a learned reward, and a termination that nobody knows."""
    cfg = config.dynamics.config if config.dynamics else None
    notes = []
    if getattr(cfg, "reward", None) == "auto" and known.reward_fn(config.env, config.env_kwargs) is None:
        notes.append(known.why_learned(config.env, config.env_kwargs))
    if getattr(cfg, "termination", None) == "auto" and known.termination_fn(config.env, config.env_kwargs) is None:
        how = "; dynamics.termination=learned lets it learn when" if config.dynamics and config.dynamics.name == "ensemble" else ""
        notes.append(f"The model takes it that episodes of {config.env} never terminate{how}.")
    return notes
