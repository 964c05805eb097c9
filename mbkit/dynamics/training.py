"""Fitting an ensemble: bootstrap, hold-out, per-member early stopping (PETS, arXiv:1805.12114; MBPO, arXiv:1906.08253, appendix).

Letters: E members, N training rows, V held-out rows, b batch, I input, D prediction. Rows are packed once, [inputs | targets | terminated].
"""

from __future__ import annotations

import hashlib
import itertools
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from mbkit.dynamics.propagation import soft_bounded_logvar
from mbkit.errors import UserError
from mbkit.networks.mlp import EnsembleMLP
from mbkit.types import Metrics, Transition

if TYPE_CHECKING:
    from mbkit.dynamics.ensemble import Ensemble

BOUND_PENALTY = 0.01  # weight of the distance between the log-variance bounds


class Rows(NamedTuple):
    """Rows of the training problem."""

    x: Tensor  # [..., I]
    y: Tensor  # [..., D]
    ended: Tensor  # [...] 1 where the episode terminated


def rows(model: Ensemble, data: Transition) -> Rows:
    """Raw inputs [N, I] and raw targets [N, D] (changes where changes are predicted, then the reward if it is learned)."""
    y = data.next_obs - data.obs * model.relative
    if model.reward is None:
        y = torch.cat((y, data.reward[:, None]), -1)
    return Rows(model.encode(data.obs, data.action), y, (data.discount == 0).float())


def optimizer(model: Ensemble) -> torch.optim.Adam:
    """Adam whose weight decay is the gradient of 0.5 wd ||W||^2 for each layer's weights; biases and bounds have none."""
    decay = model.cfg.weight_decay
    groups = [{"params": [w], "weight_decay": decay[min(n, len(decay) - 1)]} for n, w in enumerate(model.net.weight)]
    free = [*model.net.bias, *([model.logvar_bounds] if model.logvar_bounds.requires_grad else [])]
    on_gpu = model.logvar_bounds.is_cuda
    return torch.optim.Adam([*groups, {"params": free, "weight_decay": 0.0}], lr=model.cfg.lr, fused=True, capturable=on_gpu)


def gaussian_loss(mean: Tensor, logvar: Tensor, y: Tensor) -> Tensor:
    """Sum over members of the mean over rows and dimensions of (mu - y)^2 exp(-lv) + lv: twice the NLL less log 2 pi; all [E, B, D]."""
    return ((mean - y).square() * (-logvar).exp() + logvar).mean((1, 2)).sum()


def loss(model: Ensemble, batch: Rows) -> Tensor:
    """What is minimised on normalised rows [E, b, ...]; squared error where members are deterministic."""
    mean, raw, logit = model.split(model.net(batch.x))
    if raw is None:
        total = (mean - batch.y).square().mean((1, 2)).sum()  # mbrl-lib sums over rows and dimensions
    else:
        low, high = model.logvar_bounds
        total = gaussian_loss(mean, soft_bounded_logvar(raw, low, high), batch.y) + BOUND_PENALTY * (high.sum() - low.sum())
    if logit is not None:
        total = total + F.binary_cross_entropy_with_logits(logit, batch.ended, reduction="none").mean(1).sum()
    return total


@torch.no_grad()
def holdout_error(model: Ensemble, held: Rows) -> Tensor:
    """Mean squared error of each member [E] on normalised rows, in the units the targets were trained in."""
    return (model.split(model.net(held.x))[0] - held.y).square().mean((1, 2))


def draw_bootstrap(members: int, n: int, with_replacement: bool, device: torch.device) -> Tensor:
    """Training rows of every member, int64 [E, N]."""
    return torch.randint(n, (members, n), device=device) if with_replacement else torch.arange(n, device=device).expand(members, n)


