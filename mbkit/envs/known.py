"""What is known about a task beyond its transitions: reward, termination, and the input and targets its paper gives the model.

Functions take obs [..., O], action [..., A] in [-1, 1], which they scale to the environment's units themselves, and next_obs [..., O], and
return [...]; they run on whatever device and precision their arguments have, and gradients pass through rewards.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from mbkit.envs.benchmarks import TASKS, Task
from mbkit.envs.rewards import GYMNASIUM, Known, never
from mbkit.errors import UserError
from mbkit.registry import nearest
from mbkit.types import RewardFn, TerminationFn

Kwargs = Mapping[str, Any] | None


def benchmark(name: str) -> Task | None:
    """The PETS benchmark task of this name, bare (`cartpole`) or as registered (`mbkit/cartpole-v0`)."""
    return TASKS.get(name.removeprefix("mbkit/").removesuffix("-v0"))


def reward_fn(name: str, env_kwargs: Kwargs = None) -> RewardFn | None:
    """The reward of environment `name` made with `env_kwargs`, or None where it must be learned; `why_learned` then says why."""
    task = benchmark(name)
    if task is not None:
        high, formula = task.action_high, task.env.reward
        return lambda obs, action, next_obs: formula(high * action, next_obs)
    if name not in GYMNASIUM:
        return None
    scale, known = GYMNASIUM[name]
    reward = known.reward(env_kwargs or {})
    if isinstance(reward, str):
        return None
    return reward if scale == 1 else lambda obs, action, next_obs: reward(obs, scale * action, next_obs)


def termination_fn(name: str, env_kwargs: Kwargs = None) -> TerminationFn | None:
    """The termination of environment `name` made with `env_kwargs`, or None where it must be learned."""
    if benchmark(name) is not None:
        return never
    return GYMNASIUM[name][1].termination(env_kwargs or {}) if name in GYMNASIUM else None


def why_learned(name: str, env_kwargs: Kwargs = None) -> str:
    """Why `reward_fn` has no function for this environment, in one sentence; empty where it has one."""
    if reward_fn(name, env_kwargs) is not None:
        return ""
    known: Known | None = GYMNASIUM[name][1] if name in GYMNASIUM else None
    reason = known.reward(env_kwargs or {}) if known else "mbkit has no formula for it (dynamics.reward=pkg.mod:fn plugs in your own)"
    return f"The reward of {name} is learned: {reason}."


def preprocess(name: str) -> Callable[[Tensor], Tensor] | None:
    """What a PETS benchmark task feeds to the model instead of obs: [..., O] -> [..., I]; None for the observation itself."""
    task = benchmark(name)
    return task.preprocess if task else None


def absolute_dims(name: str) -> tuple[int, ...]:
    """Observation dimensions whose next value the model predicts directly, not as a change."""
    task = benchmark(name)
    return task.absolute if task else ()


def load_fn(path: str) -> Callable[..., Any]:
    """The function at `pkg.mod:fn`, looked for in the working directory too; UserError says what of it is missing."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise UserError(f"{path!r} is no import path; expected package.module:function")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise UserError(f"module {module_name!r} of {path!r} can't be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if not hasattr(module, name):
        raise UserError(f"module {module_name!r} has no {name!r}; {nearest(name, [n for n in vars(module) if not n.startswith('_')])}")
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"{path!r} is a {type(function).__name__}; expected a function")
    loaded: Callable[..., Any] = function
    return loaded


def check_fn(
    fn: Callable[..., Any], path: str, obs_dim: int, action_dim: int, discrete: bool, kind: Literal["reward", "termination"]
) -> None:
    """Call a user's function once, on obs [2, O], action [2, A] (int64 [2] where discrete) and next_obs [2, O] of zeros.

    UserError naming `path` unless a tensor of shape [2] comes: floating and not all NaN for a reward, bool for a termination.
    """
    obs = torch.zeros(2, obs_dim)
    action = torch.zeros(2, dtype=torch.int64) if discrete else torch.zeros(2, action_dim)
    given = f"obs {list(obs.shape)}, action {list(action.shape)}, next_obs {list(obs.shape)}"
    expected = f"{kind} {path} of {given}: expected a {'floating' if kind == 'reward' else 'bool'} tensor of shape [2]"
    try:
        out = fn(obs, action, obs.clone())
    except Exception as error:  # whatever the user's function raises
        raise UserError(f"{expected}, got {type(error).__name__}: {error}") from error
    if not isinstance(out, Tensor):
        raise UserError(f"{expected}, got a {type(out).__module__}.{type(out).__qualname__}".replace("builtins.", ""))
    if out.shape != (2,) or not (out.is_floating_point() if kind == "reward" else out.dtype == torch.bool):
        raise UserError(f"{expected}, got {out.dtype} {list(out.shape)}")
    if out.isnan().all():
        raise UserError(f"{expected}, got NaN everywhere on zeros")
