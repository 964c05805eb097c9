"""The vocabulary every layer speaks. Nothing else of mbkit is imported here but its error.

Letters: M environments, N candidates, H horizon, P particles, B batch, T time, E members, O observation, A action, D prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from mbkit.errors import UserError as UserError  # part of the vocabulary: users catch it

Metrics = dict[str, Tensor]  # 0-d, detached, still on the device: floats are made when they are written
State = dict[str, Any]  # what `state_dict` returns: tensors, numbers, strings and nested dicts of them, never pickled objects


@dataclass(frozen=True)
class NoOptions:
    """The configuration of what has no options of its own."""


class EnvSpec(NamedTuple):
    """What agents and models know of an environment; they see actions in [-1, 1] only, scaling sits at the environment boundary."""

    obs_dim: int
    action_dim: int  # dimension, or number of actions if discrete, summed over the parts where there are several
    device: torch.device
    discrete: bool = False
    parts: tuple[int, ...] = ()  # numbers of actions of P discrete actions taken at once; () where there is one

    @property
    def action_shape(self) -> tuple[int, ...]:
        """The shape of one action: [A] continuous, [] discrete, [P] several discrete ones."""
        return (len(self.parts),) if self.parts else () if self.discrete else (self.action_dim,)

    @property
    def actions(self) -> str:
        """The kind of actions, with which options' conditions compare: continuous, discrete, or several discrete ones."""
        return "several" if self.parts else "discrete" if self.discrete else "continuous"


class Transition(NamedTuple):
    """A batch; `discount` is 0 where the MDP terminated, never where the episode was only cut."""

    obs: Tensor  # [B, O]
    action: Tensor  # [B, A] in [-1, 1], or int64 [B]; [B, P] where there are several discrete ones
    reward: Tensor  # [B], n-step: discounted sum
    next_obs: Tensor  # [B, O] the true successor
    discount: Tensor  # [B] gamma^(n-1) (1 - terminated)
    real: Tensor | None = None  # [B] 1 recorded, 0 from a model; None: all recorded
    weight: Tensor | None = None  # [B] of the row in the critics' loss; None: 1 each


class Recorded(NamedTuple):
    """A batch of a data set: a Transition, and what is known of the rows around it. What takes a Transition takes it too."""

    obs: Tensor  # [B, O]
    action: Tensor  # [B, A] in [-1, 1], or int64 [B]
    reward: Tensor  # [B]
    next_obs: Tensor  # [B, O] the true successor
    discount: Tensor  # [B] 1 - terminated
    real: Tensor | None  # as a Transition's
    weight: Tensor | None  # as a Transition's
    next_action: Tensor  # [B, A], or int64 [B]: of the following row; meaningless where there is none
    next_known: Tensor  # [B] 1 where the episode has a following row, 0 at its end
    return_to_go: Tensor  # [B] undiscounted sum of the rewards from here to the end of the episode
    row: Tensor  # int64 [B] number of the row in the data set


class Trajectory(NamedTuple):
    """Consecutive steps of B environments; `ended` cuts the recursion (terminated or truncated), `discount` cuts the bootstrap."""

    obs: Tensor  # [T, B, O]
    action: Tensor  # [T, B, A], or int64 [T, B] or [T, B, P]
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
    weight: Tensor | None = None  # [N]; None: all rows alike
    beside: tuple[Tensor, Tensor] | None = None  # the observation [N, O] and action that follow each row, where one step is backed up
    probs: Tensor | None = None  # [N, Z] the distribution of the target, for critics that regress on distributions of a next state


class Prediction(NamedTuple):
    """The Gaussian of every member: absolute next observation in raw units, then the reward if it is learned."""

    mean: Tensor  # [E, B, D]
    var: Tensor  # [E, B, D]


class Step(NamedTuple):
    """One model step."""

    state: Any  # opaque carry
    obs: Tensor  # [B, O]
    reward: Tensor  # [B]
    terminated: Tensor  # bool [B]
    prediction: Prediction | None = None  # of every member, if asked for, in the units its model is trained in: for gates and penalties


