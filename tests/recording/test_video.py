"""Videos: the right frames at the right speed, and a reason instead of a crash where none can be made."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.recording.video import Video, record_video


class StepResult(NamedTuple):
    obs: Tensor
    terminated: Tensor
    truncated: Tensor


class CountingEnv:
    """Counts its steps; a frame's brightness grows with the step, and frames of the next episode are white."""

    num_envs = 1

    def __init__(self, length: int = 40, dt: float | None = 0.05, size: tuple[int, int] = (64, 96)) -> None:
        self.length, self.dt, self.size, self.closed, self.drawn = length, dt, size, False, []

    def reset(self, seed: int) -> Tensor:
        self.count, self.seed = 0, seed
        return torch.zeros(1, 2)

    def step(self, action: Tensor) -> StepResult:
        assert action.shape == (1, 1)
        self.count += 1
        over = torch.tensor([self.count >= self.length])
        return StepResult(torch.full((1, 2), float(self.count)), torch.tensor([False]), over)

    def render(self) -> Any:
        value = 255 if self.count >= self.length else 4 * self.count % 200
        self.drawn.append(value)
        return np.full((*self.size, 3), value, np.uint8)

    def close(self) -> None:
        self.closed = True


class RandomActor:
    """An actor that draws random numbers."""

    resets = 0

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        assert not explore
        assert not torch.is_grad_enabled()
        return torch.rand(len(obs), 1)

    def reset(self, mask: Tensor) -> None:
        self.resets += bool(mask.all())


def probe(path: Path) -> tuple[str, int, tuple[int, int], float, float]:
    """Pixel format, frames, size, frames a second and seconds of a video, as ffmpeg reads it."""
    import imageio_ffmpeg

    exe = imageio_ffmpeg.get_ffmpeg_exe()
    text = subprocess.run([exe, "-i", str(path), "-map", "0:v", "-f", "null", "-"], capture_output=True, text=True, check=True).stderr
    stream = re.search(r"Video: h264.*?, (\w+)[(,].*?(\d+)x(\d+).*?([\d.]+) fps", text)
    duration = re.search(r"Duration: 00:00:([\d.]+)", text)
    assert stream
    assert duration
    frames = int(re.findall(r"frame=\s*(\d+)", text)[-1])
    return stream[1], frames, (int(stream[2]), int(stream[3])), float(stream[4]), float(duration[1])


def test_record_video_runs_in_real_time_without_a_frame_of_the_next_episode(tmp_path: Path) -> None:
    environment, actor = CountingEnv(), RandomActor()
    state = torch.get_rng_state()
    video = record_video(lambda: environment, actor, tmp_path / "videos" / "final.mp4", seed=7)
    assert video == Video(tmp_path / "videos" / "final.mp4", tmp_path / "videos" / "final.png")
    assert probe(video.path) == ("yuv420p", 40, (96, 64), 20.0, 2.0)
    assert environment.drawn == [4 * i for i in range(40)]
    assert environment.seed == 7
    assert environment.closed
    assert actor.resets == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(os.listdir(tmp_path / "videos")) == ["final.mp4", "final.png"]
    assert (tmp_path / "videos" / "final.png").read_bytes()[:4] == b"\x89PNG"


def test_record_video_fast_simulation_skips_frames_and_odd_size_is_padded(tmp_path: Path) -> None:
    video = record_video(lambda: CountingEnv(300, dt=0.008, size=(63, 95)), RandomActor(), tmp_path / "x.mp4", max_steps=250)
    pixels, frames, size, fps, seconds = probe(video.path)
    assert (pixels, frames, size) == ("yuv420p", 84, (96, 64))  # the first, and every third of 250
    assert fps == pytest.approx(41.67, abs=0.01)
    assert seconds == pytest.approx(250 * 0.008, abs=0.05)


def test_record_video_fps_sets_the_speed(tmp_path: Path) -> None:
    assert probe(record_video(lambda: CountingEnv(10), RandomActor(), tmp_path / "x.mp4", fps=10).path)[3] == 10
    assert probe(record_video(lambda: CountingEnv(10, dt=None), RandomActor(), tmp_path / "y.mp4").path)[3] == 30


def test_record_video_without_a_renderer_returns_the_reason(tmp_path: Path) -> None:
    class Blind(CountingEnv):
        def render(self) -> Any:
            raise UserError("cartpole cannot be rendered on this machine: no EGL")

    environment = Blind()
    video = record_video(lambda: environment, RandomActor(), tmp_path / "x.mp4")
    assert video == Video(None, None, "no video: cartpole cannot be rendered on this machine: no EGL")
    assert environment.closed
    assert os.listdir(tmp_path) == []


def test_record_video_without_moviepy_returns_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ffmpeg_writer", None)
    video = record_video(CountingEnv, RandomActor(), tmp_path / "x.mp4")
    assert video.path is None
    assert video.reason == "no video: moviepy.video.io.ffmpeg_writer is not installed"


@pytest.mark.parametrize("program", ["nowhere/ffmpeg", sys.executable])
def test_record_video_broken_encoder_returns_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", program)
    video = record_video(lambda: CountingEnv(size=(480, 480)), RandomActor(), tmp_path / "x.mp4")
    assert video.path is None
    assert video.reason is not None
    assert "x.mp4 cannot be written" in video.reason
    assert "\n" not in video.reason
    assert os.listdir(tmp_path) == []


def test_record_video_unwritable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    video = record_video(CountingEnv, RandomActor(), tmp_path / "file" / "x.mp4")
    assert video.reason is not None
    assert "file/x.mp4 cannot be written" in video.reason


def test_record_video_mujoco_without_a_display_is_filmed_or_returns_the_reason(tmp_path: Path) -> None:
    envs = pytest.importorskip("mbkit.envs")
    video = record_video(lambda: envs.make("InvertedPendulum-v5", render_mode="rgb_array"), RandomActor(), tmp_path / "x.mp4", max_steps=20)
    if video.path is None:
        assert video.reason
        assert os.listdir(tmp_path) == []
        pytest.skip(video.reason)
    pixels, frames, size, fps, _ = probe(video.path)
    assert (pixels, size, fps) == ("yuv420p", (480, 480), 25.0)
    assert 1 < frames <= 21
