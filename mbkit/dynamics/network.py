"""The networks of an ensemble of probabilistic dynamics models (PETS, Chua et al. 2018, arXiv:1805.12114; MBPO, arXiv:1906.08253).

Letters: E members, K elites, B rows, O observation, A action, I input, D = O, plus one where the reward, or a part of it, is learned. A
network's output is [mean D | raw log-variance D | termination logit 1], the last two where they are asked for.
"""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.config import check_range
from mbkit.dynamics.calibration import identity
from mbkit.dynamics.uncertainty import gaussian_log_prob
from mbkit.errors import UserError
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.mlp import EnsembleMLP, truncated_normal_init_
from mbkit.networks.normalizer import InputNormalizer, Normalizer
from mbkit.networks.parts import one_hot_parts
from mbkit.types import EnvSpec, Prediction, TaskKnowledge

Propagation = Literal["ts_inf", "ts1", "expectation", "moment_matching"]


@dataclass(frozen=True)
class EnsembleConfig:
    """Networks, training and propagation of a learned ensemble; defaults are MBPO's."""

    members: int = at_least(7, 1, when="load=null")  # number of networks. PETS: 5
    elites: int = at_least(5, 1, when="load=null")  # number of networks that predict, those with the least hold-out error
    hidden: tuple[int, ...] = at_least((200, 200, 200, 200), 1, when="load=null")  # widths of the hidden layers, with SiLU between them
    probabilistic: bool = option(True, when="load=null")  # Gaussian members with a predicted variance; false: squared error on means
    learn_bounds: bool = option(True, when="probabilistic=true, loop.fit=true")  # trained log-variance bounds. mbrl-lib: false
    min_logvar: float = option(-10.0, when="probabilistic=true, load=null")  # initial lower log-variance bound, in units of the targets
    max_logvar: float = option(0.5, when="probabilistic=true, load=null")  # initial upper log-variance bound, in units of the targets
    propagation: Propagation = "ts_inf"  # assignment of rows to members in model rollouts. MBPO: ts1
    delta: bool = option(True, when="load=null")  # predicted change of the observation; false: the next observation itself
    scale_targets: bool = option(True, when="load=null")  # standardised targets, of mean 0 and variance 1. Papers: false, raw targets
    reward: str = "auto"  # reward function: auto (the environment's where known, else learned), learned, or your own, pkg.mod:fn
    termination: str = "auto"  # termination function: auto (the environment's where known, else never), learned, never, or pkg.mod:fn
    load: str | None = None  # trained model to start from, a dynamics.pt
    lr: float = positive(1e-3, when="loop.fit=true")  # Adam learning rate
    weight_decay: tuple[float, ...] = at_least((2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4), 0, when="loop.fit=true")  # weight decay of each
    # layer's weights; the last one repeats
    batch: int = at_least(256, 1, when="loop.fit=true")  # maximum batch size per member; batches of an epoch are equally large. PETS: 32
    max_epochs: int | None = at_least(None, 1, when="loop.fit=true")  # maximum epochs per fit; unlimited needs a hold-out. PETS: 5
    patience: int = at_least(5, 1, when="loop.fit=true, holdout!=0")  # number of epochs without improvement that ends a fit.
    # Paper: > 5; here: >= 5 (as it is named)
    improvement: float = between(0.01, 0.0, 1.0, when="loop.fit=true, holdout!=0")  # least relative fall of a member's hold-out error that
    # counts as improvement
    holdout: float = between(0.2, 0.0, 0.9, when="loop.fit=true")  # hold-out fraction, drawn at each fit; 0: max_epochs on all rows
    holdout_max: int = at_least(5000, 1, when="loop.fit=true")  # maximum number of hold-out rows. mbrl-lib: unlimited
    bootstrap: bool = option(True, when="loop.fit=true")  # training rows drawn with replacement, separately for every member
    calibrate: bool = option(False, when="probabilistic=true, loop.fit=true, holdout!=0")  # variances times a factor for each dimension,
    # and levels of intervals mapped, by which intervals of the mixture hold as many held-out outcomes as they should. Papers: false
    progress: bool = option(False, when="loop.fit=true")  # progress bar of a fit
    precision: Literal["float32", "bfloat16"] = "float32"  # matrix product precision of model rollouts; training stays float32


