"""Runs of the model-based offline learners as small as can be, on a few random steps of InvertedPendulum-v5."""

from pathlib import Path
from typing import Any

import mbkit
from mbkit.data import write
from mbkit.run import Run, collect

MODEL = ("dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=1", "dynamics.batch=64")
RUN = ("agent.hidden=[8]", "loop.batch_size=20", "loop.log_every=10", "threads=1")
SCORED = ("eval.episodes=1", "eval.max_steps=2", "eval.video=false")
ROLLOUTS = ("imagination.starts=20", "imagination.horizon=2", "imagination.every=10", "imagination.memory_gb=0.01")
CQL = ("agent=cql", "agent.samples=2", "agent.hidden=[8]")
ADVERSARY = ("imagination.adversary_every=10", "imagination.adversary_updates=2", "imagination.adversary_batch=8")
EPISODES = ("imagination.horizon=10", "imagination.episodes=3", "imagination.coefficient=3", "imagination.bc_updates=3")
SMALL: dict[str, tuple[str, ...]] = {
    "mopo": ROLLOUTS,
    "morel": EPISODES,
    "combo": (*ROLLOUTS, "agent.samples=2"),
    "rambo": (*ROLLOUTS, *ADVERSARY),
    "mobile": (*ROLLOUTS, "imagination.samples=3"),
}
MOREL_SAC = (*ROLLOUTS, "agent=sac", "agent.hidden=[8]", "imagination.coefficient=3", "imagination.bc_updates=3")


def random_steps(path: Path, rows: int = 150) -> Path:
    """Steps of random actions on InvertedPendulum-v5, about one in six of which ends an episode."""
    return write(collect(["random"], rows, "InvertedPendulum-v5", seed=1), path)


def train(algo: str, data: Path | None, folder: Path, *options: str, **objects: Any) -> Run:
    """A run of 20 updates, or as many as `options` say, with a score of two steps where there is an environment."""
    source = [] if data is None else [f"data={data}"]
    scored = () if "env=none" in options else SCORED
    return mbkit.train(algo, *source, f"run_dir={folder}", "steps=20", *RUN, *scored, *options, **objects)