class Rollout(NamedTuple):
    """H model steps of B action sequences; rows go on after they terminated, the evaluator masks them."""

    obs: Tensor  # [B, H, O] observation after each action
    reward: Tensor  # [B, H]
    terminated: Tensor  # bool [B, H]


class Plan(NamedTuple):
    """The result of a search, and all that the next search needs of it: a planner itself has no state.

    `actions` is executed; iCEM executes its best sample but continues from its mean, so the two are separate.
    Discrete planners: actions int64 [M, H], mean are probabilities [M, H, n], elites int64 [M, K, H]; where P discrete actions are taken
    at once [M, H, P], [M, H, P, N] and [M, K, H, P], N being the largest of their numbers of actions.
    """

    actions: Tensor  # [M, H, A] the sequence to execute
    mean: Tensor  # [M, H, A] where the next search starts, once shifted
    elites: Tensor  # [M, K, H, A] elites reused by the next search; K = 0 for planners that reuse none
    score: Tensor  # [M] the best score any candidate reached; -inf where no candidate had a finite one


RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # (obs [B, O], action [B, A], next_obs [B, O]) -> [B]
TerminationFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # the same arguments -> bool [B]
Objective = Callable[[Tensor], Tensor]  # action sequences [M, N, H, A] -> scores [M, N], higher is better; M problems at once
ValueFn = Callable[[Tensor], Tensor]  # obs [B, O] -> [B]
PolicyFn = Callable[[Tensor], Tensor]  # obs [B, O] -> actions [B, A], or int64 [B]
Measure = Callable[[Prediction], Tensor]  # every member's Gaussian [E, B, D] -> uncertainty [B]
MeasureName = Literal["max_aleatoric", "disagreement", "distance_from_mean", "ensemble_std", "one_vs_rest"]
ObsProcess = Callable[[Tensor], Tensor]  # obs [..., O] -> model inputs [..., I]


class TaskKnowledge(NamedTuple):
    """What is known of a task beyond its transitions: what a model need not learn, and how its paper feeds a model. Made by `envs`."""

    reward: RewardFn | None = None  # None: the reward is learned
    termination: TerminationFn | None = None  # None: termination is learned, or episodes never terminate
    preprocess: ObsProcess | None = None  # model inputs of an observation; None: the observation itself
    absolute: tuple[int, ...] = ()  # observation dimensions predicted as such, where others are predicted as changes
    reward_part: RewardFn | None = None  # the known part of a reward that is learned: a model learns the rest and adds this

    def reward_to_learn(self, obs: Tensor, action: Tensor, next_obs: Tensor, reward: Tensor) -> Tensor:
        """What a model is to learn of observed rewards [B]: all but the known part."""
        return reward if self.reward_part is None else reward - self.reward_part(obs, action, next_obs)


class Backup(Protocol):
    """What an agent offers to a target function: its target networks, without gradient."""

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]: ...  # action [B, A], bonus [B]: -alpha log pi, or 0
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor: ...  # [K, B], every critic

    # Where its attribute `pairs` is true: `successor_q(batch, next_action)` -> [K, B], `backup_q` at the next observations beside the rows.


TargetFn = Callable[[Backup, Transition, float], Targets]  # (agent, batch, gamma): one-step, value expansion, ...


class Pathwise(Protocol):
    """What an agent offers to a policy objective: a policy whose parameters gradients reach, also by way of obs, and constant critics."""

    def path_action(self, obs: Tensor) -> tuple[Tensor, Tensor]: ...  # reparameterised action [B, A], bonus [B]: -alpha log pi, or 0
    def path_value(self, obs: Tensor, action: Tensor) -> Tensor: ...  # [B], of the critics that the policy ascends, reduced as it does


class PolicyObjective(Protocol):
    """What a policy ascends, where that is not its agent's objective: the value of each row, whose mean is differentiated."""

    max_grad_norm: float | None  # largest norm of the gradient in the policy's parameters; None: any

    # obs [B, O]; first: `path_action` at obs; gamma -> values [B] with gradient
    def __call__(self, agent: Pathwise, obs: Tensor, first: tuple[Tensor, Tensor], gamma: float) -> Tensor: ...


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can hold. `load_state_dict` writes in place: a captured graph may hold the tensors."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


