"""Which figures a report shows, section by section, and what stands where one is missing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mbkit.report.collect import Group
from mbkit.report.plots import Kind, Plot, calibration, coverage, dimensions, family, horizon, learning, over_steps

Draw = Callable[[Sequence[Group]], Plot | None]


def _ahead(prefix: str, steps: Sequence[int]) -> dict[str, str]:
    return {f"{prefix}_{n}": f"{n} step{'s' * (n > 1)}" for n in steps}


def _family(keys: dict[str, str], title: str, ylabel: str, caption: str, kind: Kind = "number", level: float | None = None) -> Draw:
    return lambda groups: family(groups, keys, title, ylabel, caption, kind, level)


def _metric(keys: Sequence[str], title: str, ylabel: str, caption: str, kind: Kind = "number") -> Draw:
    return lambda groups: over_steps(groups, keys, title, ylabel, caption, kind)


class Slot(NamedTuple):
    """A place for a figure, and the line that stands there when nothing was logged ("" says nothing)."""

    draw: Draw
    absent: str


LEARNING = [
    Slot(lambda groups: learning(groups, "steps"), "No curve: neither an evaluation nor a training episode has ended yet."),
    Slot(lambda groups: learning(groups, "seconds"), ""),
]
MODEL = [
    Slot(
        _metric(
            ["model/holdout_mse"], "Hold-out error", "mean squared error", "On transitions kept out of training, at each fit.", kind="log"
        ),
        "No hold-out error: metrics.jsonl has no model/holdout_mse.",
    ),
    Slot(_metric(["model/train_loss", "model/loss"], "Training loss", "loss", "At the end of each fit."), ""),
    Slot(
        _family(
            _ahead("diagnose/error", (1, 5, 15, 30)),
            "Open-loop error over training",
            "error (standard deviations)",
            "So many steps ahead, on evaluation episodes, which no fit has seen; in standard deviations of each dimension.",
            kind="log",
        ),
        "",
    ),
    Slot(coverage, ""),
    Slot(
        _family(
            {"diagnose/return_gap": "mean gap", "diagnose/return_gap_abs": "mean size of the gap"},
            "Imagined minus real return",
            "gap in discounted return",
            "From the same states, 30 steps or to the episode's end. Above the dashed line the model promises too much.",
            level=0.0,
        ),
        "",
    ),
    Slot(
        _family(
            _ahead("diagnose/epistemic", (1, 5, 15)),
            "Disagreement along imagined rollouts",
            "standard deviations",
            "How far the members' predictions lie apart after so many imagined steps, in standard deviations of each dimension.",
            kind="log",
        ),
        "",
    ),
    Slot(calibration, "No calibration: diagnostics.json, written when a run finishes, holds none."),
    Slot(horizon, "No error against horizon: diagnostics.json, written when a run finishes, holds none."),
    Slot(dimensions, ""),
]
PLANNER = [
    Slot(
        _metric(["plan/ms", "time/act_ms"], "Time per plan", "milliseconds", "How long one decision took."),
        "No planning time: metrics.jsonl has no plan/ms.",
    ),
    Slot(
        _metric(["plan/score"], "Promised return", "score of the plan", "What the model promised for the chosen plan, over its horizon."),
        "",
    ),
]
LEARNER = [
    Slot(
        _family(
            {"critic/q": "estimate", "critic/target": "target"},
            "Action value",
            "Q",
            "The critics' mean estimate on training batches, what they promise from there on, and where logged what it is regressed on.",
        ),
        "",
    ),
    Slot(
        _metric(["critic/value"], "Value", "V", "Mean target of the value network: the return from a step of the trajectories on."),
        "",
    ),
    Slot(_metric(["critic/loss"], "Critic loss", "loss", "Of the critics' regression on their targets.", kind="log"), ""),
    Slot(_metric(["actor/loss"], "Actor loss", "loss", "What the policy descends."), ""),
    Slot(_metric(["actor/entropy"], "Entropy of the policy", "nats", "How random the policy still acts."), ""),
    Slot(
        _metric(
            ["actor/kl", "trpo/kl"],
            "Divergence of an update",
            "KL(old | new), nats",
            "How far one update moves the policy, in the mean over its rows.",
            kind="log",
        ),
        "",
    ),
    Slot(
        _metric(["actor/clipped"], "Share clipped", "share of rows", "Rows whose probability ratio lies beyond the clip.", kind="share"),
        "",
    ),
    Slot(_metric(["actor/beta"], "Coefficient of the penalty", "beta", "Price of the divergence from the old policy.", kind="log"), ""),
    Slot(
        _metric(["trpo/accepted"], "Steps accepted", "share of updates", "Searches that found a step within the bound.", kind="share"),
        "",
    ),
    Slot(_metric(["trpo/backtracks"], "Candidates refused", "candidates", "Before one was accepted, in each search.", kind="whole"), ""),
    Slot(_metric(["actor/step"], "Length of the natural step", "factor", "What the natural direction is multiplied by.", kind="log"), ""),
    Slot(
        _metric(["actor/prior_kl"], "Divergence from the prior", "KL(policy | prior), nats", "How far the policy has left its prior."),
        "",
    ),
    Slot(
        _family(
            {"actor/rho": "mean importance weight", "actor/trace": "mean trace coefficient"},
            "Age of what is learned from",
            "min(1, pi / mu)",
            "1 where the policy has not moved since it acted; the less, the more of a trajectory is cut.",
        ),
        "",
    ),
    Slot(
        _metric(["actor/counted"], "Share that counts", "share of steps", "Steps whose return is known within the window.", kind="share"),
        "",
    ),
    Slot(_metric(["alpha"], "Temperature", "temperature", "Weight of the entropy beside the reward.", kind="log"), ""),
    Slot(
        _metric(["updates_per_second"], "Speed of learning", "updates a second", "Gradient updates, sampling included.", kind="count"), ""
    ),
]
IMAGINATION = [
    Slot(
        _metric(["imagination/horizon"], "Length of imagined rollouts", "steps", "Steps imagined from each replayed state.", kind="whole"),
        "",
    ),
    Slot(_metric(["imagination/rows"], "Imagined transitions remembered", "transitions", "Rows in the model buffer.", kind="count"), ""),
    Slot(
        _metric(
            ["imagination/kept"],
            "Share kept",
            "share of imagined steps",
            "Imagined steps that were stored; others came after an end or were gated out.",
            kind="share",
        ),
        "",
    ),
    Slot(
        _metric(["imagination/gigabytes"], "Memory of imagination", "size", "Size of the rows in the model buffer.", kind="gigabytes"), ""
    ),
]
