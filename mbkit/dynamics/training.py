"""Fitting an ensemble: bootstrap, hold-out, per-member early stopping (PETS, arXiv:1805.12114; MBPO, arXiv:1906.08253, appendix).

Letters: E members, K elites, N training rows, b batch, I input, D prediction.
"""

import itertools
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam
from tqdm.auto import tqdm

from mbkit.dynamics.calibration import centrality, holdout_miscoverage, level_map, log_factor
from mbkit.dynamics.network import EnsembleNetwork, soft_bounded_logvar
from mbkit.errors import UserError
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.normalizer import RESOLUTION
from mbkit.networks.optimizers import restore_optimizer_
from mbkit.types import Metrics, Transition

BOUND_PENALTY = 0.01  # weight of the distance between the log-variance bounds
LEAST_SCALE = 1e-15  # of a target: float32 holds its square, a variance


class TrainingRows(NamedTuple):
    """Inputs, targets and terminations of the regression."""

    x: Tensor  # [..., I]
    y: Tensor  # [..., D]
    ended: Tensor  # [...] 1 where the episode terminated
    known: Tensor | None = None  # [..., 1] 1 where the successor is the true one, 0 where `ended` is all that is known; None: 1 everywhere

    def at(self, index: Tensor) -> "TrainingRows":
        """The rows at these indices, int64 [...]."""
        known = None if self.known is None else self.known[index]
        return TrainingRows(self.x[index], self.y[index], self.ended[index], known)


@torch.no_grad()
def rows(network: EnsembleNetwork, data: Transition, known: Tensor | None = None) -> TrainingRows:
    """Raw inputs [N, I] and raw targets [N, D] of one-step transitions; known: bool [N], rows whose successor is the true one."""
    reward = network.task.reward_to_learn(data.obs, data.action, data.next_obs, data.reward)
    targets = network.outcome(data.obs, data.next_obs, reward)
    ended = (data.discount == 0).float()
    return TrainingRows(network.encode(data.obs, data.action), targets, ended, None if known is None else known[:, None].float())


def optimizer(network: EnsembleNetwork) -> Adam:
    """Adam whose weight decay is the gradient of 0.5 wd ||W||^2 for each layer's weights; biases and bounds have none."""
    decay, bounds = network.cfg.weight_decay, network.logvar_bounds
    groups = [{"params": [w], "weight_decay": decay[min(n, len(decay) - 1)]} for n, w in enumerate(network.net.weight)]
    free = [*network.net.bias, *([bounds] if bounds.requires_grad else [])]
    return Adam([*groups, {"params": free, "weight_decay": 0.0}], lr=network.cfg.lr, fused=True, capturable=bounds.is_cuda)


def gaussian_loss(mean: Tensor, logvar: Tensor, y: Tensor, known: Tensor | None = None) -> Tensor:
    """Sum over members of the mean over rows and dimensions of (mu - y)^2 exp(-lv) + lv: twice the NLL less log 2 pi; all [E, B, D].

    Rows whose `known`, [E, B, 1], is 0 are left out of the means.
    """
    return mean_of_known((mean - y).square() * (-logvar).exp() + logvar, known).sum()


def mean_of_known(x: Tensor, known: Tensor | None) -> Tensor:
    """Mean over rows and dimensions of x [E, B, D], [E]: of the rows whose `known`, [E, B, 1], is 1, or of all; 0 where there is none."""
    if known is None:
        return x.mean((1, 2))
    return (x * known).sum((1, 2)) / (known.sum((1, 2)).clamp(min=1) * x.shape[-1])


def loss(network: EnsembleNetwork, batch: TrainingRows) -> Tensor:
    """The training loss on normalised rows [E, b, ...]: likelihood, or squared error where members are deterministic; termination."""
    mean, raw, logit = network.split(network.net(batch.x))
    if raw is None:
        total = mean_of_known((mean - batch.y).square(), batch.known).sum()  # mbrl-lib sums over rows and dimensions
    else:
        low, high = network.logvar_bounds
        fit = gaussian_loss(mean, soft_bounded_logvar(raw, low, high), batch.y, batch.known)
        total = fit + BOUND_PENALTY * (high.sum() - low.sum())
    if logit is not None:
        total = total + F.binary_cross_entropy_with_logits(logit, batch.ended, reduction="none").mean(1).sum()
    return total


