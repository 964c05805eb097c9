"""The online loop: act, step, store, call the hooks. M environments, O observation, A action."""

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.loops.clock import Clock
from mbkit.loops.traffic import Direct, Traffic
from mbkit.replay.buffer import Experience
from mbkit.types import Actor, EnvSpec, State, Store

if TYPE_CHECKING:  # options are checked before a simulator is imported
    from mbkit.envs import Environment


def random_action(spec: EnvSpec, num_envs: int) -> Tensor:
    """Uniform over the action space: [M, A] in [-1, 1], or int64 [M], or [M, P] where there are several discrete ones."""
    if spec.parts:
        return torch.stack([torch.randint(n, (num_envs,), device=spec.device) for n in spec.parts], -1)
    if spec.discrete:
        return torch.randint(spec.action_dim, (num_envs,), device=spec.device)
    return torch.rand(num_envs, spec.action_dim, device=spec.device) * 2 - 1


def finite_action(action: Tensor, step: int | None = None) -> Tensor:
    """The action [M, A], unchanged; UserError where it is not finite, which no environment can take."""
    if action.is_floating_point() and not action.isfinite().all():
        where = "the evaluation" if step is None else f"step {step}"
        raise UserError(f"the agent's action is not finite at {where}: the agent or its model diverged; a smaller agent.lr is safer")
    return action


class Online(Clock):
    """Steps M environments under one actor and stores what happens; one step of the clock is one environment step.

    PETS is this loop with an MPC actor and a hook that fits the model. `state_dict` holds all that the next step depends on besides the
    actor, the store and the global random state.
    """

    def __init__(self, env: "Environment", actor: Actor, store: Store, warmup_steps: int = 0, traffic: Traffic | None = None) -> None:
        super().__init__(stride=env.num_envs)
        self.env, self.actor, self.store, self.warmup_steps = env, actor, store, warmup_steps
        self.traffic = traffic or Direct(actor, store)
        self.episodes = 0
        self.last_return: float | None = None
        self.obs = torch.zeros(env.num_envs, env.spec.obs_dim)  # [M, O], of running episodes once they began
        self.returns = torch.zeros(env.num_envs, dtype=torch.float64)  # of the running episodes
        self.lengths = torch.zeros(env.num_envs, dtype=torch.int64)
        self.step_reward = np.zeros(env.num_envs, dtype=np.float32)  # [M] of the last step
        self.step_ended = np.zeros(env.num_envs, dtype=np.bool_)  # [M] whether an episode ended with it

    def start(self) -> None:
        """The first episodes of a new run."""
        self.begin(self.env.reset())

    def begin(self, obs: Tensor) -> None:
        """All environments start an episode at `obs`."""
        self.obs = obs
        self.returns.zero_()
        self.lengths.zero_()
        self.actor.reset(torch.ones(self.env.num_envs, dtype=torch.bool))

    def advance(self) -> None:
        """One step of every environment; `start` or `load_state_dict` comes first."""
        if self.step < self.warmup_steps:
            action = random_action(self.env.spec, self.env.num_envs)
        else:
            began = perf_counter()
            action = finite_action(self.traffic.act(self.obs), self.step)
            self.recorder.log(self.step, {"time/act_ms": 1e3 * (perf_counter() - began)})
        out = self.env.step(action)
        ended = out.terminated | out.truncated
        rows = Experience(self.obs, action, out.reward, out.next_obs, out.terminated, ended)
        self.traffic.extend(rows, self.env.valid, out.obs)
        self.obs = out.obs
        self.step += self.stride
        self.count(out.reward, ended)

    def count(self, reward: Tensor, ended: Tensor) -> None:
        """Episode statistics: undiscounted returns [M], accumulated in float64."""
        rewards = reward.numpy(force=True)
        self.watch.see(rewards)
        self.returns.numpy()[:] += rewards  # NumPy: sums of M numbers in a third of torch's time
        self.lengths.numpy()[:] += self.env.valid.numpy()
        over = ended.cpu()
        self.step_reward, self.step_ended = rewards, over.numpy()
        self.episode_ended = bool(over.any())
        if not self.episode_ended:
            return
        for i in over.nonzero().flatten().tolist():
            self.last_return = float(self.returns[i])
            self.recorder.event(self.step, {"episode/return": self.last_return, "episode/length": int(self.lengths[i])})
            self.episodes += 1
        self.returns[over] = 0
        self.lengths[over] = 0
        self.actor.reset(over)

    def state_dict(self) -> State:
        """Counters, running episodes and current observations."""
        counters = {name: getattr(self, name) for name in ("step", "episodes", "episode_ended", "last_return")}
        episodes = {"obs": self.obs, "returns": self.returns.clone(), "lengths": self.lengths.clone()}
        return {**counters, **episodes, "env": self.env.state_dict(), "watch": self.watch.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken; environments that cannot be saved begin a new episode."""
        for name in ("step", "episodes", "episode_ended", "last_return"):
            setattr(self, name, state[name])
        self.env.load_state_dict(state["env"])
        self.watch.load_state_dict(state["watch"])
        self.returns.copy_(state["returns"])
        self.lengths.copy_(state["lengths"])
        self.obs = state["obs"]
        if self.env.restart_reason and self.env.obs is not None:
            self.begin(self.env.obs)
            self.store.cut()
