"""Models of a data set: which rows teach them what, and whether known functions explain the recorded rewards and ends of episodes."""

import torch
from torch import Tensor

from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.terminals import CHUNK, check_explained, explained, note_left_out, true_successors
from mbkit.errors import UserError
from mbkit.types import Learnable, Recorded, RewardFn, TerminationFn, Transition

MOST = 0.05  # root mean square of the errors of a known reward function, in that of the recorded rewards, beyond which it is refused


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


@torch.no_grad()
def check_rewards(rows: Recorded, reward: RewardFn, true: Tensor, where: str) -> None:
    """UserError where a known reward function gives other rewards than those recorded in the rows of `true`, bool [N].

    The agent would learn from rollouts of one task and from recorded rows of another.
    """
    errors = rows.reward.new_zeros(len(true))
    for part in torch.split(torch.arange(len(true), device=true.device), CHUNK):
        errors[part] = reward(rows.obs[part], rows.action[part], rows.next_obs[part]) - rows.reward[part]
    error, size = (float(x[true].double().square().mean().sqrt()) for x in (errors, rows.reward))
    if error > MOST * size:
        raise UserError(
            f"{where}: the known reward function does not give its rewards (root mean squares: error {error:.3g}, rewards {size:.3g}); "
            "dynamics.reward=learned or a function of yours, pkg.mod:fn, replaces it"
        )


def fit_recorded(model: Learnable, rows: Recorded, true: Tensor) -> dict[str, float]:
    """Fit a model to a data set; rows that are not `true`, bool [N], teach an ensemble terminations alone, and other models nothing."""
    data, whole = Transition(*rows[:5]), bool(true.all())
    if whole or not isinstance(model, Ensemble):
        metrics = model.fit(data if whole else Transition(*(column[true] for column in data[:5])))
    else:
        metrics = model.fit(data, true)
    return {name: float(value) for name, value in metrics.items()}
