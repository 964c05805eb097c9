"""Small MDPs as data sets of one-hot observations whose rows are in exact proportion to the behaviour policy: what exact methods solve."""

from typing import NamedTuple

import numpy as np
import torch

from mbkit.tabular.mdp import MDP
from mbkit.types import EnvSpec, Transition


class OneHot(NamedTuple):
    """Deterministic successors; the last state is terminal, and the data hold no row of it."""

    mdp: MDP
    beta: np.ndarray  # [S, A] behaviour policy
    rows: Transition  # one-hot observations
    states: torch.Tensor  # [S - 1, S] those of the states with data

    @property
    def spec(self) -> EnvSpec:
        """Dimensions."""
        return EnvSpec(self.mdp.S, self.mdp.A, torch.device("cpu"), True)


def problem(counts: np.ndarray, gamma: float = 0.7, seed: int = 3, dtype: torch.dtype = torch.float32) -> OneHot:
    """`counts` [S, A]: how often each pair is in the data; every state as often as the others. Rewards in [0.1, 1]."""
    S, A = counts.shape
    rng = np.random.default_rng(seed)
    after, R = rng.integers(S, size=(S, A)), rng.uniform(0.1, 1, size=(S, A))
    after[-1], R[-1] = S - 1, 0.0
    mdp = MDP(np.eye(S)[after], R, np.eye(S)[0], gamma, np.arange(S) == S - 1)
    state, choice = (torch.from_numpy(np.repeat(x, counts[:-1].ravel())) for x in np.divmod(np.arange((S - 1) * A), A))
    eye, successor = torch.eye(S, dtype=dtype), torch.from_numpy(after)[state, choice]
    rows = Transition(eye[state], choice, torch.from_numpy(R).to(dtype)[state, choice], eye[successor], (successor != S - 1).to(dtype))
    return OneHot(mdp, counts / counts.sum(1, keepdims=True), rows, eye[:-1])
