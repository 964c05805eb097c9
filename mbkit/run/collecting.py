"""Data sets made here: steps of random actions or of trained policies, exactly as the environment gave them.

Letters: N rows, O observation, A action.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbkit import recording
from mbkit.accelerate import same_random_numbers, seed_everything
from mbkit.config.identity import comparable
from mbkit.data import Dataset
from mbkit.data.run_replay import split
from mbkit.envs import Environment, make
from mbkit.envs.seeds import LIMIT
from mbkit.envs.spaces import ObservationMap
from mbkit.errors import UserError
from mbkit.loops.online import finite_action, random_action
from mbkit.paths import is_dir, short
from mbkit.recording.progress import Progress
from mbkit.run.api import load
from mbkit.run.closing import close
from mbkit.run.collected import Stretch, Tap
from mbkit.run.evaluation import whole_number
from mbkit.run.reading import read_config
from mbkit.run.replays import action_space
from mbkit.types import Actor, EnvSpec

Acting = Callable[[Tensor], Tensor]  # obs [1, O] -> action [1, A] in [-1, 1], or int64 [1]
RANDOM = "random"


class OpenSource(NamedTuple):
    """One source of steps, opened: an environment, what acts in it, and what is told of both."""

    env: Environment
    actor: Actor | None  # None: uniformly random
    facts: dict[str, Any]


def collect(
    sources: Sequence[str],
    steps: int,
    env: str | None = None,
    *,
    seed: int = 0,
    noise: float = 0.0,
    env_kwargs: Mapping[str, Any] | None = None,
) -> Dataset:
    """Steps of one environment, an equal share of each source, as a data set in memory; `mbkit.data.write` writes it.

    Observations and rewards are the environment's own, in its own precision. Each share is one stretch of consecutive steps; its last
    episode is cut where the share ends. The same arguments give the same rows.

    Args:
        sources: "random" for uniform actions, or RUN, RUN@best, RUN@STEP for the policy of a run, which acts without exploration.
        steps: N, of all sources together.
        env: id of the environment; that of the runs where there are any.
        seed: random seed.
        noise: of the policies: standard deviation of Gaussian noise on actions in [-1, 1]; the probability of a random action where actions
            are discrete.
        env_kwargs: arguments of the environment's constructor; those of the runs where there are any.

    Raises:
        UserError: no source or no such run, no environment or runs of different ones, or fewer steps than sources.
    """
    steps, seed = whole_number("steps", steps, low=1), whole_number("seed", seed, low=0, high=2**32 - 1)
    name, kwargs = _environment(sources, env, env_kwargs)
    _check(sources, steps, noise)
    progress = Progress(steps)
    parts: list[Stretch] = []
    facts: dict[str, Any] = {}
    told: list[dict[str, Any]] = []
    try:
        for source, share, first, drawn in _shares(sources, steps, seed):
            with same_random_numbers(), ExitStack() as opened:
                behaviour = _opened(opened, source, name, kwargs, first)
                facts = _agreeing(action_space(behaviour.env), facts, source)
                act = _acting(behaviour, noise)
                seed_everything(drawn)
                before = sum(entry["steps"] for entry in told)
                rows = _steps(behaviour.env, behaviour.actor, act, share, before, progress)
            parts.append(rows)
            described = {"source": source, **behaviour.facts, "steps": share, "episodes": len(rows.lengths), "env_seed": first}
            told.append({**described, "noise": 0.0 if behaviour.actor is None else noise})
    finally:
        progress.close()
    about = {"env": name, "env_kwargs": {key: comparable(value) for key, value in kwargs.items()}, **facts}
    provenance = {"format": "collected", "sources": _numbered(told), "seed": seed, "versions": recording.versions()}
    return Stretch.dataset(parts, **about, source=provenance)


def _check(sources: Sequence[str], steps: int, noise: float) -> None:
    """UserError where there are fewer steps than sources, or the noise is none or has no meaning."""
    if steps < len(sources):
        raise UserError(f"steps={steps}: expected at least one step for each of the {len(sources)} sources")
    if not 0 <= noise < np.inf:
        raise UserError(f"noise={noise}: expected a number of at least 0")
    if noise and all(source == RANDOM for source in sources):
        raise UserError(f"noise={noise}: actions of the source random are random already; expected noise with a run")


def _shares(sources: Sequence[str], steps: int, seed: int) -> Iterator[tuple[str, int, int, int]]:
    """Each source with its number of steps, the seed of its environment and that of its actions."""
    seeds = np.random.SeedSequence(seed).generate_state(2 * len(sources)).tolist()
    for i, source in enumerate(sources):
        share = steps * (i + 1) // len(sources) - steps * i // len(sources)
        yield source, share, seeds[2 * i] % LIMIT, seeds[2 * i + 1]


def _environment(sources: Sequence[str], env: str | None, env_kwargs: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Id and arguments of the one environment of all sources; UserError where they differ, or nothing names it."""
    if isinstance(sources, str) or not sources:
        raise UserError(f"sources={sources!r}: expected a list of random, RUN, RUN@best or RUN@STEP")
    name, kwargs, namer = env, env_kwargs, "--env"
    for source in sources:
        if source == RANDOM:
            continue
        experiment = read_config(_directory(source))
        if experiment.env in (None, "none"):
            raise UserError(f"{source} was trained without an environment; expected a run with one")
        if name is not None and experiment.env != name:
            raise UserError(f"{source} was trained on {experiment.env}; expected {name}, as {namer} says")
        if kwargs is not None and dict(experiment.env_kwargs) != dict(kwargs):
            raise UserError(f"{source} was trained with env_kwargs {dict(experiment.env_kwargs)}; expected {dict(kwargs)}, as {namer} says")
        name, kwargs, namer = experiment.env, experiment.env_kwargs, source
    if name is None:
        raise UserError("the source random needs --env, the id of an environment; got none")
    return name, dict(kwargs or {})


