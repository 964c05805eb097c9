"""Train, stop, resume, compare: a run that pauses ends as one that does not, bit for bit."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

import mbkit
from mbkit.recording import load_checkpoint, read_metrics
from mbkit.run import Run

TIMED = ("time/", "updates_per_second")  # metrics of the wall clock


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal bit for bit; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | (a != a) & (b != b)).all())
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b or (a != a and b != b))


def timed(name: str) -> bool:
    """Whether a metric depends on the wall clock."""
    return any(word in name for word in TIMED)


def final_state(directory: Path) -> dict[str, Any]:
    """The last checkpoint without what depends on the wall clock, and without the best score, which counts evaluations."""
    _, state = load_checkpoint(directory / "checkpoint")
    recorder = state["recorder"]
    state["recorder"] = {"step": recorder["step"]}
    state["recorder"] |= {key: {k: v for k, v in recorder[key].items() if not timed(k)} for key in ("sums", "count")}
    state.pop("best")
    return state


def curve(directory: Path) -> list[dict[str, float]]:
    """The metrics lines without the wall clock, and without evaluations, of which a run that paused has more."""
    rows = [{k: v for k, v in row.items() if k != "seconds" and not timed(k)} for row in read_metrics(directory)]
    return [row for row in rows if "eval/return" not in row and len(row) > 1]


def check_same_end(one: Path, other: Path) -> None:
    """Two runs, given by their directories, end with the same checkpoint and have the same metrics lines."""
    a, b = final_state(one), final_state(other)
    assert a.keys() == b.keys()
    for key in a:
        for name in a[key] if isinstance(a[key], dict) else ():
            assert same(a[key][name], b[key][name]), f"{key}.{name}"
    assert same(a, b)
    assert same(curve(one), curve(other))


class Resumption(NamedTuple):
    """The runs that `check_resumption` compared."""

    whole: Run  # uninterrupted
    paused: Run  # as it was when it stopped
    resumed: Run


def check_killed(folder: Path, begin: Callable[[Path], Run], at: int = 20) -> Run:
    """A run that dies without a word at its first checkpoint from update `at` on, and is resumed, ends as one that does not."""
    whole = begin(folder / "whole")
    child = os.fork()
    if child == 0:
        checkpoint = Run.checkpoint

        def deadly(self: Run, loop: object = None) -> None:
            checkpoint(self, loop)  # type: ignore[arg-type]
            if self.loop.step >= at:
                os.kill(os.getpid(), signal.SIGKILL)

        Run.checkpoint = deadly  # type: ignore[method-assign]
        begin(folder / "killed")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    mbkit.resume(folder / "killed")
    check_same_end(folder / "whole", folder / "killed")
    return whole


def check_resumption(folder: Path, algo: str, *options: str, steps: int, pause: int) -> Resumption:
    """Train to `steps`, and the same experiment to `pause` and from there to `steps`: both end alike, and not as they paused."""
    whole = mbkit.train(algo, *options, f"steps={steps}", f"run_dir={folder / 'whole'}")
    paused = mbkit.train(algo, *options, f"steps={pause}", f"run_dir={folder / 'halves'}")
    torch.rand(17)  # a resumed process has another past
    halfway = final_state(folder / "halves")
    resumed = mbkit.resume(folder / "halves", steps=steps)
    assert halfway["loop"]["step"] == paused.loop.step < whole.loop.step
    assert not same(halfway["parts"], final_state(folder / "whole")["parts"])
    check_same_end(folder / "whole", folder / "halves")
    return Resumption(whole, paused, resumed)
