"""Runs of a second or two whose policies are exported, and their files as functions."""

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

import mbkit
from mbkit import registry
from mbkit.data import Columns, Dataset, write
from mbkit.export.formats import read_onnx, read_pt2
from mbkit.run import Run

SHORT = ("threads=1", "eval.episodes=1", "eval.video=false", "agent.hidden=[16,16]", "env_kwargs.max_episode_steps=20", "steps=60")
REPLAY = ("loop.warmup_steps=30", "loop.batch_size=16")
MODEL = ("dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[8]", "dynamics.max_epochs=2", "loop.fit_every=30")
READ = {".pt2": read_pt2, ".onnx": read_onnx}


class Lopsided(gymnasium.Env):
    """Rewards nothing; its actions are a float64 box of shape [2, 2] that is not symmetric, its observations a Dict in large units."""

    action_space = spaces.Box(np.array([[-1.0, 0.0], [2.0, -30.0]]), np.array([[3.0, 0.5], [2.5, 10.0]]), dtype=np.float64)
    observation_space = spaces.Dict({"where": spaces.Box(-1000, 1000, (2,), np.float32), "gear": spaces.Discrete(3, start=1)})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return self.observation(), {}

    def observation(self) -> dict:
        """A random one."""
        return {"where": self.np_random.normal(300, 40, 2).astype(np.float32), "gear": int(self.np_random.integers(1, 4))}

    def step(self, action: np.ndarray) -> tuple:
        assert self.action_space.contains(action)
        return self.observation(), 0.0, False, False, {}


gymnasium.register("Lopsided-v0", entry_point=Lopsided, max_episode_steps=20)


def train(directory: Path, algo: str, *options: str) -> Path:
    """The directory of a short run."""
    entry = registry.agents[algo] if algo in registry.agents else registry.recipes[algo]
    if entry.learns_from == ("dataset",):
        options = (f"data={data_set(directory.parent / 'data.h5', algo)}", "loop.batch_size=16", *options)
    replay = REPLAY if "warmup_steps" in entry.defaults.get("loop", {}) else ()
    model = MODEL if "dynamics" in entry.defaults else ()
    mbkit.train(algo, *SHORT, *replay, *model, f"run_dir={directory}", *options)
    return directory


def data_set(path: Path, algo: str) -> Path:
    """Random numbers in the dimensions of Pendulum-v1, or of CartPole-v1 where the agent takes discrete actions alone."""
    env = registry.agents[algo].defaults["env"]
    draw, (wide, choices) = np.random.default_rng(0), {"Pendulum-v1": (3, 0), "CartPole-v1": (4, 2)}[env]
    episode = np.repeat(np.arange(3), 20)
    last = np.append(np.diff(episode), 1).astype(bool)
    obs, action = draw.normal(size=(60, wide)), draw.integers(2, size=60) if choices else draw.uniform(-2, 2, (60, 1))
    following = np.where(last[:, None], draw.normal(size=(60, wide)), np.roll(obs, -1, 0))
    columns = Columns(obs, action, draw.uniform(0.1, 1, 60), following, last & (episode == 0), last & (episode > 0), episode)
    box = {"choices": choices, "start": 0} if choices else {"action_low": [-2], "action_high": [2]}
    return write(Dataset.of(columns, env=env, **box), path)


def largest_differences(run: Run, file: Path) -> list[tuple[float, float]]:
    """The largest difference of a file's actions from `run.act` and its limit: near the data, in +-10 and in +-1000; 1 and 257 rows."""
    outputs, draw, results = READ[file.suffix](file.read_bytes()), torch.Generator().manual_seed(1), []
    width = run.parts.spec.obs_dim
    near = torch.randn(257, width, generator=draw) + (0 if run.env is None else run.env.obs[:1])
    box = torch.rand(257, width, generator=draw) * 2 - 1
    for rows in (near, 10 * box, 1000 * box):
        limit = 1e-5 if float(rows.abs().max()) <= 10 else 1e-5 * float(rows.abs().max())
        results.append((difference(run, outputs, rows), limit))
        results.append((difference(run, outputs, rows[:1]), limit))
    return results


def difference(run: Run, outputs: Callable[[Tensor], Tensor], rows: Tensor) -> float:
    """The largest difference of shapes, types and values at these rows."""
    expected, action = run.act(rows), outputs(rows)
    assert tuple(action.shape) == expected.shape
    assert action.dtype == (torch.int64 if run.parts.spec.discrete else torch.float32)
    return float(np.abs(action.numpy().astype(np.float64) - expected).max())
