"""Two simulators that take B rows from where live environments stand through H actions each, exactly as `env.step` would.

`Vectorised` runs the tasks `readouts` knows in MuJoCo's own threads, `Stepped` all others through copies of the environment. A action.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import mujoco
import mujoco.rollout
import numpy as np
from mujoco.batch import Batch

from mbkit.dynamics.mujoco.readouts import Array, Frames, Readout, Simulated

FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS  # time, qpos, qvel, act: the record of mujoco.rollout
INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION  # all the next step depends on, the solver's warm start included


def get_state(model: Any, data: Any, part: Any) -> Array:
    """One of MuJoCo's state vectors."""
    state = np.empty(mujoco.mj_stateSize(model, part))
    mujoco.mj_getState(model, data, state, part)
    return state


class PhysicsState(NamedTuple):
    """Physics of B rows."""

    physics: Array  # [B, S] time, positions, velocities, activations
    warm: Array  # [B, V] start of the constraint solver; without it the first steps differ in the last digits
    whole: Array  # [B, W] integration state, for a simulator that takes it in one piece
    fields: Frames  # derived MjData fields [B, ...]; some lag behind the state, and a step reads them before it changes them


class Vectorised:
    """MuJoCo's threads step all rows: `mujoco.rollout` where the physics state suffices, else `mujoco.batch`, which records any field."""

    def __init__(self, env: Any, readout: Readout, threads: int) -> None:
        self.env, self.readout, self.model, self.threads = env, readout, env.model, threads
        self.data = [mujoco.MjData(env.model) for _ in range(threads)]
        self.pool: Any = None  # threads begin with the first rollout
        self.batch: Any = None
        self.recorded: dict[tuple[int, int], Array] = {}  # rows and physics steps -> output buffer, so that a plan allocates once

    def start(self, envs: Sequence[Any]) -> PhysicsState:
        """Row m stands where `envs[m]` stands now."""
        physics = np.stack([get_state(self.model, env.data, FULL) for env in envs])
        whole = np.stack([get_state(self.model, env.data, INTEGRATION) for env in envs])
        warm = np.stack([env.data.qacc_warmstart for env in envs])
        fields = {name: np.stack([getattr(env.data, name) for env in envs]) for name in self.readout.fields}
        return PhysicsState(physics, warm, whole, fields)

    def rollout(self, rows: PhysicsState, action: Array) -> Simulated:
        """Native actions [B, H, A]."""
        control = np.repeat(action.astype(np.float64), self.env.frame_skip, 1)
        states, fields = (self._record if self.readout.fields else self._states)(rows, control)
        return self._read(rows, states, fields, action)

    def step(self, rows: PhysicsState, action: Array) -> tuple[PhysicsState, Simulated]:
        """Native actions [B, A]; the rows after them."""
        control = np.repeat(action[:, None].astype(np.float64), self.env.frame_skip, 1)
        states, fields = self._record(rows, control)
        whole = self.batch.state[: len(action)].copy()
        warm = self.batch.qacc_warmstart[: len(action)].copy()
        after = PhysicsState(states[:, -1].copy(), warm, whole, {name: values[:, -1].copy() for name, values in fields.items()})
        return after, self._read(rows, states, fields, action[:, None])

    def close(self) -> None:
        """End the threads; a later rollout begins new ones."""
        if self.pool is not None:
            self.pool.close()
        self.pool = self.batch = None

    def _states(self, rows: PhysicsState, control: Array) -> tuple[Array, Frames]:
        shape = control.shape[:2]
        if shape not in self.recorded:
            self.recorded[shape] = np.empty((*shape, rows.physics.shape[1]))
        out = self.recorded[shape]
        if self.pool is None:
            self.pool = mujoco.rollout.Rollout(nthread=self.threads if self.threads > 1 else 0)
        self.pool.rollout(self.model, self.data, rows.physics, control, initial_warmstart=rows.warm, state=out)
        return out[:, self.env.frame_skip - 1 :: self.env.frame_skip], {}

    def _record(self, rows: PhysicsState, control: Array) -> tuple[Array, Frames]:
        count, steps = control.shape[:2]
        if self.batch is None or self.batch.nsim < count:
            self.batch = Batch(self.model, count, self.threads)
        self.batch.state[:count] = rows.whole
        ids = None if self.batch.nsim == count else np.arange(count)
        out = self.batch.rollout(steps, control, record=(FULL, *self.readout.fields), ids=ids)
        last = {name: values[:, self.env.frame_skip - 1 :: self.env.frame_skip] for name, values in out.items()}
        return last.pop(FULL), last

    def _read(self, rows: PhysicsState, states: Array, fields: Frames, action: Array) -> Simulated:
        physics = np.concatenate([rows.physics[:, None], states], 1)
        nq, nv = self.model.nq, self.model.nv
        frames = {"qpos": physics[..., 1 : 1 + nq], "qvel": physics[..., 1 + nq : 1 + nq + nv]}
        frames |= {name: np.concatenate([rows.fields[name][:, None], values], 1) for name, values in fields.items()}
        steps = self.readout.read(self.env, frames, action)
        # A row whose physics diverged stands still in the recording, its clock too. It has no reward, so that no planner prefers it.
        frozen = np.diff(physics[..., 0], axis=1) < self.env.dt / 2
        return steps._replace(reward=np.where(frozen, np.nan, steps.reward)) if frozen.any() else steps


