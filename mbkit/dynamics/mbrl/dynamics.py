"""Any model of mbrl-lib (Pineda et al. 2021, arXiv:2104.10159) as Dynamics here: its network, its propagation, its trainer.

B batch, H horizon, E members, O observation, A action, D prediction. mbrl-lib is imported when a model is built, never before. Its rows may
go to any member, so nothing here depends on their order; where its `GaussianMLP` wants a multiple of the members, rows are padded.
"""

import pydoc
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mbkit.dynamics.mbrl.files import Settings, read_network, read_settings, read_stats, state_of
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.registry import dynamics
from mbkit.types import EnvSpec, Metrics, Prediction, RewardFn, Rollout, State, Step, TerminationFn, Transition

INSTALL = "pip install --no-deps mbrl==0.2.0 hydra-core==1.3.8 antlr4-python3-runtime==4.9.3 termcolor"
PROPAGATION = {"ts1": "random_model", "ts_inf": "fixed_model", "expectation": "expectation"}
ACTIVATION = {"silu": "torch.nn.SiLU", "relu": "torch.nn.ReLU", "tanh": "torch.nn.Tanh", "elu": "torch.nn.ELU", "gelu": "torch.nn.GELU"}

Carry = tuple[dict[str, Any], int]  # mbrl-lib's model state, padded, and the rows that are ours
Process = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MbrlConfig:
    """An mbrl-lib GaussianMLP and its ModelTrainer; defaults are mbrl-lib's gaussian_mlp_ensemble and PETS cartpole."""

    members: int = at_least(7, 1)  # networks
    elites: int = at_least(5, 1)  # members with the lowest validation score, used for propagation
    layers: int = at_least(4, 1)  # hidden layers
    hidden: int = at_least(200, 1)  # units of each
    activation: Literal["silu", "relu", "tanh", "elu", "gelu"] = "silu"  # between the layers. mbrl-lib without a configuration: relu
    deterministic: bool = False  # squared error instead of Gaussian likelihood
    learn_bounds: bool = False  # learn the log-variance bounds. PETS: yes; mbrl-lib: no
    propagation: Literal["ts1", "ts_inf", "expectation"] = "ts1"  # how particles meet members
    lr: float = positive(7.5e-4)  # Adam's step size
    weight_decay: float = at_least(3e-5, 0)  # Adam's, on every parameter
    batch: int = at_least(256, 1)  # rows per member and gradient step
    epochs: int = at_least(25, 1)  # most epochs per fit
    patience: int = at_least(25, 1)  # epochs without 1 % improvement of any member
    holdout: float = between(0.0, 0, 0.9)  # fraction for validation; 0: mbrl-lib's PETS scores on the training data
    reward: str = "auto"  # auto: known where the environment's is; learned; or a function of yours, pkg.mod:fn
    termination: str = "auto"  # auto: known where the environment's is, else never; never; or a function of yours, pkg.mod:fn
    load: str | None = None  # mbrl-lib's results directory to start from
    action_low: tuple[float, ...] = ()  # the model's own action bounds; empty: [-1, 1], as everywhere here
    action_high: tuple[float, ...] = ()


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


def for_arrays(process: Process | None) -> Callable[[Any], Any] | None:
    """mbrl-lib hands arrays to the observation processing while it trains and tensors while it plans."""
    if process is None:
        return None
    return lambda obs: process(torch.as_tensor(obs)).numpy() if isinstance(obs, np.ndarray) else process(obs)


