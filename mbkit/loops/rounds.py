"""Hooks of model-based learning from a data set: rounds of model rollouts, of an adversarial model, of episodes in a model, and cloning."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from mbkit.agents.base import descend
from mbkit.agents.offline.cloning import imitation_loss
from mbkit.errors import UserError
from mbkit.imagination.adversary import Adversary
from mbkit.imagination.trajectories import model_trajectory
from mbkit.loops.clock import Clock, Hook
from mbkit.loops.updates import check_metrics
from mbkit.networks.optimizers import FusedAdam, polyak_, restore_optimizer_
from mbkit.types import Dynamics, Source, State, TrajectoryLearner, Transition


class Rounds:
    """Calls hooks before the updates number `begin`, `begin` + `every`, ...: it stands before the hook that makes the updates."""

    def __init__(self, every: int, hooks: Sequence[Hook], begin: int = 0) -> None:
        self.every, self.hooks, self.begin = every, hooks, begin

    def rounds(self, updates: int) -> int:
        """Rounds that precede the last of so many updates."""
        return max(0, -(-(updates - self.begin) // self.every))

    def __call__(self, clock: Clock) -> None:
        """Calls the hooks where the stride that ends now holds such an update."""
        if self.rounds(clock.step) > self.rounds(clock.step - clock.stride):
            for hook in self.hooks:
                hook(clock)


class ModelFacts:
    """Records, once, what the fit of a model before the first update came to."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def __call__(self, clock: Clock) -> None:
        """Records the metrics of a fit of this session."""
        if self.metrics:
            clock.recorder.event(clock.step, self.metrics)
            self.metrics = {}


class Cloning:
    """Updates of a policy alone, which imitates the recorded actions, and of its target network; one for each step of the clock.

    Args:
        agent: has a `policy` that is deterministic or a distribution.
        data: the data set; None where the run only acts.
        batch: rows of an update.
        lr: Adam learning rate.

    Raises:
        UserError: an agent without such a policy.
    """

    def __init__(self, agent: Any, data: Source | None, batch: int, lr: float) -> None:
        policy = getattr(agent, "policy", None)
        if not isinstance(policy, torch.nn.Module):
            raise UserError(f"imagination.bc_updates clones a policy, but {type(agent).__name__} has none; expected 0, or e.g. agent=sac")
        self.agent, self.policy, self.data, self.batch = agent, policy, data, batch
        self.optimizer = FusedAdam([p for p in policy.parameters() if p.requires_grad], lr)

    def __call__(self, clock: Clock) -> None:
        """As many updates as the clock has moved on."""
        if self.data is None:
            raise TypeError("a policy is cloned from a data set, which is not at hand")
        for _ in range(clock.stride):
            loss = self._update(self.data.sample(self.batch))
        if isinstance(target := getattr(self.agent, "target_policy", None), torch.nn.Module):
            polyak_(target, self.policy, 1.0)  # else the first targets would be values of random actions
        clock.recorder.log(clock.step, {"actor/cloning_loss": loss})

    def _update(self, batch: Transition) -> Tensor:
        normalizer = getattr(self.agent, "normalizer", None) if not hasattr(self.policy, "inputs") else None
        loss = imitation_loss(self.policy, batch.obs if normalizer is None else normalizer(batch.obs), batch.action)
        return descend(self.optimizer, loss)

    def state_dict(self) -> State:
        """The optimizer's state."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        restore_optimizer_(self.optimizer, state["optimizer"])


class AdversaryRound:
    """One round of an adversarial model's training; see `Adversary.train`."""

    def __init__(self, adversary: Adversary, agent: Any, data: Source, steps: int, batch: int, gamma: float) -> None:
        self.adversary, self.agent, self.data, self.steps, self.batch, self.gamma = adversary, agent, data, steps, batch, gamma

    def __call__(self, clock: Clock) -> None:
        """The round. UserError where the model diverged."""
        began = perf_counter()
        metrics = self.adversary.train(self.agent, self.data, self.steps, self.batch, self.gamma)
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if not torch.tensor(value).isfinite():
                raise UserError(
                    f"the adversarial model diverged: {name} is {value} at step {clock.step}, expected a finite number; a smaller "
                    "imagination.adversary_lr or imagination.adversary_weight is safer (the last checkpoint is from before)"
                )
        clock.recorder.event(clock.step, {**values, "time/adversary_seconds": perf_counter() - began})


class EpisodeUpdates:
    """Updates of a learner from trajectories on episodes in a model; one for each step of the clock.

    Args:
        name: of the agent, for messages.
        agent: the learner.
        model: the dynamics of the episodes.
        first: observations that begin episodes, [N, O].
        shape: T steps of M episodes side by side.
        steps: length of the run, for schedules.
        log_every: updates between two looks at the metrics.
    """

    def __init__(
        self, name: str, agent: TrajectoryLearner, model: Dynamics, first: Tensor, shape: tuple[int, int], steps: int, log_every: int
    ) -> None:
        self.name, self.agent, self.model, self.first = name, agent, model, first
        self.shape, self.steps, self.log_every = shape, steps, log_every

    def __call__(self, clock: Clock) -> None:
        """The episodes, and the updates on them. UserError where the agent's metrics are not finite."""
        for n in range(clock.stride):
            began = perf_counter()
            begin = torch.randint(len(self.first), (self.shape[0] + 1, self.shape[1]), device=self.first.device)
            trajectory = model_trajectory(self.model, self.agent, self.first[begin[0]], self.first[begin[1:]])
            self.agent.anneal(max(0.0, 1 - (clock.step - clock.stride + n) / self.steps))
            metrics = self.agent.update(trajectory)
        about = {"imagination/reward": trajectory.reward.mean(), "imagination/terminated": 1 - trajectory.discount.mean()}
        clock.recorder.log(clock.step, {**metrics, **about, "time/update_seconds": perf_counter() - began})
        if clock.passed(self.log_every):
            floats = torch.stack([value.float() for value in metrics.values()]).tolist()
            check_metrics(self.name, self.agent, dict(zip(metrics, floats, strict=True)), clock, pessimistic=True)
