"""One episode of a trained policy as a video in the run directory."""

from collections.abc import Callable
from pathlib import Path

from mbkit import recording
from mbkit.accelerate import same_random_numbers
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.run.closing import acting
from mbkit.run.evaluation import evaluation_seed
from mbkit.types import Actor


def film(
    make_env: Callable[[int, int, str], Environment], actor_for: Callable[[Environment], Actor], path: Path, seed: int
) -> tuple[Path | None, str | None]:
    """The video's path, or None; and why there is none, or why it ends early. `make_env(num_envs, seed, render_mode)` makes the task."""
    first = evaluation_seed(seed)
    with same_random_numbers():
        try:
            env = make_env(1, first, "rgb_array")
        except UserError as error:
            return None, f"no video: {error}"
        with acting(env, actor_for) as (env, actor):
            video = recording.record_video(lambda: env, actor, path, first)
    return video.path, video.reason
