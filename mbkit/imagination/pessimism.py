"""Wrappers that make any dynamics pessimistic where its members disagree: penalised rewards, or episodes that end there.

MOPO (Yu et al. 2020, arXiv:2005.13239) subtracts an uncertainty from the reward; MOReL (Kidambi et al. 2020, arXiv:2005.05951) ends the
episode where it is large. Letters: E members, B rows, H steps, O observation, A action, D prediction.
"""

import math
from typing import Any

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.types import Dynamics, Measure, Rollout, State, Step


class Pessimistic:
    """A dynamics that is asked for its members' Gaussians in every step; `Penalized` and `Halting` say what follows from them.

    It can start from any state and be planned with as the model itself, which keeps its own randomness: the same rows meet the same
    members and, on a CPU, the same noise; on a GPU a model draws the noise of a whole rollout at once, and this one that of each step.
    Where `active` is false every answer is the model's, bit for bit, and nothing more is computed or drawn.
    """

    def __init__(self, model: Dynamics, measure: Measure, active: bool) -> None:
        self.model, self.measure, self.active = model, measure, active
        self.capturable: bool = getattr(model, "capturable", False)

    def judged(self, step: Step, u: Tensor) -> Step:
        """The step with what follows from its uncertainty u [B]."""
        raise NotImplementedError

    def init(self, obs: Tensor) -> Any:
        """The model's carry."""
        return self.model.init(obs)

    def step(self, carry: Any, action: Tensor, predict: bool = False) -> Step:
        """One model step, action [B, A]; UserError where the model returns no prediction."""
        if not self.active:
            return self.model.step(carry, action, predict)
        step = self.model.step(carry, action, predict=True)
        if step.prediction is None:
            raise UserError(f"pessimism compares members' predictions, but {type(self.model).__name__} returns none; expected an ensemble")
        judged = self.judged(step, self.measure(step.prediction))
        return judged if predict else judged._replace(prediction=None)

    def rollout(self, carry: Any, actions: Tensor) -> Rollout:
        """H model steps under actions [B, H, A]; rows go on after they terminated."""
        if not self.active:
            return self.model.rollout(carry, actions)
        steps = []
        for action in actions.unbind(1):
            step = self.step(carry, action)
            carry = step.state
            steps.append((step.obs, step.reward, step.terminated))
        return Rollout(*(torch.stack(column, 1) for column in zip(*steps, strict=True)))


class Penalized(Pessimistic):
    """A dynamics whose rewards are r - weight u(s, a) (MOPO, eq. 2); weight 0 is the model itself."""

    def __init__(self, model: Dynamics, measure: Measure, weight: float) -> None:
        super().__init__(model, measure, active=weight != 0)
        self.weight = weight

    def judged(self, step: Step, u: Tensor) -> Step:
        """The reward less the penalty."""
        return step._replace(reward=step.reward - self.weight * u)


class Halting(Pessimistic):
    """A dynamics whose episodes end where u(s, a) > threshold, with `reward` (MOReL, definition 3); threshold inf: the model itself.

    Paper: an uncertain step has the reward of its state and leads to an absorbing state HALT, whose reward is -kappa at each of its steps;
    here: that step ends the episode with the whole return of HALT, -kappa / (1 - gamma), since its reward is as uncertain as its outcome.
    """

    def __init__(self, model: Dynamics, measure: Measure, threshold: float = math.inf, reward: float = 0.0) -> None:
        super().__init__(model, measure, active=threshold != math.inf)
        device = getattr(getattr(model, "spec", None), "device", None)
        self.limits = torch.tensor([threshold, reward], device=device)  # a tensor, which a captured graph can hold

    def set(self, threshold: float, reward: float) -> None:
        """Another threshold, and the reward where it is exceeded."""
        self.active = threshold != math.inf
        self.limits.copy_(torch.tensor([threshold, reward]))

    def judged(self, step: Step, u: Tensor) -> Step:
        """The end of the episode where the uncertainty exceeds the threshold, or is not a number."""
        threshold, reward = self.limits
        halted = ~(u <= threshold)
        return step._replace(reward=torch.where(halted, reward, step.reward), terminated=step.terminated | halted)

    def state_dict(self) -> State:
        """The threshold, and the reward where it is exceeded."""
        return {"limits": self.limits.to("cpu", copy=True)}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.set(*state["limits"].tolist())
