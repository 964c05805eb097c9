"""Fitting an ensemble: bootstrap, hold-out, per-member early stopping (PETS, arXiv:1805.12114; MBPO, arXiv:1906.08253, appendix).

Letters: E members, K elites, N training rows, b batch, I input, D prediction.
"""

import itertools
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from mbkit.accelerate import accelerated
from mbkit.dynamics.calibration import centrality, holdout_miscoverage, level_map, log_factor
from mbkit.dynamics.descent import DecayingAdam, Descent
from mbkit.dynamics.loss import TrainingRows, gaussian_loss, mean_of_known
from mbkit.dynamics.network import EnsembleNetwork, soft_bounded_logvar
from mbkit.errors import UserError
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.normalizer import RESOLUTION
from mbkit.networks.optimizers import restore_optimizer_
from mbkit.types import Metrics, State, Transition

LEAST_SCALE = 1e-15  # of a target: float32 holds its square, a variance


@torch.no_grad()
def rows(network: EnsembleNetwork, data: Transition, known: Tensor | None = None) -> TrainingRows:
    """Raw inputs [N, I] and raw targets [N, D] of one-step transitions; known: bool [N], rows whose successor is the true one."""
    reward = network.task.reward_to_learn(data.obs, data.action, data.next_obs, data.reward)
    targets = network.outcome(data.obs, data.next_obs, reward)
    ended = (data.discount == 0).float()
    return TrainingRows(network.encode(data.obs, data.action), targets, ended, None if known is None else known[:, None].float())


@torch.no_grad()
def holdout_error(network: EnsembleNetwork, holdout: TrainingRows) -> Tensor:
    """Mean squared error of each member [E] on normalised rows, in the units the targets were trained in."""
    return mean_of_known((network.split(network.net(holdout.x))[0] - holdout.y).square(), holdout.known)


def padded(holdout: TrainingRows) -> TrainingRows:
    """The rows [N] with others behind them that are not `known`, [1, R, 1], up to a power of two, so that few graphs serve all fits."""
    n = len(holdout.x)
    more = (1 << (n - 1).bit_length()) - n
    x, y, known = (F.pad(column, (0, 0, 0, more)) for column in (holdout.x, holdout.y, torch.ones_like(holdout.x[:, :1])))
    return TrainingRows(x, y, F.pad(holdout.ended, (0, more)), known[None])


def draw_bootstrap(members: int, n: int, with_replacement: bool, device: torch.device) -> Tensor:
    """Training rows of every member, int64 [E, N]."""
    return torch.randint(n, (members, n), device=device) if with_replacement else torch.arange(n, device=device).expand(members, n)


def permutations(members: int, n: int, device: torch.device) -> Tensor:
    """A random order of n rows for every member, int64 [E, n]."""
    if device.type == "cuda":
        return torch.rand(members, n, device=device).argsort(1)  # one kernel for all members
    return torch.stack([torch.randperm(n) for _ in range(members)])


