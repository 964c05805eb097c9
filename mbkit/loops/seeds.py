"""Several seeds of one experiment side by side: each steps its own environment, their agents are updated together.

Letters: S seeds, B batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import cast

import torch

from mbkit.agents.base import LearningAgent
from mbkit.agents.stacked import stacked
from mbkit.errors import UserError
from mbkit.loops.clock import Clock, Hook
from mbkit.loops.updates import Updates
from mbkit.networks.form import PLAIN, CriticForm
from mbkit.streams import Stream, drawn_from
from mbkit.targets import one_step
from mbkit.types import Learner, Source, Transition

STACKABLE = "ddpg, td3, sac, dqn, double_dqn, and mbpo, mba, dyna or loop with them"  # what can learn several seeds at once, for messages


class StackedSources:
    """A source for each seed; a batch [S, B, ...] holds one of each, drawn from the seed's own random numbers."""

    def __init__(self, sources: Sequence[Source], streams: Sequence[Stream]) -> None:
        self.sources, self.streams = sources, streams

    def sample(self, n: int) -> Transition:
        """n rows of every seed."""
        batches = []
        for source, stream in zip(self.sources, self.streams, strict=True):
            with drawn_from(()), stream.torch():
                batches.append(source.sample(n))
        obs, action, reward, next_obs, discount = (torch.stack(column) for column in zip(*(batch[:5] for batch in batches), strict=True))
        weights = [batch.weight for batch in batches if batch.weight is not None]
        weight = torch.stack(weights) if weights else None
        return Transition(obs, action, reward, next_obs, discount, weight=weight)  # none of the agents asks which rows are recorded


class SeedUpdates:
    """The hooks `Updates` of S seeds as one, on their agents stacked.

    Whatever the seeds draw comes from their own streams, so that each learns what it would have learned alone, but for rounding. On a GPU
    they draw from one random state.
    """

    def __init__(
        self,
        updates: Sequence[Updates],
        agents: Sequence[LearningAgent],
        agent: LearningAgent,
        streams: Sequence[Stream],
        seeds: Sequence[int],
    ) -> None:
        first, self.each, self.agents, self.agent, self.streams, self.seeds = updates[0], updates, agents, agent, streams, seeds
        source, device = StackedSources([u.source for u in updates], streams), next(agent.parameters()).device
        self.together = Updates(
            first.name, cast("Learner", self.agent), source, first.cfg, device, first.cadence.rate, first.prefix, first.steps
        )

    def __call__(self, clocks: Sequence[Clock]) -> None:
        """Updates of all seeds, as often as is due; each seed's metrics go to its own recorder."""
        if not (count := self.together.due(clocks[0])):
            return
        began = perf_counter()
        with drawn_from(self.streams):
            values = self.together.make(count, clocks[0])
        rate = count / (perf_counter() - began)
        by_seed = zip(*(value.unbind() for value in values), strict=True)
        for seed, clock, update, agent, theirs in zip(self.seeds, clocks, self.each, self.agents, by_seed, strict=True):
            agent.count, update.names = self.agent.count, self.together.names
            with naming(seed):
                update.record(clock, theirs, rate)


@contextmanager
def naming(seed: int) -> Iterator[None]:
    """An error of one of several seeds says which one it is."""
    try:
        yield
    except UserError as error:
        error.args = (f"seed {seed}: {error}",)
        raise


def stackable(updates: Updates) -> LearningAgent:
    """The agent of these updates; UserError where it cannot be updated together with other seeds of it."""
    agent, cfg = updates.agent, getattr(updates.agent, "cfg", None)
    if not (isinstance(agent, LearningAgent) and agent.stackable):
        raise UserError(f"agent {updates.name!r} learns one seed at a time: seed=N; several at once have {STACKABLE}")
    if agent.target is not one_step or getattr(agent, "objective", None) is not None:
        raise UserError("targets of a model belong to one seed; expected seed=N, or an agent without imagination")
    for option, usual in (("dropout", 0.0), ("normalize_obs", False), ("reset_every", None)):
        came = getattr(cfg, option, usual)
        if came != usual:
            raise UserError(f"agent.{option}={came} is not there for several seeds at once; expected {usual}, or one seed=N")
    form: CriticForm = getattr(cfg, "critic_form", PLAIN)
    if form.critic not in ("mlp", "layer_norm") or form.loss not in ("mse", "huber"):
        came = f"agent.critic={form.critic}, agent.loss={form.loss}"
        raise UserError(f"{came} is not there for several seeds at once; expected mlp or layer_norm with mse or huber, or one seed=N")
    return agent


def advance(clock: Clock) -> None:
    """The hook before all others: one stride of the clock itself."""
    clock.advance()


class SideBySide:
    """Advances the clocks of S seeds a stride at a time and calls their hooks, each under the seed's own random numbers.

    Args:
        clocks: of the seeds, all at the same step.
        hooks: of every seed, in the same order; `Updates` at the same place are made together.
        streams: of the seeds.
        seeds: their numbers, for errors.

    Raises:
        UserError: agents that cannot be updated together.
    """

    def __init__(self, clocks: Sequence[Clock], hooks: Sequence[Sequence[Hook]], streams: Sequence[Stream], seeds: Sequence[int]) -> None:
        self.clocks, self.streams, self.seeds = clocks, streams, seeds
        self.together: dict[LearningAgent, LearningAgent] = {}  # of each of the first seed's agents: that of all seeds
        self.phases: list[SeedUpdates | list[list[Hook]]] = []  # of a stride: updates together, or the hooks of each seed
        for place in zip(*([advance, *each] for each in hooks), strict=True):
            if isinstance(place[0], Updates):
                self.phases.append(self.joined([hook for hook in place if isinstance(hook, Updates)]))
                continue
            if not self.phases or isinstance(self.phases[-1], SeedUpdates):
                self.phases.append([[] for _ in clocks])
            for each, hook in zip(cast("list[list[Hook]]", self.phases[-1]), place, strict=True):
                each.append(hook)

    def joined(self, updates: Sequence[Updates]) -> SeedUpdates:
        """The updates of all seeds as one. Several kinds of updates of an agent, as in Dyna, are those of one stacked agent."""
        agents = [stackable(each) for each in updates]
        if agents[0] not in self.together:
            self.together[agents[0]] = stacked(agents)
        return SeedUpdates(updates, agents, self.together[agents[0]], self.streams, self.seeds)

    @property
    def joint(self) -> bool:
        """Whether there are updates that are made together."""
        return any(isinstance(phase, SeedUpdates) for phase in self.phases)

    def run(self, until: int) -> None:
        """Go on until `until` steps, or until the first clock's `stop()` after a whole stride."""
        while self.clocks[0].step < until and not self.clocks[0].stop():
            for phase in self.phases:
                if isinstance(phase, SeedUpdates):
                    phase(self.clocks)
                    continue
                for seed, clock, hooks, stream in zip(self.seeds, self.clocks, phase, self.streams, strict=True):
                    with naming(seed), stream.active():
                        for hook in hooks:
                            hook(clock)
