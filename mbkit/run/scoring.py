"""Runs scored: in their environment, or by a data set without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from mbkit import config, recording
from mbkit.config import imports
from mbkit.errors import UserError
from mbkit.loops import Evaluation
from mbkit.loops.interrupt import interrupted
from mbkit.run.api import load
from mbkit.run.evaluation import whole_number
from mbkit.run.policies import PolicyName, check_policy_name
from mbkit.run.reading import read_config
from mbkit.run.run import Run

if TYPE_CHECKING:
    from mbkit.data import Dataset
    from mbkit.run.judging import PolicyValue

OF_DATA = ("method", "horizon", "dynamics", "gamma", "updates")  # arguments that count beside `data`


@overload
def evaluate(
    run: Run | str | Path,
    episodes: int = 10,
    video: bool = False,
    *,
    data: None = None,
    checkpoint: str | int | None = None,
    seed: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    policy: PolicyName | None = None,
    device: str | None = None,
) -> dict[str, Any]: ...


@overload
def evaluate(
    run: Run | str | Path | Sequence[Run | str | Path],
    episodes: int = 10,
    *,
    data: "Dataset | str | Path",
    method: str | Sequence[str] = "fqe",
    horizon: int | None = None,
    dynamics: str | Path | None = None,
    gamma: float | None = None,
    updates: int | None = None,
    checkpoint: str | int | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> list[dict[str, Any]]: ...


def evaluate(run: Any, episodes: int = 10, video: bool = False, *, data: Any = None, **options: Any) -> Any:
    """Deterministic returns on fresh seeds, or, with `data`, what a data set says of the policy's discounted return.

    In an environment: mean, std over episodes, each return, mean length, and the video's path if asked. An episode that does not end is
    cut, which `note` then says: after `eval.max_steps` steps, by default the time limit of the task. By data: a list of dictionaries with
    the keys run, method, value, low, high, for every run and method.

    Args:
        run: a run, or the directory of one; with `data` also a list of them, and RUN@best or RUN@STEP.
        episodes: how many, at least 1; with `data` of the method "environment".
        video: also film one.
        data: a data set, or what `mbkit.data.read` reads.
        **options: of both: `checkpoint` of a directory: "last" (the default), "best" or a stored step; `seed`, by default the run's, with
            `data` 0; `device` of a directory: "cpu" or "cuda", by default where it was trained. Without `data`: `env_kwargs`, arguments of
            the environment that differ from those of training; `policy` of a run that plans: "plan" (the default) or "distilled", the one
            that was trained on its plans (`imagination.distill`). With `data`: `method`, some of "fqe" (the default), "model" and
            "environment" as "fqe,model" or a list; `horizon`, model steps, by default the longest episode; `dynamics`, the file of a model,
            by default the run's; `gamma`, the discount, by default the runs'; `updates` of fqe.

    Raises:
        UserError: a value that is none of these, a task or a data set of other dimensions, or a method that lacks what it needs.
    """
    episodes = whole_number("episodes", episodes, low=1)
    seed = options.get("seed")
    options["seed"] = None if seed is None else whole_number("seed", seed, low=0, high=2**32 - 1)
    if data is not None:
        return by_data(run, episodes, data, video=video, **options)
    for name in OF_DATA:
        if options.pop(name, None) is not None:
            raise UserError(f"{name} counts only where policies are judged by a data set: data=FILE is missing")
    if isinstance(run, list | tuple):
        raise UserError(f"{len(run)} runs are compared by a data set: data=FILE is missing")
    return in_environment(run, episodes, video, **options)


def in_environment(
    run: Run | str | Path,
    episodes: int,
    video: bool,
    checkpoint: str | int | None = None,
    seed: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    policy: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """`evaluate` without a data set."""
    if not isinstance(run, Run):
        check_policy_name(read_config(run), policy)
        chosen = "last" if checkpoint is None else checkpoint
        with interrupted(lambda: f"{run} is as it was; the same command scores it again"), load(run, chosen, device) as loaded:
            return in_environment(loaded, episodes, video, seed=seed, env_kwargs=env_kwargs, policy=policy)
    for name, value in (("checkpoint", checkpoint), ("device", device)):
        if value is not None:
            raise UserError(f"{name}={value!r} applies to the directory of a run; expected none for a run that is loaded already")
    result = run.evaluate(episodes, seed=seed, env_kwargs=env_kwargs, policy=policy)
    answer = figures(result) | {"episodes": episodes, "step": run.loop.step}
    if policy is not None:
        answer["policy"] = policy
    if video:
        path = run.film(seed, env_kwargs, policy)
        answer["video"] = run.film_note if path is None else recording.shown(path)
    return answer


def by_data(run: Any, episodes: int, data: Any, method: str | Sequence[str] = "fqe", **options: Any) -> list[dict[str, Any]]:
    """`evaluate` by a data set."""
    from mbkit.run.judging import as_row

    return [as_row(estimate) for estimate in estimates(run, episodes, data, method, **options)]


def estimates(
    runs: Any,
    episodes: int,
    data: "Dataset | str | Path",
    method: str | Sequence[str] = "fqe",
    *,
    checkpoint: str | int | None = None,
    seed: int | None = None,
    device: str | None = None,
    video: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
    policy: str | None = None,
    **options: Any,
) -> "list[PolicyValue]":
    """The estimates of one run or several, see `evaluate`."""
    from mbkit.data import Dataset, read
    from mbkit.run.judging import judge, judging

    for name, value in (("video", video), ("env_kwargs", env_kwargs), ("policy", policy)):
        if value:
            raise UserError(f"{name} counts only in an environment; expected none beside data={data}")
    chosen = judging(method, seed=seed, episodes=episodes, **options)
    several = list(runs) if isinstance(runs, list | tuple) else [runs]
    if not several:
        raise UserError("expected at least one run, got none")
    for directory in (run for run in several if not isinstance(run, Run)):
        read_config(opening(directory, checkpoint)[0])  # a directory that is none is told before the data set is read
    dataset = data if isinstance(data, Dataset) else read(data)
    with interrupted(lambda: "the runs are as they were; the same command judges them again"):
        return judge(several, dataset, chosen, lambda run: load(*opening(run, checkpoint), device))


def opening(run: str | Path, checkpoint: str | int | None) -> tuple[Path, str | int]:
    """The directory and the checkpoint that RUN, RUN@best, RUN@STEP or RUN and `checkpoint` name."""
    from mbkit.data.run_replay import split

    directory, named = split(run)
    return directory, named if checkpoint is None or named != "last" else checkpoint


def figures(result: Evaluation) -> dict[str, Any]:
    """Returns and lengths of an evaluation as plain numbers, and its note where episodes were cut."""
    numbers: dict[str, Any] = {
        "return_mean": float(result.returns.mean()),
        "return_std": float(result.returns.std(correction=0)),
        "returns": result.returns.tolist(),
        "length_mean": float(result.lengths.double().mean()),
    }
    note = result.note()
    return numbers | {"note": note} if note else numbers


def evaluation_options(directory: str | Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Keywords of `evaluate` from `env_kwargs.*` and `device` as key=value; the run's import paths may be repeated."""
    options = imports.without_repeated(read_config(directory), config.parse_overrides(arguments))
    for key, value in options.items():
        if key not in ("env_kwargs", "device"):
            raise UserError(f"evaluate takes env_kwargs.* and device=; came {key!r}")
        if key == "env_kwargs" and not isinstance(value, Mapping):
            raise UserError(f"env_kwargs={value!r}: expected arguments of the environment, env_kwargs.NAME=VALUE")
    return options
