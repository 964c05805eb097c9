"""A film of an episode and of what the model predicts of it, side by side, rendered by MuJoCo.

Letters: T steps, O observation, Q positions, V velocities.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mbkit.accelerate import same_random_numbers
from mbkit.envs.environment import NoRenderer
from mbkit.errors import UserError
from mbkit.recording import record_video
from mbkit.report.collect import Floats
from mbkit.report.predictions import RESTART, Predictions
from mbkit.run.evaluation import evaluation_seed

if TYPE_CHECKING:
    from mbkit.run import Run

LARGEST_SPEED = 10.0  # beyond which Hopper-v5 and Walker2d-v5 cut the velocities that they observe
SLOWEST = 0.5  # of real time


class StateLayout(NamedTuple):
    """Where an observation holds the simulator's state: O = `offset` + Q - `hidden` + V + anything."""

    offset: int  # numbers before the positions
    hidden: int  # first positions that the observation leaves out, such as the x of the root


def layout_of(obs: Floats, qpos: Floats, qvel: Floats) -> StateLayout | None:
    """The layout by which recorded observations [T + 1, O] hold the recorded states [T + 1, Q] and [T + 1, V]; None where none fits."""
    if not len(qpos):
        return None
    obs, n, v = obs[: len(qpos)], qpos.shape[1], qvel.shape[1]
    for offset in (0, 1):
        for hidden in (0, 1, 2):
            middle, end = offset + n - hidden, offset + n - hidden + v
            if hidden >= n or end > obs.shape[1]:
                continue
            speeds, observed = (np.clip(x, -LARGEST_SPEED, LARGEST_SPEED) for x in (qvel, obs[:, middle:end]))
            if np.allclose(obs[:, offset:middle], qpos[:, hidden:], atol=1e-4) and np.allclose(observed, speeds, atol=1e-3):
                return StateLayout(offset, hidden)
    return None


def states_of(table: Predictions, layout: StateLayout, dt: float) -> tuple[Floats, Floats]:
    """The simulator's states, [T + 1, Q] and [T + 1, V], of the rollout; hidden positions go on with the predicted velocity."""
    steps, n, v = len(table.qpos), table.qpos.shape[1], table.qvel.shape[1]
    middle = layout.offset + n - layout.hidden
    qvel = table.replayed[:steps, middle : middle + v]
    qpos = np.empty((steps, n))
    qpos[:, layout.hidden :] = table.replayed[:steps, layout.offset : middle]
    for t in range(steps):
        restarted = t % RESTART == 0
        qpos[t, : layout.hidden] = (
            table.qpos[t, : layout.hidden] if restarted else qpos[t - 1, : layout.hidden] + dt * qvel[t, : layout.hidden]
        )
    return qpos, qvel


class PairedFilm:
    """What `record_video` takes for an environment: the real states on the left, the model's on the right, step by step."""

    num_envs = 1

    def __init__(self, env: Any, real: tuple[Floats, Floats], predicted: tuple[Floats, Floats], dt: float) -> None:
        self.env, self.real, self.predicted, self.dt, self.t = env, real, predicted, dt, 0

    def reset(self, seed: int) -> torch.Tensor:
        """Begin at step 0."""
        obs: torch.Tensor = self.env.reset(seed)
        self.t = 0
        return obs

    def step(self, action: torch.Tensor) -> Any:
        """Go on to the next recorded state; the last one ends the film."""
        self.t += 1
        over = torch.tensor([self.t >= len(self.real[0])])
        return _Shown(obs=action, terminated=over, truncated=torch.zeros_like(over))

    def render(self) -> NDArray[np.uint8]:
        """Both frames side by side; the bar below the right one grows until the model starts again from the real state."""
        left, right = (self._frame(qpos[self.t], qvel[self.t]) for qpos, qvel in (self.real, self.predicted))
        right[-6:] = 225
        right[-6:, : right.shape[1] * (self.t % RESTART + 1) // RESTART] = (196, 85, 59)
        return np.concatenate([left, np.full((len(left), 4, 3), 255, np.uint8), right], 1)

    def _frame(self, qpos: Floats, qvel: Floats) -> NDArray[np.uint8]:
        self.env.envs[0].unwrapped.set_state(qpos, qvel)
        frame: NDArray[np.uint8] = self.env.render().copy()
        return frame

    def close(self) -> None:
        """Close the environment that renders."""
        self.env.close()


class _Shown(NamedTuple):
    obs: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor


class _Still:
    """An actor that does nothing: the states are recorded ones."""

    def act(self, obs: torch.Tensor, explore: bool = False) -> torch.Tensor:
        return obs

    def reset(self, mask: torch.Tensor) -> None:
        pass


def film_beside(run: "Run", table: Predictions, path: Path) -> str:
    """Write the film as mp4, with a still beside it; returns why there is none, or "".

    Args:
        run: a loaded run, which makes the environment that renders.
        table: its predictions.
        path: of the mp4.
    """
    layout = layout_of(table.obs, table.qpos, table.qvel)
    if layout is None:
        task = "no task of MuJoCo" if not len(table.qpos) else "a task whose observations do not hold the simulator's state"
        return f"No film of real beside predicted states: {run.config.env} is {task}."
    seed = evaluation_seed(run.config.seed)
    with same_random_numbers():
        try:
            env = run.variant(None)(1, seed, "rgb_array")
            dt = env.dt or 1 / 30
            film = PairedFilm(env, (table.qpos, table.qvel), states_of(table, layout, dt), dt)
            video = record_video(lambda: film, _Still(), path, seed, fps=SLOWEST / dt)  # type: ignore[arg-type, return-value]
        except (UserError, NoRenderer) as error:
            return f"No film of real beside predicted states: {error}."
    return f"No film of real beside predicted states: {video.reason}." if video.path is None else ""
