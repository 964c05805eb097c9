"""Steps of one environment as they come out of it, before anything is converted for an agent.

Letters: N rows, E episodes, O observation, A action.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Self

import gymnasium
import numpy as np
from numpy.typing import NDArray

from mbkit.data import Columns, Dataset
from mbkit.data.columns import Array, Integers, ends_of, successors
from mbkit.data.dataset import rows_of
from mbkit.envs.spaces import Misfit, ObservationMap

ODD = (Misfit, LookupError, TypeError, ValueError)  # what a malformed result raises here; `Environment` refuses it, and says why


class Stretch(NamedTuple):
    """Consecutive steps; an observation is stored once, also where it is the successor of the one before."""

    obs: Array  # [N, O]
    action: Array  # [N, A], or integers [N]
    reward: Array  # float64 [N]
    terminated: Array  # bool [N]
    truncated: Array  # bool [N]
    final: Array  # [E, O] the observation after each episode's last action
    lengths: Integers  # [E]

    @classmethod
    def dataset(cls, parts: "list[Self]", **about: Any) -> Dataset:
        """The rows of several stretches as one data set; `about` are arguments of Dataset."""
        obs, action, reward, terminated, truncated, final, lengths = map(np.concatenate, zip(*parts, strict=True))

        def stream(start: int, stop: int) -> Iterator[Columns]:
            for first, behind, episode, last in rows_of(ends_of(lengths), start, stop):
                here = slice(first, behind)
                following = successors(obs[first : behind + 1], last, final[episode[last]])
                yield Columns(obs[here], action[here], reward[here], following, terminated[here], truncated[here], episode)

        return Dataset(stream, lengths, obs.shape[1], **about)


class Tap(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Writes down what an environment takes and gives; it changes nothing.

    Args:
        env: the environment.
        observation: its observations -> vectors.
        steps: N.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], observation: ObservationMap, steps: int) -> None:
        super().__init__(env)
        self.observation, self.steps, self.count = observation, steps, 0
        self.stored: dict[str, NDArray[Any]] = {}
        self.final: list[Array] = []
        self.lengths: list[int] = []
        self.begin = 0  # row at which the running episode begins
        self.current: Array = np.zeros(0)

    def reset(self, **options: Any) -> Any:
        """As the environment's."""
        result = self.env.reset(**options)
        with suppress(*ODD):
            self.current = self.observation(result[0]).copy()
        return result

    def step(self, action: Any) -> Any:
        """As the environment's."""
        taken = np.array(action).reshape(-1)  # before the environment can change it
        result = self.env.step(action)
        with suppress(*ODD):
            self._store(taken, *result[:4])
        return result

    def _store(self, taken: Array, raw: Any, reward: Any, terminated: Any, truncated: Any) -> None:
        """One row."""
        following = self.observation(raw).copy()
        obs = self.current.astype(np.result_type(self.current, following))  # a task may begin with whole numbers
        values = {"obs": obs, "action": taken, "reward": reward, "terminated": terminated, "truncated": truncated}
        self._fill({name: np.asarray(value) for name, value in values.items()})
        self.current = following
        if terminated or truncated or self.count == self.steps:
            self.final.append(following)
            self.lengths.append(self.count - self.begin)
            self.begin = self.count

    def _fill(self, values: dict[str, Array]) -> None:
        if not self.stored:
            types = {"reward": np.float64, "terminated": np.bool_, "truncated": np.bool_}
            self.stored = {
                name: np.empty((self.steps, *value.shape * (name in ("obs", "action"))), types.get(name, value.dtype))
                for name, value in values.items()
            }
        for name, value in values.items():
            self.stored[name][self.count] = value.reshape(self.stored[name].shape[1:])
        self.count += 1

    def rows(self) -> Stretch:
        """What was written down."""
        action = self.stored["action"]
        action = action[:, 0] if action.dtype.kind in "iu" else action  # whole numbers are choices
        reward, terminated, truncated = (self.stored[name] for name in ("reward", "terminated", "truncated"))
        return Stretch(self.stored["obs"], action, reward, terminated, truncated, np.array(self.final), np.array(self.lengths, np.int64))
