"""What a run writes and says when it ends."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mbkit import recording
from mbkit.config import Experiment, OfflineLoop
from mbkit.errors import UserError
from mbkit.loops import Online
from mbkit.run.objects import resumption
from mbkit.run.policies import distils
from mbkit.storage import read_json

if TYPE_CHECKING:
    from mbkit.run.run import Run


def write_summary(run: "Run", seconds: float) -> None:
    """`summary.json` of a run that took so many seconds: the final policy's score, where it was scored, and what the user should know."""
    c, scores = run.config, run.scores
    summary = recording.Summary(
        algo=c.algo,
        env=c.env,
        seed=c.seed,
        steps=run.loop.step,
        eval_return_mean=scores.get("eval/return"),
        eval_return_std=scores.get("eval/return_std"),
        eval_episodes=c.eval.episodes if scores else 0,
        best_eval_return=run.best,
        wall_seconds=seconds,
        device=torch.cuda.get_device_name() if c.device == "cuda" else "cpu",
    )
    more: dict[str, Any] = {"episodes": run.loop.episodes} if isinstance(run.loop, Online) else {}
    more |= {"data": run.data.about} if run.data is not None else {}
    if "eval/distilled_return" in scores:
        more |= {"distilled_return_mean": scores["eval/distilled_return"], "distilled_return_std": scores["eval/distilled_return_std"]}
    recording.write_summary(run.path, summary, threads=run.threads, notes=run.notes, **more)


def read_summary(directory: Path) -> dict[str, Any]:
    """The content of a run's `summary.json`; UserError where it is no object."""
    path = directory / "summary.json"
    summary = read_json(path)
    if not isinstance(summary, dict):
        raise UserError(f"{path} must hold an object; came a {type(summary).__name__}")
    return summary


def too_short(experiment: Experiment, model: object) -> list[str]:
    """Notes where the run is too short for its model, or for a policy that learns from plans."""
    return [*never_fitted(experiment, model), *never_distilled(experiment)]


def never_fitted(experiment: Experiment, model: object) -> list[str]:
    """A note where the run is too short for its model."""
    loop, steps = experiment.loop, experiment.steps
    if model is None or isinstance(loop, OfflineLoop) or not loop.fit or steps > loop.warmup_steps or steps == 0:
        return []
    return [f"The model was never fitted: all {steps} steps were warm-up (loop.warmup_steps)."]


def never_distilled(experiment: Experiment) -> list[str]:
    """A note where a run is too short for the policy that learns from its plans."""
    if not distils(experiment) or experiment.steps > experiment.loop.warmup_steps:
        return []
    return ["No policy was distilled: no plan was executed, since all steps were warm-up (loop.warmup_steps)."]


def how_to_go_on(run: "Run") -> str:
    """What a user who stopped the run can do."""
    if run.directory is None:
        return "nothing was written yet; the same command starts again"
    if run.saved_at is None:
        return f"there is no checkpoint yet; remove {recording.shown(run.path)} and start again"
    return f"a checkpoint was written at step {run.saved_at}, {resumption(run.config, run.path)} goes on from it"
