"""The environments of a run, made once its configuration is known to fit into memory."""

from collections.abc import Callable
from typing import Any

from mbkit.config import Experiment
from mbkit.config.imports import object_at
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.loops import check_memory

FEW = 16  # environments that are made without asking
PLAIN, SIMULATED = 10_000, 500_000  # bytes of a Python environment, and of one of MuJoCo's beside its model and data (both measured)
EXCESS = 100  # times the model buffer's memory that one round of model rollouts may offer it


def checked_environments(experiment: Experiment, make_env: Callable[[int, int], Environment]) -> Environment:
    """The experiment's M environments; UserError, with few of them made, where the run would need more memory than there is."""
    num_envs = experiment.loop.num_envs
    env = make_env(min(num_envs, FEW), experiment.seed)
    try:
        if made_by_function(experiment):
            make_env(1, experiment.seed).close()  # refused where it is the same one again, rather than when the run is scored
        check_memory(experiment, env.spec, bytes_of(env.envs[0]))
        check_rollouts(experiment, 4 * (2 * env.spec.obs_dim + (1 if env.spec.discrete else env.spec.action_dim) + 2))
    except UserError:
        env.close()
        raise
    if num_envs > FEW:
        env.close()
        env = make_env(num_envs, experiment.seed)
    return env


def made_by_function(experiment: Experiment) -> bool:
    """Whether the task is made by a function of the user's, who may have it return one environment for all."""
    task = experiment.objects.get("env", object_at(experiment.env))
    return callable(task) and not isinstance(task, type)


def bytes_of(env: Any) -> int:
    """Memory of one environment, at least."""
    model, data = (getattr(env.unwrapped, name, None) for name in ("model", "data"))
    buffers = [getattr(part, "nbuffer", None) for part in (model, data)]
    return SIMULATED + sum(buffers) if all(isinstance(size, int) for size in buffers) else PLAIN  # type: ignore[arg-type]


def check_rollouts(experiment: Experiment, row_bytes: int) -> None:
    """UserError where one round of model rollouts is far larger than the buffer that it is stored in."""
    options = experiment.group("imagination")
    if not hasattr(options, "memory_gb") or options.real_ratio == 1:
        return
    schedule = options.schedule(experiment.loop)
    longest = max(schedule.first, schedule.length(experiment.steps))
    gigabytes = schedule.starts * longest * row_bytes / 1e9
    if gigabytes > EXCESS * options.memory_gb:
        name = "spread" if hasattr(options, "spread") else "horizon" if longest == schedule.first else "final_horizon"
        factors = {f"imagination.{name}": longest, "imagination.rollouts_per_step": schedule.rollouts_per_step}
        factors["loop.fit_every"] = schedule.fit_every
        option = max(factors, key=lambda key: factors[key])
        raise UserError(
            f"{option}={factors[option]}: one round of model rollouts makes {gigabytes:.3g} GB of transitions, of which "
            f"imagination.memory_gb={options.memory_gb:g} stores the last; expected at most {EXCESS} times as much"
        )


def check_buffer(experiment: Experiment) -> None:
    """UserError where the replay cannot hold one step of all environments."""
    loop = experiment.loop
    if getattr(loop, "buffer_size", loop.num_envs) < loop.num_envs:
        raise UserError(f"loop.buffer_size={loop.buffer_size} must hold a step of all loop.num_envs={loop.num_envs}")
