"""Learning that goes wrong is said: values that no rewards explain, a temperature without end, targets beyond a support.

Each is warned of once, at the next log line and in the summary; the run goes on.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbkit.types import State

VALUE_FACTOR = 2.0  # values beyond so many times the largest return count as diverged
SMALLEST_LIMIT = 1.0  # values of untrained networks lie below, whatever the units of reward
LARGEST_OUTSIDE = 0.01  # share of targets beyond the support of distributions that needs no word
TEMPERATURE_FACTOR = 10.0  # as does a temperature beyond so many times the largest reward, and its own first value


class Watch:
    """The largest |reward|, the largest bonus of a soft value and the first temperature of a run, and the warnings given."""

    def __init__(self) -> None:
        self.largest_reward = 0.0
        self.largest_bonus = 0.0  # alpha times |log pi|, means over the batches of log lines
        self.first_temperature: float | None = None
        self.warnings: dict[str, str] = {}  # sentence by cause

    def see(self, reward: NDArray[Any]) -> None:
        """Rewards [M] of one step, on the host."""
        self.largest_reward = max(self.largest_reward, float(np.abs(reward).max()))

    def check(self, name: str, agent: object, metrics: Mapping[str, float], step: int, pessimistic: bool = False) -> list[str]:
        """The warnings that a log line of the agent gives for the first time.

        Args:
            name: of the agent, for the sentence.
            agent: its `gamma`, and where the temperature is not among the metrics, its `alpha`.
            metrics: `critic/q` or `critic/value`, and where it has them `alpha`, `actor/entropy`, `actor/prior_kl`.
            step: environment step.
            pessimistic: values below zero are low on purpose and not judged.
        """
        alpha = metrics.get("alpha", _temperature(agent))
        nats = max(abs(metrics.get("actor/entropy", 0.0)), abs(metrics.get("actor/prior_kl", 0.0)))
        self.largest_bonus = max(self.largest_bonus, alpha * nats, getattr(agent, "largest_bonus", 0.0))
        causes = {
            "value": self._value(name, agent, metrics, step, pessimistic),
            "temperature": self._alpha(name, metrics, step),
            "support": _support(name, metrics, step),
        }
        new = {cause: warning for cause, warning in causes.items() if warning and cause not in self.warnings}
        self.warnings |= new
        return list(new.values())

    def _value(self, name: str, agent: object, metrics: Mapping[str, float], step: int, pessimistic: bool) -> str:
        """The warning where |Q| is beyond any return; empty where not."""
        gamma = getattr(agent, "gamma", 1.0)
        value = metrics.get("critic/q", metrics.get("critic/value", 0.0))
        if gamma >= 1 or (pessimistic and value < 0):
            return ""
        limit = max(VALUE_FACTOR * (self.largest_reward + self.largest_bonus) / (1 - gamma), SMALLEST_LIMIT)
        if not abs(value) > limit:
            return ""
        return (
            f"The values of {name} diverge: at step {step} they are {value:.4g} on average, beyond {limit:.4g}, twice the largest return "
            f"that rewards up to {self.largest_reward:.4g} allow at gamma={gamma:g}; a smaller agent.lr or gamma is safer."
        )

    def _alpha(self, name: str, metrics: Mapping[str, float], step: int) -> str:
        """The warning where a learned temperature has grown beyond all rewards; empty where not."""
        alpha = metrics.get("alpha")
        if alpha is None:
            return ""
        self.first_temperature = alpha if self.first_temperature is None else self.first_temperature
        limit = TEMPERATURE_FACTOR * max(self.first_temperature, self.largest_reward)
        if not alpha > limit:
            return ""
        return (
            f"The temperature of {name} grows without end: at step {step} alpha is {alpha:.4g}, where rewards are at most "
            f"{self.largest_reward:.4g}, so that entropy counts more than reward; a lower target or a fixed agent.temperature bounds it."
        )

    def state_dict(self) -> State:
        """All of it: a resumed run warns where the uninterrupted one would."""
        return {**vars(self), "warnings": dict(self.warnings)}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`."""
        vars(self).update({**state, "warnings": dict(state["warnings"])})


def _support(name: str, metrics: Mapping[str, float], step: int) -> str:
    """The warning where targets lie beyond the support of critics that are distributions; empty where not."""
    share = metrics.get("critic/outside", 0.0)
    if share <= LARGEST_OUTSIDE:
        return ""
    return (
        f"{100 * share:.1f} % of the targets of {name} at step {step} lie beyond the support of its critics, five return scales "
        f"of {metrics['critic/scale']:.4g}, and count as its end; agent.loss=mse has no such bound."
    )


def _temperature(agent: object) -> float:
    """A fixed temperature that the agent does not log; 0 where its values have no bonus."""
    alpha = getattr(agent, "alpha", getattr(getattr(agent, "cfg", None), "alpha", 0.0))
    return float(alpha) if isinstance(alpha, int | float) and math.isfinite(alpha) else 0.0