def shuffled(index: Tensor, batch: int) -> Tensor:
    """One epoch's batches int64 [n, E, b], every member in its own order.

    b is at most `batch`, equal for all batches so that shapes are static (a CUDA graph can hold the step): the last one is filled up with
    rows of the first. Paper: the last batch is shorter.
    """
    members, n = index.shape
    count = -(-n // batch)
    size = -(-n // count)
    order = torch.stack([torch.randperm(n, device=index.device) for _ in range(members)])
    index = index.gather(1, order)
    index = torch.cat((index, index[:, : count * size - n]), 1)
    return index.view(members, count, size).transpose(0, 1).contiguous()


class Best:
    """Every member's best weights so far, kept in place, and whether any member still improves."""

    def __init__(self, net: EnsembleMLP, threshold: float) -> None:
        self.net, self.threshold, self.stale = net, threshold, 0
        self.kept = [p.detach().clone() for p in net.parameters()]
        self.error = torch.full((net.members,), torch.inf, device=self.kept[0].device)
        self.mark = self.error.clone()  # error at the last improvement beyond the threshold

    @torch.no_grad()
    def update(self, error: Tensor) -> Tensor:
        """Keep the weights of members whose error [E] fell, by however little; returns whether one fell beyond the threshold, bool 0-d.

        Paper: gains below the threshold are neither kept nor counted; here they are kept, but do not prolong training.
        """
        better = error < self.error
        for kept, p in zip(self.kept, self.net.parameters(), strict=True):
            torch.where(better[:, None, None], p, kept, out=kept)
        self.error = torch.where(better, error, self.error)
        improved = error < self.mark * (1 - self.threshold)
        self.mark = torch.where(improved, error, self.mark)
        return improved.any()

    @torch.no_grad()
    def restore(self) -> None:
        """Put every member's best weights back."""
        for kept, p in zip(self.kept, self.net.parameters(), strict=True):
            p.copy_(kept)


def fit(model: Ensemble, data: Transition) -> Metrics:
    """Train `model` from its present weights and optimizer state; ends with each member's best weights, new elites and a new normaliser.

    Returns, besides the number of epochs: the last epoch's mean loss, and the mean squared error and twice the NLL of the elites on
    held-out rows (on up to `holdout_max` training rows where nothing is held out), in the units of the targets. Bounds and optimizer
    state are not turned back.

    Raises:
        UserError: fewer than two rows, values that are not finite, or a loss that is not finite; the model is then as it was before.
    """
    with torch.no_grad():
        raw = rows(model, data)
    _check(model, raw)
    before = deepcopy(model.state_dict())
    train, held = _split(model, raw)
    best = Best(model.net, model.cfg.improvement)
    index = draw_bootstrap(model.cfg.members, len(train), model.cfg.bootstrap, train.device)
    bar = tqdm(total=model.cfg.max_epochs, desc="fit dynamics", unit="epoch", leave=False, disable=not model.cfg.progress)
    for epoch in itertools.count(1):
        mean_loss = _epoch(model, train, index)
        improved = best.update(holdout_error(model, held)) if model.cfg.holdout else mean_loss.new_ones((), dtype=torch.bool)
        finite = torch.stack([x.isfinite().all() for x in (mean_loss, *model.net.parameters())]).all()
        finite_now, improved_now = torch.stack((finite, improved)).tolist()  # the one wait for the device in an epoch
        if not finite_now:
            bar.close()
            model.load_state_dict(before)
            raise UserError(
                f"training the dynamics diverged: the loss is {float(mean_loss)} in epoch {epoch}, expected finite weights; "
                f"the model keeps its former weights (dynamics.lr is {model.cfg.lr}; smaller is safer)"
            )
        best.stale = 0 if improved_now else best.stale + 1
        bar.update()
        if epoch == model.cfg.max_epochs or best.stale >= model.cfg.patience:
            break
    bar.close()
    if model.cfg.holdout:
        best.restore()
    return _finish(model, data, held, mean_loss, epoch)


def _check(model: Ensemble, raw: Rows) -> None:
    if len(raw.x) < 2:
        raise UserError(f"fitting the dynamics needs at least 2 transitions, got {len(raw.x)}")
    for what, value in (("inputs (observations and actions)", raw.x), ("targets (next observations and rewards)", raw.y)):
        finite = value.isfinite().all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise UserError(f"the {what} of the dynamics must be finite, got {value[row].tolist()} in row {row}")


@torch.no_grad()
def _split(model: Ensemble, raw: Rows) -> tuple[Tensor, Rows]:
    """Hold out rows at random and refit the normalisers to the others; returns packed training rows [N, I + D + 1] and held-out rows."""
    n, cfg = len(raw.x), model.cfg
    out = min(round(cfg.holdout * n), cfg.holdout_max, n - 1)
    order = torch.randperm(n, device=raw.x.device)
    model.inputs.fit(raw.x[order[out:]])
    if cfg.scale_targets:
        model.targets.fit(raw.y[order[out:]])
    packed = torch.cat((model.inputs(raw.x), model.targets(raw.y), raw.ended[:, None]), 1)
    held = packed[order[:out] if out else order[: cfg.holdout_max]]
    return packed[order[out:]], _unpack(model, held)


def _unpack(model: Ensemble, packed: Tensor) -> Rows:
    i, d = model.input_dim, model.output_dim
    return Rows(packed[..., :i], packed[..., i : i + d], packed[..., -1])


def _epoch(model: Ensemble, train: Tensor, index: Tensor) -> Tensor:
    """One pass over every member's rows; returns the mean loss, 0-d."""
    batches = shuffled(index, model.cfg.batch)
    total = train.new_zeros(())
    for where in batches:
        batch = train.index_select(0, where.flatten()).view(*where.shape, -1)
        value = loss(model, _unpack(model, batch))
        model.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        model.optimizer.step()
        total += value.detach()
    return total / len(batches)


@torch.no_grad()
def _finish(model: Ensemble, data: Transition, held: Rows, mean_loss: Tensor, epochs: int) -> Metrics:
    """Choose the elites, refresh the inference copy, remember what `dynamics.pt` tells of the training."""
    mean, raw, _ = model.split(model.net(held.x))
    error = (mean - held.y).square().mean((1, 2))
    model.elites.copy_(error.argsort()[: model.cfg.elites].sort().values)
    metrics = {
        "model/loss": mean_loss,
        "model/holdout_mse": error[model.elites].mean(),
        "model/epochs": mean_loss.new_tensor(float(epochs)),
    }
    if raw is not None:
        nll = gaussian_loss(mean[model.elites], soft_bounded_logvar(raw, *model.logvar_bounds)[model.elites], held.y)
        metrics["model/holdout_nll"] = nll / model.cfg.elites
    model.refresh()
    model.fitted = {"fingerprint": fingerprint(data), "rows": len(data.obs), **{k: float(v) for k, v in metrics.items()}}
    return metrics


def fingerprint(data: Transition) -> str:
    """sha256 of the rows, to tell whether two ensembles saw the same data."""
    digest = hashlib.sha256()
    for value in data:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
