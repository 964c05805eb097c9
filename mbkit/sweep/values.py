"""The values of a grid, checked without composing every run: one composition per cell, then each value, then what depends on several.

A cell is a combination of the options that decide which parts, presets and environments there are. Inside one, a value is checked against
its field; and whether options have a meaning is asked once for every combination of the values that conditions (`when=`) compare.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import product
from typing import Any, NamedTuple

from mbkit.config import GROUPS, Experiment, Part, algorithm, compose
from mbkit.config.compose import filled, refuse_meaningless
from mbkit.config.conditions import NESTED, comparisons, meaningless
from mbkit.config.schema import Options
from mbkit.errors import UserError
from mbkit.registry import Entry
from mbkit.sweep.grid import Axis, Grid, arguments_of, value_of

# options without a group that decide nothing about others
PLAIN = ("device", "threads", "precision", "tensorboard")


class Cell(NamedTuple):
    """The options that decide the parts, as key -> text, and the experiment that they compose with the first value of all others."""

    decided: dict[str, str]
    experiment: Experiment


def texts_of(axis: Axis) -> tuple[str, ...]:
    """The values of an option that have to fit: those listed, or the ends of the distribution."""
    return axis.values if axis.drawn is None else axis.drawn.extremes


def decides(axis: Axis) -> bool:
    """Whether an option may decide which others there are, so that every value of it is composed."""
    group, _, name = axis.key.rpartition(".")
    return (group not in NESTED[1:] or name == "name") and axis.key not in PLAIN


def composed(algo: str, arguments: tuple[str, ...]) -> Experiment:
    """The experiment that `train` composes from these arguments; a data set is read for the name of its environment."""
    if not any(argument.startswith("data=") for argument in arguments):
        return compose(algo, arguments)
    from mbkit.run.data import completed  # with data= alone is a file read, and the simulators imported

    return compose(algo, arguments, completed(algo, arguments, {}))


def checked_cells(grid: Grid) -> list[Cell]:
    """The cells of an algorithm's grid; UserError for the first value, or combination of values, that `train` would refuse."""
    deciding = [axis for axis in grid.axes if decides(axis)]
    others = [axis for axis in grid.axes if not decides(axis)]
    cells = []
    for values in product(*map(texts_of, deciding)):
        decided = {axis.key: value for axis, value in zip(deciding, values, strict=True)}
        experiment = composed(grid.algo, arguments_of(decided | {axis.key: texts_of(axis)[0] for axis in others}))
        check_values(experiment, others)
        cells.append(Cell(decided, experiment))
    return cells


def check_values(experiment: Experiment, axes: list[Axis]) -> None:
    """UserError for a value that does not fit its field, or that takes the meaning from an option that was typed."""
    entry = algorithm(experiment.algo)
    changed = {axis.key: [single_value(experiment, axis.key, text) for text in texts_of(axis)] for axis in axes}
    names = compared(experiment, entry)
    compared_axes = {key: values for key, values in changed.items() if len(values) > 1 and key.rpartition(".")[2] in names}
    for values in product(*compared_axes.values()) if compared_axes else ():
        variant = experiment
        for key, value in zip(compared_axes, values, strict=True):
            variant = with_value(variant, key, value)
        refuse_meaningless(variant, entry, meaningless(variant, entry))


def single_value(experiment: Experiment, key: str, text: str) -> Any:
    """The value of one option as its field has it; UserError where it does not fit."""
    group, _, name = key.rpartition(".")
    value = value_of(key, text)
    if not group:
        named = {"algo": experiment.algo, "env": experiment.env}
        return getattr(filled(Options, {**named, name: value}, ""), name)
    return getattr(filled(type(experiment.group(group)), {name: value}, f"{group}."), name)


def with_value(experiment: Experiment, key: str, value: Any) -> Experiment:
    """The experiment with another value of one option, which fits."""
    group, _, name = key.rpartition(".")
    if not group:
        return replace(experiment, **{name: value})
    part, options = getattr(experiment, group), replace(experiment.group(group), **{name: value})
    changed: Any = part._replace(config=options) if isinstance(part, Part) else options
    return replace(experiment, **{group: changed})


def compared(experiment: Experiment, entry: Entry) -> set[str]:
    """Names of options, without their groups, that a condition of this experiment compares."""
    names: set[str] = set()
    for when in (entry.no_model, *conditions(experiment)):
        for left, _, right in comparisons(when) if when else ():
            names |= {left.rpartition(".")[2], str(right)}
    return names - set(GROUPS)


def conditions(experiment: Experiment) -> Iterator[str]:
    """The conditions of all fields."""
    for group in NESTED:
        options = experiment.group(group)
        for field in fields(options) if options is not None else ():
            yield field.metadata.get("when", "")


def has_option(grid: Grid, key: str) -> bool:
    """Whether the algorithm of a grid takes its first values with this option among them."""
    try:
        composed(grid.algo, arguments_of({axis.key: texts_of(axis)[0] for axis in grid.axes if axis.key in (key, "env", "data")}))
    except UserError:
        return False
    return True


def explained(error: UserError, grids: list[Grid], grid: Grid) -> UserError:
    """A mistake in the grid of one algorithm among several, with its name and how to give an option to the others alone."""
    text = str(error)
    if len(grids) == 1:
        return error
    shared = [axis.key for axis in grid.axes if all(axis in other.axes for other in grids)]
    lacking = any(sign in text for sign in ("does not apply", "unknown option", "no meaning"))
    about = text.partition("; known")[0]  # without the list of all options
    culprit = next((key for key in shared if key in about or f" {key.rpartition('.')[0]}=" in about), None) if lacking else None
    other = next((each.algo for each in grids if each is not grid and has_option(each, culprit)), None) if culprit else None
    advice = "" if other is None else f"; {other}:{culprit}=... gives an option to one algorithm"
    return UserError(f"{'' if text.startswith(f'{grid.algo} ') else f'{grid.algo}: '}{text}{advice}")
