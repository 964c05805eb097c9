"""The hook that distils plans: a policy is regressed on the means of the plans that were executed."""

import math
from typing import TYPE_CHECKING

from mbkit.agents.distilled import DistilledPolicy
from mbkit.errors import UserError
from mbkit.loops.clock import Clock
from mbkit.loops.updates import Cadence
from mbkit.planning.mpc import MPC
from mbkit.replay.plans import PlanBuffer

if TYPE_CHECKING:  # options are checked before a simulator is imported
    from mbkit.envs import Environment


class Distillation:
    """Stores the mean of each executed plan, and updates the policy on stored ones.

    Args:
        actor: the planner in training; from now on it tells what it executed.
        env: the environments that it acts in.
        policy: learns from the plans.
        plans: where they are stored.
        cadence: updates for each environment step after the warm-up, whose actions are not planned.
        batch_size: plans per update.
        log_every: environment steps between two looks at the loss.
    """

    def __init__(
        self, actor: MPC, env: "Environment", policy: DistilledPolicy, plans: PlanBuffer, cadence: Cadence, batch_size: int, log_every: int
    ) -> None:
        self.actor, self.env, self.policy, self.plans = actor, env, policy, plans
        self.cadence, self.batch_size, self.log_every = cadence, batch_size, log_every
        actor.tells = True

    def __call__(self, clock: Clock) -> None:
        """Stores what was executed, then makes the updates that are due. UserError where the loss is not finite any more."""
        executed, self.actor.executed = self.actor.executed, None
        if executed is None:  # warm-up
            return
        valid = self.env.valid.cpu()
        self.plans.extend(executed.obs, executed.mean, valid)
        self.policy.normalizer.update(executed.obs, valid.to(executed.obs.device))
        if not len(self.plans):
            return
        for _ in range(self.cadence.due(clock.step) - self.cadence.due(clock.step - clock.stride)):
            metrics = self.policy.update(*self.plans.sample(self.batch_size))
            clock.recorder.log(clock.step, metrics)
            if clock.passed(self.log_every) and not math.isfinite(loss := float(metrics["distill/loss"])):
                raise UserError(
                    f"the distilled policy diverged: distill/loss is {loss} at step {clock.step}, expected a finite number; "
                    "a smaller imagination.distill_lr is safer (the last checkpoint is from before)"
                )