class EnsembleNetwork(nn.Module):
    """E probabilistic networks with their normalisers, the soft bounds of their log-variance and the choice of elites.

    Args:
        spec: dimensions, device, and whether actions are discrete (they enter as one-hot vectors).
        cfg: see `EnsembleConfig`.
        task: what need not be learned, what the networks see of an observation, and which dimensions are predicted as such.

    Raises:
        UserError: a setting that is out of range or contradicts another.
    """

    logvar_bounds: Tensor
    elites: Tensor
    log_factor: Tensor
    levels: Tensor
    relative: Tensor

    def __init__(self, spec: EnvSpec, cfg: EnsembleConfig, task: TaskKnowledge = TaskKnowledge()) -> None:
        super().__init__()
        check(spec, cfg, task.absolute)
        self.spec, self.cfg, self.task = spec, cfg, task
        self.learns_termination = task.termination is None and cfg.termination == "learned"
        self.input_dim = self.encode_obs(torch.zeros(1, spec.obs_dim, device=spec.device)).shape[-1] + spec.action_dim
        self.output_dim = spec.obs_dim + (task.reward is None)
        outputs = self.output_dim * (2 if cfg.probabilistic else 1) + self.learns_termination
        self.net = truncated_normal_init_(EnsembleMLP(cfg.members, (self.input_dim, *cfg.hidden, outputs), "silu"))
        self.inputs, self.targets = InputNormalizer(self.input_dim, free=spec.action_dim), Normalizer(self.output_dim)
        bounds = torch.tensor([[cfg.min_logvar], [cfg.max_logvar]]).repeat(1, self.output_dim)
        self.logvar_bounds = nn.Parameter(bounds, requires_grad=cfg.learn_bounds and cfg.probabilistic)  # [2, D]: lowest, highest
        self.register_buffer("elites", torch.arange(cfg.elites))
        self.register_buffer("log_factor", torch.zeros(self.output_dim))  # [D] on variances; see `calibration`
        self.register_buffer("levels", identity(self.output_dim))  # [Q + 1, D]: map of the levels of intervals; see `calibration`
        relative = [float(cfg.delta and d not in task.absolute) for d in range(spec.obs_dim)]
        self.register_buffer("relative", torch.tensor(relative), persistent=False)  # [O]: 1 where the change is predicted
        self.to(spec.device)

    def encode(self, obs: Tensor, action: Tensor) -> Tensor:
        """Network inputs before normalisation: obs [..., O], action [..., A] or int64 [...] -> [..., I]."""
        return torch.cat((self.encode_obs(obs), encode_action(self.spec, action)), -1)

    def encode_obs(self, obs: Tensor) -> Tensor:
        """The part of the inputs that comes from obs [..., O]."""
        return obs if self.task.preprocess is None else self.task.preprocess(obs)

    def split(self, out: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Raw outputs [..., D + D + 1] -> mean [..., D], raw log-variance [..., D] or None, termination logit [...] or None."""
        d = self.output_dim
        return out[..., :d], out[..., d : 2 * d] if self.cfg.probabilistic else None, out[..., -1] if self.learns_termination else None

    def outcome(self, obs: Tensor, next_obs: Tensor, reward: Tensor) -> Tensor:
        """Raw targets [B, D]: the change of the observation, or the next one where that is predicted, then the reward if it is learned."""
        change = next_obs - obs * self.relative
        return torch.cat((change, reward[:, None]), -1) if self.task.reward is None else change

    def predict_targets(self, obs: Tensor, action: Tensor) -> Prediction:
        """Every member's Gaussian of the training targets, in the units they are trained in: obs [B, O], action [B, A] -> [E, B, D]."""
        return self.targets_and_termination(obs, action)[0]

    def targets_and_termination(self, obs: Tensor, action: Tensor) -> tuple[Prediction, Tensor | None]:
        """`predict_targets`, and every member's logit of a termination [E, B] where that is learned."""
        mean, raw, logit = self.split(self.net(self.inputs(self.encode(obs, action))))
        if raw is None:
            return Prediction(mean, torch.zeros_like(mean)), logit
        return Prediction(mean, (soft_bounded_logvar(raw, *self.logvar_bounds) + self.log_factor).exp()), logit

    def log_scale(self) -> Tensor:
        """Log of the raw variance that an output log-variance of 0 stands for, float64 [D]."""
        return 2 * self.targets.std.double().log() + self.log_factor.double()

    def predict(self, obs: Tensor, action: Tensor) -> Prediction:
        """Every member's Gaussian of the next observation (and reward, if learned): obs [B, O], action [B, A] -> [E, B, D], raw units."""
        return self.in_raw_units(self.predict_targets(obs, action), obs)

    def in_raw_units(self, target: Prediction, obs: Tensor) -> Prediction:
        """Gaussians of the training targets at obs [B, O] as those of the next observation (and reward), [E, B, D]."""
        mean = self.targets.inverse(target.mean) + F.pad(obs * self.relative, (0, self.output_dim - self.spec.obs_dim))
        return Prediction(mean, target.var * self.targets.std.square())

    def log_prob(self, obs: Tensor, action: Tensor, next_obs: Tensor, reward: Tensor | None = None) -> Tensor:
        """Log-density of an observed outcome under every member, raw units: obs, next_obs [B, O], action [B, A] -> [E, B].

        `reward` [B] counts too where the model learns it; None leaves it out. Gradients reach parameters and arguments.

        Raises:
            UserError: the members are deterministic and have no density.
        """
        if not self.cfg.probabilistic:
            raise UserError("log_prob needs members that predict a variance; came: dynamics.probabilistic=false")
        observed = next_obs
        if reward is not None and self.task.reward is None:
            observed = torch.cat((next_obs, self.task.reward_to_learn(obs, action, next_obs, reward)[:, None]), -1)
        prediction = Prediction(*(x[..., : observed.shape[-1]] for x in self.predict(obs, action)))
        return gaussian_log_prob(prediction, observed).sum(-1)


class Gaussian(NamedTuple):
    """Distribution of outcomes: mean [..., D]; std [..., D] or None where nothing is random; logit [...] of termination or None."""

    mean: Tensor
    std: Tensor | None
    logit: Tensor | None

    def sample(self, noise: Tensor | None) -> Tensor:
        """A sample [..., D], from standard normal noise [..., D]; the mean where nothing is random."""
        return self.mean if self.std is None or noise is None else torch.addcmul(self.mean, self.std, noise)


def encode_action(spec: EnvSpec, action: Tensor) -> Tensor:
    """Discrete actions int64 [...] as one-hot [..., A], several [..., P] as theirs side by side; continuous ones unchanged."""
    if spec.parts:
        return one_hot_parts(action, spec.parts)
    return F.one_hot(action, spec.action_dim).float() if spec.discrete else action


def soft_bounded_logvar(raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Log-variance kept softly between two bounds: high - softplus(high - raw), then low + softplus(. - low) (PETS, appendix A.1)."""
    raw = high - F.softplus(high - raw)
    return low + F.softplus(raw - low)


def check(spec: EnvSpec, cfg: EnsembleConfig, absolute: tuple[int, ...]) -> None:
    """Raise UserError where a number is out of its range or settings contradict one another."""
    for field in fields(cfg):
        check_range(field.metadata, getattr(cfg, field.name), f"dynamics.{field.name}")
    if cfg.elites > cfg.members:
        raise UserError(f"dynamics.elites must be at most dynamics.members ({cfg.members}), got {cfg.elites}")
    if cfg.min_logvar >= cfg.max_logvar:
        raise UserError(f"dynamics.min_logvar must be below dynamics.max_logvar ({cfg.max_logvar}), got {cfg.min_logvar}")
    if cfg.max_epochs is None and cfg.holdout == 0:
        raise UserError("dynamics.holdout=0 needs dynamics.max_epochs, otherwise training would never end; got none")
    if not cfg.weight_decay:
        raise UserError("dynamics.weight_decay needs at least one number, got none")
    if absolute and not 0 <= min(absolute) <= max(absolute) < spec.obs_dim:
        raise UserError(f"absolute dimensions must lie in 0..{spec.obs_dim - 1}, got {absolute}")
