"""The hook that fills the model buffer after each fit (MBPO, arXiv:1906.08253, Algorithm 2, lines 8 to 10)."""

from time import perf_counter

import torch

from mbkit.config import LoopConfig
from mbkit.errors import UserError
from mbkit.imagination.branch import Gate, Policy, branch
from mbkit.imagination.schedule import Schedule
from mbkit.loops.memory import enough_room
from mbkit.loops.model import check_model
from mbkit.loops.online import Online
from mbkit.loops.updates import fit_due
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import Dynamics, Source


class Imagine:
    """Branched rollouts from `starts` replayed states whenever the model was due for a fit."""

    def __init__(
        self, dynamics: Dynamics, policy: Policy, data: Source, memory: ModelBuffer, schedule: Schedule, cfg: LoopConfig, starts: int
    ) -> None:
        self.dynamics, self.policy, self.data, self.memory = dynamics, policy, data, memory
        self.schedule, self.cfg, self.starts = schedule, cfg, starts
        if starts > memory.most:
            raise UserError(
                f"imagination.rollouts_per_step and loop.fit_every={cfg.fit_every} ask for {starts} start states at once, but "
                f"imagination.memory_gb holds {memory.most} rows; expected at most that many"
            )
        self.gate: Gate | None = None
        self.retain_epochs = 1

    def __call__(self, loop: Online) -> None:
        """Imagine where a fit was due. UserError where the model diverged; the replay and the last checkpoint are as they were."""
        if not fit_due(loop, self.cfg):
            return
        began, k = perf_counter(), self.schedule.length(loop.step - self.cfg.warmup_steps)
        self.memory.grow(self.schedule.remembered(k, self.starts / max(self.cfg.fit_every, 1), self.retain_epochs))
        with enough_room(f"imagining from {self.starts} states at once (imagination.rollouts_per_step * loop.fit_every)"):
            out = branch(self.dynamics, self.policy, self.data.sample(self.starts).obs, k, self.memory, self.gate)
            offered, stored, broken = torch.stack(out).tolist()
        rows = len(self.memory)
        check_model(broken, offered, "imagined steps", loop.step)
        if not rows:  # nothing to draw from: whoever updates on imagined rows would get zeros
            raise UserError(
                f"no imagined step is remembered at step {loop.step}: of {offered} offered, {broken} are not finite and the gate let none "
                "pass; expected at least one (imagination.gate=none remembers all)"
            )
        loop.recorder.event(
            loop.step,
            {
                "imagination/horizon": k,
                "imagination/rows": rows,
                "imagination/kept": stored / max(offered, 1),
                "imagination/broken": broken / max(offered, 1),
                "imagination/gigabytes": rows * self.memory.row_bytes / 1e9,
                "time/imagine_seconds": perf_counter() - began,
            },
        )
