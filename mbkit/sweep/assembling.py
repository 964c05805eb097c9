"""A trial assembly of planned runs: what only a recipe, an environment or a data set can refuse is refused before anything starts."""

from dataclasses import replace

from mbkit.config import Experiment, imports
from mbkit.errors import UserError
from mbkit.run.api import resolved
from mbkit.run.data import open_data
from mbkit.run.placement import eager
from mbkit.run.run import Run
from mbkit.sweep.grid import arguments_of
from mbkit.sweep.planning import Combination, SweepPlan
from mbkit.sweep.values import composed, texts_of

MOST = 32  # groups that are all assembled; of more only those that differ from the first of their algorithm in one option


def check_assembly(plan: SweepPlan) -> None:
    """Build environments, networks and buffers of the groups as `train` would, and drop them; UserError with the group's name."""
    for group in representatives(plan):
        arguments = dict(argument.split("=", 1) for argument in group.arguments)
        drawn = {axis.key: texts_of(axis)[0] for axis in plan.grid(group).searched}
        try:
            assemble(composed(group.algo, arguments_of(arguments | drawn)))
        except UserError as error:
            text = " ".join(str(error).split())
            raise UserError(text if len(plan.groups) == 1 else f"{group.name}: {text}") from None


def representatives(plan: SweepPlan) -> list[Combination]:
    """All groups where they are few; otherwise those in which every value of every option occurs at least once for each algorithm."""
    if len(plan.groups) <= MOST:
        return list(plan.groups)
    shown: set[tuple[str, str, str]] = set()
    chosen = []
    for group in plan.groups:
        values = {(group.algo, *argument.partition("=")[::2]) for argument in group.arguments}
        if values - shown:
            shown |= values
            chosen.append(group)
    return chosen


def assemble(experiment: Experiment) -> None:
    """One run, on the CPU, where networks of a GPU are refused for the same reasons."""
    imports.import_typed(experiment)
    with Run(resolved(eager(replace(experiment, device="cpu"))), data=open_data(experiment)):
        pass
