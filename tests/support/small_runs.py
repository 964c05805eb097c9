"""Makes the runs of this process as small as can be, so that code from the documentation is executed as it stands; import it first."""

import functools
from typing import Any

import mbkit

SIZES = {
    "pets": {
        "agent": {"horizon": 3, "particles": 2},
        "planner": {"candidates": 8, "elites": 2, "iterations": 1},
        "dynamics": {"members": 2, "elites": 2, "hidden": [8], "max_epochs": 1},
    },
    "sac": {"agent": {"hidden": [8]}, "loop": {"batch_size": 8}},
}
SHARED = {"threads": 1, "loop": {"warmup_steps": 20, "log_every": 10}, "eval": {"episodes": 2, "video": False, "max_steps": 20}}
STEPS, EVERY = 40, 20
train, resume, evaluate = mbkit.train, mbkit.resume, mbkit.evaluate


def merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """`high` wins, group by group."""
    both = {key: merged(low[key], high[key]) for key in low.keys() & high.keys() if isinstance(low[key], dict)}
    return {**low, **high, **both}


@functools.wraps(train)
def small_train(algo: str, *arguments: str, **options: Any) -> Any:
    """`train` for few steps, with small parts."""
    small = merged(SHARED, SIZES[algo])
    if "every" in options.get("eval", {}):
        small["eval"]["every"] = EVERY
    return train(algo, *arguments, **merged({**options, "steps": STEPS}, small))


@functools.wraps(resume)
def small_resume(directory: Any, *arguments: str, **options: Any) -> Any:
    """`resume` for few steps more."""
    return resume(directory, *arguments, **{**options, "steps": STEPS + EVERY})


@functools.wraps(evaluate)
def small_evaluate(run: Any, episodes: int = 2, *arguments: Any, **options: Any) -> Any:
    """`evaluate` on two episodes."""
    return evaluate(run, 2, *arguments, **options)


mbkit.train, mbkit.resume, mbkit.evaluate = small_train, small_resume, small_evaluate
