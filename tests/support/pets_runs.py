"""Runs of PETS that take about a second."""

from pathlib import Path

import mbkit
from mbkit.run import Run

PLAN = ("agent.horizon=4", "agent.particles=3", "planner.candidates=12", "planner.elites=3", "planner.iterations=2")
MODEL = ("dynamics.members=3", "dynamics.elites=3", "dynamics.hidden=[16]")
EPOCHS = ("dynamics.max_epochs=3",)
SCORE = ("eval.episodes=2", "eval.video=false")
LOOP = ("threads=1", "loop.warmup_steps=30", "loop.log_every=10", "env_kwargs.max_episode_steps=25")
TINY = (*LOOP, *SCORE, *PLAN, *MODEL, *EPOCHS)


def train_pets(directory: Path, steps: int, *options: str, env: str = "cartpole") -> Run:
    """A finished run in `directory`."""
    return mbkit.train("pets", *TINY, f"run_dir={directory}", f"env={env}", f"steps={steps}", *options)