@torch.no_grad()
def holdout_error(network: EnsembleNetwork, holdout: TrainingRows) -> Tensor:
    """Mean squared error of each member [E] on normalised rows, in the units the targets were trained in."""
    return (network.split(network.net(holdout.x))[0] - holdout.y).square().mean((1, 2))


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
    """Every member's best weights so far, updated in place, and whether any member still improves."""

    def __init__(self, net: EnsembleMLP, threshold: float) -> None:
        self.net, self.threshold, self.stale = net, threshold, 0
        self.weights = [p.detach().clone() for p in net.parameters()]
        self.error = torch.full((net.members,), torch.inf, device=self.weights[0].device)
        self.mark = self.error.clone()  # error at the last improvement beyond the threshold

    @torch.no_grad()
    def update(self, error: Tensor) -> Tensor:
        """Store the weights of members whose error [E] fell, by however little; returns whether one fell beyond the threshold, bool 0-d.

        Paper: gains below the threshold are neither stored nor counted; here they are stored, but do not prolong training.
        """
        better = error < self.error
        for best, p in zip(self.weights, self.net.parameters(), strict=True):
            torch.where(better[:, None, None], p, best, out=best)
        self.error = torch.where(better, error, self.error)
        improved = error < self.mark * (1 - self.threshold)
        self.mark = torch.where(improved, error, self.mark)
        return improved.any()

    @torch.no_grad()
    def restore(self) -> None:
        """Put every member's best weights back."""
        for best, p in zip(self.weights, self.net.parameters(), strict=True):
            p.copy_(best)


def fit(network: EnsembleNetwork, adam: Adam, data: Transition, known: Tensor | None = None) -> Metrics:
    """Train from the present weights and optimizer state; ends with each member's best weights, new elites and new normalisers.

    Rows that are not `known`, bool [N], have no true successor: where the model learns terminations they are labels of those alone.

    Returns the number of epochs, the last one's mean loss, and the errors of `choose_elites`, in the units of the targets, and of
    `relative_errors`; where nothing is held out, they are those of up to `holdout_max` training rows. Bounds and optimizer state are not
    turned back.

    Raises:
        UserError: fewer than two known rows, values that are not finite, or a loss that is not finite; the model is then as it was before.
    """
    if known is not None and not network.learns_termination:
        data, known = Transition(*(column[known] for column in data[:5])), None
    cfg, raw = network.cfg, rows(network, data, known)
    check_rows(raw)
    before = deepcopy((network.state_dict(), adam.state_dict()))
    floor = resolution(network, data)
    train, holdout = hold_out(network, raw, floor)
    best = Best(network.net, cfg.improvement)
    index = draw_bootstrap(cfg.members, len(train.x), cfg.bootstrap, train.x.device)
    with tqdm(total=cfg.max_epochs, desc="fit dynamics", unit="epoch", leave=False, disable=not cfg.progress) as bar:
        for epoch in itertools.count(1):
            mean_loss = run_epoch(network, adam, train, index)
            improved = best.update(holdout_error(network, holdout)) if cfg.holdout else mean_loss.new_ones((), dtype=torch.bool)
            finite = torch.stack([x.isfinite().all() for x in (mean_loss, *network.net.parameters())]).all()
            finite_now, improved_now = torch.stack((finite, improved)).tolist()  # the only synchronisation with the device in an epoch
            if not finite_now:
                network.load_state_dict(before[0])
                restore_optimizer_(adam, before[1])
                raise UserError(
                    f"training the dynamics diverged: the loss is {float(mean_loss)} in epoch {epoch}, expected finite weights; "
                    f"the model returns to its previous weights (dynamics.lr is {cfg.lr}; smaller is safer)"
                )
            best.stale = 0 if improved_now else best.stale + 1
            bar.update()
            if epoch == cfg.max_epochs or best.stale >= cfg.patience:
                break
    if cfg.holdout:
        best.restore()
    metrics = choose_elites(network, holdout)
    return {
        "model/loss": mean_loss,
        "model/epochs": mean_loss.new_tensor(float(epoch)),
        **metrics,
        **relative_errors(network, train, holdout, floor),
    }


def check_rows(raw: TrainingRows) -> None:
    """UserError for fewer than two rows with a true successor, and for the first row that is not finite."""
    count = len(raw.x) if raw.known is None else int(raw.known.sum())
    if count < 2:
        of_known = " with a true successor" * (raw.known is not None)
        raise UserError(f"fitting the dynamics needs at least 2 transitions{of_known}, got {count}")
    for what, value in (("inputs (observations and actions)", raw.x), ("targets (next observations and rewards)", raw.y)):
        finite = value.isfinite().all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise UserError(f"the {what} of the dynamics must be finite, got {value[row].tolist()} in row {row}")


