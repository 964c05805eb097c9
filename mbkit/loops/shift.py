"""The hook that measures how far an agent without offline measures of its own departs from the data set that it learns from.

Letters: N rows of the data set, B rows measured on, A dimensions of an action or number of discrete actions.
"""

import torch
from torch import Tensor

from mbkit.diagnostics.values import Critic
from mbkit.loops.clock import Clock
from mbkit.replay.recorded import RecordedRows
from mbkit.types import Learner

ROWS = 256  # that are measured on, evenly spread over the data set


class Shift:
    """Records at every log line Q of the policy's actions less Q of the recorded ones, and the share of the policy's beyond the data's.

    What the offline agents log of every batch (`mbkit.agents.offline.base`), on the same B rows each time, so that no random number of the
    training is spent. An action is beyond the data where it leaves the range of the recorded ones in a dimension, or was never recorded.
    """

    def __init__(self, agent: Learner, data: RecordedRows, log_every: int) -> None:
        self.agent, self.log_every = agent, log_every
        rows = data.all()
        chosen = torch.arange(0, data.rows, max(1, data.rows // ROWS), device=rows.obs.device)[:ROWS]
        self.obs, self.action = rows.obs[chosen], rows.action[chosen]
        self.discrete = data.buffer.spec.discrete
        if self.discrete:
            self.recorded = torch.bincount(rows.action, minlength=data.buffer.spec.action_dim) > 0
        else:
            self.low, self.high = rows.action.amin(0), rows.action.amax(0)

    @torch.no_grad()
    def __call__(self, clock: Clock) -> None:
        """The two means, where a line of metrics is due."""
        if not clock.passed(self.log_every):
            return
        action = self.agent.act(self.obs, explore=False)
        metrics: dict[str, Tensor | float] = {"actor/outside_support": self.beyond(action).float().mean()}
        if isinstance(self.agent, Critic):
            chosen, recorded = (self.agent.backup_q(self.obs, a).amin(0).mean() for a in (action, self.action))
            metrics["critic/overestimation"] = chosen - recorded
        clock.recorder.log(clock.step, metrics)

    def beyond(self, action: Tensor) -> Tensor:
        """Which actions [B, A] or int64 [B] no recorded one resembles, bool [B]."""
        if self.discrete:
            return ~self.recorded[action]
        return ((action < self.low) | (action > self.high)).any(-1)
