"""What is known of a task beyond its transitions: reward, termination, and the input and targets that its paper gives the model.

Functions take obs [..., O], action [..., A] in [-1, 1], which they scale to the environment's units, and next_obs [..., O], and return
[...]; they run on the device and in the precision of their arguments, and gradients pass through rewards.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import torch
from torch import Tensor

from mbkit.config.imports import import_module_of, object_at, text_of
from mbkit.envs.rewards import GYMNASIUM, TaskFunctions, never
from mbkit.errors import UserError, guarded
from mbkit.registry import nearest
from mbkit.types import EnvSpec, ObsProcess, RewardFn, TaskKnowledge, TerminationFn

if TYPE_CHECKING:  # importing mbkit.envs must not import MuJoCo: `make` does, and reports a wrong MUJOCO_GL
    from gymnasium.envs.registration import EnvSpec as Registration

    from mbkit.envs.benchmarks import Task

Kwargs = Mapping[str, Any] | None
Kind = Literal["reward", "termination"]
Function = Callable[..., Any]


def task_knowledge(
    name: str, spec: EnvSpec, env_kwargs: Kwargs = None, reward: str | Function = "auto", termination: str | Function = "auto"
) -> TaskKnowledge:
    """What a model of environment `name` need not learn, and how it encodes observations.

    Args:
        name: the environment.
        spec: its dimensions, on which a user's functions are tried once.
        env_kwargs: the keyword arguments it was made with.
        reward: "auto" for the known function, or None where there is none; "learned" for None; or a user's function or its import path.
            Of a reward that is learned the part that is known, if any, is not.
        termination: the same; "learned" and "never" for None.

    Raises:
        UserError: a user's function can't be imported, or its result on zeros is not that of a reward or termination.
    """
    reward_function: RewardFn | None = None
    part = reward_part(name, env_kwargs) if reward in ("auto", "learned") else None
    if reward == "auto":
        reward_function = reward_fn(name, env_kwargs)
    elif reward != "learned":
        reward_function = _user_fn(reward, spec, "reward")
    termination_function: TerminationFn | None = None
    if termination == "auto":
        termination_function = termination_fn(name, env_kwargs)
    elif termination not in ("learned", "never"):
        termination_function = _user_fn(termination, spec, "termination")
    part = None if reward_function is not None else part
    return TaskKnowledge(reward_function, termination_function, preprocess(name), absolute_dims(name), part)


def knowledge_notes(name: str, env_kwargs: Kwargs, reward: str, termination: str, learnable_termination: bool) -> list[str]:
    """Sentences for the user on what is not known: why the reward is learned, and that episodes are assumed to never terminate.

    The options are those of `task_knowledge`; `learnable_termination`: whether `dynamics.termination=learned` is possible.
    """
    notes = []
    if reward == "auto" and reward_fn(name, env_kwargs) is None:
        notes.append(why_learned(name, env_kwargs))
    if termination == "auto" and termination_fn(name, env_kwargs) is None:
        advice = "; with dynamics.termination=learned it learns when they do" if learnable_termination else ""
        notes.append(f"The model assumes that episodes of {name} never terminate{advice}.")
    return notes


def benchmark(name: str) -> "Task | None":
    """The PETS benchmark task with this short name (`cartpole`) or registered name (`mbkit/cartpole-v0`), or None."""
    from mbkit.envs.benchmarks import TASKS

    short = name.removeprefix("mbkit/").removesuffix("-v0")
    task, entry = TASKS.get(short), gymnasium.registry.get(f"mbkit/{short}-v0")
    return task if task and entry and entry.entry_point is task.env and unchanged(entry) else None


def unchanged(registration: "Registration") -> bool:
    """Whether a task is registered without wrappers and arguments, which could change its reward."""
    return not registration.additional_wrappers and not registration.kwargs


def gymnasium_task(name: str) -> TaskFunctions | None:
    """What is known of Gymnasium's own task of this name; None if there is nothing, or if another task is registered under the name."""
    entry = gymnasium.registry.get(name)
    if entry is None or not str(entry.entry_point).startswith("gymnasium.envs.") or not unchanged(entry):
        return None
    return GYMNASIUM.get(name)


def reward_fn(name: str, env_kwargs: Kwargs = None) -> RewardFn | None:
    """The reward of environment `name` made with `env_kwargs`; None where it must be learned, for the reason that `why_learned` gives."""
    task = benchmark(name)
    if task is not None:
        high, formula = task.action_high, task.env.reward
        return lambda obs, action, next_obs: formula(high * action, next_obs)
    functions = gymnasium_task(name)
    if functions is None or "xml_file" in (env_kwargs or {}):
        return None
    reward = functions.reward(env_kwargs or {})
    return None if isinstance(reward, str) else _scaled(reward, functions.action_scale)


