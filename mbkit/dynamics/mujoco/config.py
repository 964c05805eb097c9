"""The true model's options, which import no simulator: they are checked before one is loaded."""

from dataclasses import dataclass

from mbkit.fields import at_least


@dataclass(frozen=True)
class MujocoConfig:
    """Settings of the true model."""

    threads: int = at_least(0, 0)  # number of simulation threads; 0: as many as torch uses
