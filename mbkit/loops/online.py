"""The online loop: act, step, store, and call whoever wants to learn from it. M environments, O observation, A action."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor

from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.recording import Recorder
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import Actor, EnvSpec, State


class Hook(Protocol):
    """Called after every environment step, in the order given; keeps its own cadence."""

    def __call__(self, loop: "Online") -> None: ...  # noqa: D102


class Every:
    """A hook that runs `action` whenever the step counter passes a multiple of `steps`; 0 is never."""

    def __init__(self, steps: int, action: Callable[["Online"], None]) -> None:
        self.steps, self.action = steps, action

    def __call__(self, loop: "Online") -> None:
        """Runs the action where a multiple was passed."""
        if self.steps and loop.passed(self.steps):
            self.action(loop)


def random_action(spec: EnvSpec, num_envs: int) -> Tensor:
    """Uniform over the action space: [M, A] in [-1, 1], or int64 [M]."""
    if spec.discrete:
        return torch.randint(spec.action_dim, (num_envs,), device=spec.device)
    return torch.rand(num_envs, spec.action_dim, device=spec.device) * 2 - 1


def finite_action(action: Tensor, step: int | None = None) -> Tensor:
    """The action [M, A], as it is, on the host; UserError where an environment could make nothing of it."""
    if action.is_floating_point() and not action.isfinite().all():
        where = "the evaluation" if step is None else f"step {step}"
        raise UserError(f"the agent's action is not finite at {where}: the agent or its model diverged; a smaller agent.lr is safer")
    return action


class Online:
    """Steps M environments under one actor and fills the replay buffer.

    PETS is this loop with an MPC actor and a hook that fits the model. `state_dict` holds all that the next step depends on besides the
    actor, the buffer and the global random state.
    """

    recorder: Recorder  # set by whoever runs the loop, before it runs

    def __init__(self, env: Environment, actor: Actor, buffer: ReplayBuffer, warmup_steps: int = 0) -> None:
        self.env, self.actor, self.buffer, self.warmup_steps = env, actor, buffer, warmup_steps
        self.step = 0  # environment steps so far, over all M
        self.episodes = 0
        self.episode_ended = False  # in the last step, in any environment
        self.last_return: float | None = None
        self.obs: Tensor | None = None  # [M, O]
        self.returns = torch.zeros(env.num_envs, dtype=torch.float64)  # of the running episodes
        self.lengths = torch.zeros(env.num_envs, dtype=torch.int64)

    def passed(self, every: int) -> bool:
        """Whether the last step reached or crossed a multiple of `every`."""
        return self.step // every > (self.step - self.env.num_envs) // every

    def run(self, until: int, hooks: Sequence[Hook], stop: Callable[[], bool] = lambda: False) -> None:
        """Go on until `until` environment steps, or until `stop()` after a whole step; `start` or `load_state_dict` comes first."""
        while self.step < until and not stop():
            self.advance()
            for hook in hooks:
                hook(self)

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
        """One step of every environment."""
        assert self.obs is not None  # after `start`
        if self.step < self.warmup_steps:
            action = random_action(self.env.spec, self.env.num_envs)
        else:
            began = perf_counter()
            action = finite_action(self.actor.act(self.obs).cpu(), self.step)  # environments are there; and the clock waits for the device
            self.recorder.log(self.step, {"time/act_ms": 1e3 * (perf_counter() - began)})
        out = self.env.step(action)
        ended = out.terminated | out.truncated
        self.buffer.extend(Experience(self.obs, action, out.reward, out.next_obs, out.terminated, ended), self.env.valid)
        self.obs = out.obs
        self.step += self.env.num_envs
        self.count(out.reward, ended)

    def count(self, reward: Tensor, ended: Tensor) -> None:
        """Episode statistics: undiscounted returns [M], accumulated in float64."""
        self.returns.numpy()[:] += reward.numpy(force=True)  # NumPy: sums of M numbers in a third of torch's time
        self.lengths.numpy()[:] += self.env.valid.numpy()
        over = ended.cpu()
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
        return {**counters, "obs": self.obs, "returns": self.returns.clone(), "lengths": self.lengths.clone(), "env": self.env.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken; environments that cannot be saved begin a new episode."""
        for name in ("step", "episodes", "episode_ended", "last_return"):
            setattr(self, name, state[name])
        self.env.load_state_dict(state["env"])
        self.returns.copy_(state["returns"])
        self.lengths.copy_(state["lengths"])
        self.obs = state["obs"]
        if self.env.restart_reason and self.env.obs is not None:
            self.begin(self.env.obs)
            self.buffer.cut()
