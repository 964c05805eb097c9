"""An ensemble of probabilistic networks as dynamics (PETS, Chua et al. 2018, arXiv:1805.12114; MBPO, Janner et al. 2019, arXiv:1906.08253).

`network` predicts, `training` fits it, `propagation` assigns rows to members. Letters: E members, K elites, B rows, H horizon,
O observation, A action, D = O, plus one where the reward is learned. Randomness comes from torch's global generator.
"""

import itertools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mbkit.accelerate import model_products
from mbkit.dynamics import files, training
from mbkit.dynamics.calibration import intervals, recalibrated
from mbkit.dynamics.descent import optimizer
from mbkit.dynamics.frozen import FrozenElites, blocks
from mbkit.dynamics.loss import TrainingRows, loss
from mbkit.dynamics.network import EnsembleConfig, EnsembleNetwork, encode_action
from mbkit.dynamics.pathwise import pathwise_step
from mbkit.dynamics.propagation import ALL_ELITES, ONE_ELITE, Draw, unroll
from mbkit.dynamics.uncertainty import gaussian_log_prob
from mbkit.errors import UserError
from mbkit.networks.optimizers import restore_optimizer_
from mbkit.registry import dynamics
from mbkit.types import EnvSpec, Metrics, Prediction, Rollout, State, Step, TaskKnowledge, Transition

__all__ = ["Ensemble", "EnsembleConfig"]