@torch.no_grad()
def resolution(network: EnsembleNetwork, data: Transition) -> Tensor:
    """What float32 resolves of each predicted number, the least scale of its target, float64 [D]."""
    size = data.next_obs.abs().amax(0)
    if network.task.reward is None:
        size = torch.cat((size, data.reward.abs().amax(0, keepdim=True)))
    return (RESOLUTION * size.double()).clamp(min=LEAST_SCALE)


@torch.no_grad()
def hold_out(network: EnsembleNetwork, raw: TrainingRows, floor: Tensor | None = None) -> tuple[TrainingRows, TrainingRows]:
    """Hold out rows at random and refit the normalisers to the others; returns normalised training rows [N] and hold-out rows.

    `floor` [D]: least scales of the targets.
    """
    n, cfg = len(raw.x), network.cfg
    order = torch.randperm(n, device=raw.x.device)
    if raw.known is not None:  # rows without a true successor come last: errors and normalisers are those of the others
        n, order = int(raw.known.sum()), order[raw.known[order, 0].argsort(descending=True, stable=True)]
    count = min(round(cfg.holdout * n), cfg.holdout_max, n - 1)
    train = order[count:]
    network.inputs.fit(raw.x[order[count:n]])
    if cfg.scale_targets:
        network.targets.fit(raw.y[order[count:n]], floor)
    normalised = TrainingRows(network.inputs(raw.x), network.targets(raw.y), raw.ended, raw.known)
    held_out = normalised.at(order[:count] if count else order[: min(n, cfg.holdout_max)])
    return normalised.at(train), held_out._replace(known=None)


def run_epoch(network: EnsembleNetwork, adam: Adam, train: TrainingRows, index: Tensor) -> Tensor:
    """One pass over every member's rows; returns the mean loss, 0-d."""
    batches = shuffled(index, network.cfg.batch)
    total = train.x.new_zeros(())
    for batch in batches:
        value = loss(network, train.at(batch))
        adam.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        adam.step()
        total += value.detach()
    return total / len(batches)


@torch.no_grad()
def relative_errors(network: EnsembleNetwork, train: TrainingRows, holdout: TrainingRows, floor: Tensor) -> Metrics:
    """The hold-out error: root mean squared error of the elites' mean, in standard deviations of the targets, and of every member alone.

    Each dimension counts alike; 1 is no better than predicting the mean. `floor` [D]: least deviations of raw targets.
    """
    scaled = network.cfg.scale_targets  # by those deviations already
    y = train.y if train.known is None else train.y[train.known[:, 0] > 0]
    unit = torch.ones_like(floor) if scaled else y.double().std(0, correction=0).maximum(floor)
    mean = network.split(network.net(holdout.x))[0]
    errors = torch.cat((mean[network.elites].mean(0, keepdim=True), mean)) - holdout.y
    rmse = (errors / unit).square().mean((1, 2)).sqrt().float()
    return {"model/holdout_error": rmse[0], **{f"model/holdout_error/{e}": member for e, member in enumerate(rmse[1:])}}


@torch.no_grad()
def choose_elites(network: EnsembleNetwork, holdout: TrainingRows) -> Metrics:
    """Make the K members of least hold-out error the elites; returns mean squared errors, and twice the elites' NLL less log 2 pi."""
    mean, raw, _ = network.split(network.net(holdout.x))
    error = (mean - holdout.y).square().mean((1, 2))
    network.elites.copy_(error.argsort()[: network.cfg.elites].sort().values)
    metrics = {"model/holdout_mse": error[network.elites].mean()}
    metrics |= {f"model/holdout_mse/{e}": member for e, member in enumerate(error)}
    if raw is not None:
        logvar = soft_bounded_logvar(raw, *network.logvar_bounds)[network.elites]
        if network.cfg.calibrate and network.cfg.holdout:
            errors = holdout.y - mean[network.elites]
            network.log_factor.copy_(log_factor(errors, logvar))
            network.levels.copy_(level_map(centrality(errors, (0.5 * (logvar + network.log_factor)).exp())))
            metrics["model/holdout_calibration"] = holdout_miscoverage(errors, logvar)
        nll = gaussian_loss(mean[network.elites], logvar, holdout.y)
        metrics["model/holdout_nll"] = nll / network.cfg.elites
    return metrics
