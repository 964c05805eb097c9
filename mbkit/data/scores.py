"""Normalised scores: 0 is a random policy and 100 an expert, by constants that a convention lays down for an environment.

    score = 100 (R - low) / (high - low),    standard deviation = 100 s / (high - low)

Constants are in `references.json`, one line for each environment, convention and version. Those of D4RL (arXiv:2004.07219) hold for its own
environments, which are Gymnasium's of version 2; in later versions body and reward differ, and a score by them is only indicative. A line
with the convention "mbkit" is of a whole id like "Pendulum-v1": `low` is the mean return of `mbkit data collect random`, `high` that of our
expert, both over 100 episodes, and `version` the version of mbkit that measured them.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

D4RL = "D4RL"
OF_D4RL = 2  # last version of Gymnasium's MuJoCo tasks that D4RL recorded
# D4RL's ids: hopper-medium-replay-v2, antmaze-umaze-diverse-v0, maze2d-umaze-v1, pen-human-v1, ...
KINDS = "random|medium|expert|simple|human|cloned|complete|partial|mixed|umaze|large|open|full|play|diverse|ultra"
DATASET = re.compile(rf"(?P<family>[a-z0-9]+)((?:-(?:{KINDS}|replay))+)-v\d+")


class Reference(NamedTuple):
    """Two returns of an environment under one convention."""

    environment: str  # D4RL: the family that all its ids begin with; mbkit: a whole id
    convention: str
    version: str  # of the convention
    low: float  # return of a random policy
    high: float  # return of an expert

    def normalised(self, value: float) -> float:
        """A return -> its score."""
        return 100 * (value - self.low) / (self.high - self.low)

    def scaled(self, std: float) -> float:
        """A standard deviation of returns -> that of scores: the range alone counts, a deviation has no offset."""
        return 100 * std / (self.high - self.low)


class Score(NamedTuple):
    """A normalised score and how it came about."""

    mean: float
    std: float
    reference: Reference
    indicative: bool  # the constants are of another version of the environment

    @property
    def convention(self) -> str:
        """In words, to stand beside the number."""
        name = f"{self.reference.convention} {self.reference.version}, {self.reference.environment}"
        return f"{name}; indicative, since its constants are of an earlier version of the environment" if self.indicative else name


@cache
def references() -> dict[tuple[str, str, str], Reference]:
    """All constants by environment, convention and version."""
    lines = json.loads(files("mbkit.data").joinpath("references.json").read_text())
    table = [Reference(**line) for line in lines]
    return {entry[:3]: entry for entry in table}


def scores_of(env: str | None, mean: float, std: float) -> list[Score]:
    """The scores of returns in an environment under every convention that knows it; none where it has no name or no constants.

    Args:
        env: id of an environment, or of one of D4RL's data sets.
        mean: mean return.
        std: standard deviation of returns.
    """
    return [Score(ref.normalised(mean), ref.scaled(std), ref, indicative) for ref, indicative in _known(env or "")]


def _known(env: str) -> Sequence[tuple[Reference, bool]]:
    """Constants that apply to an id, and whether they are only indicative."""
    table = list(references().values())
    ours = [(entry, False) for entry in table if entry.convention != D4RL and entry.environment == env]
    family, indicative = _family(env)
    return [*((entry, indicative) for entry in table if entry.convention == D4RL and entry.environment == family), *ours]


def _family(env: str) -> tuple[str, bool]:
    """D4RL's name for an environment, and whether the environment is another version than D4RL's."""
    if match := DATASET.fullmatch(env):
        family, kinds = match["family"], match[2].split("-")
        return (f"{family}-{kinds[1]}" if family == "maze2d" else family), False
    name, _, version = env.rpartition("-v")
    if name and version.isdigit() and name.lower() in ("halfcheetah", "hopper", "walker2d", "ant"):
        return name.lower(), int(version) > OF_D4RL
    return "", False
