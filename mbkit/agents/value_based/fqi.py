"""Fitted Q-iteration (Ernst, Geurts and Wehenkel 2005, JMLR 6:503-556) with a network, as Riedmiller's NFQ (2005, ECML, LNCS 3720).

phi <- argmin_phi' E_D l(Q_phi'(s, a) - [r + gamma d max_a' Q_phi(s', a')]), repeated: the targets of one iteration are frozen, and many
gradient steps approach the minimum before they are computed again. DQN (`dqn.py`) makes one step on each batch, on targets of an older
network. Letters: B rows of data D in one iteration; S gradient steps of N rows each; O observation, A actions.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from mbkit.agents.value_based.base import EpsilonGreedy, EpsilonGreedyConfig
from mbkit.agents.value_based.dqn import targets_of
from mbkit.agents.value_based.regression import regress_taken, regression
from mbkit.fields import at_least
from mbkit.networks.heads import ActionValues
from mbkit.networks.optimizers import polyak_
from mbkit.registry import agents
from mbkit.types import Metrics, Targets, Transition


@dataclass(frozen=True)
class FQIConfig(EpsilonGreedyConfig):
    """Network, exploration, one iteration. NFQ: 2x5 sigmoid units, Rprop on all data, exploration by the greedy policy alone."""

    loss: Literal["mse", "huber"] = "mse"  # regression loss; huber: quadratic up to an error of 1, then linear
    gradient_steps: int = at_least(50, 1)  # gradient steps of an iteration, S
    minibatch: int = at_least(128, 0)  # minibatch size of a gradient step, N, drawn from the iteration's batch; 0: all rows
    initial_weights: Literal["previous", "random"] = "previous"  # initial weights of an iteration; previous: the last one's result


def minibatches(y: Targets, steps: int, rows: int) -> list[Targets]:
    """The targets of each gradient step: N of the B rows, drawn with replacement, or all where N is 0."""
    if not rows:
        return [y] * steps
    drawn = torch.randint(len(y.target), (steps, rows), device=y.target.device)
    columns = [[None] * steps if field is None else field[drawn] for field in y]
    return [Targets(*fields) for fields in zip(*columns, strict=True)]


@torch.no_grad()
def restart_(network: ActionValues, optimizer: torch.optim.Optimizer) -> None:
    """Random parameters, drawn as those of a new network, and an optimizer without moments; in place: a captured graph holds them."""
    for weight, bias in network.net.layers:
        bound = weight.shape[1] ** -0.5
        weight.uniform_(-bound, bound)
        bias.uniform_(-bound, bound)
    for slots in optimizer.state.values():
        for slot in slots.values():
            slot.zero_()


DEFAULT_LOOP = {"warmup_steps": 1000, "batch_size": 4096, "updates_per_step": 0.01}  # an update is a whole iteration


@agents.register("fqi", FQIConfig, defaults={"env": "CartPole-v1", "steps": 50_000, "loop": DEFAULT_LOOP})
class FQI(EpsilonGreedy):
    """Fitted Q-iteration: `update` solves one regression on frozen targets and copies the result into the target network."""

    name = "fqi"
    cfg: FQIConfig
    q: ActionValues

    def targets(self, batch: Transition) -> Targets:
        """The targets of the regression, [B], by the target network."""
        return targets_of(self, batch)

    def update(self, batch: Transition) -> Metrics:
        """One iteration: targets of all rows, S gradient steps towards them, and a copy of the result as the next target network."""
        cfg, optimizer = self.cfg, self.optimizers["q"]
        y = self.targets(batch)
        if cfg.initial_weights == "random":
            restart_(self.q, optimizer)
        parts = minibatches(y, cfg.gradient_steps, cfg.minibatch)
        taken = [regress_taken(optimizer, self.q, rows, cfg.loss, cfg.max_grad_norm) for rows in parts]
        polyak_(self.target_q, self.q, 1.0)
        first, last = (regression(taken[n], parts[n], cfg.loss) for n in (0, -1))
        return {"critic/loss": last, "critic/first_loss": first, "critic/q": taken[-1].mean(), "critic/target": y.target.mean()}
