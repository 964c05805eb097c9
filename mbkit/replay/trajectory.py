"""Experience of learners from trajectories: the steps since the last update, and stored trajectories of earlier policies.

Letters: M environments, T steps of each, O observation, A action.
"""

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience
from mbkit.replay.checks import check_steps
from mbkit.types import EnvSpec, State, Trajectory


class TrajectoryBuffer:
    """Collects consecutive steps of M environments on the host until there are T of each, and returns them on `spec.device`.

    A masked row (a step in which an environment was only reset) does not exist: each environment contributes T steps, and those of faster
    environments beyond T are dropped.
    """

    def __init__(self, steps: int, num_envs: int, spec: EnvSpec, capacity: int = 0) -> None:
        if steps < 1:
            raise UserError(f"loop.rollout_steps={steps}: expected at least 1")
        self.steps, self.num_envs, self.spec, self.capacity = steps, num_envs, spec, capacity
        self.rows: list[Experience] = []
        self.valid: list[Tensor] = []  # bool [M] of each row
        self.counts = torch.zeros(num_envs, dtype=torch.int64)  # steps of each environment
        self.past: list[Trajectory] = []  # stored trajectories, at most `capacity`, oldest first

    @property
    def full(self) -> bool:
        """Whether there are T steps of every environment."""
        return int(self.counts.min()) >= self.steps

    def extend(self, rows: Experience, mask: Tensor | None = None) -> None:
        """Append one step of M environments; where `mask` [M] is false there was none."""
        valid = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask.cpu()
        self.rows.append(rows)
        self.valid.append(valid)
        self.counts += valid

    def cut(self) -> None:
        """The running episodes are over without a recorded end. An environment whose last row was masked had ended with the one before."""
        if self.rows:
            self.rows[-1] = self.rows[-1]._replace(ended=torch.ones_like(self.rows[-1].ended))

    def take(self) -> Trajectory:
        """The T steps of every environment, which are removed; `log_prob` is 0, since the behaviour policy is not known here."""
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

    def store(self, trajectory: Trajectory) -> None:
        """Store a trajectory with the log-probabilities of its behaviour policy; the oldest of more than `capacity` is removed."""
        if self.capacity:
            self.past = [*self.past, trajectory][-self.capacity :]

    def draw(self) -> Trajectory:
        """One of the stored trajectories, drawn uniformly."""
        return self.past[int(torch.randint(len(self.past), ()))]

    def state_dict(self) -> State:
        """The steps since the last `take`, and the stored trajectories."""
        rows = self._stacked()
        past = [tuple(x.cpu() for x in trajectory) for trajectory in self.past]
        return {"rows": rows, "valid": torch.stack(self.valid) if self.valid else None, "counts": self.counts.clone(), "past": past}

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict` was called; UserError where the steps are not those of M environments."""
        check_steps(state, self.num_envs, self.spec)
        self.rows = [Experience(*fields) for fields in zip(*state["rows"], strict=True)]
        self.valid = [] if state["valid"] is None else list(state["valid"])
        self.counts.copy_(state["counts"])
        self.past = [Trajectory(*(x.to(self.spec.device) for x in trajectory)) for trajectory in state["past"]]
