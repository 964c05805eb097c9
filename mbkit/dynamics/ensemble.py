"""An ensemble of probabilistic networks as dynamics (PETS, Chua et al. 2018, arXiv:1805.12114; MBPO, Janner et al. 2019, arXiv:1906.08253).

Letters: E members, K elites, B rows, H horizon, O observation, A action, I input, D = O, plus one where the reward is learned. A network's
output is [mean D | raw log-variance D | termination logit 1], the last two where they are asked for. Randomness comes from torch's global
generator.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.config import check_range
from mbkit.dynamics import files, training
from mbkit.dynamics.propagation import Gaussian, Propagation, blocks, deal, judge, mixture, soft_bounded_logvar, soft_bounded_std
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.networks.frozen import FrozenEnsemble
from mbkit.networks.mlp import EnsembleMLP, truncated_normal_init_
from mbkit.networks.normalizer import Normalizer
from mbkit.networks.optimizers import restore_optimizer_
from mbkit.registry import dynamics
from mbkit.types import EnvSpec, Metrics, Prediction, RewardFn, Rollout, State, Step, TerminationFn, Transition

ObsProcess = Callable[[Tensor], Tensor]  # obs [..., O] -> what the networks see [..., I]


@dataclass(frozen=True)
class EnsembleConfig:
    """Networks, training and propagation of a learned ensemble; defaults are MBPO's."""

    members: int = at_least(7, 1)  # networks. PETS: 5
    elites: int = at_least(5, 1)  # networks that predict: those with the least hold-out error
    hidden: tuple[int, ...] = at_least((200, 200, 200, 200), 1)  # widths of the hidden layers, SiLU between
    probabilistic: bool = True  # members predict a variance; otherwise they are trained on squared error
    learn_bounds: bool = True  # the soft bounds of the log-variance are trained. mbrl-lib: False
    min_logvar: float = -10.0  # initial lower bound of the log-variance
    max_logvar: float = 0.5  # initial upper bound of the log-variance
    propagation: Propagation = "ts_inf"  # how particles meet members. MBPO: ts1
    delta: bool = True  # predict the change of the observation rather than the next one
    scale_targets: bool = False  # bring targets to mean 0 and variance 1. Paper: raw targets
    reward: str = "auto"  # auto: known where the environment's is; learned; or a function of yours, pkg.mod:fn
    termination: str = "auto"  # auto: known where the environment's is, else never; learned; never; or a function of yours, pkg.mod:fn
    load: str | None = None  # a dynamics.pt to start from
    lr: float = positive(1e-3)  # Adam's step size
    weight_decay: tuple[float, ...] = at_least((2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4), 0)  # of each layer's weights; the last one repeats
    batch: int = at_least(256, 1)  # rows per member and gradient step; batches of an epoch are made equally large. PETS: 32
    max_epochs: int | None = at_least(None, 1)  # epochs per fit; unlimited needs a hold-out. PETS: 5
    patience: int = at_least(5, 1)  # training ends after so many epochs without improvement. Paper: > 5; here: >= 5 (as it is named)
    improvement: float = between(0.01, 0.0, 1.0)  # relative fall of a member's hold-out error that counts as improvement
    holdout: float = between(0.2, 0.0, 0.9)  # share of the data held out, drawn afresh at each fit; 0 trains max_epochs on everything
    holdout_max: int = at_least(5000, 1)  # most rows held out. mbrl-lib: no limit
    bootstrap: bool = True  # every member draws its own training rows with replacement
    progress: bool = False  # show a progress bar while fitting
    precision: Literal["float32", "bfloat16"] = "float32"  # of the products when imagining; bfloat16 is faster, training stays float32