def shuffled(index: Tensor, batch: int, fixed: bool = False) -> Tensor:
    """One epoch's batches int64 [n, E, b], every member in its own order.

    b is at most `batch` and equal for all batches; the last one is filled up with rows of the first. Paper: the last batch is shorter.
    `fixed`: b is `batch`, whatever the number of rows, and the last batch is filled up from a further random order, so that the graph of a
    step serves every fit and every row is as likely there as any other.
    """
    members, n = index.shape
    count = -(-n // batch)
    size = batch if fixed else -(-n // count)
    orders = -(-count * size // n) if fixed else 1
    index = index.gather(1, torch.cat([permutations(members, n, index.device) for _ in range(orders)], 1))
    index = torch.cat((index, index), 1)[:, : count * size]
    return index.view(members, count, size).transpose(0, 1).contiguous()


class Best:
    """Every member's best weights so far, updated in place, and whether any member still improves."""

    def __init__(self, net: EnsembleMLP, threshold: float) -> None:
        self.net, self.threshold, self.stale = net, threshold, 0
        self.weights = [p.detach().clone() for p in net.parameters()]
        self.error = torch.full((net.members,), torch.inf, device=self.weights[0].device)
        self.mark = self.error.clone()  # error at the last improvement beyond the threshold

    def begin(self) -> None:
        """Nothing is best any more."""
        self.stale = 0
        self.error.fill_(torch.inf)
        self.mark.fill_(torch.inf)

    @torch.no_grad()
    def update(self, error: Tensor) -> Tensor:
        """Store the weights of members whose error [E] fell, by however little; returns whether one fell beyond the threshold, bool 0-d.

        Paper: gains below the threshold are neither stored nor counted; here they are stored, but do not prolong training.
        """
        better = error < self.error
        for best, p in zip(self.weights, self.net.parameters(), strict=True):
            torch.where(better[:, None, None], p, best, out=best)
        torch.where(better, error, self.error, out=self.error)
        improved = error < self.mark * (1 - self.threshold)
        torch.where(improved, error, self.mark, out=self.mark)
        return improved.any()

    @torch.no_grad()
    def restore(self) -> None:
        """Put every member's best weights back."""
        for best, p in zip(self.weights, self.net.parameters(), strict=True):
            p.copy_(best)

    def state_dict(self) -> State:
        """What `update` changes."""
        return {"weights": self.weights, "error": self.error, "mark": self.mark}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        for mine, saved in zip((*self.weights, self.error, self.mark), (*state["weights"], state["error"], state["mark"]), strict=True):
            mine.copy_(saved)


class Trainer:
    """The steps of a fit and the end of its epochs; on CUDA both are graphs, which serve later fits too."""

    def __init__(self, network: EnsembleNetwork, adam: DecayingAdam) -> None:
        self.network, self.adam, device = network, adam, network.spec.device
        self.on_gpu = device.type == "cuda"
        self.descent, self.best = Descent(network, adam), Best(network.net, network.cfg.improvement)
        self.graph = accelerated(self.judgement, "cudagraph", device, changes=[self.best]) if self.on_gpu else None

    def __deepcopy__(self, memo: dict[int, object]) -> "Trainer":
        """One for the copied network; graphs cannot be copied, so they are captured again."""
        return Trainer(deepcopy(self.network, memo), deepcopy(self.adam, memo))

    def epoch(self, train: TrainingRows, index: Tensor) -> Tensor:
        """One pass over every member's rows; returns the mean loss, 0-d."""
        batches = shuffled(index, self.network.cfg.batch, fixed=self.on_gpu)
        graphs, single = divmod(len(batches), self.descent.at_once)
        groups = torch.split(batches, [self.descent.at_once] * graphs + [1] * single)
        return torch.cat([self.descent.run(train.at(group)) for group in groups]).mean()

    @torch.no_grad()
    def judgement(self, mean_loss: Tensor, holdout: TrainingRows | None) -> Tensor:
        """Whether loss and weights are finite, and whether a member improved on the held-out rows: bool [2]."""
        finite = torch.stack([x.isfinite().all() for x in (mean_loss, *self.network.net.parameters())]).all()
        improved = torch.ones_like(finite) if holdout is None else self.best.update(holdout_error(self.network, holdout))
        return torch.stack((finite, improved))

    def judge(self, mean_loss: Tensor, holdout: TrainingRows | None) -> Tensor:
        """`judgement`, on CUDA as a graph."""
        return self.judgement(mean_loss, holdout) if self.graph is None else self.graph(mean_loss, holdout)


def fit(trainer: Trainer, data: Transition, known: Tensor | None = None) -> Metrics:
    """Train from the present weights and optimizer state; ends with each member's best weights, new elites and new normalisers.

    Rows that are not `known`, bool [N], have no true successor: where the model learns terminations they are labels of those alone.

    Returns the number of epochs, the last one's mean loss, and the errors of `choose_elites`, in the units of the targets, and of
    `relative_errors`; where nothing is held out, they are those of up to `holdout_max` training rows. Bounds and optimizer state are not
    turned back.

    Raises:
        UserError: fewer than two known rows, values that are not finite, or a loss that is not finite; the model is then as it was before.
    """
    network, adam, best = trainer.network, trainer.adam, trainer.best
    if known is not None and not network.learns_termination:
        data, known = Transition(*(column[known] for column in data[:5])), None
    cfg, rows_of_data = network.cfg, rows(network, data, known)
    check_rows(rows_of_data)
    before = deepcopy((network.state_dict(), adam.state_dict()))
    floor = resolution(network, data)
    train, held_out = hold_out(network, rows_of_data, floor)
    judged = None if not cfg.holdout else padded(held_out) if trainer.on_gpu else held_out
    best.begin()
    index = draw_bootstrap(cfg.members, len(train.x), cfg.bootstrap, train.x.device)
    with tqdm(total=cfg.max_epochs, desc="fit dynamics", unit="epoch", leave=False, disable=not cfg.progress) as bar:
        for epoch in itertools.count(1):
            mean_loss = trainer.epoch(train, index)
            finite, improved = trainer.judge(mean_loss, judged).tolist()  # the only synchronisation with the device in an epoch
            if not finite:
                network.load_state_dict(before[0])
                restore_optimizer_(adam, before[1])
                raise UserError(
                    f"training the dynamics diverged: the loss is {float(mean_loss)} in epoch {epoch}, expected finite weights; "
                    f"the model returns to its previous weights (dynamics.lr is {cfg.lr}; smaller is safer)"
                )
            best.stale = 0 if improved else best.stale + 1
            bar.update()
            if epoch == cfg.max_epochs or best.stale >= cfg.patience:
                break
    if cfg.holdout:
        best.restore()
    with torch.no_grad():
        mean, raw, _ = network.split(network.net(held_out.x))
    return {
        "model/loss": mean_loss,
        "model/epochs": mean_loss.new_tensor(float(epoch)),
        **choose_elites(network, mean, raw, held_out),
        **relative_errors(network, mean, train, held_out, floor),
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


@torch.no_grad()
def relative_errors(network: EnsembleNetwork, mean: Tensor, train: TrainingRows, holdout: TrainingRows, floor: Tensor) -> Metrics:
    """The hold-out error: root mean squared error of the elites' mean, in standard deviations of the targets, and of every member alone.

    mean: the members' outputs [E, N, D] on the held-out rows. `floor` [D]: least deviations of raw targets. Each dimension counts alike; 1
    is no better than predicting the mean.
    """
    scaled = network.cfg.scale_targets  # by those deviations already
    y = train.y if train.known is None else train.y[train.known[:, 0] > 0]
    unit = torch.ones_like(floor) if scaled else y.double().std(0, correction=0).maximum(floor)
    errors = torch.cat((mean[network.elites].mean(0, keepdim=True), mean)) - holdout.y
    rmse = (errors / unit).square().mean((1, 2)).sqrt().float()
    return {"model/holdout_error": rmse[0], **{f"model/holdout_error/{e}": member for e, member in enumerate(rmse[1:])}}


@torch.no_grad()
def choose_elites(network: EnsembleNetwork, mean: Tensor, raw: Tensor | None, holdout: TrainingRows) -> Metrics:
    """Make the K members of least hold-out error the elites; returns mean squared errors, and twice the elites' NLL less log 2 pi.

    mean, raw: the members' outputs on the held-out rows, [E, N, D] each.
    """
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
