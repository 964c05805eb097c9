"""Any model of mbrl-lib (Pineda et al. 2021, arXiv:2104.10159) as Dynamics: its network, its propagation, its trainer.

B batch, H horizon, E members, O observation, A action, D prediction. mbrl-lib is imported when a model is built, never before. Its rows may
go to any member, so nothing here depends on their order; where its `GaussianMLP` wants a multiple of the members, rows are padded.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbkit.dynamics.mbrl.files import read_network, read_stats, state_of
from mbkit.dynamics.mbrl.settings import ACTIVATION, Settings, named_process, read_settings
from mbkit.errors import UserError
from mbkit.fields import at_least, between, option, positive
from mbkit.registry import dynamics
from mbkit.types import EnvSpec, Metrics, ObsProcess, Prediction, Rollout, State, Step, TaskKnowledge, Transition

INSTALL = "pip install --no-deps mbrl==0.2.0 hydra-core==1.3.8 antlr4-python3-runtime==4.9.3 termcolor"
PROPAGATION = {"ts1": "random_model", "ts_inf": "fixed_model", "expectation": "expectation"}


@dataclass(frozen=True)
class MbrlConfig:
    """An mbrl-lib GaussianMLP and its ModelTrainer; defaults are mbrl-lib's gaussian_mlp_ensemble and PETS cartpole."""

    members: int = at_least(7, 1, when="load=null")  # number of networks
    elites: int = at_least(5, 1)  # number of members with the least validation score, used for propagation
    layers: int = at_least(4, 1, when="load=null")  # number of hidden layers
    hidden: int = at_least(200, 1, when="load=null")  # width of the hidden layers
    activation: Literal["silu", "relu", "tanh", "elu", "gelu"] = "silu"  # activation function. mbrl-lib without a configuration: relu
    deterministic: bool = option(False, when="load=null")  # squared error on means instead of the Gaussian likelihood
    learn_bounds: bool = option(False, when="deterministic=false, loop.fit=true")  # trained log-variance bounds. PETS: yes; mbrl-lib: no
    propagation: Literal["ts1", "ts_inf", "expectation"] = "ts1"  # assignment of rows to members in model rollouts
    lr: float = positive(7.5e-4, when="loop.fit=true")  # Adam learning rate
    weight_decay: float = at_least(3e-5, 0, when="loop.fit=true")  # weight decay of every parameter
    batch: int = at_least(256, 1, when="loop.fit=true")  # batch size per member
    epochs: int = at_least(25, 1, when="loop.fit=true")  # maximum epochs per fit
    patience: int = at_least(25, 1, when="loop.fit=true")  # number of epochs without 1 % improvement of any member that ends a fit
    holdout: float = between(0.0, 0, 0.9, when="loop.fit=true")  # hold-out fraction; 0: mbrl-lib's PETS scores on the training data
    reward: str = "auto"  # reward function: auto (the environment's where known, else learned), learned, or your own, pkg.mod:fn
    termination: str = "auto"  # termination function: auto (the environment's where known, else never), never, or your own, pkg.mod:fn
    load: str | None = None  # trained model to start from, a results directory of mbrl-lib
    action_low: tuple[float, ...] = ()  # lower action bounds in the model's own units; empty: -1
    action_high: tuple[float, ...] = ()  # upper action bounds in the model's own units; empty: 1


class MbrlCarry(NamedTuple):
    """Observation of every row, and mbrl-lib's model state, which is made at the first step: it deals rows out to members."""

    obs: Tensor  # [B, O]
    state: dict[str, Any] | None = None  # of padded rows


def library(name: str) -> Any:
    """A module of mbrl-lib by its name below `mbrl`; UserError with the command that installs it where it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(f"mbrl.{name}")
    except ImportError as error:
        raise UserError(f"dynamics=mbrl needs mbrl-lib, which cannot be imported ({error}); install it with: {INSTALL}") from error


def default_generator(device: torch.device) -> torch.Generator:
    """torch's own generator of the device: the one that `manual_seed` seeds and a checkpoint holds."""
    return torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator


