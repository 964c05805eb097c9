"""One episode as an mp4 that browsers play, and a still of it; where that can't be had, a sentence says why."""

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mbkit.errors import UserError
from mbkit.types import Actor

if TYPE_CHECKING:  # whoever only reads metrics needs no simulator
    from mbkit.envs import Environment

Frame = NDArray[np.uint8]  # [height, width, 3]
EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"  # what browsers decode: even sides, subsampled colour
FASTEST = 60.0  # frames a second; a simulation with shorter steps is shown every second, third, ... step


class Video(NamedTuple):
    """The files, or why there are none."""

    path: Path | None  # mp4
    poster: Path | None  # png, the frame in the middle
    reason: str | None = None


def record_video(
    environment_factory: Callable[[], "Environment"],
    actor: Actor,
    path: str | Path,
    seed: int = 0,
    max_steps: int = 1000,
    fps: float | None = None,
) -> Video:
    """Film one episode of the actor at the speed of the simulated clock, without disturbing torch's random numbers.

    Args:
        environment_factory: makes one environment with `render_mode="rgb_array"`.
        actor: acts without exploration; a planner's warm start is reset before, and is of this episode afterwards.
        path: the mp4; the poster lies beside it as png.
        seed: of the episode, and of the actor's random numbers in it.
        max_steps: where a longer episode is cut.
        fps: steps shown per second; None takes the environment's own clock, or 30 where it has none.

    Returns:
        The paths, or a sentence why there is no video: no renderer, no encoder, a full disk. Nothing half-written is left.
    """
    with quiet_destructors():
        return _record(environment_factory, actor, Path(path), seed, max_steps, fps)


@contextmanager
def quiet_destructors() -> Iterator[None]:
    """Where there is no renderer, Gymnasium's half-made viewer fails once more when it is deleted; the reason was given already."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _record(
    environment_factory: "Callable[[], Environment]", actor: Actor, path: Path, seed: int, max_steps: int, fps: float | None
) -> Video:
    temporary = path.with_name(f"{path.stem}.part.mp4")
    try:
        environment = environment_factory()
        try:
            rate = fps or (1 / environment.dt if environment.dt else 30.0)
            stride = math.ceil(rate / FASTEST)
            path.parent.mkdir(parents=True, exist_ok=True)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                poster = _encode(_frames(environment, actor, seed, max_steps, stride), temporary, rate / stride)
        finally:
            environment.close()
        os.replace(temporary, path)
        import_module("matplotlib.image").imsave(path.with_suffix(".png"), poster)
    except UserError as error:
        return Video(None, None, f"no video: {error}")
    except ImportError as error:
        return Video(None, None, f"no video: {error.name or error} is not installed")
    except OSError as error:
        return Video(None, None, f"no video: {path} cannot be written ({str(error).splitlines()[0]})")
    finally:
        with suppress(OSError):
            temporary.unlink()
    return Video(path, path.with_suffix(".png"))


def _frames(environment: "Environment", actor: Actor, seed: int, max_steps: int, stride: int) -> Iterator[Frame]:
    """Every stride-th frame of one episode; none after its end, where the next episode's first would show."""
    obs = environment.reset(seed)
    actor.reset(torch.ones(environment.num_envs, dtype=torch.bool))
    yield environment.render()
    for step in range(1, max_steps + 1):
        with torch.no_grad():
            taken = environment.step(actor.act(obs, explore=False))
        if bool(taken.terminated[0] | taken.truncated[0]):
            return
        obs = taken.obs
        if step % stride == 0:
            yield environment.render()


def _encode(frames: Iterator[Frame], path: Path, fps: float) -> Frame:
    """Write frame by frame, so that a long episode needs no memory; returns one from about the middle."""
    first = next(frames)
    kept, every = [first.copy()], 1
    with _writer(path, first.shape[1], first.shape[0], fps) as writer:
        writer.write_frame(np.ascontiguousarray(first))
        for number, frame in enumerate(frames, 1):
            writer.write_frame(np.ascontiguousarray(frame))
            if number % every == 0:
                kept.append(frame.copy())
            if len(kept) == 16:  # where the middle is shows only at the end: remember fewer, further apart
                kept, every = kept[::2], 2 * every
    if not path.exists() or not path.stat().st_size:
        raise OSError("the encoder wrote nothing")
    return kept[len(kept) // 2]


def _writer(path: Path, width: int, height: int, fps: float) -> Any:
    """moviepy's H.264 encoder, a context manager; UserError where there is no ffmpeg."""
    try:
        module = import_module("moviepy.video.io.ffmpeg_writer")
    except RuntimeError as error:  # imageio-ffmpeg looks for the program on import
        raise UserError(f"ffmpeg is missing ({str(error).splitlines()[0]})") from error
    return module.FFMPEG_VideoWriter(str(path), (width, height), fps, ffmpeg_params=["-vf", EVEN, "-movflags", "+faststart"])
