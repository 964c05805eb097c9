"""Random numbers of several runs in one process: each draws what it would have drawn alone.

Letters: S runs, B batch.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_active: tuple["Stream", ...] = ()  # of the runs for which `normal_like` and `uniform` draw


class Stream:
    """The global random state of one run: Python's, NumPy's and torch's on the CPU. It begins as a copy of the present one.

    NumPy's global normal numbers are made in pairs; the second one of a pair is forgotten where another stream becomes active between them.
    """

    def __init__(self) -> None:
        self._python, self._torch = random.getstate(), torch.get_rng_state()
        self._numpy = np.random.MT19937()
        self._numpy.state = np.random.get_state(legacy=False)  # type: ignore[assignment]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, everything is drawn from this stream."""
        python, numpy = random.getstate(), np.random.get_bit_generator()  # type: ignore[attr-defined]
        random.setstate(self._python)
        np.random.set_bit_generator(self._numpy)  # type: ignore[attr-defined]  # the state itself takes ten times as long to copy
        try:
            with self.torch():
                yield
        finally:
            self._python = random.getstate()
            random.setstate(python)
            np.random.set_bit_generator(numpy)  # type: ignore[attr-defined]

    @contextmanager
    def torch(self) -> Iterator[None]:
        """Inside, torch's random numbers on the CPU are drawn from this stream."""
        before = torch.get_rng_state()
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._torch = torch.get_rng_state()
            torch.set_rng_state(before)


@contextmanager
def drawn_from(streams: Sequence[Stream]) -> Iterator[None]:
    """Inside, `normal_like` and `uniform` draw for S runs at once, for each of them from its stream."""
    global _active
    before, _active = _active, tuple(streams)
    try:
        yield
    finally:
        _active = before


def normal_like(x: Tensor, std: float = 1.0) -> Tensor:
    """Normal numbers of mean 0, of the shape, type and device of x; for S runs at once, x [S, ...]. A GPU has one state for all of them."""
    noise = torch.empty_like(x)
    if not _active or x.device.type != "cpu":
        return noise.normal_(0, std)
    for part, stream in zip(noise, _active, strict=True):
        with stream.torch():
            part.normal_(0, std)
    return noise


def uniform(n: int, device: torch.device) -> Tensor:
    """n numbers uniform in [0, 1), [n]; for S runs at once [S, n]."""
    if not _active:
        return torch.rand(n, device=device)
    if device.type != "cpu":
        return torch.rand(len(_active), n, device=device)
    drawn = []
    for stream in _active:
        with stream.torch():
            drawn.append(torch.rand(n))
    return torch.stack(drawn)
