"""Scores of a policy on evaluation seeds, of which training uses none; scoring leaves the random numbers of training untouched."""

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mbkit.accelerate import same_random_numbers, seed_everything
from mbkit.diagnostics.summary import diagnose_model
from mbkit.diagnostics.values import Critic, q_gap
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.loops import Evaluation, evaluate_policy
from mbkit.run.closing import acting
from mbkit.types import Actor, EnvSpec

if TYPE_CHECKING:
    from mbkit.run.run import Run

FIRST_SEED = 1_000_000_000  # far from training's seeds, which are seed + environment
SIDE_BY_SIDE = 10  # evaluation episodes run at once


def evaluation_seed(seed: int, episode: int = 0) -> int:
    """The seed from which evaluation episode i of a run with this seed starts: the one formula, also for videos."""
    return FIRST_SEED + 1000 * seed + episode


def whole_number(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int; UserError where it is no whole number in [low, high]."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        limits = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise UserError(f"{name}={value!r}: expected a whole number {limits}")
    return number


def check_same_task(trained: EnvSpec, env: Environment, env_kwargs: Mapping[str, Any]) -> None:
    """Close `env`; UserError where its observations or actions have other dimensions than the run's."""
    env.close()
    came = env.spec
    if (came.obs_dim, came.action_dim, came.discrete) != (trained.obs_dim, trained.action_dim, trained.discrete):
        has, wants = (f"{s.obs_dim} observations and {s.action_dim} {'discrete ' * s.discrete}actions" for s in (came, trained))
        arguments = ", ".join(f"env_kwargs.{key}={value!r}" for key, value in env_kwargs.items())
        raise UserError(f"{arguments} gives a task of {has}; the policy was trained on {wants}")


def score(
    make_env: Callable[[int, int], Environment],
    actor_for: Callable[[Environment], Actor],
    seed: int,
    episodes: int,
    keep_rows: bool,
    max_steps: int = 0,
) -> Evaluation:
    """Deterministic returns of episodes; `make_env(num_envs, seed)` makes environments, `keep_rows` keeps their transitions.

    An episode is cut after `max_steps` steps; 0: the task's time limit, or `MAX_STEPS` of `mbkit.loops.evaluate` where it has none.
    """
    parts = []
    with same_random_numbers():
        seed_everything(seed)  # a score depends on the policy alone, not on when it is taken
        for begin in range(0, episodes, SIDE_BY_SIDE):
            first = evaluation_seed(seed, begin)
            with acting(make_env(min(SIDE_BY_SIDE, episodes - begin), first), actor_for) as (env, actor):
                parts.append(evaluate_policy(env, actor, first, keep_rows, max_steps))
    return Evaluation.join(parts)


def diagnose(model: Any, result: Evaluation, spec: EnvSpec, policy: Actor | None, seed: int, gamma: float) -> dict[str, Any]:
    """The model's diagnostics on an evaluation's episodes, which no fit has used; `policy` None repeats the recorded actions."""
    with same_random_numbers():
        seed_everything(seed)
        return diagnose_model(model, result.buffer(spec), policy, gamma)


def diagnose_run(run: "Run", result: Evaluation) -> dict[str, Any]:
    """The diagnostics of a run's model; empty where it has none, or before the first fit."""
    c, model, env = run.config, run.parts.dynamics, run.env
    if model is None or (getattr(c.loop, "fit", False) and not getattr(model, "fitted", run.loop.step >= c.loop.warmup_steps)):
        return {}
    if env is None:
        return diagnose(model, result, run.parts.spec, run.parts.actor, c.seed, c.gamma)
    # a planner's actions cost a search each, so that in the model it repeats those that it took
    policy = run.parts.actor_for(env) if c.planner is None else None
    return diagnose(model, result, run.parts.spec, policy, c.seed, c.gamma) | {"dimensions": env.dimension_names}


def diagnose_values(agent: Actor, result: Evaluation, spec: EnvSpec, seed: int, gamma: float) -> dict[str, Any]:
    """`q_gap` of the agent on an evaluation's episodes; empty where it has no action values or no episode is whole."""
    if not isinstance(agent, Critic):
        return {}
    with same_random_numbers():
        seed_everything(seed)
        gap = q_gap(agent, result.buffer(spec), gamma)
    return {"q_gap": gap} if gap else {}
