"""What a recipe puts together for a run: the actor, what is stored, what happens after each step, and what a checkpoint holds."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

from mbkit import registry
from mbkit.agents.base import LearningAgent
from mbkit.agents.critics import distributions_of, normalized_inputs
from mbkit.agents.distilled import DistilledPolicy
from mbkit.config import Experiment, OfflineLoop, OnlineLoop, Part
from mbkit.loops import Hook, ModelFits, ObsStatistics, Online, ReturnScale, Until, Updates
from mbkit.loops.resets import Resets
from mbkit.loops.traffic import Packed
from mbkit.recipes.agents import make_learner, make_trajectory_learner
from mbkit.recipes.models import dynamics_for, make_learned, model_notes
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.replay.n_step import NStep
from mbkit.replay.recorded import RecordedRows
from mbkit.targets import one_step
from mbkit.types import (
    Actor,
    Dynamics,
    EnvSpec,
    Learnable,
    LearnedDynamics,
    Learner,
    PolicyObjective,
    Source,
    Stateful,
    Store,
    TargetFn,
    TrajectoryLearner,
)

if TYPE_CHECKING:  # options are checked before a simulator is imported
    from mbkit.envs import Environment

A = TypeVar("A", bound=Actor)
L = TypeVar("L", bound=OnlineLoop | OfflineLoop)
S = TypeVar("S", bound=Store)


class OfflineData(Protocol):
    """The data set of an offline run, read when its rows are asked for."""

    spec: EnvSpec

    @property
    def present(self) -> bool: ...  # noqa: D102  # whether its rows can be read; an agent acts without them
    @property
    def has_reward(self) -> bool: ...  # noqa: D102  # whether its rows have rewards
    def rows(self, spec: EnvSpec) -> RecordedRows: ...  # noqa: D102


class Greedy:
    """An agent without exploration, for evaluation: it shares the networks and leaves the agent's own episodes alone."""

    def __init__(self, agent: Actor) -> None:
        self.agent = agent

    def act(self, obs: Tensor, explore: bool = False) -> Tensor:
        """obs [M, O] -> [M, A]."""
        return self.agent.act(obs, explore=False)

    def reset(self, mask: Tensor) -> None:
        """Nothing depends on the episode."""