def for_arrays(process: ObsProcess | None) -> Callable[[Any], Any] | None:
    """The observation processing for arrays, which mbrl-lib passes while it trains, and for tensors, which it passes while it plans."""
    if process is None:
        return None
    return lambda obs: process(torch.as_tensor(obs)).numpy() if isinstance(obs, np.ndarray) else process(obs)


class MbrlDynamics:
    """An mbrl-lib OneDTransitionRewardModel as Dynamics, Predictive and Learnable; actions in [-1, 1] are scaled to the model's units.

    Without a known reward the model must have learned it; without a known termination nothing terminates. Sampling uses torch's global
    generator.
    """

    def __init__(self, model: Any, spec: EnvSpec, cfg: MbrlConfig | None = None, task: TaskKnowledge = TaskKnowledge()) -> None:
        self.cfg = cfg = cfg or MbrlConfig()
        self.model, self.spec, self.task = model, spec, task
        if spec.discrete:
            raise UserError("dynamics=mbrl takes vectors as actions; came: an environment with discrete actions")
        if cfg.termination == "learned":
            raise UserError(
                "mbrl-lib's models cannot learn when episodes terminate; expected dynamics.termination=auto, never or pkg.mod:fn"
            )
        if task.reward is None and not model.learned_rewards:
            raise UserError("this mbrl-lib model did not learn rewards; expected a reward function, came: none")
        if model.model.deterministic and model.model.propagation_method == "expectation" and not hasattr(model.model, "members"):
            raise UserError("mbrl-lib's deterministic GaussianMLP cannot propagate expectations; expected propagation=ts1 or ts_inf")
        if {len(cfg.action_low), len(cfg.action_high)} - {spec.action_dim} not in (set(), {0}):
            raise UserError(
                f"action_low={cfg.action_low} and action_high={cfg.action_high} must both have {spec.action_dim} numbers, or none"
            )
        self.generator = default_generator(torch.device(model.device))
        self.trainer = library("models").ModelTrainer(model, optim_lr=cfg.lr, weight_decay=cfg.weight_decay)

    def native(self, action: Tensor) -> Tensor:
        """Actions in [-1, 1] -> the units that the model was trained in."""
        if not self.cfg.action_low:
            return action
        low, high = (torch.tensor(bound, device=action.device) for bound in (self.cfg.action_low, self.cfg.action_high))
        return low + (action + 1) / 2 * (high - low)

    def init(self, obs: Tensor) -> MbrlCarry:
        """obs [B, O] -> carry."""
        return MbrlCarry(obs)

    def _state(self, carry: MbrlCarry) -> dict[str, Any]:
        """mbrl-lib's model state, made now if the carry has made no step. A copy, since `sample` writes into it."""
        return dict(self.model.reset(self._pad(carry.obs), rng=self.generator) if carry.state is None else carry.state)

    def _pad(self, rows: Tensor) -> Tensor:
        network = self.model.model
        if not hasattr(network, "elite_models"):  # only GaussianMLP wants every member to get as many rows
            return rows
        members = len(network) if network.elite_models is None else len(network.elite_models)
        return torch.cat([rows, rows[:1].expand(-len(rows) % members, -1)])

    @torch.no_grad()
    def step(self, carry: MbrlCarry, action: Tensor, predict: bool = False) -> Step:
        """One sampled step of every row, action [B, A]; `predict`: with every member's Gaussian."""
        before, rows = carry.obs, len(carry.obs)
        obs, learned, _, state = self.model.sample(self._pad(self.native(action)), self._state(carry), rng=self.generator)
        after, task = obs[:rows], self.task
        reward = learned[:rows, 0] if task.reward is None else task.reward(before, action, after)
        ended = torch.zeros_like(reward, dtype=torch.bool) if task.termination is None else task.termination(before, action, after)
        return Step(MbrlCarry(after, state), after, reward, ended, self.predict(before, action) if predict else None)

    @torch.no_grad()
    def rollout(self, carry: MbrlCarry, actions: Tensor) -> Rollout:
        """actions [B, H, A] -> H sampled steps."""
        steps = []
        for action in actions.unbind(1):
            steps.append(self.step(carry, action))
            carry = steps[-1].state
        return Rollout(*(torch.stack([getattr(step, name) for step in steps], 1) for name in Rollout._fields))

    @torch.no_grad()
    def predict(self, obs: Tensor, action: Tensor) -> Prediction:
        """Every member's Gaussian, elite or not: obs [B, O], action [B, A] -> [E, B, D] in raw units, the learned reward last."""
        model = self.model
        model_in = model._get_model_input(obs, self.native(action))
        mean, log_var = model.model._default_forward(model_in)  # what `forward` calls without propagation, but always [E, B, D]
        if model.target_is_delta:
            delta = torch.ones(mean.shape[-1], device=mean.device)
            delta[list(model.no_delta_list)] = 0
            delta[obs.shape[-1] :] = 0
            mean = mean + delta * torch.nn.functional.pad(obs, (0, mean.shape[-1] - obs.shape[-1]))
        return Prediction(mean, torch.zeros_like(mean) if log_var is None else log_var.exp())

    def batch(self, data: Transition) -> Any:
        """One-step transitions as mbrl-lib's TransitionBatch of float64 arrays, actions in the model's own units."""
        obs, action, reward, next_obs, discount = (column.detach().cpu() for column in data[:5])
        columns = (obs, self.native(action), next_obs, reward)
        arrays = [column.double().numpy() for column in columns]
        if not all(np.isfinite(array).all() for array in arrays):
            raise UserError("the transitions to fit hold NaN or infinity; expected finite numbers")
        return library("types").TransitionBatch(*arrays, (discount == 0).numpy(), np.zeros(len(obs), dtype=bool))

    def fit(self, data: Transition) -> Metrics:
        """Train by mbrl-lib's ModelTrainer on one-step rows [B, ...]; returns its last loss and least validation mean squared error."""
        iterators = library("util.replay_buffer")
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        batch = self.batch(data)
        self.model.update_normalizer(batch)
        order = rng.permutation(len(batch))
        count = int(len(batch) * self.cfg.holdout)
        train = iterators.BootstrapIterator(
            batch[order[count:]], self.cfg.batch, len(self.model), shuffle_each_epoch=True, permute_indices=False, rng=rng
        )
        validation = iterators.TransitionIterator(batch[order[:count]], self.cfg.batch) if count else None
        losses, scores = self.trainer.train(train, validation, num_epochs=self.cfg.epochs, patience=self.cfg.patience, silent=True)
        rows = torch.from_numpy(order[:count] if count else order).to(data.obs.device)
        metrics = {"model/loss": torch.tensor(losses[-1]), "model/holdout_mse": torch.tensor(min(scores))}
        return metrics | {"model/holdout_error": self.relative_error(Transition(*(column[rows] for column in data[:5])))}

    @torch.no_grad()
    def relative_error(self, data: Transition) -> Tensor:
        """Root mean squared error of the members' mean in standard deviations of each dimension's change, and of the reward itself, 0-d."""
        mean = self.predict(data.obs, data.action).mean.mean(0)
        learned = mean.shape[1] > data.obs.shape[1]
        y = torch.cat((data.next_obs, data.reward[:, None]), 1) if learned else data.next_obs
        change = torch.cat((data.next_obs - data.obs, data.reward[:, None]), 1) if learned else data.next_obs - data.obs
        unit = change.std(0, correction=0)
        return ((mean - y) / torch.where(unit > 0, unit, 1.0)).square().mean().sqrt()

    def state_dict(self) -> State:
        """Weights, elites, normaliser and optimizer."""
        network, normalizer = self.model.model, self.model.input_normalizer
        elites = getattr(network, "elite_models", None)
        return {
            "model": self.model.state_dict(),
            "elites": None if elites is None else [int(e) for e in elites],
            "normalizer": None if normalizer is None else {"mean": normalizer.mean, "std": normalizer.std},
            "optimizer": self.trainer.optimizer.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        if hasattr(self.model.model, "elite_models"):
            self.model.model.elite_models = state["elites"]
        if state["normalizer"] is not None:
            self.model.input_normalizer.mean, self.model.input_normalizer.std = (
                state["normalizer"][name].clone() for name in ("mean", "std")
            )
        self.trainer.optimizer.load_state_dict(state["optimizer"])


def network_model(
    spec: EnvSpec, cfg: MbrlConfig, sizes: tuple[int, int], settings: Settings, process: ObsProcess | None, normalize: bool
) -> Any:
    """A new OneDTransitionRewardModel around a GaussianMLP with `sizes` inputs and outputs."""
    models = library("models")
    network = models.GaussianMLP(
        *sizes,
        spec.device,
        num_layers=cfg.layers,
        ensemble_size=cfg.members,
        hid_size=cfg.hidden,
        deterministic=cfg.deterministic,
        propagation_method=PROPAGATION[cfg.propagation],
        learn_logvar_bounds=cfg.learn_bounds,
        activation_fn_cfg={"_target_": settings.activation},
    )
    return models.OneDTransitionRewardModel(
        network,
        target_is_delta=settings.target_is_delta,
        normalize=normalize,
        normalize_double_precision=True,
        learned_rewards=settings.learned_rewards,
        obs_process_fn=for_arrays(process),
        no_delta_list=list(settings.no_delta),
        num_elites=min(cfg.elites, cfg.members),
    )


@dynamics.register("mbrl", MbrlConfig)
def build(spec: EnvSpec, cfg: MbrlConfig, task: TaskKnowledge = TaskKnowledge()) -> MbrlDynamics:
    """An ensemble of mbrl-lib's, trained by mbrl-lib; as `cfg.load` holds it, or new."""
    if cfg.load is not None:
        return load(cfg.load, spec, cfg, task)
    settings = Settings(ACTIVATION[cfg.activation], no_delta=task.absolute, learned_rewards=task.reward is None)
    model = network_model(spec, cfg, model_sizes(spec, task.preprocess, settings), settings, task.preprocess, normalize=True)
    return MbrlDynamics(model, spec, cfg, task)


def load(directory: str | Path, spec: EnvSpec, cfg: MbrlConfig | None = None, task: TaskKnowledge = TaskKnowledge()) -> MbrlDynamics:
    """The model that mbrl-lib saved in a results directory; sizes come from the weights, the rest from `.hydra/config.yaml` if it is there.

    Without that file the activation is the configuration's, and the outputs are differences except for the task's `absolute` dimensions.

    Raises:
        UserError: a file is missing or damaged, or its dimensions are not the environment's.
    """
    cfg = cfg or MbrlConfig()
    network = read_network(directory)
    first, outputs = network.layers[0][0], network.layers[-1][0].shape[2] // (1 if network.bounds is None else 2)
    default = Settings(ACTIVATION[cfg.activation], no_delta=task.absolute, learned_rewards=outputs == spec.obs_dim + 1)
    settings = read_settings(directory) or default
    process = task.preprocess or named_process(settings.obs_process)
    check_sizes(Path(directory), (first.shape[1], outputs), model_sizes(spec, process, settings))
    members, inputs, hidden = first.shape
    stats = read_stats(directory, inputs)
    cfg = replace(cfg, members=members, hidden=hidden, layers=len(network.layers) - 1, deterministic=network.bounds is None)
    model = network_model(spec, cfg, (first.shape[1], outputs), settings, process, normalize=stats is not None)
    model.model.load_state_dict(state_of(network))
    model.model.elite_models = None if network.elites is None else list(network.elites)
    if stats is not None:
        model.input_normalizer.mean, model.input_normalizer.std = (value[None].to(spec.device) for value in stats)
    return MbrlDynamics(model, spec, cfg, task)


def model_sizes(spec: EnvSpec, process: ObsProcess | None, settings: Settings) -> tuple[int, int]:
    """Inputs and outputs of a model of this environment."""
    obs_inputs = spec.obs_dim if process is None else process(torch.zeros(1, spec.obs_dim)).shape[-1]
    return obs_inputs + spec.action_dim, spec.obs_dim + int(settings.learned_rewards)


def check_sizes(directory: Path, came: tuple[int, int], expected: tuple[int, int]) -> None:
    """UserError where a saved network has other inputs or outputs than the environment asks for."""
    for name, have, want in zip(("inputs", "outputs"), came, expected, strict=True):
        if have != want:
            raise UserError(f"{directory}: the saved model has {have} {name}; expected {want} for this environment")
