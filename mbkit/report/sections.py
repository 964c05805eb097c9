"""The sections of a report: which figures each of them shows, and the line in place of a figure without data."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mbkit.report.collect import Group
from mbkit.report.model_plots import calibration, dimensions, horizon
from mbkit.report.penalty_plots import detection, of_lone_run, ranks_and_verdict, shares, tenths
from mbkit.report.plots import Curves, Kind, Lines, Plot, learning, over_steps, single_points

RETURNS = ("eval/return", "eval/return_std", "episode/return")  # metrics of the learning curves


class Slot(NamedTuple):
    """A figure, and the line in its place where nothing was logged ("" for none)."""

    figure: Curves | Callable[[Sequence[Group]], Plot | None]
    absent: str = ""

    def numbers(self, groups: Sequence[Group]) -> list[tuple[str, str]]:
        """Name and value of each line, instead of a figure, where every line is a single point."""
        return single_points(groups, self.figure) if isinstance(self.figure, Curves) else []

    def draw(self, groups: Sequence[Group]) -> Plot | None:
        """The figure; None where nothing was logged."""
        return over_steps(groups, self.figure) if isinstance(self.figure, Curves) else self.figure(groups)


def _curve(key: str, title: str, ylabel: str, caption: str, kind: Kind = "number") -> Slot:
    """One metric against steps."""
    return Slot(Curves({"": (key,)}, title, ylabel, caption, kind))


def _by_horizon(prefix: str, horizons: Sequence[int]) -> Lines:
    """The metrics `prefix`_1, `prefix`_5, ..., a line for each number of steps predicted ahead."""
    return {f"{n} step{'s' * (n > 1)}": (f"{prefix}_{n}",) for n in horizons}


NO_CURVE = "No learning curve: neither an evaluation nor a training episode has ended yet."
LEARNING = [
    Slot(lambda groups: learning(groups, "steps"), NO_CURVE),
    Slot(lambda groups: learning(groups, "seconds")),
]
LEARNER = [
    Slot(
        Curves(
            {"estimate": ("critic/q",), "target": ("critic/target",)},
            "Action value",
            "Q",
            "Mean over training batches of the critics' estimate and, where it is logged, of their regression target.",
        )
    ),
    Slot(
        Curves(
            {"mean gap": ("diagnose/q_gap",), "mean absolute gap": ("diagnose/q_gap_abs",)},
            "Action value minus real return",
            "gap in discounted return",
            "Q at the states of evaluation episodes minus the discounted return that followed, entropy bonuses included where Q has them. "
            "Above the dashed line the critics overestimate.",
            level=0.0,
        )
    ),
    Slot(
        Curves(
            {"": ("critic/overestimation",)},
            "Overestimation of the policy's actions",
            "Q(s, policy) − Q(s, data)",
            "What the critic expects of the policy's actions beyond what it expects of the recorded ones, at the same states: too much "
            "where nothing in the data supports it.",
            level=0.0,
        )
    ),
    _curve(
        "actor/outside_support",
        "Actions outside the data",
        "share of actions",
        "Actions of the policy beyond the range of the recorded ones in a dimension, or never recorded where actions are discrete: no row "
        "of the data set says what they lead to.",
        "share",
    ),
    _curve(
        "actor/weight", "Weights of cloning", "mean weight", "Mean over training batches; above 1 where actions are better than expected."
    ),
    _curve("critic/value", "State value", "V", "Mean regression target of the value network over the steps of an update."),
    _curve("critic/loss", "Critic loss", "loss", "Regression of the critics on their targets.", "log"),
    _curve("actor/loss", "Actor loss", "loss", "Loss that the policy minimises."),
    _curve("actor/entropy", "Entropy of the policy", "nats", "Mean over training batches; the higher, the more random the actions."),
    Slot(
        Curves(
            {"": ("actor/kl", "trpo/kl")},
            "KL divergence of an update",
            "KL(old | new), nats",
            "Mean divergence of the policy after an update from the policy before it.",
            "log",
        )
    ),
    _curve("actor/clipped", "Clipped ratios", "share of steps", "Steps whose probability ratio lies outside the clip range.", "share"),
    _curve("actor/beta", "KL penalty coefficient", "beta", "Adapted to keep the KL divergence of an update near its target.", "log"),
    _curve("trpo/accepted", "Accepted updates", "share of updates", "Line searches that ended with an update inside the bound.", "share"),
    _curve("trpo/backtracks", "Backtracking", "rejected candidates", "Candidates that a line search rejected before one.", "whole"),
    _curve("actor/step", "Natural gradient step", "step length", "Factor of the natural gradient in an update.", "log"),
    _curve("actor/prior_kl", "KL divergence from the prior", "KL(policy | prior), nats", "Mean over the states of an update."),
    Slot(
        Curves(
            {"V-trace weight": ("actor/rho",), "Retrace coefficient": ("actor/trace",)},
            "Importance weights",
            "min(1, \u03c0 / \u03bc)",
            "Mean over the steps of an update; 1 where the policy equals the behaviour policy, lower where they differ.",
        )
    ),
    _curve("actor/counted", "Steps with a known return", "share of steps", "Only these enter the policy gradient.", "share"),
    _curve("alpha", "Temperature", "alpha", "Coefficient of the entropy bonus or of the KL penalty.", "log"),
    _curve("updates_per_second", "Gradient updates per second", "updates per second", "Sampling of the batches included.", "count"),
]
MODEL = [
    Slot(
        Curves(
            {"": ("model/holdout_error",)},
            "Hold-out error",
            "error (standard deviations of the change)",
            "One step ahead, on the transitions held out of each fit: root mean squared error in standard deviations of the change of each "
            "dimension; at 1 the model is no better than predicting the mean change.",
            "log",
            members=True,
        ),
        "No hold-out error: no fit of the model has been logged.",
    ),
    _curve("model/loss", "Training loss", "loss", "Loss of the model at the end of each fit."),
    Slot(
        Curves(
            _by_horizon("diagnose/error", (1, 5, 15, 30)),
            "Open-loop error",
            "error (standard deviations)",
            "After so many steps of prediction under the recorded actions, on evaluation episodes, which no fit has used; in standard "
            "deviations of each dimension.",
            "log",
        )
    ),
    Slot(
        Curves(
            {"": ("diagnose/coverage_90",)},
            "Coverage of 90\u00a0% intervals",
            "observed coverage",
            "Share of outcomes inside the predicted 90\u00a0% interval, one step ahead. Above the dashed line the model is underconfident, "
            "below it overconfident.",
            "coverage",
            level=0.9,
        )
    ),
    Slot(
        Curves(
            {"mean gap": ("diagnose/return_gap",), "mean absolute gap": ("diagnose/return_gap_abs",)},
            "Predicted minus real return",
            "gap in discounted return",
            "From the same states, over 30 steps or to the end of the episode. Above the dashed line the model overestimates.",
            level=0.0,
        )
    ),
    Slot(
        Curves(
            _by_horizon("diagnose/epistemic", (1, 5, 15)),
            "Ensemble disagreement along model rollouts",
            "standard deviations",
            "Standard deviation over members of their predictions after so many model steps, in standard deviations of each dimension.",
            "log",
        )
    ),
    Slot(calibration, "No calibration: it is measured at the end of a run, where the model predicts a distribution."),
    Slot(horizon, "No error against horizon: it is measured at the end of a run."),
    Slot(dimensions),
    *(Slot(of_lone_run(draw)) for draw in (ranks_and_verdict, detection, tenths, shares)),
]
ROLLOUTS = [
    _curve("imagination/horizon", "Length of model rollouts", "steps", "Model steps from each replayed start state.", "whole"),
    _curve("imagination/rows", "Model transitions stored", "transitions", "Model transitions in the model buffer.", "count"),
    _curve(
        "imagination/kept",
        "Share of model steps stored",
        "share of model steps",
        "The others were rejected by the gate or are not finite.",
        "share",
    ),
    _curve("imagination/gigabytes", "Memory of the model buffer", "size", "Size of the stored model transitions.", "gigabytes"),
]
PLANNER = [
    Slot(
        Curves({"": ("time/act_ms",)}, "Time per action", "milliseconds", "Mean time to choose an action, planning included."),
        "No planning time: no action has been planned yet.",
    ),
    _curve("plan/score", "Score of the plan", "predicted return", "Return that the model predicts for the chosen plan, over its horizon."),
]
SECTIONS = {"Learning": LEARNING, "The learner": LEARNER, "The model": MODEL, "Model rollouts": ROLLOUTS, "The planner": PLANNER}


def metrics_read() -> set[str]:
    """Every metric that a figure reads; of an ensemble's members the first."""
    curves = [slot.figure for slots in SECTIONS.values() for slot in slots if isinstance(slot.figure, Curves)]
    keys = {key for one in curves for names in one.lines.values() for key in names}
    members = {f"{key}/0" for one in curves if one.members for names in one.lines.values() for key in names}
    return {*RETURNS, *keys, *members}