class Store(Stateful, Protocol):
    """Where a loop puts what happened: a ReplayBuffer, or a TrajectoryBuffer for learners from trajectories."""

    def extend(self, rows: Any, mask: Tensor | None = None) -> Any: ...  # rows: an Experience [M] or [M, ...]; mask bool [M]: rows to store
    def cut(self) -> None: ...  # no later row continues those stored so far


@runtime_checkable
class Dynamics(Protocol):
    """A model of the environment, learned or true; rows are particle-major, so that every candidate meets every member.

    One whose attribute `capturable` is true has no operator that synchronises with the host and fits in place: by default, on CUDA, what
    asks it becomes a CUDA graph.
    """

    # obs [M, O] -> carry: tensors or arrays of one row for each row of obs (also in tuples and dicts), so that a plan can repeat its rows.
    # What depends on the number of rows, such as the member that a row meets, is decided by the first `step` or `rollout`.
    def init(self, obs: Tensor) -> Any: ...
    def step(self, carry: Any, action: Tensor, predict: bool = False) -> Step: ...  # action [B, A]; predict: with every member's Gaussian
    def rollout(self, carry: Any, actions: Tensor) -> Rollout: ...  # actions [B, H, A]


class Differentiable(Dynamics, Protocol):
    """A model with gradients: its attribute `differentiable` is true.

    With `grad` the observation and the reward of a step have gradients in carry and action, none in parameters or terminations, and each
    row's outcome is one member's mean plus its standard deviation times noise.
    """

    differentiable: bool

    def step(self, carry: Any, action: Tensor, predict: bool = False, grad: bool = False) -> Step: ...


@runtime_checkable
class Predictive(Protocol):
    """A model whose members can be asked one by one."""

    def predict(self, obs: Tensor, action: Tensor) -> Prediction: ...


@runtime_checkable
class Learnable(Protocol):
    """A model that is fitted to one-step transitions."""

    def fit(self, data: Transition) -> Metrics: ...


@runtime_checkable
class LearnedDynamics(Dynamics, Learnable, Stateful, Protocol):
    """A learned model that can start from any state, and that a checkpoint holds."""


class Planner(Protocol):
    """A search over action sequences in [-1, 1]^(H x A) that sees an objective and never a model."""

    def start(self, like: Tensor, problems: int, horizon: int) -> Plan: ...  # like: device and dtype of the plan
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan: ...  # proposals [M, C, H, A]


@runtime_checkable
class Actor(Protocol):
    """Chooses actions."""

    def act(self, obs: Tensor, explore: bool = True) -> Tensor: ...  # obs [M, O] -> [M, A] in [-1, 1], or int64 [M] or [M, P]
    def reset(self, mask: Tensor) -> None: ...  # bool [M]: these environments begin a new episode


@runtime_checkable
class Learner(Protocol):
    """An actor that learns from batches; `update` has static shapes, no host sync and changes tensors in place."""

    cycle: int  # `update` does the same work every `cycle` calls (TD3's delay): a captured graph holds a multiple of it

    def act(self, obs: Tensor, explore: bool = True) -> Tensor: ...  # as Actor
    def reset(self, mask: Tensor) -> None: ...  # as Actor
    def sample(self, obs: Tensor) -> Tensor: ...  # obs [B, O] -> exploratory actions [B, A], for model rollouts: changes nothing
    def value(self, obs: Tensor) -> Tensor: ...  # obs [B, O] -> [B], of the present policy under the target networks: a ValueFn
    def update(self, batch: Transition) -> Metrics: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> Any: ...


@runtime_checkable
class TrajectoryLearner(Protocol):
    """An actor that learns from consecutive steps; `update` as a Learner's: static shapes, no host sync, tensors changed in place."""

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
    """Draws batches of transitions."""

    def sample(self, n: int) -> Transition: ...
