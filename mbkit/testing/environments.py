"""The contract of environments: what agents, models and checkpoints rely on in a task.

Letters: M environments, T steps, O observation, A action.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from mbkit.config.imports import text_of
from mbkit.envs import Environment, make, task_knowledge
from mbkit.envs.checking import FLAGS, NUMBERS, outline
from mbkit.envs.task_objects import named_task
from mbkit.errors import crashed
from mbkit.testing.common import expect, plain_sentences
from mbkit.testing.systems import random_actions
from mbkit.types import EnvSpec, RewardFn, TaskKnowledge, TerminationFn

COPIES, CONTINUED = 3, 25  # environments stepped side by side; steps after a state was restored
EPISODES = 3  # that terminate at one step, whatever the actions, before that is called a time limit


class Played(NamedTuple):
    """T steps of M environments."""

    obs: Tensor  # [T, M, O] the policy's input at each step
    action: Tensor  # [T, M, A]
    reward: Tensor  # [T, M]
    next_obs: Tensor  # [T, M, O]
    terminated: Tensor  # bool [T, M]
    truncated: Tensor  # bool [T, M]


def check_env(
    env: str | type | Callable[..., Any],
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    steps: int = 200,
    seed: int = 0,
    reward: str | RewardFn = "auto",
    termination: str | TerminationFn = "auto",
    fixed_length: bool = False,
) -> None:
    """Check that an environment can be learned in, planned for and resumed.

    Checked: that the spaces have a vector form, and observations and actions lie in them; types and finite values of `reset` and `step`;
    that an action is not changed; that seeds decide everything, in a new environment and in a reset one; that copies do not share a state;
    that a time limit truncates and does not terminate; that known rewards and terminations are those that the environment returns; and
    that an environment whose state mbkit can save goes on from it bit for bit.

    Args:
        env: a name for `mbkit.envs.make`, or the task's class or a function that makes it.
        env_kwargs: arguments of the task's constructor, and `max_episode_steps`.
        steps: of random actions in every check.
        seed: of the first episode.
        reward: the reward that models would be told: "auto" for the known one, if any, or a function of (obs, action, next_obs).
        termination: the same for terminations.
        fixed_length: episodes terminate after a fixed number of steps on purpose.

    Raises:
        AssertionError: one sentence with the expectation and the result.
    """
    with plain_sentences():
        assert steps > 0, f"check_env: expected steps of 1 or more, came steps={steps}"
        task = None if isinstance(env, str) else named_task(env).task
        name = env if isinstance(env, str) else text_of(env)

        def build(count: int = 1, first: int = seed) -> Environment:
            return make(name, seed=first, num_envs=count, env_kwargs=deepcopy(dict(env_kwargs or {})), task=task)

        check_interface(build, steps)
        stream, spec = check_seeds(build, steps)
        check_copies(build, steps)
        if not fixed_length:
            check_time_limit(build, steps, name)
        knowledge = task_knowledge(name, spec, env_kwargs, reward, termination)
        check_knowledge(stream, knowledge, name)
        check_state(build, steps)


def play(env: Environment, actions: Tensor, obs: Tensor | None = None) -> Played:
    """The steps of an environment under actions [T, M, A], from a reset unless `obs` is where it stands."""
    rows, obs = [], env.reset() if obs is None else obs
    for action in actions:
        step = env.step(action)
        rows.append((obs.clone(), action, step.reward, step.next_obs.clone(), step.terminated, step.truncated))
        obs = step.obs
    return Played(*(torch.stack(column) for column in zip(*rows, strict=True)))


def sequence(spec: EnvSpec, steps: int, copies: int = 1, seed: int = 0) -> Tensor:
    """Random actions [T, M, A], or int64 [T, M] or [T, M, P]."""
    return random_actions(spec, steps, copies, seed)


def difference(a: Played, b: Played) -> str:
    """The first step and column in which two streams differ; "" where they are the same."""
    wrong = [(x != y).flatten(1).any(1) for x, y in zip(a, b, strict=True)]
    steps = torch.stack(wrong).any(0).nonzero()
    if not len(steps):
        return ""
    t = int(steps[0])
    column = next(n for n, differ in enumerate(wrong) if differ[t])
    return f"{Played._fields[column]} at step {t + 1}: {a[column][t].flatten()[:4].tolist()} and {b[column][t].flatten()[:4].tolist()}"


def check_interface(build: Callable[..., Environment], steps: int) -> None:
    """Check the task itself against Gymnasium's interface: spaces, types, actions left alone."""
    with build() as env:
        task, name, actions = env.envs[0], env.name, sequence(env.spec, steps)
        obs, info = task.reset(seed=env.seed)
        for t in range(steps):
            check_observation(task, obs, name, f"at step {t}" if t else "on reset")
            expect(isinstance(info, dict), f"info of {name} at step {t}: expected a dict, came {type(info).__name__}")
            action = env.native_action(actions[t])[0]
            inside = task.action_space.contains(action)
            expect(
                inside,
                f"action space of {name}: expected it to contain the scaled action {outline(action)}, but {task.action_space} does not",
            )
            before = deepcopy(action)
            try:
                result: Any = task.step(action)
            except Exception as error:  # the task's code may raise anything
                raise crashed(f"step of {name} at step {t + 1}", error) from error
            expect(isinstance(result, tuple) and len(result) == 5, f"step of {name}: expected five values, came {outline(result)}")
            unchanged = np.array_equal(np.asarray(before), np.asarray(action))
            expect(unchanged, f"step of {name}: expected the action to stay as it is, but it was changed from {before} to {action}")
            obs, reward, terminated, truncated, info = result
            check_reward(reward, name, t + 1)
            for flag, value in (("terminated", terminated), ("truncated", truncated)):
                expect(type(value) in FLAGS, f"{flag} of {name} at step {t + 1}: expected True or False, came {outline(value)}")
            if terminated or truncated:
                check_observation(task, obs, name, f"at step {t + 1}")
                obs, info = task.reset()


