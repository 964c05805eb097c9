"""Rows of a data set that end an episode: whether their successor is the true one, and whether a termination function explains them.

Letters: N rows, O observation.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.types import Recorded, TerminationFn

LEAST = 0.95  # recall and precision of a termination function on the recorded terminations below which it is refused
CHUNK = 65_536  # rows that a termination function is asked about at once


def true_successors(rows: Recorded) -> Tensor:
    """Rows, bool [N], but for those at whose terminal end another observation stands for the successor.

    Some formats write zeros there, others the first observation of the next episode, both of which would poison a model.
    """
    terminal = rows.discount == 0
    end = terminal.nonzero().flatten()
    following = (end + 1) % len(terminal)
    begins = rows.next_known[(following - 1) % len(terminal)] == 0
    zeros = (rows.next_obs[end] == 0).all(1) & ~(rows.obs[end] == 0).all(1)
    others = (rows.next_obs[end] == rows.obs[following]).all(1) & begins
    true = torch.ones_like(terminal)
    true[end] = ~(zeros | others)
    return true


class Explained(NamedTuple):
    """How well a termination function agrees with the recorded terminations."""

    terminals: int  # recorded ones
    recall: float  # share of these that the function finds
    precision: float  # share of the rows that it calls terminal which are; 1 where there are none

    def __str__(self) -> str:
        return f"recall {self.recall:.3f}, precision {self.precision:.3f} on {self.terminals} recorded terminations"


def explained(termination: TerminationFn | None, rows: Recorded, true: Tensor) -> Explained:
    """Recall and precision of a termination function, None for one that is never true, on the rows of `true`, bool [N]."""
    recorded = (rows.discount == 0) & true
    terminals, explained_ends, called = int(recorded.sum()), 0, 0
    if termination is not None:
        for part in torch.split(torch.arange(len(true), device=true.device), CHUNK):
            ended = termination(rows.obs[part], rows.action[part], rows.next_obs[part]) & true[part]
            explained_ends += int((ended & recorded[part]).sum())
            called += int(ended.sum())
    return Explained(terminals, explained_ends / max(terminals, 1), explained_ends / called if called else 1.0)


def check_explained(figures: Explained, where: str, known: bool) -> None:
    """UserError where recorded terminations are not those of the function; nothing to check where none is recorded.

    known: whether there is a function, or episodes of the model never terminate for lack of one.
    """
    if figures.terminals and min(figures.recall, figures.precision) < LEAST:
        what = f"the known termination function does not explain its terminations ({figures}; expected at least {LEAST})"
        none = f"{figures.terminals} of its rows end an episode, but no termination function of its task is known"
        instead = "dynamics.termination=learned, never or a function of yours, pkg.mod:fn"
        raise UserError(f"{where}: {what}; {instead}, replaces it" if known else f"{where}: {none}; expected {instead}")


def note_left_out(true: Tensor) -> str:
    """The sentence on rows that a model is not fitted to; empty where there are none."""
    count = int((~true).sum())
    if not count:
        return ""
    what = "zeros, or the next episode's first observation, in its place"
    return f"Terminal rows without a true successor ({what}), which the prediction of states leaves out: {count}."
