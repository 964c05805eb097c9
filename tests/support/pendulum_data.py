"""A small data set in the dimensions of Pendulum-v1."""

from pathlib import Path

import numpy as np

from mbkit.data import Columns, Dataset, write


def pendulum(path: Path, episodes: int = 4, low: float = -2, high: float = 2) -> Path:
    """Random numbers in the dimensions of Pendulum-v1, episodes of 25 rows; the return of episode i grows with i."""
    draw, rows = np.random.default_rng(0), 25 * episodes
    episode = np.repeat(np.arange(episodes), 25)
    last = np.append(np.diff(episode), 1).astype(bool)
    obs = draw.normal(size=(rows, 3))
    following = np.where(last[:, None], draw.normal(size=(rows, 3)), np.roll(obs, -1, 0))
    action = draw.uniform(low, high, (rows, 1))
    data = Columns(
        obs, action, episode - 2.0 + draw.normal(size=rows) / 10, following, last & (episode == 0), last & (episode > 0), episode
    )
    return write(Dataset.of(data, env="Pendulum-v1", action_low=[low], action_high=[high]), path)
