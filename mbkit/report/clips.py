"""The videos on a page."""

import base64
import math
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mbkit.paths import is_file
from mbkit.report.collect import Group, RunRecord

EMBED_BYTES = 8 * 2**20  # larger videos are linked
EMBEDDED = 3 * 2**20  # bytes of all videos of a page with several runs, of which later ones are linked


class Clip(NamedTuple):
    """A video on the page."""

    source: str  # data: URI, or a relative link
    poster: str | None
    caption: str


def best_videos(group: Group, runs: int) -> list[tuple[RunRecord, Path]]:
    """All videos of a lone run, latest first; of a group, the last video of its best run."""
    if runs == 1:
        return [(group.runs[0], video) for video in reversed(group.runs[0].videos)]
    filmed = [run for run in group.runs if run.videos]
    best = max(filmed, key=lambda run: (math.isfinite(run.final()[0]), run.final()[0]), default=None)
    return [(best, best.videos[-1])] if best else []


def clip(video: Path, folder: Path, caption: str, embedded: bool = True) -> Clip:
    """The video, embedded if small enough; links are relative to `folder`."""
    poster = video.with_suffix(".png")
    image = "data:image/png;base64," + base64.b64encode(poster.read_bytes()).decode() if is_file(poster) else None
    if embedded and video.stat().st_size <= EMBED_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
    else:
        source = quote(Path(os.path.relpath(video, folder)).as_posix())
    return Clip(source, image, caption)


def clips(groups: list[Group], folder: Path) -> list[Clip]:
    """The videos of a page: all of a lone run, of several runs the last of each group's best one, embedded while there is space."""
    runs = sum(len(group.runs) for group in groups)
    several_tasks = len({group.env for group in groups}) > 1
    every, space = [], math.inf if runs == 1 else EMBEDDED
    for group in groups:
        for run, video in best_videos(group, runs):
            space -= (size := video.stat().st_size)
            task = f" on {group.env}" if several_tasks else ""
            text = f"{group.label}{task}, seed {run.seed}: {video.stem.replace('-', ' ').replace('_', ' ')}"
            every.append(clip(video, folder, text, embedded=space >= 0 or runs == 1))
            space += 0 if space >= 0 else size
    return every
