"""The hook that fills the model buffer after each fit (MBPO, arXiv:1906.08253, Algorithm 2, lines 8 to 10)."""

from time import perf_counter

import torch

from mbkit.errors import UserError
from mbkit.imagination.branch import Gate, branch
from mbkit.imagination.schedule import RolloutSizes
from mbkit.loops.clock import Clock
from mbkit.loops.memory import refuse_oversized
from mbkit.loops.model import check_model
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import Dynamics, PolicyFn, Source


class ModelRollouts:
    """Branched rollouts of the model from replayed states; called after every fit.

    Args:
        model: the dynamics.
        policy: acts in the rollouts, obs [B, O] -> actions [B, A].
        data: the replay that start states are drawn from.
        buffer: stores the model transitions.
        schedule: length and number of rollouts, counted from the end of the warm-up.
        gate: which model transitions are stored; None: all.
    """

    def __init__(
        self, model: Dynamics, policy: PolicyFn, data: Source, buffer: ModelBuffer, schedule: RolloutSizes, gate: Gate | None = None
    ) -> None:
        self.model, self.policy, self.data, self.buffer, self.schedule, self.gate = model, policy, data, buffer, schedule, gate
        if schedule.starts > buffer.most:
            raise UserError(
                f"{schedule.options} ask for {schedule.starts} start states at once, "
                f"but imagination.memory_gb holds {buffer.most} rows; expected at most that many"
            )

    def __call__(self, clock: Clock) -> None:
        """One round of rollouts. UserError where the model diverged; the replay and the last checkpoint are as they were."""
        began, starts, k = perf_counter(), self.schedule.starts, self.schedule.length(clock.step)
        self.buffer.grow(self.schedule.capacity(k))
        with refuse_oversized(f"a round of model rollouts from {starts} states ({self.schedule.options})"):
            out = branch(self.model, self.policy, self.data.sample(starts).obs, k, self.buffer, self.gate)
            offered, stored, broken = torch.stack(out).tolist()
        rows = len(self.buffer)
        check_model(broken, offered, "model steps", clock.step)
        if not rows:  # nothing to draw from: updates on the buffer would get zeros
            raise UserError(
                f"no model transition is stored at step {clock.step}: of {offered} offered, {broken} are not finite and the gate let none "
                "pass; expected at least one (imagination.gate=none stores all)"
            )
        clock.recorder.event(
            clock.step,
            {
                "imagination/horizon": k,
                "imagination/rows": rows,
                "imagination/kept": stored / max(offered, 1),
                "imagination/broken": broken / max(offered, 1),
                "imagination/gigabytes": rows * self.buffer.row_bytes / 1e9,
                "time/imagine_seconds": perf_counter() - began,
            },
        )
