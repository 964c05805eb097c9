"""Models of a data set: which rows teach them what, and whether their termination function explains the recorded ends."""

from torch import Tensor

from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.terminals import check_explained, explained, note_left_out, true_successors
from mbkit.types import Learnable, Recorded, TerminationFn, Transition


def checked_terminals(rows: Recorded, termination: TerminationFn | None, option: str, where: str) -> tuple[Tensor, list[str]]:
    """Rows whose successor is the true one, bool [N], and what the user should know of the recorded terminations.

    Args:
        rows: the whole data set, in order.
        termination: the model's termination function; None: learned, or never.
        option: `dynamics.termination`.
        where: the data set, for messages.

    Raises:
        UserError: the known termination function does not explain the recorded terminations.
    """
    true = true_successors(rows)
    notes = [note for note in [note_left_out(true)] if note]
    if option not in ("learned", "never"):
        figures = explained(termination, rows, true)
        if option == "auto":
            check_explained(figures, where, termination is not None)
        if figures.terminals:
            notes.append(f"Termination function on the data: {figures}.")
    return true, notes


def fit_recorded(model: Learnable, rows: Recorded, true: Tensor) -> dict[str, float]:
    """Fit a model to a data set; rows that are not `true`, bool [N], teach an ensemble terminations alone, and other models nothing."""
    data, whole = Transition(*rows[:5]), bool(true.all())
    if whole or not isinstance(model, Ensemble):
        metrics = model.fit(data if whole else Transition(*(column[true] for column in data[:5])))
    else:
        metrics = model.fit(data, true)
    return {name: float(value) for name, value in metrics.items()}
