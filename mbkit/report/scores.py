"""Final returns of several methods on several environments, on one scale.

A method is the label of groups: the same algorithm and options, whatever the environment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from mbkit.data.scores import scores_of
from mbkit.report.collect import Floats, Group
from mbkit.stats import Interval, improvement_interval, pooled_iqm


@dataclass(frozen=True)
class Scale:
    """Returns of an environment as scores: 0 at `low`, 1 at `high`."""

    low: float
    high: float

    def __call__(self, returns: Floats) -> Floats:
        """Scores of returns [R]."""
        return (returns - self.low) / (self.high - self.low)


RAW = Scale(0.0, 1.0)


@dataclass(frozen=True)
class MethodScores:
    """Final returns of methods: those of one environment as they are, those of several as scores."""

    groups: Sequence[Group]

    @cached_property
    def methods(self) -> dict[str, int]:
        """Label -> index of its colour, of the methods with a finite score."""
        scored = {label for label, _ in self.returns}
        return {group.label: group.index for group in self.groups if group.label in scored}

    @cached_property
    def returns(self) -> dict[tuple[str, str], Floats]:
        """(method, environment) -> returns of the final policies [R], finite ones."""
        table = {(group.label, group.env): np.array([run.final()[0] for run in group.runs]) for group in self.groups}
        finite = {key: values[np.isfinite(values)] for key, values in table.items()}
        return {key: values for key, values in finite.items() if len(values)}

    @property
    def environments(self) -> list[str]:
        """Those with a score."""
        return list(dict.fromkeys(env for _, env in self.returns))

    @cached_property
    def referenced(self) -> bool:
        """Whether the constants of normalised scores are known for all environments."""
        return all(scores_of(env, 0.0, 0.0) for env in self.environments)

    def scale(self, env: str) -> Scale:
        """Of one environment alone returns stay as they are; of several 0 and 1 are a random policy and an expert where these are known
        for all of them, and otherwise the worst and the best run here.
        """
        if len(self.environments) == 1:
            return RAW
        if self.referenced:
            reference = scores_of(env, 0.0, 0.0)[0].reference
            return Scale(reference.low, reference.high)
        pooled = np.concatenate([values for (_, name), values in self.returns.items() if name == env])
        return Scale(float(pooled.min()), float(pooled.max()) if np.ptp(pooled) else float(pooled.min()) + 1.0)

    @property
    def meaning(self) -> str:
        """What a score is, for captions."""
        if len(self.environments) == 1:
            return "Scores are returns of the final policies."
        if self.referenced:
            return "Scores are returns of the final policies, normalised: a random policy has 0, an expert 1."
        return "Scores are returns of the final policies, in each environment 0 for the worst and 1 for the best run of this page."

    def tasks(self, label: str, environments: Sequence[str] | None = None) -> list[Floats]:
        """Scores of a method, a vector [R] for each environment that it was run on."""
        names = self.environments if environments is None else environments
        return [self.scale(env)(self.returns[label, env]) for env in names if (label, env) in self.returns]

    @cached_property
    def aggregates(self) -> dict[str, Interval]:
        """Interquartile mean of each method over all of its runs and environments, best first."""
        intervals = {label: pooled_iqm(self.tasks(label)) for label in self.methods}
        return dict(sorted(intervals.items(), key=lambda item: -item[1].point))

    @cached_property
    def improvement(self) -> dict[tuple[str, str], Interval]:
        """(x, y) -> probability that a run of x scores higher than one of y, averaged over the environments that both were run on."""
        pairs = {}
        for x, y in permutations(self.methods, 2):
            if shared := [env for env in self.environments if (x, env) in self.returns and (y, env) in self.returns]:
                pairs[x, y] = improvement_interval(self.tasks(x, shared), self.tasks(y, shared))
        return pairs

    @property
    def complete(self) -> bool:
        """Whether every method was run on every environment, without which aggregates compare different tasks."""
        return len(self.returns) == len(self.methods) * len(self.environments)