class Assembly(Generic[L]):
    """The parts of a run, made from an experiment by a recipe; `L` is the class of its loop options.

    A recipe asks for the experiment's parts (`agent`, `model`, `planner`, `replay`) and says what happens (`acts`, `every_step`,
    `at_each_fit`); what it asks for is stored in checkpoints, and what it makes itself it hands to `keep`.
    """

    actor: Actor  # acts in training
    actor_for: "Callable[[Environment], Actor]"  # a fresh actor with the same learned parts, for evaluation and video

    def __init__(self, experiment: Experiment, env: "Environment | None", data: OfflineData | None = None) -> None:
        if env is None and data is None:
            raise TypeError("a run learns in an environment or from a data set; expected at least one of the two")
        self.experiment, self._env, self.data = experiment, env, data
        self.loop: L = experiment.loop
        spec = env.spec if env is not None else cast("OfflineData", data).spec
        self.spec = spec._replace(device=torch.device(experiment.device))  # dimensions, and the device of networks and replay
        self.hooks: list[Hook] = []
        self.starts: list[Callable[[], None]] = []  # called in this order when a new run starts, before its first step
        self.stateful: dict[str, Stateful] = {}
        self.dynamics: Any = None  # the learned model, for diagnostics and dynamics.pt
        self.distilled: DistilledPolicy | None = None  # the policy that learns from executed plans
        self.notes: list[str] = []  # what the user should know, told when the run ends
        self._store: Store | None = None

    def part(self, group: str) -> Part:
        """What stands in a group of the experiment; the registry entry of the recipe has a default for each group it uses."""
        part = getattr(self.experiment, group)
        if not isinstance(part, Part):
            raise TypeError(f"the recipe {self.experiment.algo!r} uses {group}, for which its registry entry has no default")
        return part

    # --- parts --------------------------------------------------------------------------------------------------------------------

    @cached_property
    def replay(self) -> ReplayBuffer:
        """The replay buffer, which the loop fills unless the recipe says otherwise."""
        return self.stores(ReplayBuffer(self.experiment.loop.buffer_size, self.spec))

    @property
    def env(self) -> "Environment":
        """The environments of training; an offline run has none."""
        if self._env is None:
            raise TypeError(f"the recipe {self.experiment.algo!r} uses an environment, which a run on a data set does not have")
        return self._env

    @cached_property
    def recorded(self) -> RecordedRows:
        """The data set of an offline run, on the device; no part of a checkpoint."""
        if self.data is None:
            raise TypeError(f"the recipe {self.experiment.algo!r} uses a data set, which an online run does not have")
        return self.data.rows(self.spec)

    @property
    def has_rows(self) -> bool:
        """Whether there is a data set whose rows can be read; a run that only acts needs none."""
        return self.data is not None and self.data.present

    @property
    def has_reward(self) -> bool:
        """Whether there is a data set with rewards."""
        return self.data is not None and self.data.has_reward

    @property
    def store(self) -> Store:
        """Where the loop puts what happened."""
        return self.replay if self._store is None else self._store

    def agent(self, target: TargetFn = one_step, objective: PolicyObjective | None = None) -> Learner:
        """The experiment's agent, which acts from now on; its critics are regressed on `target`, its policy ascends `objective`."""
        agent = make_learner(self.part("agent"), self.spec, self.experiment.gamma, target, objective)
        self._acts(agent)
        if self.experiment.continues is None and self.data is None and normalized_inputs(self.part("agent").config):
            self.every_step(ObsStatistics(agent, self.replay, self.experiment.loop.warmup_steps))
        if self.data is None and (outputs := distributions_of(agent)) is not None:
            continues, factor = self.experiment.continues is not None, getattr(agent, "reward_factor", None)
            returns = ReturnScale(outputs, self.experiment.gamma, factor, continues)
            self.keep(return_scale=returns)
            self.every_step(returns)
        return agent

    def trajectory_agent(self) -> TrajectoryLearner:
        """The experiment's learner from trajectories, which acts from now on."""
        agent = make_trajectory_learner(self.part("agent"), self.spec, self.experiment.gamma)
        self._acts(agent)
        return agent

    def _acts(self, agent: Learner | TrajectoryLearner) -> None:
        self.actor, self.actor_for = agent, lambda env: Greedy(agent)
        self.keep(agent=agent)

    def real_data(self, agent: Learner) -> Source:
        """The replayed transitions that the agent learns from: one-step rows, or n-step sums with the bonus of its soft backups."""
        n = self.experiment.loop.n_step
        return self.replay if n == 1 else NStep(self.replay, n, self.experiment.gamma, getattr(agent, "path_bonus", None))

    def updates(self, agent: Learner, source: Source, rate: float | None = None, prefix: str = "") -> Updates:
        """The hook that updates the agent on batches of `source`; see `Updates`. Schedules of offline agents end with their data set.

        Those of learners from trajectories are their own.
        """
        part, gamma, lines = self.part("agent"), self.experiment.gamma, getattr(agent, "lines", {})
        steps = 0 if self._env is not None and not lines else self.experiment.steps
        updates = Updates(part.name, agent, source, self.experiment.loop, self.spec.device, rate, prefix, steps)
        every, target = getattr(part.config, "reset_every", None), getattr(agent, "target", one_step)
        if every is not None and not prefix:
            fresh = lambda: cast("LearningAgent", make_learner(part, self.spec, gamma, target))  # noqa: E731
            updates.resets = Resets(cast("LearningAgent", agent), every, fresh)
        return updates

    def model(self) -> LearnedDynamics:
        """The experiment's model, which can start from any state."""
        return make_learned(self.experiment, self.part("dynamics"), self.spec)

    def dynamics_for(self) -> "Callable[[Environment], Dynamics]":
        """Environment -> the dynamics that plans for it, learned or true."""
        return dynamics_for(self.experiment, self.part("dynamics"), self.spec)

    def planner(self) -> Any:
        """The experiment's planner."""
        part = self.part("planner")
        return registry.planners[part.name].target(self.spec, part.config)

    def model_buffer(self, rows: int, memory_gb: float, retain: str, weighted: bool = False) -> ModelBuffer:
        """A buffer of the `rows` model transitions that the option `retain` asks for, or as many as `memory_gb` allows; notes its size."""
        buffer = ModelBuffer(rows, self.spec, memory_gb, weighted)
        every, size = self.experiment.checkpoint.every, f"{buffer.capacity} rows of {buffer.row_bytes} bytes, {buffer.gigabytes:.2g} GB"
        short = f" imagination.memory_gb keeps it from the {rows} rows that {retain} asks for." * (buffer.capacity < rows)
        self.notes.append(f"The model buffer holds at most {size}, and so does every checkpoint (checkpoint.every={every}).{short}")
        self.keep(model_buffer=buffer)
        return buffer

    # --- what happens -------------------------------------------------------------------------------------------------------------

    def acts(self, make: "Callable[[Environment], A]") -> A:
        """The actor that `make` builds for an environment acts from now on, and one of its own in every evaluation."""
        actor = make(self.env)
        self.actor, self.actor_for = actor, make
        if isinstance(actor, Stateful):
            self.keep(actor=actor)
        return actor

    def stores(self, store: S) -> S:
        """The loop puts what happened into `store`."""
        self._store = store
        self.keep(buffer=store)
        return store

    def online(self) -> Online:
        """The online loop of the actor and the store; what travels between it and a GPU is packed."""
        actor, store, device, traffic = self.actor, self.store, self.spec.device, None
        if device.type == "cuda":
            traffic = Packed(actor, store, self.env.num_envs, self.spec.obs_dim, device, getattr(self.loop, "mode", "auto"))
        return Online(self.env, actor, store, getattr(self.loop, "warmup_steps", 0), traffic)

    def every_step(self, *hooks: Hook) -> None:
        """These hooks are called after every step, in the order in which they were added."""
        self.hooks += hooks

    def at_each_fit(self, model: Learnable, first: Sequence[Hook] = (), then: Sequence[Hook] = (), until: int | None = None) -> None:
        """The model is fitted to the replay at its cadence, up to the step `until`; `first` is called before each fit, `then` after it."""
        self.dynamics = model
        if isinstance(model, Stateful):
            self.keep(dynamics=model)
        self.notes += model_notes(self.experiment, self.part("dynamics"))
        fits = ModelFits(model, self.replay, self.experiment.loop, first, then)
        self.every_step(fits if until is None else Until(until, [fits], []))

    def at_start(self, *calls: Callable[[], None]) -> None:
        """These are called once, before the first step of a new run; what they find out must be part of a checkpoint."""
        self.starts += calls

    def keep(self, **parts: Stateful) -> None:
        """These go into every checkpoint."""
        self.stateful |= parts
