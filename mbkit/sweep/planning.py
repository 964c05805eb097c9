"""The runs of a sweep, planned and checked before any of them starts, and the file that holds the plan, `sweep.json`."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mbkit.errors import UserError
from mbkit.paths import is_file, make_folder, matching, short
from mbkit.recording.rundir import directory_name
from mbkit.storage import read_json, write_json
from mbkit.sweep.grid import Grid, arguments_of, parse_grid
from mbkit.sweep.values import Cell, checked_cells, explained

FORMAT = "mbkit sweep 1"
FILE = "sweep.json"
LONGEST_NAME = 100


class Combination(NamedTuple):
    """What the seeds of one combination share."""

    name: str  # its directory in that of the sweep
    algo: str
    env: str
    steps: int
    arguments: tuple[str, ...]  # of `train`, without those that a search draws
    differs: dict[str, str]  # the options in which groups differ, as typed
    eval_every: int = 0


class Planned(NamedTuple):
    """One run."""

    group: Combination
    seed: int

    @property
    def name(self) -> str:
        """Its directory in that of the sweep."""
        return f"{self.group.name}/seed-{self.seed}"

    def arguments(self, threads: int | None) -> list[str]:
        """All arguments of `train`; `threads` where the user set none."""
        typed = any(argument.startswith("threads=") for argument in self.group.arguments)
        return [*self.group.arguments, f"seed={self.seed}", *([f"threads={threads}"] if threads and not typed else [])]


class SweepPlan(NamedTuple):
    """What was asked for, and the groups of runs that this makes."""

    algorithms: str
    options: tuple[str, ...]
    seeds: tuple[int, ...]
    groups: tuple[Combination, ...]
    grids: tuple[Grid, ...]

    @property
    def runs(self) -> list[Planned]:
        """Every run of a sweep without a search, group by group."""
        return [Planned(group, seed) for group in self.groups for seed in self.seeds]

    @property
    def searched(self) -> bool:
        """Whether options are drawn from distributions."""
        return any(grid.searched for grid in self.grids)

    def grid(self, group: Combination) -> Grid:
        """The grid that a group belongs to."""
        return next(grid for grid in self.grids if grid.algo == group.algo)

    def asked(self) -> dict[str, Any]:
        """What two commands agree in that mean the same sweep."""
        return {"algorithms": self.algorithms, "options": list(self.options), "seeds": list(self.seeds)}


def planned(algorithms: str | Sequence[str], options: Sequence[str], seeds: Sequence[int]) -> SweepPlan:
    """The plan of a sweep; UserError for the first option, value or combination that `train` would refuse."""
    names = algorithms if isinstance(algorithms, str) else ",".join(algorithms)
    grids = parse_grid(names, options)
    cells: dict[str, list[Cell]] = {}
    for grid in grids:
        try:
            cells[grid.algo] = checked_cells(grid)
        except UserError as error:
            raise explained(error, grids, grid) from None
    several = len({cell.experiment.env for each in cells.values() for cell in each}) > 1
    groups = [group for grid in grids for group in groups_of(grid, cells[grid.algo], several)]
    return SweepPlan(names, tuple(options), tuple(seeds), tuple(with_different_names(groups)), tuple(grids))


def groups_of(grid: Grid, cells: Sequence[Cell], several: bool) -> list[Combination]:
    """The groups of one algorithm; `several`: environments differ, so that names tell them."""
    varying = [axis.key for axis in grid.axes if axis.drawn is None and len(axis.values) > 1]
    drawn = {axis.key for axis in grid.searched}
    by_decision = {json.dumps({k: v for k, v in cell.decided.items() if k not in drawn}): cell.experiment for cell in cells}
    deciding = [key for key in cells[0].decided if key not in drawn]
    groups = []
    for combination in grid.combinations():
        experiment = by_decision[json.dumps({key: combination[key] for key in deciding})]
        differs = {key: combination[key] for key in varying if key != "env"}
        labels = [f"{label}={differs[key]}" for key, label in labels_of(list(differs)).items()]
        name = group_name([grid.algo, *([experiment.env] if several else []), *labels])
        every = experiment.eval.every
        groups.append(Combination(name, grid.algo, experiment.env, experiment.steps, arguments_of(combination), differs, every))
    return groups


def labels_of(keys: Sequence[str]) -> dict[str, str]:
    """What options are called in names: without their group where no other ends alike."""
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: key.rpartition(".")[2] if last[key.rpartition(".")[2]] == 1 else key for key in keys}


def group_name(parts: Sequence[str]) -> str:
    """A directory's name that tells these parts; with a digest behind it where it cannot show them whole."""
    parts = [part.replace(" ", "").replace("'", "").replace('"', "") for part in parts]
    shown = [directory_name(part.replace("[", "").replace("]", "")) for part in parts]
    name = "_".join(shown)
    whole = [part.replace("[", "").replace("]", "") for part in parts] == shown and len(name) <= LONGEST_NAME
    return name if whole else f"{name[:LONGEST_NAME]}-{digest(parts)}"


