"""The grid of a sweep as it is typed: `mbpo,sac env=Hopper-v5,Walker2d-v5 mbpo:imagination.horizon=1,2`.

Values are divided by commas; those inside brackets, braces, parentheses or quotes belong to one value, so that `agent.hidden=[64,64],[128]`
is two. `ALGO:key=value` gives an option to one algorithm only, where it wins over the same option without a name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from mbkit.config import REGISTRIES, algorithm
from mbkit.config.compose import is_text
from mbkit.config.reading import TASK, read_value
from mbkit.errors import UserError
from mbkit.sweep.distributions import Distribution, distribution
from mbkit.sweep.lists import split_list

KEY = re.compile(r"[^\W\d][\w.]*")
FOR_ONE = re.compile(r"([\w-]+):([^=]*=.*)", re.DOTALL)  # mbpo:imagination.horizon=1,2
ELSEWHERE = {
    "run_dir": "--out DIRECTORY is where all runs of a sweep lie",
    "seed": "seeds are set by --seeds, such as --seeds 1..5",
    "seeds": "seeds are set by --seeds, such as --seeds 1..5",
    "continues": "a sweep trains from the beginning",
}


class Axis(NamedTuple):
    """One option of an algorithm, with its values as they were typed, or the distribution that a search draws it from."""

    key: str
    values: tuple[str, ...]
    drawn: Distribution | None = None


class Grid(NamedTuple):
    """One algorithm and its options."""

    algo: str
    axes: tuple[Axis, ...]

    @property
    def searched(self) -> tuple[Axis, ...]:
        """The options that a search draws."""
        return tuple(axis for axis in self.axes if axis.drawn is not None)

    def combinations(self) -> Iterator[dict[str, str]]:
        """Every combination of the listed values, as key -> text; the options that are typed first change last."""
        listed = [axis for axis in self.axes if axis.drawn is None]
        for values in product(*(axis.values for axis in listed)):
            yield {axis.key: value for axis, value in zip(listed, values, strict=True)}


def parse_grid(algorithms: str, arguments: Sequence[str]) -> list[Grid]:
    """The grid of each algorithm; UserError where an algorithm is unknown or twice there, or an option cannot be read."""
    names = [name.strip() for name in algorithms.split(",")]
    if "" in names:
        raise UserError(f"{algorithms or repr('')}: expected names of algorithms with commas between them, such as mbpo,sac")
    for name in names:
        algorithm(name)
    if len(set(names)) < len(names):
        raise UserError(f"{algorithms}: expected every algorithm once")
    shared: dict[str, Axis] = {}
    special: dict[str, dict[str, Axis]] = {name: {} for name in names}
    for argument in arguments:
        match = FOR_ONE.fullmatch(argument)
        if match is not None and match[1] not in names:
            raise UserError(f"{argument}: {match[1]!r} is none of the algorithms of this sweep, which are {', '.join(names)}")
        axis = parse_axis(match[2] if match else argument, argument)
        target = shared if match is None else special[match[1]]
        if axis.key in target:
            raise UserError(f"{argument}: {axis.key} is set twice; several values are divided by commas, {axis.key}=A,B")
        target[axis.key] = axis
    return [Grid(name, tuple((shared | special[name]).values())) for name in names]


def parse_axis(argument: str, typed: str) -> Axis:
    """ "agent.lr=1e-4,3e-4" -> its axis; `typed` is the argument in messages."""
    key, equals, text = argument.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise UserError(f"cannot read {typed!r}: options are written key=value, key=A,B or ALGO:key=value, for example agent.lr=1e-4,3e-4")
    if key in ELSEWHERE:
        raise UserError(f"{key}= is not an option of a sweep: {ELSEWHERE[key]}")
    drawn = distribution(text, typed)
    if drawn is not None:
        return Axis(key, (), drawn)
    values = split_list(text)
    if len(values) > 1 and "" in values:
        raise UserError(f"{typed}: a value is missing between two commas, or at the end")
    read = [repr(value_of(key, value)) for value in values]
    if len(set(read)) < len(read):
        raise UserError(
            f"{typed}: expected different values, came {next(v for v, r in zip(values, read, strict=True) if read.count(r) > 1)} twice"
        )
    return Axis(key, tuple(values))


def value_of(key: str, text: str) -> object:
    """The value that `train` reads from `key=text`."""
    return read_value(text, f"{key}={text}", is_text(key) or key in REGISTRIES, key.startswith(TASK))


def arguments_of(combination: Mapping[str, str]) -> tuple[str, ...]:
    """A combination as arguments of `train`."""
    return tuple(f"{key}={text}" for key, text in combination.items())