class MbrlDynamics:
    """An mbrl-lib OneDTransitionRewardModel as Dynamics, Predictive and Learnable; actions in [-1, 1] are scaled to the model's units.

    `reward` None: the model must have learned it. `termination` None: nothing terminates. Sampling uses torch's global generator.
    """

    def __init__(
        self,
        model: Any,
        spec: EnvSpec,
        reward: RewardFn | None = None,
        termination: TerminationFn | None = None,
        cfg: MbrlConfig | None = None,
    ) -> None:
        self.model, self.spec, self.reward, self.termination = model, spec, reward, termination
        self.cfg = cfg = cfg or MbrlConfig()
        if spec.discrete:
            raise UserError("dynamics=mbrl takes vectors as actions; came: an environment with discrete actions")
        if cfg.termination == "learned":
            raise UserError(
                "mbrl-lib's models cannot learn when episodes terminate; expected dynamics.termination=auto, never or pkg.mod:fn"
            )
        if reward is None and not model.learned_rewards:
            raise UserError("this mbrl-lib model did not learn rewards; expected a reward function, came: none")
        if model.model.deterministic and model.model.propagation_method == "expectation" and not hasattr(model.model, "members"):
            raise UserError("mbrl-lib's deterministic GaussianMLP cannot propagate expectations; expected propagation=ts1 or ts_inf")
        if {len(cfg.action_low), len(cfg.action_high)} - {spec.action_dim} not in (set(), {0}):
            raise UserError(
                f"action_low={cfg.action_low} and action_high={cfg.action_high} must both have {spec.action_dim} numbers, or none"
            )
        self.generator = default_generator(torch.device(model.device))
        self.trainer = library("models").ModelTrainer(model, optim_lr=cfg.lr, weight_decay=cfg.weight_decay)

    def own_units(self, action: Tensor) -> Tensor:
        """Actions in [-1, 1] -> the units that the model was trained with."""
        if not self.cfg.action_low:
            return action
        low, high = (torch.tensor(bound, device=action.device) for bound in (self.cfg.action_low, self.cfg.action_high))
        return low + (action + 1) / 2 * (high - low)

    def init(self, obs: Tensor) -> Carry:
        """obs [B, O] -> carry."""
        return self.model.reset(self._pad(obs), rng=self.generator), len(obs)

    def _pad(self, rows: Tensor) -> Tensor:
        network = self.model.model
        if not hasattr(network, "elite_models"):  # only GaussianMLP wants every member to get as many rows
            return rows
        members = len(network) if network.elite_models is None else len(network.elite_models)
        return torch.cat([rows, rows[:1].expand(-len(rows) % members, -1)])

    @torch.no_grad()
    def step(self, carry: Carry, action: Tensor) -> Step:
        """One sampled step of every row, action [B, A]."""
        state, rows = carry
        # A copy, since `sample` writes into the state it is given and the caller may branch from the same carry twice.
        obs, learned, _, state_next = self.model.sample(self._pad(self.own_units(action)), dict(state), rng=self.generator)
        before, after = state["obs"][:rows], obs[:rows]
        reward = learned[:rows, 0] if self.reward is None else self.reward(before, action, after)
        ended = torch.zeros_like(reward, dtype=torch.bool) if self.termination is None else self.termination(before, action, after)
        return Step((state_next, rows), after, reward, ended)

    def rollout(self, carry: Carry, actions: Tensor) -> Rollout:
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
        model_in = model._get_model_input(obs, self.own_units(action))
        mean, log_var = model.model._default_forward(model_in)  # what `forward` calls without propagation, but always [E, B, D]
        if model.target_is_delta:
            delta = torch.ones(mean.shape[-1], device=mean.device)
            delta[list(model.no_delta_list)] = 0
            delta[obs.shape[-1] :] = 0
            mean = mean + delta * torch.nn.functional.pad(obs, (0, mean.shape[-1] - obs.shape[-1]))
        return Prediction(mean, torch.zeros_like(mean) if log_var is None else log_var.exp())

    def batch(self, data: Transition) -> Any:
        """One-step transitions as mbrl-lib's TransitionBatch of float64 arrays, actions in the model's own units."""
        obs, action, reward, next_obs, discount = (column.detach().cpu() for column in data)
        columns = (obs, self.own_units(action), next_obs, reward)
        arrays = [column.double().numpy() for column in columns]
        if not all(np.isfinite(array).all() for array in arrays):
            raise UserError("the transitions to fit hold NaN or infinity; expected finite numbers")
        return library("types").TransitionBatch(*arrays, (discount == 0).numpy(), np.zeros(len(obs), dtype=bool))

    def fit(self, data: Transition) -> Metrics:
        """Trains by mbrl-lib's ModelTrainer on one-step rows [B, ...]; returns its last loss and lowest validation mean squared error."""
        iterators = library("util.replay_buffer")
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        batch = self.batch(data)
        self.model.update_normalizer(batch)
        order = rng.permutation(len(batch))
        held = int(len(batch) * self.cfg.holdout)
        train = iterators.BootstrapIterator(
            batch[order[held:]], self.cfg.batch, len(self.model), shuffle_each_epoch=True, permute_indices=False, rng=rng
        )
        validation = iterators.TransitionIterator(batch[order[:held]], self.cfg.batch) if held else None
        losses, scores = self.trainer.train(train, validation, num_epochs=self.cfg.epochs, patience=self.cfg.patience, silent=True)
        return {"model/loss": torch.tensor(losses[-1]), "model/holdout_mse": torch.tensor(min(scores))}

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
        """Takes `state_dict` back."""
        self.model.load_state_dict(state["model"])
        if hasattr(self.model.model, "elite_models"):
            self.model.model.elite_models = state["elites"]
        if state["normalizer"] is not None:
            self.model.input_normalizer.mean, self.model.input_normalizer.std = (
                state["normalizer"][name].clone() for name in ("mean", "std")
            )
        self.trainer.optimizer.load_state_dict(state["optimizer"])