def _directory(source: str) -> Path:
    """The directory of a run; UserError where there is none."""
    directory, _ = split(source)
    if not is_dir(directory):
        raise UserError(
            f"source '{short(source)}': expected random, or a run directory as RUN, RUN@best or RUN@STEP; there is no {short(directory)}"
        )
    return directory


def _opened(opened: ExitStack, source: str, name: str, kwargs: dict[str, Any], seed: int) -> OpenSource:
    """The environment and the actor of a source; they are closed with `opened`."""
    if source == RANDOM:
        env = opened.enter_context(make(name, seed=seed, env_kwargs=kwargs))
        return OpenSource(env, None, {})
    directory, checkpoint = split(source)
    run = opened.enter_context(load(directory, checkpoint))
    env = opened.enter_context(run.variant(None)(1, seed))
    actor = run.parts.actor_for(env)
    opened.callback(close, actor)
    config = run.config
    return OpenSource(env, actor, {"algo": config.algo, "run_seed": config.seed, "checkpoint": checkpoint, "step": run.loop.step})


def _agreeing(space: dict[str, Any], before: dict[str, Any], source: str) -> dict[str, Any]:
    """The action space, once it is that of the sources before."""
    if before and any(not np.array_equal(space.get(key, ()), value) for key, value in before.items()):
        raise UserError(f"{source}: expected the action space of the sources before it, {before}, got {space}")
    return space


def _acting(behaviour: OpenSource, noise: float) -> Acting:
    """What acts for a source."""
    spec, actor = behaviour.env.spec, behaviour.actor
    if actor is None:
        return lambda obs: random_action(spec, 1)
    if noise > 1 and spec.discrete:
        raise UserError(f"noise={noise}: expected a probability of at most 1, since the actions of {behaviour.env.name} are discrete")
    return partial(_noisy, actor, spec, noise)


def _noisy(actor: Actor, spec: EnvSpec, noise: float, obs: Tensor) -> Tensor:
    """The actor's action without its own exploration, with noise."""
    action = finite_action(actor.act(obs, explore=False).cpu())
    if not noise:
        return action
    if spec.discrete:
        return torch.where(torch.rand(1) < noise, random_action(spec, 1), action)
    return (action + noise * torch.randn_like(action)).clamp(-1, 1)


@torch.no_grad()
def _steps(env: Environment, actor: Actor | None, act: Acting, steps: int, before: int, progress: Progress) -> Stretch:
    """So many consecutive steps of an environment."""
    tap = Tap(env.envs[0], ObservationMap(env.envs[0].observation_space, env.name), steps)
    env.envs[0] = tap
    obs = env.reset()
    everywhere = torch.ones(1, dtype=torch.bool)
    if actor is not None:
        actor.reset(everywhere)
    for step in range(steps):
        out = env.step(act(obs))
        if actor is not None and bool(out.terminated | out.truncated):
            actor.reset(everywhere)
        obs = out.obs
        progress.advance(before + step + 1)
    return tap.rows()


def _numbered(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is told of each source, with the rows and episodes that came from it, as [first, behind the last]."""
    row = episode = 0
    numbered = []
    for source in told:
        behind, last = row + source.pop("steps"), episode + source.pop("episodes")
        numbered.append({**source, "rows": [row, behind], "episodes": [episode, last]})
        row, episode = behind, last
    return numbered
