"""The hook that updates an agent on trajectories: every T steps of M environments on the newest one, then on stored ones."""

import torch
from torch import Tensor

from mbkit.accelerate import accelerated
from mbkit.config import OldTrajectoryLoop, TrajectoryLoop
from mbkit.loops.clock import Clock
from mbkit.loops.updates import check_metrics
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.types import Trajectory, TrajectoryLearner


class TrajectoryUpdates:
    """One update on every new trajectory [T, M], then `loop.off_policy_updates` on stored ones; `steps` is the length of the run.

    In mode "cudagraph", on CUDA the default, an update, all epochs included, is one graph.
    """

    def __init__(
        self, name: str, agent: TrajectoryLearner, buffer: TrajectoryBuffer, cfg: TrajectoryLoop, device: torch.device, steps: int
    ) -> None:
        self.name, self.agent, self.buffer, self.cfg, self.steps = name, agent, buffer, cfg, steps
        self.off_policy_updates = cfg.off_policy_updates if isinstance(cfg, OldTrajectoryLoop) else 0
        self.names: tuple[str, ...] = ()
        self.checked = 0  # intervals of `loop.log_every` after which the metrics were read
        self._run = accelerated(self._update, cfg.mode, device, changes=[agent])

    def _update(self, trajectory: Trajectory) -> tuple[Tensor, ...]:
        metrics = self.agent.update(trajectory)
        self.names = tuple(metrics)
        return tuple(metrics.values())

    def __call__(self, clock: Clock) -> None:
        """Updates where T steps are complete. UserError where the agent's metrics are not finite, read once per `log_every`."""
        if not self.buffer.full:
            return
        began = clock.recorder.seconds
        newest = self.buffer.take()
        # the policy has not changed since it acted, so that its log-probabilities can be computed at once
        newest = newest._replace(log_prob=self.agent.log_prob(newest.obs, newest.action))
        self.agent.anneal(max(0.0, 1 - (clock.step - newest.reward.numel()) / self.steps))
        values = self._run(newest)
        self.buffer.store(newest)
        for _ in range(self.off_policy_updates):
            values = self._run(self.buffer.draw())
        clock.recorder.log(clock.step, dict(zip(self.names, values, strict=True)))
        if clock.step // self.cfg.log_every > self.checked:  # copying numbers to the host waits for the device
            self.checked = clock.step // self.cfg.log_every
            floats = torch.stack([v.float() for v in values]).tolist()
            check_metrics(self.name, self.agent, dict(zip(self.names, floats, strict=True)), clock)
        clock.recorder.log(clock.step, {"time/update_seconds": clock.recorder.seconds - began})