def network_model(
    spec: EnvSpec, cfg: MbrlConfig, sizes: tuple[int, int], settings: Settings, process: Process | None, normalize: bool
) -> Any:
    """A new OneDTransitionRewardModel round a GaussianMLP with `sizes` inputs and outputs."""
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
def build(
    spec: EnvSpec,
    cfg: MbrlConfig,
    reward: RewardFn | None = None,
    termination: TerminationFn | None = None,
    preprocess: Process | None = None,
    absolute: tuple[int, ...] = (),
) -> MbrlDynamics:
    """An ensemble of mbrl-lib's, trained by mbrl-lib: the peer side by side."""
    settings = Settings(ACTIVATION[cfg.activation], no_delta=absolute, learned_rewards=reward is None)
    model = network_model(spec, cfg, model_sizes(spec, preprocess, settings), settings, preprocess, normalize=True)
    return MbrlDynamics(model, spec, reward, termination, cfg)


def load(
    directory: str | Path,
    spec: EnvSpec,
    cfg: MbrlConfig | None = None,
    reward: RewardFn | None = None,
    termination: TerminationFn | None = None,
    preprocess: Process | None = None,
    absolute: tuple[int, ...] = (),
) -> MbrlDynamics:
    """The model that mbrl-lib saved in a results directory; sizes come from the weights, the rest from `.hydra/config.yaml` if it is there.

    Without that file the activation is the configuration's, outputs are differences but for `absolute`, and `preprocess` is as given.
    UserError names a missing or damaged file, or the dimension in which file and environment differ.
    """
    cfg = cfg or MbrlConfig()
    network, stats, found = read_network(directory), read_stats(directory), read_settings(directory)
    outputs = network.layers[-1][0].shape[2] // (1 if network.bounds is None else 2)
    settings = found or Settings(ACTIVATION[cfg.activation], no_delta=absolute, learned_rewards=outputs == spec.obs_dim + 1)
    process = preprocess or named_process(settings.obs_process)
    first = network.layers[0][0]
    check_sizes(Path(directory), (first.shape[1], outputs), model_sizes(spec, process, settings))
    members, _, hidden = first.shape
    cfg = replace(cfg, members=members, hidden=hidden, layers=len(network.layers) - 1, deterministic=network.bounds is None)
    model = network_model(spec, cfg, (first.shape[1], outputs), settings, process, normalize=stats is not None)
    model.model.load_state_dict(state_of(network))
    model.model.elite_models = None if network.elites is None else list(network.elites)
    if stats is not None:
        model.input_normalizer.mean, model.input_normalizer.std = (value[None].to(spec.device) for value in stats)
    return MbrlDynamics(model, spec, reward, termination, cfg)


def model_sizes(spec: EnvSpec, process: Process | None, settings: Settings) -> tuple[int, int]:
    """Inputs and outputs of a model of this environment."""
    seen = spec.obs_dim if process is None else process(torch.zeros(1, spec.obs_dim)).shape[-1]
    return seen + spec.action_dim, spec.obs_dim + int(settings.learned_rewards)


def check_sizes(directory: Path, came: tuple[int, int], expected: tuple[int, int]) -> None:
    """UserError where a saved network has other inputs or outputs than the environment asks for."""
    for name, have, want in zip(("inputs", "outputs"), came, expected, strict=True):
        if have != want:
            raise UserError(f"{directory}: the saved model has {have} {name}; expected {want} for this environment")


def named_process(path: str | None) -> Process | None:
    """The observation processing that a results directory names; a file's word alone imports only from mbrl-lib and mbkit themselves."""
    if path is None:
        return None
    if not re.fullmatch(r"(mbrl\.env|mbkit\.envs)(\.\w+)+", path):
        raise UserError(f"the saved model processes observations by {path!r}; expected a function of mbrl.env, or pass it as `preprocess`")
    if path.startswith("mbrl."):
        library("env")
    found = pydoc.locate(path)
    if not callable(found):
        raise UserError(f"the saved model processes observations by {path!r}, which does not exist here; pass it as `preprocess`")
    return found
