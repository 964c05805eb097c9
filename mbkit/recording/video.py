"""One episode as an mp4 that browsers play, with a still image; where no video can be made, the reason instead."""

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mbkit.errors import UserError
from mbkit.paths import check_file, exists, make_folder
from mbkit.storage import replacing, replacing_path
from mbkit.types import Actor

if TYPE_CHECKING:  # importing mbkit.recording must not import a simulator
    from mbkit.envs import Environment

Frame = NDArray[np.uint8]  # [height, width, 3]
EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"  # what browsers decode: even width and height, subsampled colour
log = logging.getLogger("mbkit")
FASTEST = 60.0  # frames per second; of a simulation with shorter steps every second, third, ... step is shown


class Video(NamedTuple):
    """The files of a video, or the reason why there are none, or why it ends before its episode."""

    path: Path | None  # mp4
    poster: Path | None  # png of the frame in the middle
    reason: str | None = None


def record_video(
    environment_factory: Callable[[], "Environment"],
    actor: Actor,
    path: str | Path,
    seed: int = 0,
    max_steps: int = 1000,
    fps: float | None = None,
) -> Video:
    """Record one episode of the actor in simulated real time; torch's random numbers are left as they were.

    Args:
        environment_factory: makes one environment with `render_mode="rgb_array"`.
        actor: acts without exploration; it is reset before the episode, a planner's warm start included.
        path: path of the mp4; the still image lies beside it as png.
        seed: seed of the episode, and of torch's random numbers in it.
        max_steps: steps after which a longer episode is cut.
        fps: environment steps shown per second; None: in simulated real time, or 30 if the environment has no `dt`.

    Returns:
        The paths, or the reason why there is no video: no renderer, no encoder, a full disk. No incomplete file is left. Where the
        episode was cut there are both.
    """
    with quiet_destructors():
        return _record(environment_factory, actor, Path(path), seed, max_steps, fps)


@contextmanager
def quiet_destructors() -> Iterator[None]:
    """Hide errors of destructors: without a renderer, deleting Gymnasium's incomplete viewer fails again, after the reason is known."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _record(
    environment_factory: "Callable[[], Environment]", actor: Actor, path: Path, seed: int, max_steps: int, fps: float | None
) -> Video:
    try:
        environment = environment_factory()
        try:
            rate = fps or (1 / environment.dt if environment.dt else 30.0)
            stride = math.ceil(rate / FASTEST)
            check_file(path, makes_folders=True)
            make_folder(path.parent)
            with replacing_path(path) as temporary, torch.random.fork_rng():
                torch.manual_seed(seed)
                episode = FilmedEpisode(environment, actor, seed, max_steps, stride)
                poster = _encode(episode.frames(), temporary, rate / stride)
        finally:
            _close(environment)
        with replacing(path.with_suffix(".png")) as file:
            import_module("matplotlib.image").imsave(file, poster, format="png")
    except UserError as error:
        return Video(None, None, f"no video: {error}")
    except ImportError as error:
        return Video(None, None, f"no video: {error.name or error} is not installed")
    except OSError as error:
        return Video(None, None, f"no video: {path} cannot be written ({str(error).splitlines()[0]})")
    cut = None if episode.ended else f"The video shows the first {max_steps} steps of its episode, which had not ended by then."
    return Video(path, path.with_suffix(".png"), cut)


def _close(environment: "Environment") -> None:
    """Close the environment; a finished video is not lost to a task whose `close` raises an exception."""
    try:
        environment.close()
    except UserError as error:
        log.warning("%s", error, exc_info=error.__cause__)


class FilmedEpisode:
    """One episode of at most `max_steps` steps; `ended` tells whether its frames reached the end."""

    def __init__(self, environment: "Environment", actor: Actor, seed: int, max_steps: int, stride: int) -> None:
        self.environment, self.actor, self.seed, self.max_steps, self.stride = environment, actor, seed, max_steps, stride
        self.ended = False

    def frames(self) -> Iterator[Frame]:
        """Every stride-th frame; none after the last step, where the environment shows the next episode."""
        obs = self.environment.reset(self.seed)
        self.actor.reset(torch.ones(self.environment.num_envs, dtype=torch.bool))
        yield self.environment.render()
        for step in range(1, self.max_steps + 1):
            with torch.no_grad():
                result = self.environment.step(self.actor.act(obs, explore=False))
            self.ended = bool(result.terminated[0] | result.truncated[0])
            if self.ended:
                return
            obs = result.obs
            if step % self.stride == 0:
                yield self.environment.render()


def _encode(frames: Iterator[Frame], path: Path, fps: float) -> Frame:
    """Write a video frame by frame, which needs little memory however long the episode is; returns a frame from about the middle."""
    first = next(frames)
    stored, every = [first.copy()], 1
    with _writer(path, first.shape[1], first.shape[0], fps) as writer:
        writer.write_frame(np.ascontiguousarray(first))
        for number, frame in enumerate(frames, 1):
            if frame.shape != first.shape:
                raise UserError(f"frame {number}: expected the size of the first one, {list(first.shape)}, got {list(frame.shape)}")
            writer.write_frame(np.ascontiguousarray(frame))
            if number % every == 0:
                stored.append(frame.copy())
            if len(stored) == 16:  # the middle is known only at the end: store frames at twice the distance
                stored, every = stored[::2], 2 * every
    if not exists(path) or not path.stat().st_size:
        raise OSError("the encoder wrote nothing")
    return stored[len(stored) // 2]


def _writer(path: Path, width: int, height: int, fps: float) -> Any:
    """moviepy's H.264 encoder, a context manager; UserError if ffmpeg is missing."""
    try:
        module = import_module("moviepy.video.io.ffmpeg_writer")
    except RuntimeError as error:  # imageio-ffmpeg looks for the program on import
        raise UserError(f"ffmpeg is missing ({str(error).splitlines()[0]})") from error
    return module.FFMPEG_VideoWriter(str(path), (width, height), fps, ffmpeg_params=["-vf", EVEN, "-movflags", "+faststart"])
