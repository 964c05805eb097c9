"""The chapters of a page, one for each environment, with their sections; and the comparison of methods over all of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbkit.report import drawing
from mbkit.report.clips import Clip
from mbkit.report.collect import Group, RunRecord, by_environment, number
from mbkit.report.figure import axes
from mbkit.report.plots import Plot, learning
from mbkit.report.published import PublishedCurve
from mbkit.report.scores import MethodScores
from mbkit.report.sections import SECTIONS, Slot
from mbkit.report.text import num

LARGEST_MATRIX = 10  # methods up to which their pairs are drawn

# Prefixes of metrics that only a learned model has; critics log diagnose/q_gap without one
OF_MODEL = ("model/", "diagnose/error", "diagnose/coverage", "diagnose/calibration", "diagnose/return_gap", "diagnose/epistemic")


class Figures(NamedTuple):
    """A section's figures, the numbers in place of those with a single point, and the lines in place of those without data; its films."""

    plots: list[Plot]
    numbers: list[tuple[str, str]]
    absent: list[str]
    films: tuple[Clip, ...] = ()


class Chapter(NamedTuple):
    """The runs on one environment."""

    env: str
    groups: list[Group]
    sections: dict[str, Figures]
    beside: list[PublishedCurve]


def chapters(groups: Sequence[Group], beside: Mapping[str, Sequence[PublishedCurve]] | None = None) -> list[Chapter]:
    """One for each environment."""
    every = []
    for env, members in by_environment(groups).items():
        published = list((beside or {}).get(env, ()))
        every.append(Chapter(env, members, draw_sections(members, published), published))
    return every


def draw_sections(groups: Sequence[Group], beside: Sequence[PublishedCurve] = ()) -> dict[str, Figures]:
    """All sections of one environment's runs that have something to show, with published curves in that of learning."""
    drawn = {name: draw(slots, groups) for name, slots in applicable(groups).items()}
    if beside and drawn["Learning"].plots and (curves := learning(groups, "steps", beside)):
        drawn["Learning"].plots[0] = curves
    if all(run.env == "none" for group in groups for run in group.runs):
        unscored = "Not scored: the run has no environment. `mbkit evaluate RUN --data FILE --method fqe` estimates what its policy earns."
        drawn["Learning"] = Figures([], [], [unscored])
    if numbers := data_numbers(groups):
        drawn = {"The data set": Figures([], numbers, [])} | drawn
    if "The model" in drawn:
        drawn["The model"].numbers.extend(model_numbers(groups))
    return {name: figures for name, figures in drawn.items() if any(figures)}


def applicable(groups: Sequence[Group]) -> dict[str, list[Slot]]:
    """The sections of these runs: the model's only where one is learned, the planner's only where plans are made."""
    runs = [run for group in groups for run in group.runs]
    learned = any(run.part("dynamics") not in (None, "mujoco") or _logs(run, *OF_MODEL) for run in runs)
    planned = any(run.part("planner") or _logs(run, "plan/") for run in runs)
    shown = {"The model": learned, "The planner": planned}
    return {name: slots for name, slots in SECTIONS.items() if shown.get(name, True)}


def _logs(run: RunRecord, *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for row in run.rows for key in row)


def draw(slots: Sequence[Slot], groups: Sequence[Group]) -> Figures:
    """Draw the figures of a section for which there is data; what is a single point becomes a number."""
    numbers = [slot.numbers(groups) for slot in slots]
    drawn = [(slot, slot.draw(groups)) for slot, pairs in zip(slots, numbers, strict=True) if not pairs]
    plots = [plot for _, plot in drawn if plot]
    return Figures(plots, [pair for pairs in numbers for pair in pairs], [slot.absent for slot, plot in drawn if not plot and slot.absent])


def model_numbers(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Diagnostics of the final model in single numbers, averaged over seeds; of a lone experiment only."""
    if len(groups) != 1:
        return []
    sections = [section for run in groups[0].runs if isinstance(section := run.diagnostics.get("one_step"), dict)]
    likelihoods = [number(section.get("nll")) for section in sections]
    if not np.isfinite(likelihoods).any():
        return []
    return [("Negative log-likelihood on evaluation episodes, nats", num(float(np.nanmean(likelihoods)), 3))]


def data_numbers(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """What is known of the data set that all runs learned from; empty where there is none, or several."""
    about = [run.data for group in groups for run in group.runs]
    if not about[0] or any(one.get("sha256") != about[0].get("sha256") for one in about):
        return []
    first, share = about[0], number(about[0].get("share"), 1.0)
    of = f" (the best {100 * share:g}\u00a0% of the episodes)" if share < 1 else ""
    kind = f"{first['choices']} discrete" if first.get("choices") else f"{len(first.get('action_low') or [])} continuous"
    numbers = [
        ("File", Path(str(first.get("path"))).name),
        ("Rows", num(number(first.get("rows")), 12) + of),
        ("Episodes", num(number(first.get("episodes")), 12)),
        ("Observations", num(number(first.get("obs_dim")))),
        ("Actions", kind),
    ]
    mean = number(first.get("return_mean"))
    return [*numbers, ("Mean return of an episode", num(mean))] if math.isfinite(mean) else numbers


def compare(groups: Sequence[Group]) -> Figures:
    """The figures that compare methods; none where there is one method alone, or nothing was scored."""
    comparison = MethodScores(groups)
    if len(comparison.methods) < 2:
        return Figures([], [], [])
    plots = [_profile(comparison), *_improvement(comparison), *_aggregates(comparison)]
    plots += [plot for env, members in by_environment(groups).items() if (plot := _latency(env, members, len(comparison.environments)))]
    return Figures(plots, [], [])


def _profile(comparison: MethodScores) -> Plot:
    figure, ax = axes("score" if len(comparison.environments) > 1 else "return of the final policy", "share of runs above")
    drawing.performance_profile(ax, comparison)
    caption = f"Share of runs above each score, with its 95\u00a0% bootstrap interval: the higher, the better. {comparison.meaning}"
    return Plot("performance_profile", "Performance profile", caption, figure)


def _improvement(comparison: MethodScores) -> list[Plot]:
    if not comparison.improvement or len(comparison.methods) > LARGEST_MATRIX:
        return []
    figure, ax = axes("", "")
    drawing.probability_of_improvement(ax, comparison)
    over = "" if len(comparison.environments) == 1 else " Mean over the environments that both were run on."
    caption = f"Probability that a run of the row scores higher than one of the column, by the final policies' returns.{over}"
    return [Plot("probability_of_improvement", "Probability of improvement", caption, figure)]


def _aggregates(comparison: MethodScores) -> list[Plot]:
    if len(comparison.environments) < 2:
        return []
    figure, ax = axes("interquartile mean of the scores", "")
    drawing.aggregates(ax, comparison)
    caption = f"Over all runs and environments, with the 95\u00a0% stratified bootstrap interval. {comparison.meaning}"
    caption += "" if comparison.complete else " Not every method was run on every environment, so that these means are of different tasks."
    return [Plot("aggregates", "Aggregate scores", caption, figure)]


def _latency(env: str, groups: Sequence[Group], environments: int) -> Plot | None:
    figure, ax = axes("time to choose an action (milliseconds)", "return of the final policy")
    if not drawing.latency(ax, groups):
        return None
    title = "Return against planning latency" + (f", {env}" if environments > 1 else "")
    caption = "Faint dots: runs. Points and bars: interquartile mean over seeds with its 95\u00a0% bootstrap interval, at the median time."
    return Plot(f"latency_{env}".replace("/", "_"), title, caption, figure)
