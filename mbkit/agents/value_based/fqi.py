"""Fitted Q-iteration (Ernst, Geurts and Wehenkel 2005, JMLR 6:503-556) with a network, as Riedmiller's NFQ (2005, ECML, LNCS 3720).

phi <- argmin_phi' E_D l(Q_phi'(s, a) - [r + gamma d max_a' Q_phi(s', a')]), again and again: the targets of one iteration are frozen, and
many gradient steps approach the minimum before they are computed anew. DQN (`dqn.py`) makes one step on each batch, and its targets lag
behind by a slow copy. Letters: B rows of data D in one iteration; S gradient steps of N rows each; O observation, A actions.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from mbkit.agents.base import descend
from mbkit.agents.value_based.base import EpsilonGreedy, EpsilonGreedyConfig, taken_regression
from mbkit.agents.value_based.dqn import targets_of
from mbkit.fields import at_least
from mbkit.networks.heads import ActionValues
from mbkit.networks.optimizers import polyak_
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Targets, Transition


@dataclass(frozen=True)
class FQIConfig(EpsilonGreedyConfig):
    """Network, exploration, one iteration. NFQ: 2x5 sigmoid units, Rprop on all data, exploration by the greedy policy alone."""

    error: Literal["mse", "huber"] = "mse"  # of the regression; huber: quadratic to 1, then linear
    gradient_steps: int = at_least(50, 1)  # S, of each iteration
    minibatch: int = at_least(128, 0)  # N, rows of a gradient step, drawn from the iteration's batch; 0: all of them
    start: Literal["frozen", "fresh"] = "frozen"  # an iteration's first guess: the network that made the targets, or a random one


def stages(y: Targets, steps: int, rows: int) -> list[Targets]:
    """What each gradient step sees of B rows: N of them drawn with replacement, or all where N is 0."""
    if not rows:
        return [y] * steps
    drawn = torch.randint(len(y.target), (steps, rows), device=y.target.device)
    return [Targets(*fields) for fields in zip(*(field[drawn] for field in y), strict=True)]


@torch.no_grad()
def restart_(network: ActionValues, optimizer: torch.optim.Optimizer) -> None:
    """Random parameters, drawn as those of a new network, and an optimizer without memory; in place, since a captured graph holds them."""
    for weight, bias in network.net.layers:
        bound = weight.shape[1] ** -0.5
        weight.uniform_(-bound, bound)
        bias.uniform_(-bound, bound)
    for slots in optimizer.state.values():
        for slot in slots.values():
            slot.zero_()


DEFAULT_LOOP = {"warmup_steps": 1000, "batch_size": 4096, "updates_per_step": 0.01}  # an update is a whole iteration


@agents.register("fqi", FQIConfig, env="CartPole-v1", steps=50_000, loop=DEFAULT_LOOP)
class FQI(EpsilonGreedy):
    """Fitted Q-iteration: `update` solves one regression on frozen targets, and then freezes the network anew."""

    cfg: FQIConfig
    q: ActionValues

    def __init__(self, spec: EnvSpec, cfg: FQIConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__("fqi", spec, cfg, gamma, target)

    def targets(self, batch: Transition) -> Targets:
        """What Q is regressed on, [B], by the frozen network."""
        return targets_of(self, batch)

    def update(self, batch: Transition) -> Metrics:
        """One iteration: targets of all rows, S gradient steps towards them, and the result is what the next iteration starts from."""
        cfg, optimizer = self.cfg, self.optimizers["q"]
        y, losses = self.targets(batch), []
        if cfg.start == "fresh":
            restart_(self.q, optimizer)
        for rows in stages(y, cfg.gradient_steps, cfg.minibatch):
            loss, q = taken_regression(self.q(rows.obs), rows, cfg.error)
            losses.append(descend(optimizer, loss, cfg.max_norm))
        polyak_(self.slow_q, self.q, 1.0)
        return {"critic/loss": losses[-1], "critic/first_loss": losses[0], "critic/q": q.mean(), "critic/target": y.target.mean()}