class Stepped:
    """Rows one by one through the environment's own `step`, in a copy of it that shares only what never changes.

    Slower by an order of magnitude, and exact for any MujocoEnv whose state lies in MuJoCo's data and in attributes that can be copied.
    """

    shared = frozenset({"model", "mujoco_renderer", "spec", "metadata", "action_space", "observation_space"})

    def __init__(self, env: Any, threads: int) -> None:
        self.copies = [self._copy(env) for _ in range(threads)]
        self.pool: ThreadPoolExecutor | None = None  # threads begin with the first rollout

    def start(self, envs: Sequence[Any]) -> Array:
        """Copies of the environments as they stand now, an array of objects [M]; rows may share one until they move."""
        return object_array([self._copy(env) for env in envs])

    def rollout(self, rows: Array, action: Array) -> Simulated:
        """Native actions [B, H, A]."""
        parts = np.array_split(np.arange(len(rows)), len(self.copies))
        self.pool = self.pool or ThreadPoolExecutor(len(self.copies))
        results = list(self.pool.map(lambda copied, part: [self._run(copied, rows[b], action[b]) for b in part], self.copies, parts))
        obs, reward, terminated = zip(*(row for part in results for row in part), strict=True)
        return Simulated(np.stack(obs), np.array(reward, np.float64), np.array(terminated, np.bool_))

    def step(self, rows: Array, action: Array) -> tuple[Array, Simulated]:
        """Native actions [B, A]; the rows after them."""
        after = [self._copy(row) for row in rows]
        obs, reward, terminated = zip(*(row.step(a)[:3] for row, a in zip(after, action, strict=True)), strict=True)
        columns = np.stack(obs), np.array(reward, np.float64), np.array(terminated, np.bool_)
        return object_array(after), Simulated(*(column[:, None] for column in columns))

    def close(self) -> None:
        """End the threads; a later rollout begins new ones."""
        if self.pool is not None:
            self.pool.shutdown()
        self.pool = None

    def _copy(self, env: Any) -> Any:
        twin = object.__new__(type(env))  # copy.copy would make a whole new environment: Gymnasium's pickle as their arguments
        twin.data = mujoco.MjData(env.model)
        self._move(twin, env)
        return twin

    def _move(self, twin: Any, source: Any) -> None:
        """Bring the copy `twin` to where `source` stands."""
        mujoco.mj_copyData(twin.data, source.model, source.data)
        for name, value in vars(source).items():
            if name != "data":
                setattr(twin, name, value if name in self.shared else copy.deepcopy(value))
        twin.render_mode = None

    def _run(self, twin: Any, start: Any, action: Array) -> tuple[Array, list[float], list[bool]]:
        self._move(twin, start)
        obs, reward, terminated = zip(*(twin.step(a)[:3] for a in action), strict=True)
        return np.stack(obs), list(reward), list(terminated)


def object_array(objects: Sequence[Any]) -> Array:
    """An array of these objects, sequences included, so that rows can be taken by an index."""
    array = np.empty(len(objects), object)
    for row, value in enumerate(objects):
        array[row] = value
    return array
