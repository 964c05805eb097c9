"""Which policy of a run acts: a run that plans may have a second one, distilled from its plans."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.types import Actor

if TYPE_CHECKING:
    from mbkit.agents.distilled import DistilledPolicy
    from mbkit.run.run import Run

PolicyName = Literal["plan", "distilled"]
POLICIES = ("plan", "distilled")


def distils(experiment: Experiment) -> bool:
    """Whether a run trains a policy on its plans."""
    return bool(getattr(experiment.group("imagination"), "distill", False))


def check_policy_name(experiment: Experiment, policy: str | None) -> None:
    """UserError where a run has no such policy; None is the one that acts in training."""
    if policy is None:
        return
    if policy not in POLICIES:
        raise UserError(f"policy={policy}: expected one of {', '.join(POLICIES)}")
    if experiment.planner is None:
        raise UserError(f"policy={policy} counts only for a run that plans its actions, of pets or loop; {experiment.algo} has one policy")
    if policy == "distilled" and not distils(experiment):
        raise UserError(
            f"policy=distilled: this run of {experiment.algo} trained no policy on its plans; expected imagination.distill=true in training"
        )


def distilled_policy(run: "Run") -> "DistilledPolicy":
    """The policy that was trained on the run's plans; UserError where there is none, or it learned nothing yet."""
    check_policy_name(run.config, "distilled")
    policy = run.parts.distilled
    if policy is None or not learned(run):
        raise UserError(f"policy=distilled: no policy was trained on plans by step {run.loop.step}, whose steps were all warm-up")
    return policy


def learned(run: "Run") -> bool:
    """Whether there is a distilled policy, and plans were executed that it learned from."""
    return run.parts.distilled is not None and run.loop.step > run.config.loop.warmup_steps


def distilled_scores(run: "Run") -> dict[str, float]:
    """Mean and deviation of the distilled policy's returns, on the plans' evaluation seeds; empty where there is none."""
    if not learned(run):
        return {}
    returns = run.evaluate(run.config.eval.episodes, policy="distilled").returns  # its actions cost a fraction of a plan
    return {"eval/distilled_return": float(returns.mean()), "eval/distilled_return_std": float(returns.std(correction=0))}


def actor_by(run: "Run", policy: str | None) -> Callable[[Environment], Actor]:
    """Environment -> the actor that evaluations of this policy ask; UserError as in `check_policy_name` and `distilled_policy`."""
    check_policy_name(run.config, policy)
    if policy != "distilled":
        return run.parts.actor_for
    actor = distilled_policy(run)
    return lambda env: actor