@dynamics.register("ensemble", EnsembleConfig)
class Ensemble:
    """Learned ensemble of probabilistic networks, as `cfg.load` holds it or new; arguments and errors are those of `EnsembleNetwork`."""

    capturable = True  # a plan with it can be one CUDA graph
    differentiable = True  # `step` takes `grad`

    def __init__(self, spec: EnvSpec, cfg: EnsembleConfig, task: TaskKnowledge = TaskKnowledge()) -> None:
        cfg = cfg if cfg.load is None else files.config(cfg.load, cfg)
        if cfg.load is not None and files.learned_whole_reward(cfg.load):
            task = task._replace(reward_part=None)
        self.spec, self.cfg, self.task, self.reward_part = spec, cfg, task, task.reward_part
        self.network = EnsembleNetwork(spec, cfg, task)
        self.optimizer = optimizer(self.network)
        self.trainer = training.Trainer(self.network, self.optimizer) if spec.device.type == "cuda" else None  # its graphs serve all fits
        self._fitted: dict[str, Any] = {}
        self.last_fit: tuple[Transition, Tensor | None, Metrics] | None = None  # data, known rows and metrics, not described yet
        self.frozen = FrozenElites(self.network)
        if cfg.load is not None:
            self.load(cfg.load)

    def fit(self, data: Transition, known: Tensor | None = None) -> Metrics:
        """Train on one-step transitions, from the present weights and optimizer state; `known`, bool [N], as in `training.fit`."""
        trainer = training.Trainer(self.network, self.optimizer) if self.trainer is None else self.trainer
        with model_products(data.obs.device):
            metrics = training.fit(trainer, data, known)
        self.refresh()
        self.last_fit = data, known, metrics
        if not data.obs.is_cuda:
            self._describe()  # on the host it takes milliseconds, and the rows need not be held
        return metrics

    @property
    def fitted(self) -> dict[str, Any]:
        """Hold-out metrics and the data's fingerprint, of the last fit; on a GPU computed when they are asked for, since that waits."""
        self._describe()
        return self._fitted

    def _describe(self) -> None:
        """Facts of the last fit, where they are yet to be computed."""
        if self.last_fit is None:
            return
        (data, known, metrics), self.last_fit = self.last_fit, None
        count = len(data.obs) if known is None else int(known.sum())
        numbers = dict(zip(metrics, torch.stack([value.float() for value in metrics.values()]).tolist(), strict=True))
        self._fitted = {"fingerprint": files.fingerprint(data), "rows": count, **numbers}

    @property
    def members(self) -> int:
        """E."""
        return self.cfg.members

    def refresh(self) -> None:
        """Update the elites' copy that `step` and `rollout` use; needed after weights were changed by anything but `fit` and loading."""
        self.frozen.refresh()

    def predict(self, obs: Tensor, action: Tensor) -> Prediction:
        """Every member's Gaussian of the next observation (and reward, if learned): obs [B, O], action [B, A] -> [E, B, D], raw units."""
        with model_products(obs.device):
            return self.network.predict(obs, action)

    def recalibrated(self, inside: Tensor) -> Tensor:
        """Levels of central intervals [B, D] as the shares of outcomes that they hold by the last fit's correction, if any."""
        return recalibrated(inside, self.network.levels)

    @torch.no_grad()
    def intervals(self, obs: Tensor, action: Tensor, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper ends [B, D] of intervals that are to hold a share `level` of outcomes: obs [B, O], action [B, A], raw units.

        They are corrected on held-out rows where `dynamics.calibrate` is set. Samples of `step` and `rollout` are the Gaussians' own.
        """
        return intervals(self.predict(obs, action), self.network.levels, level)

    def init(self, obs: Tensor) -> Tensor:
        """The carry is the observation itself, obs [B, O]; for ts_inf row r belongs to elite floor(r K / B), so rows keep their places."""
        return obs

    def step(self, carry: Tensor, action: Tensor, predict: bool = False, grad: bool = False) -> Step:
        """One model step, action [B, A]; `predict`: with every member's Gaussian of the targets, which costs E / K as much again.

        `grad`: the same step, up to rounding, with gradients in carry and action, as `Differentiable` says. UserError where the propagation
        is not "ts_inf" or "ts1".
        """
        with torch.no_grad(), model_products(carry.device):
            prediction = self.network.predict_targets(carry, action) if predict else None
        if grad:
            with model_products(carry.device):
                return pathwise_step(self.frozen, carry, action)._replace(prediction=prediction)
        out = self.rollout(carry, action[:, None])
        return Step(out.obs[:, 0], out.obs[:, 0], out.reward[:, 0], out.terminated[:, 0], prediction)

    @torch.no_grad()
    def rollout(self, carry: Tensor, actions: Tensor) -> Rollout:
        """H model steps from obs [B, O] under actions [B, H, A]; rows go on after they terminated."""
        by_time, relative = actions.transpose(0, 1), self.network.relative
        pad = blocks(len(carry), self.cfg.elites, carry.device) if self.cfg.propagation == "ts_inf" else None
        with model_products(carry.device):
            if pad is None:
                out = unroll(self._draws(by_time), carry, by_time, relative, self.task)
            else:
                dealt = by_time[:, pad.source]
                padded = unroll(self._draws(dealt), carry[pad.source], dealt, relative, self.task)
                out = Rollout(*(column[:, pad.place] for column in padded))
        return Rollout(*(column.transpose(0, 1) for column in out))

    def _draws(self, actions: Tensor) -> Draw:
        """Draws of H successive steps under actions [H, B, A]: of each row's outcome [B, D] under the propagation, and of its termination.

        On CUDA one kernel draws the noise of all steps; elsewhere every step draws its noise, as `step` does.
        """
        mode, shape, step = self.cfg.propagation, (*actions.shape[:2], self.network.output_dim), itertools.count()
        encoded = encode_action(self.spec, actions)
        random = mode == "moment_matching" or (self.cfg.probabilistic and mode != "expectation")
        ahead = torch.randn(shape, device=actions.device) if random and actions.is_cuda else None

        def noise(t: int) -> Tensor | None:
            if not random:
                return None
            return torch.randn(shape[1:], device=actions.device) if ahead is None else ahead[t]

        def draw(obs: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None]:
            t = next(step)
            x = self.frozen.inputs(obs, encoded[t])
            if mode in ONE_ELITE:
                outputs = ONE_ELITE[mode](self.frozen, x)
                sample, logit = self.frozen.sample(outputs, noise(t)), self.network.split(outputs)[2]
            else:
                mixed = ALL_ELITES[mode](self.frozen, x)
                sample, logit = mixed.sample(noise(t)), mixed.logit
            if logit is None:
                return sample, None
            threshold = 0 if mode == "expectation" else torch.rand_like(logit).logit()
            return sample, logit > threshold

        return draw

    @torch.no_grad()
    def predict_elites(self, obs: Tensor, action: Tensor) -> Prediction:
        """The elites' Gaussians of the next observation (and reward, if learned), [K, B, D] in raw units, by the fast path."""
        x = self.frozen.inputs(obs, encode_action(self.spec, action))
        with model_products(obs.device):
            change = self.frozen.gaussian(self.frozen(x.expand(self.cfg.elites, *x.shape)))
        mean = change.mean + F.pad(obs * self.network.relative, (0, change.mean.shape[-1] - obs.shape[-1]))
        return Prediction(mean, torch.zeros_like(mean) if change.std is None else change.std.square())

    def scored_step(self, obs: Tensor, action: Tensor) -> tuple[Step, Tensor]:
        """One step of rows that are dealt out to the elites at random, and the outcome's log-density under every elite, [K, B].

        The density, in nats and raw units, counts the next observation, and the reward where it is learned; it alone has a gradient, to the
        parameters. obs [B, O], action [B, A].

        Raises:
            UserError: the members are deterministic and have no density.
        """
        if not self.cfg.probabilistic:
            raise UserError("a density of outcomes needs members that predict a variance; came: dynamics.probabilistic=false")
        network, o = self.network, obs.shape[-1]
        target, logit = network.targets_and_termination(obs, action)
        elites = Prediction(*(x[network.elites] for x in network.in_raw_units(target, obs)))
        row = torch.arange(len(obs), device=obs.device)
        member = torch.randint(self.cfg.elites, row.shape, device=obs.device)
        with torch.no_grad():
            outcome = torch.normal(elites.mean[member, row], elites.var[member, row].sqrt())
            where = obs, action, outcome[:, :o]
            reward = outcome[:, -1] if self.task.reward is None else self.task.reward(*where)
            if self.task.reward_part is not None:
                reward = reward + self.task.reward_part(*where)
            ended = torch.zeros_like(reward, dtype=torch.bool) if self.task.termination is None else self.task.termination(*where)
            if logit is not None:
                ended = logit[network.elites][member, row] > torch.rand_like(reward).logit()
        density = gaussian_log_prob(elites, outcome).sum(-1)
        return Step(outcome[:, :o], outcome[:, :o], reward, ended), density

    def training_loss(self, data: Transition, known: Tensor | None = None) -> Tensor:
        """The loss of a fit, 0-d, on transitions [E b] of which each member sees its own b, by the normalisers of the last fit.

        `known`, bool [E b]: rows whose successor is the true one, as in `training.fit`.
        """
        raw = training.rows(self.network, data, known)
        columns = self.network.inputs(raw.x), self.network.targets(raw.y), raw.ended, raw.known
        shaped = (None if column is None else column.unflatten(0, (self.members, -1)) for column in columns)
        return loss(self.network, TrainingRows(*shaped))  # type: ignore[arg-type]

    def state_dict(self) -> State:
        """Network, optimizer, and facts of the last fit."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "fitted": dict(self.fitted)}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        files.check_elites(state["network"]["elites"], self.cfg, "the checkpoint")
        self.network.load_state_dict(state["network"])
        restore_optimizer_(self.optimizer, state["optimizer"])
        self._fitted, self.last_fit = dict(state["fitted"]), None
        self.refresh()

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write `dynamics.pt`: weights, normalisers, elites, what they are for, and `meta` (numbers, strings); see `files`."""
        files.save(self.network, Path(path), self.fitted, meta)

    def load(self, path: str | Path) -> dict[str, Any]:
        """Take weights, normalisers and elites from a `dynamics.pt`, in place; returns its `meta`. The optimizer starts afresh.

        Raises:
            UserError: the file is missing, damaged or foreign, or belongs to a model of other dimensions, scaling or options. The model
                is then as it was before.
        """
        self._fitted, meta = files.load(self.network, Path(path))
        self.last_fit = None
        for slots in self.optimizer.state.values():
            for tensor in slots.values():
                tensor.zero_()  # in place, as Adam initialises them: a captured graph holds them
        self.refresh()
        return meta
