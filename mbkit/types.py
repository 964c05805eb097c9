"""The vocabulary every layer speaks. No other mbkit import is allowed here.

Letters: M environments, N candidates, H horizon, P particles, B batch, T time, E members, O observation, A action, D prediction.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

Metrics = dict[str, Tensor]  # 0-d, detached, still on the device: floats are made when they are written
State = dict[str, Any]  # what `state_dict` returns: tensors, numbers, strings and nested dicts of them, never pickled objects


class EnvSpec(NamedTuple):
    """What agents and models know of an environment; they see actions in [-1, 1] only, scaling sits at the environment boundary."""

    obs_dim: int
    action_dim: int  # dimension, or number of actions if discrete
    device: torch.device
    discrete: bool = False


class Transition(NamedTuple):
    """A batch; `discount` is 0 where the MDP terminated, never where the episode was only cut."""

    obs: Tensor  # [B, O]
    action: Tensor  # [B, A] in [-1, 1], or [B] int64
    reward: Tensor  # [B], n-step: discounted sum
    next_obs: Tensor  # [B, O] the true successor
    discount: Tensor  # [B] gamma^(n-1) (1 - terminated)


class Trajectory(NamedTuple):
    """Consecutive steps of B environments; `ended` cuts the recursion (terminated or truncated), `discount` cuts the bootstrap."""

    obs: Tensor  # [T, B, O]
    action: Tensor  # [T, B, A] or [T, B]
    reward: Tensor  # [T, B]
    next_obs: Tensor  # [T, B, O]
    discount: Tensor  # [T, B]
    ended: Tensor  # bool [T, B]
    log_prob: Tensor  # [T, B] of the behaviour policy, 0 where it has none


class Targets(NamedTuple):
    """What a critic is regressed on; N is B, or (H+1) B under value expansion."""

    obs: Tensor  # [N, O]
    action: Tensor  # [N, A]
    target: Tensor  # [N]
    weight: Tensor  # [N]


class Prediction(NamedTuple):
    """Every member's Gaussian, kept apart: absolute next observation in raw units, then the reward if it is learned."""

    mean: Tensor  # [E, B, D]
    var: Tensor  # [E, B, D]


class Step(NamedTuple):
    """One imagined step."""

    state: Any  # opaque carry
    obs: Tensor  # [B, O]
    reward: Tensor  # [B]
    terminated: Tensor  # bool [B]
    prediction: Prediction | None = None  # for gating and penalties, so that nobody runs the ensemble twice


class Rollout(NamedTuple):
    """H imagined steps of B control sequences; rows go on after they terminated, the evaluator masks them."""

    obs: Tensor  # [B, H, O] observation after each action
    reward: Tensor  # [B, H]
    terminated: Tensor  # bool [B, H]


class Plan(NamedTuple):
    """What a search found, and all that the next search wants from it: a planner itself keeps no state.

    `actions` is executed; iCEM executes its best sample but continues from its mean, so the two are kept apart.
    Discrete planners: actions int64 [M, H], mean are probabilities [M, H, n], elites int64 [M, K, H].
    """

    actions: Tensor  # [M, H, A] the sequence to execute
    mean: Tensor  # [M, H, A] where the next search starts, once shifted
    elites: Tensor  # [M, K, H, A] candidates remembered for the next search; K = 0 for planners that remember none
    score: Tensor  # [M] the best score any candidate reached; -inf where no candidate had a finite one


RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # (obs [B, O], action [B, A], next_obs [B, O]) -> [B]
TerminationFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # the same arguments -> bool [B]
Objective = Callable[[Tensor], Tensor]  # action sequences [M, N, H, A] -> scores [M, N], higher is better; M problems at once
ValueFn = Callable[[Tensor], Tensor]  # obs [B, O] -> [B]


class Backup(Protocol):
    """What an agent lends to a target: its slow networks, without gradient."""

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]: ...  # action [B, A], bonus [B]: -alpha log pi, or 0
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor: ...  # [K, B], every critic


TargetFn = Callable[[Backup, Transition, float], Targets]  # (agent, batch, gamma): one-step, value expansion, ...


@runtime_checkable
class Stateful(Protocol):
    """Whatever a checkpoint holds. `load_state_dict` writes in place: a captured graph may hold the tensors."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


@runtime_checkable
class Dynamics(Protocol):
    """A model of the environment, learned or true; rows are particle-major, so that every candidate meets every member."""

    def init(self, obs: Tensor) -> Any: ...  # obs [B, O] -> carry
    def step(self, carry: Any, action: Tensor) -> Step: ...  # action [B, A]
    def rollout(self, carry: Any, actions: Tensor) -> Rollout: ...  # actions [B, H, A]


@runtime_checkable
class Predictive(Protocol):
    """A model whose members can be asked one by one."""

    def predict(self, obs: Tensor, action: Tensor) -> Prediction: ...


@runtime_checkable
class Learnable(Protocol):
    """A model that is fitted to one-step transitions."""

    def fit(self, data: Transition) -> Metrics: ...


class Planner(Protocol):
    """A search over action sequences in [-1, 1]^(H x A) that sees an objective and never a model."""

    def start(self, like: Tensor, problems: int, horizon: int) -> Plan: ...  # like: device and dtype of the plan
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan: ...  # proposals [M, C, H, A]


@runtime_checkable
class Actor(Protocol):
    """Whoever chooses actions."""

    def act(self, obs: Tensor, explore: bool = True) -> Tensor: ...  # obs [M, O] -> [M, A] in [-1, 1], or int64 [M]
    def reset(self, mask: Tensor) -> None: ...  # bool [M]: these environments begin a new episode


@runtime_checkable
class Learner(Protocol):
    """An actor that learns from batches; `update` has static shapes, no host sync and changes tensors in place."""

    cycle: int  # `update` does the same work every `cycle` calls (TD3's delay): a captured graph holds a multiple of it

    def act(self, obs: Tensor, explore: bool = True) -> Tensor: ...  # as Actor
    def reset(self, mask: Tensor) -> None: ...  # as Actor
    def sample(self, obs: Tensor) -> Tensor: ...  # obs [B, O] -> exploratory actions [B, A], for imagined steps: remembers nothing
    def value(self, obs: Tensor) -> Tensor: ...  # obs [B, O] -> [B], of the present policy under the slow networks: a ValueFn
    def update(self, batch: Transition) -> Metrics: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


@runtime_checkable
class TrajectoryLearner(Protocol):
    """An actor that learns from consecutive steps; `update` as a Learner's: static shapes, no host sync, tensors changed in place."""

    replays: bool  # whether trajectories of older policies may be learned from, by their log-probabilities

    def act(self, obs: Tensor, explore: bool = True) -> Tensor: ...  # as Actor
    def reset(self, mask: Tensor) -> None: ...  # as Actor
    def sample(self, obs: Tensor) -> Tensor: ...  # as Learner
    def value(self, obs: Tensor) -> Tensor: ...  # as Learner
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor: ...  # of the present policy, [...]
    def anneal(self, remaining: float) -> None: ...  # share of the run that lies ahead, 1 to 0: schedules follow it
    def update(self, trajectory: Trajectory) -> Metrics: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


@runtime_checkable
class Source(Protocol):
    """Whatever batches are drawn from."""

    def sample(self, n: int) -> Transition: ...
