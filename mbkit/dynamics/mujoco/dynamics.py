"""Ground truth: the simulator itself as a dynamics model, for planning with the true model and for measuring learned ones.

Observations do not determine the physics state, so rows start where the live environments stand, the solver's warm start included; what
comes out equals their `step` to the last digit. Tasks that `readouts` knows run in MuJoCo's threads. Ant with contact forces, Humanoid,
HumanoidStandup and every environment of a user's own run through copies of the environment, one row after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from torch import Tensor

from mbkit.dynamics.mujoco.readouts import Array, Seen, readout_of
from mbkit.dynamics.mujoco.simulators import Stepped, Vectorised
from mbkit.envs.spaces import ActionMap
from mbkit.errors import UserError
from mbkit.fields import at_least
from mbkit.registry import dynamics
from mbkit.types import Rollout, Step


@dataclass(frozen=True)
class MujocoConfig:
    """Settings of the true model."""

    threads: int = at_least(0, 0)  # simulation threads; 0: as many as torch has


class Live(Protocol):
    """Whatever holds live environments, like `mbkit.envs.Environment`; wrapped or not."""

    @property
    def envs(self) -> Sequence[Any]: ...  # noqa: D102


@dynamics.register("mujoco", MujocoConfig)
class MujocoDynamics:
    """True dynamics of M live MuJoCo environments of one task."""

    def __init__(self, environment: Live, cfg: MujocoConfig | None = None) -> None:
        """UserError for an environment that isn't one of MuJoCo's; call `close` to end the threads."""
        self.envs = [env.unwrapped for env in environment.envs]
        name = getattr(environment, "name", "the environment")
        if not self.envs:
            raise UserError(f"dynamics=mujoco reads the physics of single environments, which {name} doesn't give access to")
        for env in self.envs:
            if not isinstance(env, MujocoEnv):
                raise UserError(f"dynamics=mujoco simulates MuJoCo environments; {name} is a {type(env).__name__}")
        threads = (cfg or MujocoConfig()).threads or torch.get_num_threads()
        first: Any = self.envs[0]
        self.native = ActionMap(first.action_space, name)
        readout = readout_of(first)
        self.simulator: Any = Vectorised(first, readout, threads) if readout else Stepped(first, threads)

    def init(self, obs: Tensor) -> Any:
        """Rows that stand where the live environments stand now, from obs [B, O]; B = P M N as `owners` says."""
        return self.simulator.start(self.envs, owners(obs, len(self.envs)))

    def rollout(self, carry: Any, actions: Tensor) -> Rollout:
        """Actions [B, H, A] in [-1, 1]; float32 on their device. The reward is NaN once a row's physics diverged."""
        return Rollout(*tensors(self.simulate(carry, actions), actions.device))

    def step(self, carry: Any, action: Tensor) -> Step:
        """Actions [B, A] in [-1, 1]; float32 on their device."""
        after, seen = self.simulator.step(carry, self.native(action))
        obs, reward, terminated = tensors(seen, action.device)
        return Step(after, obs[:, 0], reward[:, 0], terminated[:, 0])

    def simulate(self, carry: Any, actions: Tensor) -> Seen:
        """What `rollout` returns, as float64 arrays."""
        seen: Seen = self.simulator.rollout(carry, self.native(actions))
        return seen

    def close(self) -> None:
        """End the simulation threads."""
        self.simulator.close()


def owners(obs: Tensor, count: int) -> Array:
    """Which of M = `count` environments each of B = P M N rows belongs to, int64 [B]: row r to environment (r mod M N) div N.

    Each environment's N rows lie together and repeat its observation [O]; P particles repeat the whole. UserError where no N fits.
    """
    rows = obs.shape[0]
    if count == 1:
        return np.zeros(rows, np.int64)
    changes = (obs != obs[0]).any(1).nonzero()
    for group in (rows // count, int(changes[0]) if len(changes) else 0):  # one particle; else the first environment's rows tell N
        if group and rows % (count * group) == 0:
            grouped = obs.view(-1, count, group, obs.shape[1])
            if bool((grouped == grouped[:1, :, :1]).all()):
                return np.arange(rows) % (count * group) // group
    raise UserError(f"dynamics=mujoco got {rows} rows of observations, which are no repetition of those of {count} environments")


def tensors(seen: Seen, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Observation and reward in float32, termination as bool."""
    obs, reward = (torch.from_numpy(x.astype(np.float32)).to(device) for x in (seen.obs, seen.reward))
    return obs, reward, torch.from_numpy(seen.terminated).to(device)
