"""Ground truth: the simulator itself as a dynamics model, for planning with the true model and for measuring learned ones.

Observations do not determine the physics state, so rows start where the live environments stand, the solver's warm start included; the
results equal their `step` to the last digit. Tasks that `readouts` knows run in MuJoCo's threads. Ant with contact forces, Humanoid,
HumanoidStandup and every environment of a user's own run through copies of the environment, one row after another.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from torch import Tensor

from mbkit.dynamics.mujoco.config import MujocoConfig
from mbkit.dynamics.mujoco.readouts import Simulated, readout_of
from mbkit.dynamics.mujoco.simulators import Stepped, Vectorised
from mbkit.dynamics.mujoco.wrappers import changes
from mbkit.envs.spaces import ActionMap
from mbkit.errors import UserError
from mbkit.types import Rollout, Step


class Live(Protocol):
    """An object that holds live environments, like `mbkit.envs.Environment`; wrapped or not."""

    @property
    def envs(self) -> Sequence[Any]: ...  # noqa: D102


class MujocoDynamics:
    """True dynamics of M live MuJoCo environments of one task."""

    def __init__(self, environment: Live, cfg: MujocoConfig | None = None) -> None:
        """UserError for an environment that isn't one of MuJoCo's, or is wrapped in what may change its steps; `close` ends the threads."""
        self.envs = [env.unwrapped for env in environment.envs]
        name = getattr(environment, "name", "the environment")
        if not self.envs:
            raise UserError(f"dynamics=mujoco reads the physics of single environments, which {name} doesn't give access to")
        for env in self.envs:
            if not isinstance(env, MujocoEnv):
                raise UserError(f"dynamics=mujoco simulates MuJoCo environments; {name} is a {type(env).__name__}")
        if part := next(filter(None, (changes(env, getattr(environment, "vector", None)) for env in environment.envs)), ""):
            raise UserError(
                f"dynamics=mujoco simulates tasks as MuJoCo steps them, and would not be true of {name}, where {part} may change "
                "actions, observations, rewards or physics; expected a task without it, or a learned model (dynamics=ensemble)"
            )
        threads = (cfg or MujocoConfig()).threads or torch.get_num_threads()
        first: Any = self.envs[0]
        self.native = ActionMap(first.action_space, name)
        readout = readout_of(first)
        self.simulator: Any = Vectorised(first, readout, threads) if readout else Stepped(first, threads)

    def init(self, obs: Tensor) -> Any:
        """Rows that stand where the M live environments stand now, one each; obs [M, O] only says how many are expected."""
        if len(obs) != len(self.envs):
            raise UserError(f"dynamics=mujoco got {len(obs)} rows of observations; expected one for each of {len(self.envs)} environments")
        return self.simulator.start(self.envs)

    def rollout(self, carry: Any, actions: Tensor) -> Rollout:
        """Actions [B, H, A] in [-1, 1]; float32 on their device. The reward is NaN once a row's physics diverged."""
        return Rollout(*tensors(self.simulate(carry, actions), actions.device))

    def step(self, carry: Any, action: Tensor, predict: bool = False) -> Step:
        """Actions [B, A] in [-1, 1]; float32 on their device. The true model has no members, so `predict` adds nothing."""
        after, steps = self.simulator.step(carry, self.native(action))
        obs, reward, terminated = tensors(steps, action.device)
        return Step(after, obs[:, 0], reward[:, 0], terminated[:, 0])

    def simulate(self, carry: Any, actions: Tensor) -> Simulated:
        """The results of `rollout` as float64 arrays."""
        steps: Simulated = self.simulator.rollout(carry, self.native(actions))
        return steps

    def close(self) -> None:
        """End the simulation threads."""
        self.simulator.close()


def tensors(steps: Simulated, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Observation and reward in float32, termination as bool."""
    obs, reward = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (steps.obs, steps.reward))
    return obs, reward, torch.from_numpy(steps.terminated).to(device)
