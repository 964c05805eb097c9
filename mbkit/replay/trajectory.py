"""What on-policy learners remember: the steps since their last update, and trajectories that were learned from before.

Letters: M environments, T steps of each, O observation, A action.
"""

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience
from mbkit.types import EnvSpec, State, Trajectory


class TrajectoryBuffer:
    """Consecutive steps of M environments until there are T of each; kept on the host, handed out on `spec.device` in one piece.

    A masked row (a step in which an environment was only reset) does not exist: each environment has T steps of its own, and what faster
    ones have beyond that is dropped, where the window is cut anyway.
    """

    def __init__(self, steps: int, num_envs: int, spec: EnvSpec, kept: int = 0) -> None:
        if steps < 1:
            raise UserError(f"loop.rollout_steps={steps}: expected at least 1")
        self.steps, self.num_envs, self.spec, self.kept = steps, num_envs, spec, kept
        self.rows: list[Experience] = []
        self.valid: list[Tensor] = []  # bool [M] of each row
        self.counts = torch.zeros(num_envs, dtype=torch.int64)  # steps of each environment
        self.past: list[Trajectory] = []  # at most `kept`, oldest first

    @property
    def full(self) -> bool:
        """Whether there are T steps of every environment."""
        return int(self.counts.min()) >= self.steps

    def extend(self, rows: Experience, mask: Tensor | None = None) -> None:
        """One step of M environments; where `mask` [M] is false there was none."""
        valid = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask.cpu()
        self.rows.append(rows)
        self.valid.append(valid)
        self.counts += valid

    def cut(self) -> None:
        """The running episodes are over, unseen. Where the last row of an environment was none, it had ended on the one before."""
        if self.rows:
            self.rows[-1] = self.rows[-1]._replace(ended=torch.ones_like(self.rows[-1].ended))

    def take(self) -> Trajectory:
        """The T steps of every environment, and begin anew; `log_prob` is 0, for who acted is not known here."""
        fields = self._stacked()
        valid = torch.stack(self.valid)
        if not valid.all():  # the first T valid rows of each column, in order
            order = (~valid).int().argsort(stable=True, dim=0)[: self.steps]
            fields = [x[order, torch.arange(self.num_envs)] for x in fields]
        obs, action, reward, next_obs, terminated, ended = (x[: self.steps].to(self.spec.device) for x in fields)
        self.rows, self.valid = [], []
        self.counts.zero_()
        reward = reward.float()
        return Trajectory(obs, action, reward, next_obs, (~terminated).float(), ended | terminated, torch.zeros_like(reward))

    def _stacked(self) -> list[Tensor]:
        """The fields of all rows, [steps, M, ...] each, on the host."""
        return [torch.stack([x if x.device.type == "cpu" else x.cpu() for x in column]) for column in zip(*self.rows, strict=True)]

    def remember(self, trajectory: Trajectory) -> None:
        """Keep a trajectory, with the log-probabilities of who acted then, for a later `recall`."""
        if self.kept:
            self.past = [*self.past, trajectory][-self.kept :]

    def recall(self) -> Trajectory:
        """One of the remembered trajectories, drawn uniformly."""
        return self.past[int(torch.randint(len(self.past), ()))]

    def state_dict(self) -> State:
        """The steps since the last `take`, and the remembered trajectories."""
        rows = self._stacked()
        past = [tuple(x.cpu() for x in trajectory) for trajectory in self.past]
        return {"rows": rows, "valid": torch.stack(self.valid) if self.valid else None, "counts": self.counts.clone(), "past": past}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken."""
        self.rows = [Experience(*fields) for fields in zip(*state["rows"], strict=True)]
        self.valid = [] if state["valid"] is None else list(state["valid"])
        self.counts.copy_(state["counts"])
        self.past = [Trajectory(*(x.to(self.spec.device) for x in trajectory)) for trajectory in state["past"]]