def with_different_names(groups: Sequence[Combination]) -> list[Combination]:
    """The groups, with a digest behind names that would be equal, also where a file system ignores case."""
    count = Counter(group.name.lower() for group in groups)
    return [
        group if count[group.name.lower()] == 1 else group._replace(name=f"{group.name}-{digest((group.algo, *group.arguments))}")
        for group in groups
    ]


def digest(value: Any) -> str:
    """Six letters that tell values apart."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:6]


def default_directory(plan: SweepPlan) -> Path:
    """Where a sweep lies unless the user says otherwise: the same for the same command, so that it goes on."""
    return Path("runs", f"sweep-{directory_name(plan.algorithms.replace(',', '-'))}-{digest(plan.asked())}")


# --- the file -------------------------------------------------------------------------------------------------------------------------


def opened(directory: Path, plan: SweepPlan, threads: int | None, trials: int | None) -> dict[str, Any]:
    """The content of the directory's `sweep.json`, which is written where there is none, or where more trials are asked for.

    Raises:
        UserError: the directory holds another sweep, or something else.
    """
    path = directory / FILE
    content: dict[str, Any] = {"format": FORMAT, **plan.asked(), "threads": threads, "trials": trials}
    content["groups"] = [{**group._asdict(), "arguments": list(group.arguments)} for group in plan.groups]
    stored = check_place(directory, plan)
    if stored is not None:
        content["threads"] = stored.get("threads")
        content["trials"] = max(trials or 0, stored.get("trials") or 0) or None
        if content["trials"] == stored.get("trials"):
            return stored
    make_folder(directory)
    write_json(path, content)
    return content


def check_place(directory: Path, plan: SweepPlan) -> dict[str, Any] | None:
    """The content of the directory's `sweep.json`, None where there is none; UserError where something else lies there."""
    if is_file(directory / FILE):
        stored = read_sweep(directory)
        check_same(stored, plan, directory)
        return stored
    if any(not path.name.startswith(".") for path in matching(directory, "*")):
        raise UserError(f"{short(directory)} is no directory of a sweep, and not empty; --out takes a new one, or that of the same sweep")
    return None


def read_sweep(directory: Path) -> dict[str, Any]:
    """The content of a directory's `sweep.json`; UserError where it is none."""
    content = read_json(directory / FILE)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{short(directory / FILE)}: expected {FORMAT!r}")
    return content


def check_same(stored: Mapping[str, Any], plan: SweepPlan, directory: Path) -> None:
    """UserError naming the first thing in which the sweep in a directory differs from the one that is asked for."""
    for key, asked in plan.asked().items():
        there = stored.get(key)
        if there == asked:
            continue
        if isinstance(there, list) and isinstance(asked, list):
            odd = next((value for value in asked if value not in there), next((value for value in there if value not in asked), None))
            which = f"{odd}, which only {'this command' if odd in asked else 'the sweep there'} has" if odd is not None else "their order"
            difference = f"{key} differ in {which}"
        else:
            difference = f"its {key} are {there}, here {asked}"
        raise UserError(
            f"{short(directory)} holds another sweep: {difference}; the same command goes on with it, another needs another --out"
        )