@dynamics.register("ensemble", EnsembleConfig)
class Ensemble(nn.Module):
    """Learned ensemble of probabilistic networks.

    Args:
        spec: dimensions, device, and whether actions are discrete (they enter as one-hot vectors).
        cfg: see `EnsembleConfig`.
        reward: known reward, or None to learn it.
        termination: known termination; None: learned if `cfg.termination` is "learned", otherwise episodes never terminate.
        preprocess: what the networks see of an observation [..., O] -> [..., I]; None: all of it.
        absolute: dimensions of the observation predicted as such, although others are predicted as changes.

    Raises:
        UserError: a setting that is out of range or contradicts another.
    """

    logvar_bounds: Tensor
    elites: Tensor
    relative: Tensor
    var_bounds: Tensor

    def __init__(
        self,
        spec: EnvSpec,
        cfg: EnsembleConfig,
        reward: RewardFn | None = None,
        termination: TerminationFn | None = None,
        preprocess: ObsProcess | None = None,
        absolute: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        check(spec, cfg, absolute)
        self.spec, self.cfg, self.reward, self.termination = spec, cfg, reward, termination
        self.preprocess, self.absolute = preprocess, absolute
        self.learns_termination = termination is None and cfg.termination == "learned"
        self.with_prediction = (
            False  # `step` also returns every member's prediction, for gating and penalties; it costs E / K as much again
        )
        seen = torch.zeros(1, spec.obs_dim, device=spec.device)
        self.input_dim = (seen if preprocess is None else preprocess(seen)).shape[-1] + spec.action_dim
        self.output_dim = spec.obs_dim + (reward is None)
        outputs = self.output_dim * (2 if cfg.probabilistic else 1) + self.learns_termination
        self.net = truncated_normal_init_(EnsembleMLP(cfg.members, (self.input_dim, *cfg.hidden, outputs), "silu"))
        self.inputs, self.targets = Normalizer(self.input_dim), Normalizer(self.output_dim)
        bounds = torch.tensor([[cfg.min_logvar], [cfg.max_logvar]]).repeat(1, self.output_dim)
        self.logvar_bounds = nn.Parameter(bounds, requires_grad=cfg.learn_bounds and cfg.probabilistic)  # [2, D]: lowest, highest
        self.register_buffer("elites", torch.arange(cfg.elites))
        relative = [float(cfg.delta and d not in absolute) for d in range(spec.obs_dim)]
        self.register_buffer("relative", torch.tensor(relative), persistent=False)  # [O]: 1 where the change is predicted
        self.to(spec.device)
        self.optimizer = training.optimizer(self)
        self.fitted: dict[str, Any] = {}  # hold-out metrics and the data's fingerprint, of the last fit
        self.frozen = FrozenEnsemble(cfg.elites, self.net.sizes, "silu", spec.device, getattr(torch, cfg.precision))
        self.register_buffer("var_bounds", torch.zeros(2, self.output_dim, device=spec.device), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())  # type: ignore[no-untyped-call]
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Refill the inference copy of the elites, in place; needed after the weights were changed by anything but `fit` and loading.

        The input normaliser is folded into the first layer and the scale of the targets into the last, in float64:
        x -> ((x - m) / s) W + b becomes W / s, b - (m / s) W, and y -> t y + u becomes W t, b + u.
        """
        weight = [w[self.elites].double() for w in self.net.weight]
        bias = [b[self.elites].double() for b in self.net.bias]
        if self.cfg.precision == "float32":  # bfloat16 could not hold an observation far from zero: there the rows are normalised instead
            weight[0] = weight[0] / self.inputs.std.double()[:, None]
            bias[0] = bias[0] - (self.inputs.mean.double() @ weight[0])[:, None]
        d, scale = self.output_dim, self.targets.std.double()
        weight[-1][..., :d] *= scale
        bias[-1][..., :d] = bias[-1][..., :d] * scale + self.targets.mean.double()
        if self.cfg.probabilistic:
            bias[-1][..., d : 2 * d] += 2 * scale.log()
        self.frozen.copy_(weight, bias)
        self.var_bounds.copy_((self.logvar_bounds.double() + 2 * scale.log()).exp())

    def encode(self, obs: Tensor, action: Tensor) -> Tensor:
        """What the networks see, before normalisation: obs [..., O], action [..., A] or int64 [...] -> [..., I]."""
        seen = obs if self.preprocess is None else self.preprocess(obs)
        return torch.cat((seen, self.encode_action(action)), -1)

    def encode_action(self, action: Tensor) -> Tensor:
        """Discrete actions int64 [...] as one-hot [..., A]; others as they are."""
        return F.one_hot(action, self.spec.action_dim).float() if self.spec.discrete else action

    def split(self, out: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Raw outputs [..., D + D + 1] -> mean [..., D], raw log-variance [..., D] or None, termination logit [...] or None."""
        d = self.output_dim
        return out[..., :d], out[..., d : 2 * d] if self.cfg.probabilistic else None, out[..., -1] if self.learns_termination else None

    def predict(self, obs: Tensor, action: Tensor) -> Prediction:
        """Every member's Gaussian of the next observation (and reward, if learned): obs [B, O], action [B, A] -> [E, B, D], raw units."""
        mean, raw, _ = self.split(self.net(self.inputs(self.encode(obs, action))))
        mean = self.targets.inverse(mean)
        var = torch.zeros_like(mean) if raw is None else soft_bounded_logvar(raw, *self.logvar_bounds).exp() * self.targets.std.square()
        return Prediction(mean + F.pad(obs * self.relative, (0, self.output_dim - self.spec.obs_dim)), var)

    def _look(self, x: Tensor) -> Gaussian:
        """The elites' outputs for x [K, R, I], without gradient; means are changes where changes are predicted."""
        if self.cfg.precision == "bfloat16":
            x = self.inputs(x)
        mean, raw, logit = self.split(self.frozen(x))
        return Gaussian(mean, None if raw is None else soft_bounded_std(raw, *self.var_bounds), logit)

    def _next(self, x: Tensor) -> Gaussian:
        """Each row's Gaussian under the propagation: x [B, I]; for ts_inf B must be K equal blocks."""
        members, mode = self.cfg.elites, self.cfg.propagation
        if mode in ("expectation", "moment_matching"):
            return mixture(self._look(x.expand(members, *x.shape)), mode == "moment_matching")
        if mode == "ts_inf":
            return self._look(x.view(members, -1, self.input_dim)).map(lambda v: v.flatten(0, 1))
        hand = deal(len(x), members, x.device)
        each = self._look(x[hand.source].view(members, -1, self.input_dim))
        return each.map(lambda v: v.flatten(0, 1)[hand.place])

    def init(self, obs: Tensor) -> Tensor:
        """The carry is the observation itself, obs [B, O]; for ts_inf row r belongs to elite floor(r K / B), so rows keep their places."""
        return obs

    @torch.no_grad()
    def step(self, carry: Tensor, action: Tensor) -> Step:
        """One imagined step, action [B, A]; with the members' predictions if `with_prediction` is set."""
        out = self.rollout(carry, action[:, None])
        prediction = self.predict(carry, action) if self.with_prediction else None
        return Step(out.obs[:, 0], out.obs[:, 0], out.reward[:, 0], out.terminated[:, 0], prediction)

    @torch.no_grad()
    def rollout(self, carry: Tensor, actions: Tensor) -> Rollout:
        """H imagined steps from obs [B, O] under actions [B, H, A]; rows go on after they terminated."""
        rows, horizon = actions.shape[:2]
        by_time = actions.transpose(0, 1)
        pad = blocks(rows, self.cfg.elites, carry.device) if self.cfg.propagation == "ts_inf" else None
        if pad is not None:
            carry, by_time = carry[pad.source], by_time[:, pad.source]
        encoded = self.encode_action(by_time)
        o, known = self.spec.obs_dim, self.reward is not None
        path = carry.new_empty(horizon + 1, *carry.shape)  # [H + 1, B, O]
        reward = carry.new_empty(horizon, len(carry))
        ended = torch.zeros(horizon, len(carry), dtype=torch.bool, device=carry.device)
        path[0] = carry
        for t in range(horizon):
            seen = path[t] if self.preprocess is None else self.preprocess(path[t])
            gaussian = self._next(torch.cat((seen, encoded[t]), -1))
            sample = gaussian.sample()
            torch.addcmul(sample[:, :o], path[t], self.relative, out=path[t + 1])
            if not known:
                reward[t] = sample[:, o]
            if gaussian.logit is not None:
                ended[t] = self._ends(gaussian.logit)
        reward, ended = judge(path, by_time, self.reward or reward, self.termination or ended)
        out = (path[1:], reward, ended) if pad is None else (path[1:, pad.place], reward[:, pad.place], ended[:, pad.place])
        return Rollout(out[0].transpose(0, 1), out[1].T, out[2].T)

    def _ends(self, logit: Tensor) -> Tensor:
        """Termination, bool [B]: drawn from its probability, or, where propagation is not random, more likely than not."""
        return logit > (0 if self.cfg.propagation == "expectation" else torch.rand_like(logit).logit())

    def fit(self, data: Transition) -> Metrics:
        """Train on one-step transitions, from the present weights and optimizer state; see `training.fit`."""
        return training.fit(self, data)

    def get_extra_state(self) -> State:
        """What `state_dict` holds besides tensors of the module: optimizer and facts of the last fit."""
        return {"optimizer": self.optimizer.state_dict(), "fitted": dict(self.fitted)}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`, in place."""
        restore_optimizer_(self.optimizer, state["optimizer"])
        self.fitted = dict(state["fitted"])

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write `dynamics.pt`: weights, normalisers, elites, what they are for, and `meta` (numbers, strings); see `files`."""
        files.save(self, Path(path), meta)

    def load(self, path: str | Path) -> dict[str, Any]:
        """Take weights, normalisers and elites from a `dynamics.pt`, in place; returns its `meta`.

        Raises:
            UserError: the file is missing, damaged or foreign, or belongs to a model of other dimensions, scaling or choices. The model
                is then as it was before.
        """
        return files.load(self, Path(path))


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
