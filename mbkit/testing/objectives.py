"""What planners are checked on: objectives whose best sequences are known, and one that looks at the candidates.

Letters: M problems, N candidates, H horizon, A action.
"""

import torch
from torch import Tensor

from mbkit.testing.common import expect
from mbkit.testing.systems import random_actions
from mbkit.types import EnvSpec, Objective

PROBLEMS, HORIZON = 3, 2  # M and H: a search among so short sequences is easy
SCALE = 10.0  # of the objectives' scores


def targets(spec: EnvSpec, seed: int = 3) -> Tensor:
    """The best sequence of each problem: [M, H, A] of 0.6 in size, so that it lies inside the box, or any of discrete actions."""
    drawn = random_actions(spec, PROBLEMS, HORIZON, seed)
    return drawn if spec.discrete else 0.6 * drawn.sign()


def closeness(target: Tensor) -> Objective:
    """Scores [M, N] of actions [M, N, H, ...]: less the squared distance from each problem's target, or the number of hits if discrete."""

    def objective(actions: Tensor) -> Tensor:
        goal = target[:, None]
        near = -(actions - goal).square() if actions.is_floating_point() else (actions == goal).float()
        return SCALE * near.flatten(2).sum(2)

    return objective


class Spy:
    """An objective that checks the candidates it sees and stores their numbers and the best score of each problem."""

    def __init__(self, objective: Objective, spec: EnvSpec) -> None:
        self.objective, self.spec = objective, spec
        self.counts: list[int] = []
        self.best: Tensor | None = None  # [M]

    def __call__(self, actions: Tensor) -> Tensor:
        """Scores [M, N]."""
        shape = (PROBLEMS, actions.shape[1] if actions.ndim > 1 else 0, HORIZON, *self.spec.action_shape)
        expect(
            actions.shape == shape, f"the objective: expected candidates of the shape (M, N, H, ...), {shape}, came {tuple(actions.shape)}"
        )
        check_actions(actions, self.spec, "the objective: expected candidates")
        self.counts.append(actions.shape[1])
        score = self.objective(actions)
        finite = score.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        self.best = finite.amax(1) if self.best is None else finite.amax(1).maximum(self.best)
        return score


def check_actions(actions: Tensor, spec: EnvSpec, what: str) -> None:
    """Check for floats in [-1, 1], or int64 below the numbers of actions."""
    if not spec.discrete:
        expect(actions.is_floating_point(), f"{what} of floating numbers, came {actions.dtype}")
        within = actions.abs() <= 1
        expect(bool(within.all()), f"{what} in [-1, 1], came {actions[~within][:1].tolist()}")
        return
    expect(actions.dtype == torch.int64, f"{what} of int64, came {actions.dtype}")
    highest = torch.tensor(spec.parts or spec.action_dim, device=actions.device) - 1
    within = (actions >= 0) & (actions <= highest)
    expect(bool(within.all()), f"{what} from 0 to {highest.tolist()}, came {actions[~within][:1].tolist()}")
