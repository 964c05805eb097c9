"""The replay in a run's checkpoint as a data set: all that the run experienced and had not yet overwritten.

Letters: N rows, O observation, A action.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbkit import recording
from mbkit.config import Experiment
from mbkit.config.identity import comparable
from mbkit.data import Columns, Dataset
from mbkit.envs import Environment, make
from mbkit.envs.spaces import ActionMap
from mbkit.errors import UserError
from mbkit.replay.buffer import CONTENT, ReplayBuffer
from mbkit.run.objects import taken_up
from mbkit.run.reading import read_config
from mbkit.types import State


def replay_of(directory: str | Path, checkpoint: str | int = "last", *, env: Any = None) -> Dataset:
    """The replay of a run as it stood at a checkpoint: "last", "best" or a stored step.

    Episodes stand one behind the other, in the order in which they began; actions are in the environment's units again, observations and
    rewards are float32, as the run stored them. The last row of an episode that was running, or that was cut, carries no flag. `env` is
    the task that the run was trained on, where it is an object without an import path.

    Raises:
        UserError: no run, no such checkpoint, a run without a replay, or an environment that cannot be made or has several actions at once.
    """
    directory = Path(directory)
    experiment = taken_up(read_config(directory), {"env": env}, directory)
    step, state = recording.named_checkpoint(directory / "checkpoint", checkpoint)
    saved = _saved(experiment, directory, state)
    with make(experiment.env, env_kwargs=experiment.env_kwargs, task=experiment.objects.get("env")) as task:
        replay = ReplayBuffer(saved["capacity"], task.spec)
        try:
            replay.load_state_dict(saved)
        except (UserError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"the replay of {directory} at step {step} cannot be read: {error}") from error
        rows, begun = columns_of(replay, task)
        facts = action_space(task)
    notes = ["observations and rewards are float32, as the run stored them"]
    if begun:
        notes.append(f"episodes whose first rows are lost, since later ones were written over them: {begun}")
    cut = int(rows.episode[-1]) + 1 - int((rows.terminated | rows.truncated).sum())
    if cut:
        notes.append(f"episodes without a flag at their end, which were running or were cut: {cut}; the last row has its true successor")
    source = {"format": "run", "run": str(directory), "algo": experiment.algo, "seed": experiment.seed, "step": step, "dtype": "float32"}
    source |= {"unflagged_ends": cut, "lost_beginnings": begun, "versions": recording.versions()}
    kwargs = {key: comparable(value) for key, value in experiment.env_kwargs.items()}
    named = directory if checkpoint == "last" else Path(f"{directory}@{checkpoint}")
    about = {"path": named, "format": "run", "env": experiment.env, "env_kwargs": kwargs}
    return Dataset.of(rows, **about, **facts, source=source, notes=notes)


def _saved(experiment: Experiment, directory: Path, state: State) -> State:
    """The state of the run's replay buffer; UserError where it has none."""
    parts = state.get("parts")
    saved = parts.get("buffer") if isinstance(parts, dict) else None
    if not isinstance(saved, dict) or not CONTENT.keys() <= saved.keys():
        raise UserError(f"{directory} holds no replay: {experiment.algo} stores no transitions of earlier steps in its checkpoints")
    if not int(saved["total"]):
        raise UserError(f"{directory}: the replay of this checkpoint is empty; expected one of a later step")
    return saved


def action_space(env: Environment) -> dict[str, Any]:
    """Arguments of Dataset on an environment's actions; UserError where several discrete ones are taken at once."""
    space = env.envs[0].action_space
    actions = ActionMap(space, env.name)
    if actions.parts:
        raise UserError(f"action space of {env.name}: expected one discrete action a step, got {space}; data sets hold no several at once")
    if actions.discrete:
        return {"choices": actions.dim, "start": int(np.reshape(actions.start, -1)[0])}
    return {"action_low": actions.low.reshape(-1), "action_high": actions.high.reshape(-1)}


def columns_of(replay: ReplayBuffer, env: Environment) -> tuple[Columns, int]:
    """The rows of a buffer on the CPU as columns in the environment's units, and the number of episodes that lost their beginnings."""
    order, episode, begun = episodes_of(replay)
    rows = replay.rows_at(order)
    action = env.native_action(rows.action).reshape(len(order), -1)
    obs, reward, next_obs, terminated, ended = (x.numpy() for x in (rows.obs, rows.reward, rows.next_obs, rows.terminated, rows.ended))
    native = action[:, 0] if env.spec.discrete else action
    return Columns(obs, native, reward, next_obs, terminated, ended & ~terminated, episode), begun


def episodes_of(replay: ReplayBuffer) -> tuple[Tensor, NDArray[np.int64], int]:
    """Positions of all rows, int64 [N], episode by episode; the episode of each, int64 [N]; how many episodes begin in the middle.

    Columns are interleaved in a buffer: a row is the first of its episode unless a stored row is linked to it.
    """
    positions = replay.order()
    links = replay.link[positions]
    linked = torch.zeros(replay.capacity + 1, dtype=torch.bool)
    linked[links] = True  # the place behind the ring stands for no following row
    heads = ~linked[positions].numpy()
    column = replay.origin[positions, 0].numpy()
    by_column = np.argsort(column, kind="stable")
    number = np.empty(len(positions), np.int64)  # of the episode, column by column
    number[by_column] = np.cumsum(heads[by_column]) - 1
    first = np.empty(int(heads.sum()), np.int64)  # age rank of each episode's first row
    first[number[heads]] = np.flatnonzero(heads)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    episode = rank[number]
    rows = np.argsort(episode, kind="stable")
    begun = int((replay.origin[positions, 1].numpy()[heads] == 0).sum())
    return positions[torch.from_numpy(rows)], episode[rows], begun