def reward_part(name: str, env_kwargs: Kwargs = None) -> RewardFn | None:
    """The part of the reward of `name` that is known also where the whole is not: a locomotion task's control cost and healthy bonus."""
    functions = gymnasium_task(name)
    if functions is None or "xml_file" in (env_kwargs or {}):
        return None
    part = functions.reward_part(env_kwargs or {})
    return None if part is None else _scaled(part, functions.action_scale)


def _scaled(reward: RewardFn, scale: float) -> RewardFn:
    """A reward of actions in the environment's units as one of actions in [-1, 1]."""
    return reward if scale == 1 else lambda obs, action, next_obs: reward(obs, scale * action, next_obs)


def termination_fn(name: str, env_kwargs: Kwargs = None) -> TerminationFn | None:
    """The termination of environment `name` made with `env_kwargs`, or None where it must be learned."""
    if benchmark(name) is not None:
        return never
    functions = gymnasium_task(name)
    return None if functions is None or "xml_file" in (env_kwargs or {}) else functions.termination(env_kwargs or {})


def why_learned(name: str, env_kwargs: Kwargs = None) -> str:
    """Why `reward_fn` has no function for this environment, in one sentence; empty where it has one."""
    if reward_fn(name, env_kwargs) is not None:
        return ""
    rest = "; what is known of it, control cost and healthy bonus, is not learned" * (reward_part(name, env_kwargs) is not None)
    return f"The reward of {name} is learned: {_why(name, env_kwargs or {})}{rest}."


def _why(name: str, env_kwargs: Mapping[str, Any]) -> str:
    task = gymnasium_task(name)
    if task is not None and "xml_file" in env_kwargs:
        return "env_kwargs.xml_file replaces the body, for which mbkit's formula was not written"
    if task is not None:
        return str(task.reward(env_kwargs))
    if name in GYMNASIUM or name.startswith("mbkit/"):
        return "what is registered under this name is not the task that mbkit's formula was written for"
    return "mbkit has no formula for it (dynamics.reward=pkg.mod:fn sets a function of yours)"


def preprocess(name: str) -> ObsProcess | None:
    """The model inputs of an observation in a PETS benchmark task, [..., O] -> [..., I]; None for the observation itself."""
    task = benchmark(name)
    return task.preprocess if task else None


def absolute_dims(name: str) -> tuple[int, ...]:
    """Observation dimensions whose next value the model predicts directly, not as a change."""
    task = benchmark(name)
    return task.absolute if task else ()


def load_fn(path: str) -> Callable[..., Any]:
    """The function at the import path `pkg.mod:fn`; UserError if there is none."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise UserError(f"{path!r} is no import path; expected package.module:function")
    module, function = import_module_of(path), object_at(path)
    if function is None:
        raise UserError(f"module {module_name!r} has no {name!r}; {nearest(name, [n for n in vars(module) if not n.startswith('_')])}")
    if not callable(function):
        raise UserError(f"{path!r} is a {type(function).__name__}; expected a function")
    loaded: Callable[..., Any] = function
    return loaded


def check_fn(fn: Callable[..., Any], path: str, spec: EnvSpec, kind: Kind) -> None:
    """Call a user's function once, with zeros: obs [2, O], action [2, A] (discrete: int64 [2] or [2, P]) and next_obs [2, O].

    UserError naming `path` unless the result is a tensor [2]: floating and not all NaN for a reward, bool for a termination.
    """
    obs = torch.zeros(2, spec.obs_dim)
    action = torch.zeros(2, *spec.action_shape, dtype=torch.int64 if spec.discrete else torch.float32)
    arguments = f"obs {list(obs.shape)}, action {list(action.shape)}, next_obs {list(obs.shape)}"
    expected = f"{kind} {path} of {arguments}: expected a {'floating' if kind == 'reward' else 'bool'} tensor of shape [2]"
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


def _user_fn(function: str | Function, spec: EnvSpec, kind: Kind) -> Callable[..., Tensor]:
    """A user's function, itself or at its import path, checked once on zeros."""
    path = function if isinstance(function, str) else text_of(function)
    function = load_fn(function) if isinstance(function, str) else function
    check_fn(function, path, spec, kind)
    return checked(function, f"{kind} {path}")


def checked(function: Function, name: str) -> Callable[..., Tensor]:
    """The function, whose exceptions become a sentence that names it; UserError also where its result is not one number a row."""
    guard = guarded(function, name)

    def call(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        out = guard(obs, action, next_obs)
        if not isinstance(out, Tensor) or out.shape != obs.shape[:-1]:
            came = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise UserError(f"{name} of obs {list(obs.shape)}: expected a tensor {list(obs.shape[:-1])}, got {came}")
        return out

    return call