def check_observation(task: Any, obs: Any, name: str, when: str) -> None:
    """Check that an observation lies in its space."""
    space: gymnasium.Space[Any] = task.observation_space
    if not space.contains(obs):
        came = (
            f"{obs.dtype} {list(obs.shape)} from {obs.min():.6g} to {obs.max():.6g}"
            if isinstance(obs, np.ndarray) and obs.size
            else outline(obs)
        )
        raise AssertionError(f"observation of {name} {when}: expected one of {space}, came {came}")


def check_reward(reward: Any, name: str, step: int) -> None:
    """Check that a reward is one finite number."""
    number = type(reward) in NUMBERS or isinstance(reward, bool)
    expect(number, f"reward of {name} at step {step}: expected a number, came {outline(reward)}")
    expect(bool(np.isfinite(reward)), f"reward of {name} at step {step}: expected a finite number, came {reward}")


def check_seeds(build: Callable[..., Environment], steps: int) -> tuple[Played, EnvSpec]:
    """Check that the same seed and actions give the same stream, in a new environment and after a reset with the seed; returns it."""
    with build() as first, build() as second:
        actions = sequence(first.spec, steps)
        stream = play(first, actions)
        differs = difference(stream, play(second, actions))
        expect(not differs, f"{first.name}: expected the same steps from the same seed in two environments, came {differs}")
        first.reset(seed=first.seed)
        again = play(first, actions, first.obs)
        differs = difference(stream, again)
        expect(not differs, f"{first.name}: expected reset with a seed to begin the same episode again, came {differs}")
        return stream, first.spec


def check_copies(build: Callable[..., Environment], steps: int) -> None:
    """Check that several environments step as each does alone, which they do not where they share a state."""
    with build(COPIES) as several:
        actions = sequence(several.spec, steps, COPIES)
        together = play(several, actions)
        for i in range(COPIES):
            with build(1, several.seed + i) as one:
                alone = play(one, actions[:, i : i + 1])
            differs = difference(Played(*(x[:, i : i + 1] for x in together)), alone)
            expect(not differs, f"{several.name}: expected environment {i} of {COPIES} to step as it does alone, came {differs}")


def check_time_limit(build: Callable[..., Environment], steps: int, name: str) -> None:
    """Check that episodes do not all terminate at one step whatever the actions, as those do that have a time limit of their own."""
    lengths = []
    for i in range(EPISODES):
        with build(1, i) as env:
            stream = play(env, sequence(env.spec, steps, seed=i))
        ends = (stream.terminated | stream.truncated)[:, 0].nonzero()
        if not len(ends) or not bool(stream.terminated[int(ends[0]), 0]):
            return
        lengths.append(int(ends[0]) + 1)
    expect(
        len(set(lengths)) > 1 or lengths[0] == 1,
        f"terminated of {name}: expected a time limit to be truncated, but {EPISODES} episodes terminated at step {lengths[0]} "
        "whatever the actions were (fixed_length=True if that is the task's)",
    )


def check_knowledge(stream: Played, task: TaskKnowledge, name: str) -> None:
    """Check that the functions that models would be told return what the environment did."""
    rows = [x.flatten(0, 1) for x in stream]
    obs, action, reward, next_obs, terminated, _ = rows
    if task.reward is not None:
        known = task.reward(obs, action, next_obs)
        wrong = ((known - reward).abs() > 1e-3 * (1 + reward.abs())).nonzero()
        at = int(wrong[0]) if len(wrong) else 0
        expect(
            not len(wrong),
            f"known reward of {name}: expected {float(reward[at]):.6g}, which the environment returned at step {at + 1}, "
            f"came {float(known[at]):.6g}",
        )
    if task.termination is not None:
        known = task.termination(obs, action, next_obs)
        wrong = (known != terminated).nonzero()
        at = int(wrong[0]) if len(wrong) else 0
        expect(
            not len(wrong),
            f"known termination of {name}: expected {bool(terminated[at])}, which the environment returned at step {at + 1}, "
            f"came {bool(known[at])}",
        )


def check_state(build: Callable[..., Environment], steps: int) -> None:
    """Check that an environment whose state can be saved goes on from it, in itself and in a new one, as if nothing had happened."""
    with build() as env, build() as other:
        before, after = steps // 3, min(steps, CONTINUED)
        play(env, sequence(env.spec, before))
        if env.restart_reason is not None:
            return  # it does not claim to: mbkit says so, and resumed runs begin new episodes
        state, actions = env.state_dict(), sequence(env.spec, after, seed=1)
        expected = play(env, actions, env.obs)
        for what, target in (("a new environment", other), ("the same environment", env)):
            target.load_state_dict(state)
            reason = target.restart_reason
            expect(reason is None, f"{env.name}: expected its state to be restored in {what}, came: {reason}")
            differs = difference(expected, play(target, actions, target.obs))
            expect(not differs, f"{env.name}: expected {what} to go on from a saved state as before, came {differs}")
