"""The figures of reports as functions that take a matplotlib axis, for papers and notebooks.

    figure, ax = plt.subplots()
    mbkit.plots.learning_curve(ax, ["runs/mbpo", "runs/sac"])

`runs` is a run or several: directories, directories with runs below them, or what `mbkit.train` and `mbkit.load` return. Runs that differ
in their seeds alone are one method. Figures of predictions take what `predictions(run)` returns for a run with a learned model:

    table = mbkit.plots.predictions("runs/pets")
    mbkit.plots.ensemble_fan(ax, table, dimension=0)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from mbkit.errors import UserError
from mbkit.report import drawing
from mbkit.report.collect import Group, group_runs
from mbkit.report.curves import Axis
from mbkit.report.figure import legend, steps_axis
from mbkit.report.gather import read_runs
from mbkit.report.plots import draw_learning, draw_published
from mbkit.report.prediction_plots import ensemble_fan, planned_trajectory, uncertainty
from mbkit.report.predictions import STEPS, Predictions
from mbkit.report.published import read_published
from mbkit.report.scores import MethodScores

if TYPE_CHECKING:
    from mbkit.run import Run

__all__ = [
    "aggregate_scores",
    "ensemble_fan",
    "latency",
    "learning_curve",
    "performance_profile",
    "planned_trajectory",
    "predictions",
    "probability_of_improvement",
    "side_by_side",
    "uncertainty",
]

Runs = Any  # a run or its directory, or a sequence of them
SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}


def learning_curve(ax: Axes, runs: Runs, x: str = "steps", beside: str | Path | None = None) -> None:
    """Evaluation return of each method: the interquartile mean over seeds with its 95 % bootstrap interval; of one seed its deviation.

    Args:
        ax: the axis.
        runs: runs on one environment.
        x: the abscissa: "steps", or wall-clock time in "seconds", "minutes" or "hours".
        beside: a CSV of published curves, FILE or FILE@METRIC, drawn dashed; only against steps.

    Raises:
        UserError: runs on several environments, of which none was evaluated, or another abscissa.
    """
    groups = _on_one_environment(runs)
    if x not in ("steps", *SECONDS):
        raise UserError(f"x={x!r}: expected steps, {', '.join(SECONDS)}")
    if beside is not None and x != "steps":
        raise UserError(f"beside={str(beside)!r}: published curves have no time; expected x='steps', came {x!r}")
    axis: Axis = "steps" if x == "steps" else "seconds"
    if not draw_learning(ax, groups, axis, SECONDS.get(x, 1.0)):
        raise UserError("none of the runs has been evaluated yet, nor has an episode ended")
    if beside is not None:
        draw_published(ax, groups, read_published(beside, [groups[0].env])[groups[0].env])
    ax.set(xlabel=groups[0].runs[0].unit if x == "steps" else f"wall-clock time ({x})", ylabel="return")
    if x == "steps":
        steps_axis(ax)
    legend(ax)


def performance_profile(ax: Axes, runs: Runs) -> None:
    """Share of runs with a final return above each score, averaged over environments, with its 95 % bootstrap interval.

    Scores are returns on one environment. On several a random policy has 0 and an expert 1 where `mbkit.data` has their returns, and
    otherwise the worst and the best of these runs.
    """
    comparison = _compared(runs, least=1)
    drawing.performance_profile(ax, comparison)
    ax.set(xlabel="return" if len(comparison.environments) == 1 else "score", ylabel="share of runs above")


def probability_of_improvement(ax: Axes, runs: Runs) -> None:
    """A matrix: the probability that a run of the method of a row scores higher than one of that of a column."""
    drawing.probability_of_improvement(ax, _compared(runs, least=2))


def aggregate_scores(ax: Axes, runs: Runs) -> None:
    """Interquartile mean of each method over all runs and environments, with its 95 % stratified bootstrap interval."""
    drawing.aggregates(ax, _compared(runs, least=1))
    ax.set_xlabel("interquartile mean")


def latency(ax: Axes, runs: Runs) -> None:
    """Final return against the time to choose an action, in milliseconds; UserError where no run logged that time."""
    if not drawing.latency(ax, _on_one_environment(runs)):
        raise UserError("none of the runs has logged time/act_ms beside a return: only those that plan do")
    ax.set(xlabel="time to choose an action (milliseconds)", ylabel="return")


def predictions(run: "Run | str | Path", steps: int = STEPS) -> Predictions:
    """One evaluation episode of at most so many steps, and what the run's model predicts along it.

    Returns:
        Arrays of the episode and its predictions: `names` of the observation's O dimensions, `obs` [T + 1, O], `fan` [P, H + 1, O] model
        rollouts, `plans` [S, 5, H + 1, O] quantiles of what was planned, `epistemic`, `aleatoric` and `error` [T].

    Raises:
        UserError: the run cannot be loaded, or has neither an environment nor a learned model.
    """
    from mbkit.report.predictions import predictions as predicted
    from mbkit.run import load

    if isinstance(run, str | Path):
        with load(run, device="cpu") as loaded:
            return predicted(loaded, steps)
    return predicted(run, steps)


def side_by_side(run: "Run", table: Predictions, path: str | Path) -> Path:
    """A film of the episode: MuJoCo's states on the left, those that the model predicts under the same actions on the right.

    Args:
        run: a loaded run.
        table: its `predictions`.
        path: of the mp4; a still image lies beside it as png.

    Raises:
        UserError: the task's observations do not hold the simulator's state, or nothing can be rendered here.
    """
    from mbkit.report.film_beside import film_beside

    if reason := film_beside(run, table, Path(path)):
        raise UserError(reason.removesuffix("."))
    return Path(path)


def _groups(runs: Runs) -> list[Group]:
    """The groups of a run or several; UserError where one has no directory."""
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    if isinstance(runs, Mapping) or not several:
        raise UserError("expected a run or several, or their directories; came none")
    directories = [Path(run) if isinstance(run, str | Path) else run.path for run in several]
    return group_runs(read_runs(directories)[0])


def _on_one_environment(runs: Runs) -> list[Group]:
    groups = _groups(runs)
    if environments := sorted({group.env for group in groups} - {groups[0].env}):
        raise UserError(f"returns on {groups[0].env} and {', '.join(environments)} have no common axis: expected runs on one environment")
    return groups


def _compared(runs: Runs, least: int) -> MethodScores:
    comparison = MethodScores(_groups(runs))
    if len(comparison.methods) < least:
        came = ", ".join(comparison.methods) or "none"
        raise UserError(f"expected scored runs of at least {least} method{'s' * (least > 1)}, came {came}")
    return comparison
