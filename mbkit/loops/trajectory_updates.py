"""The hook of learners from trajectories: every T steps of M environments it hands over what happened, then what is remembered."""

import torch
from torch import Tensor

from mbkit.accelerate import accelerated
from mbkit.config import LoopConfig
from mbkit.loops.online import Online
from mbkit.loops.updates import check_finite
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.types import Trajectory, TrajectoryLearner


class Rollouts:
    """One update on every fresh trajectory [T, M], then `loop.replays` on remembered ones; `steps` is the length of the run.

    In mode "cudagraph" an update, all epochs included, is one graph.
    """

    def __init__(
        self, agent: TrajectoryLearner, buffer: TrajectoryBuffer, cfg: LoopConfig, device: torch.device, name: str, steps: int
    ) -> None:
        self.agent, self.buffer, self.cfg, self.name, self.steps = agent, buffer, cfg, name, steps
        self.names: tuple[str, ...] = ()
        self.looked = 0  # intervals of `loop.log_every` after which the metrics were looked at
        self._run = accelerated(self._update, cfg.mode, device, changes=agent)

    def _update(self, trajectory: Trajectory) -> tuple[Tensor, ...]:
        metrics = self.agent.update(trajectory)
        self.names = tuple(metrics)
        return tuple(metrics.values())

    def __call__(self, loop: Online) -> None:
        """Updates where the window is full. UserError where the agent's numbers are not finite, looked at once per `log_every`."""
        if not self.buffer.full:
            return
        began = loop.recorder.seconds
        fresh = self.buffer.take()
        # the policy has not changed since it acted, so that its log-probabilities can be had at once
        fresh = fresh._replace(log_prob=self.agent.log_prob(fresh.obs, fresh.action))
        self.agent.anneal(max(0.0, 1 - (loop.step - fresh.reward.numel()) / self.steps))
        values = self._run(fresh)
        self.buffer.remember(fresh)
        for _ in range(self.cfg.replays):
            values = self._run(self.buffer.recall())
        loop.recorder.log(loop.step, dict(zip(self.names, values, strict=True)))
        if loop.step // self.cfg.log_every > self.looked:  # copying numbers to the host waits for the device
            self.looked = loop.step // self.cfg.log_every
            floats = torch.stack([v.float() for v in values]).tolist()
            check_finite(self.name, dict(zip(self.names, floats, strict=True)), loop.step)
        loop.recorder.log(loop.step, {"time/update_seconds": loop.recorder.seconds - began})
