"""A search of options by Optuna: trials instead of a list of values, pruned on evaluation returns, in `study.db` of the sweep's directory.

Every combination of the listed options has a study, which maximises the mean of the final returns over the seeds. A trial that was under
way when the sweep was killed goes on from its run directories. The sampler of trial n is seeded with n, so that what a study draws depends
on its earlier trials alone, and not on how often it was interrupted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mbkit.sweep.extras import imported
from mbkit.sweep.following import RunCurve
from mbkit.sweep.planning import Combination, Planned, SweepPlan
from mbkit.sweep.results import Returns, row_of
from mbkit.sweep.worker import Outcome

FILE = "study.db"


class Suggesting(Protocol):
    """The part of Optuna's trial that distributions use."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_int(self, name: str, low: int, high: int) -> int: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> Any: ...  # noqa: D102


class BestTrial(NamedTuple):
    """The best trial of a study."""

    number: int
    value: float
    options: dict[str, str]


@dataclass
class Active:
    """A trial under way: its runs, one for each seed, and what they told."""

    study: Any
    trial: Any
    runs: list[Planned]
    waiting: list[Planned]
    reported: set[int]
    curves: dict[str, RunCurve] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    pruned: bool = False


class Search:
    """The runs of all trials.

    Args:
        plan: of the sweep.
        directory: of the sweep, which exists.
        trials: of each study.
    """

    def __init__(self, plan: SweepPlan, directory: Path, trials: int) -> None:
        self.optuna, self.plan, self.directory, self.trials = imported("optuna"), plan, directory, trials
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        storage = f"sqlite:///{(directory / FILE).absolute()}"
        pruner = self.optuna.pruners.MedianPruner()
        made = self.optuna.create_study
        self.studies: list[tuple[Combination, Any]] = [
            (group, made(storage=storage, study_name=group.name, direction="maximize", pruner=pruner, load_if_exists=True))
            for group in plan.groups
        ]
        self.active: dict[str, Active] = {}  # by the name of the trial's directory
        self.before: int = sum(trial.state.is_finished() for _, study in self.studies for trial in study.trials) * len(plan.seeds)
        for group, study in self.studies:
            for frozen in study.trials:
                if not frozen.state.is_finished():
                    trial = self.optuna.Trial(study, frozen._trial_id)
                    self.begin(group, study, trial, set(frozen.intermediate_values))

    def begin(self, group: Combination, study: Any, trial: Any, reported: Iterable[int] = ()) -> None:
        """Draw what the trial has not drawn yet, and queue its runs."""
        study.sampler = self.sampler(trial.number)
        drawn = {axis.key: axis.drawn.suggest(trial, axis.key) for axis in self.plan.grid(group).searched if axis.drawn is not None}
        combination = of_trial(group, trial.number, drawn)
        runs = [Planned(combination, seed) for seed in self.plan.seeds]
        self.active[combination.name] = Active(study, trial, runs, list(runs), set(reported))

    def sampler(self, number: int) -> Any:
        """The sampler of one trial: tree-structured Parzen estimators, after ten random trials."""
        return self.optuna.samplers.TPESampler(seed=number)

    def take(self) -> Planned | None:
        """A run of a trial that has begun, else the first of a new one while there are to be more."""
        for active in self.active.values():
            if active.waiting and not active.pruned:
                return active.waiting.pop(0)
        for group, study in self.studies:
            count = len(study.trials)
            if count < self.trials:
                study.sampler = self.sampler(count)
                self.begin(group, study, study.ask())
                return self.take()
        return None

    def ended(self, run: Planned, outcome: Outcome, curve: RunCurve) -> None:
        """A run of a trial ended; with the last of them the trial does."""
        active = self.active[run.group.name]
        active.outcomes[run.name], active.curves[run.name] = outcome, curve
        self.report(active)
        if len(active.outcomes) == len(active.runs) - len(active.waiting) and (active.pruned or not active.waiting):
            self.tell(active)
            del self.active[run.group.name]

    def tell(self, active: Active) -> None:
        """The value of a trial, or that it was pruned, or failed."""
        states = self.optuna.trial.TrialState
        if active.pruned:
            active.study.tell(active.trial, state=states.PRUNED)
            return
        returns = row_of(self.directory, active.runs[0].group, self.plan.seeds).returns
        if len(returns) < len(active.runs):
            active.study.tell(active.trial, state=states.FAIL)
            return
        active.study.tell(active.trial, sum(returns) / len(returns))

    def report(self, active: Active) -> None:
        """Hand to the study what all seeds of a trial have reached: the mean of their evaluation returns at a step."""
        curves = [active.curves.get(run.name) for run in active.runs]
        reached = [set(curve.returns) for curve in curves if curve is not None]
        if len(reached) < len(active.runs):
            return
        for step in sorted(set.intersection(*reached) - active.reported):
            active.trial.report(sum(curve.returns[step] for curve in curves if curve is not None) / len(curves), step)
            active.reported.add(step)

    def hopeless(self, running: Mapping[str, RunCurve]) -> list[str]:
        """The runs of trials that are worse than the median of the earlier ones at the same step."""
        names: list[str] = []
        for active in self.active.values():
            mine = {run.name: running[run.name] for run in active.runs if run.name in running}
            before = len(active.reported)
            active.curves |= mine
            self.report(active)
            if not active.pruned and len(active.reported) > before and max(active.reported) < active.runs[0].group.steps:
                active.pruned = bool(active.trial.should_prune())
            if active.pruned:
                names += mine
        return names

    def total(self) -> int:
        """Runs of all trials, those that are pruned too."""
        return self.trials * len(self.studies) * len(self.plan.seeds)

    def done(self) -> int:
        """Runs of the trials that had ended when the sweep went on."""
        return self.before

    # --- results ------------------------------------------------------------------------------------------------------------------

    def rows(self) -> list[Returns]:
        """The trials that came to their end, the best of each study first."""
        rows = []
        for group, study in self.studies:
            complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
            ordered = sorted(complete, key=lambda each: -each.value)
            combinations = [of_trial(group, trial.number, self.drawn(group, trial)) for trial in ordered]
            rows += [row_of(self.directory, each, self.plan.seeds) for each in combinations]
        return rows

    def best(self) -> dict[str, BestTrial]:
        """The best trial of each study that has one."""
        best = {}
        for group, study in self.studies:
            complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
            if complete:
                first = max(complete, key=lambda each: each.value)
                best[group.name] = BestTrial(first.number, float(first.value), self.drawn(group, first))
        return best

    def drawn(self, group: Combination, trial: Any) -> dict[str, str]:
        """What a trial drew, as it is typed."""
        axes = self.plan.grid(group).searched
        return {
            axis.key: axis.drawn.written(trial.params[axis.key]) for axis in axes if axis.drawn is not None and axis.key in trial.params
        }

    def counts(self) -> dict[str, int]:
        """How many trials ended in which way, of all studies."""
        states = [trial.state.name.lower() for _, study in self.studies for trial in study.trials]
        return {state: states.count(state) for state in dict.fromkeys(states)}


def of_trial(group: Combination, number: int, drawn: Mapping[str, str]) -> Combination:
    """The combination that a trial trains: its directory, and the drawn options behind the listed ones."""
    arguments = (*group.arguments, *(f"{key}={text}" for key, text in drawn.items()))
    return group._replace(name=f"{group.name}_trial-{number}", arguments=arguments, differs=group.differs | dict(drawn))
