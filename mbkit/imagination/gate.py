"""Gates of model rollouts: M2AC (Pan et al. 2020, arXiv:2010.04893), MACURA (Frauenknecht et al. 2024, arXiv:2405.19014), weights.

Letters: E members, B rows, D prediction, k rollout length, h step of a rollout from 0. Nothing here synchronises with the host.
"""

from typing import Any

import torch
from torch import Tensor

from mbkit.imagination.branch import Verdict
from mbkit.registry import gates
from mbkit.types import NoOptions, Prediction, State


def one_vs_rest(p: Prediction) -> Tensor:
    """M2AC's uncertainty, [B]: KL(N_e || the Gaussian with the mean and variance of the others' mixture), averaged over members e.

    Paper: of the member that drew the sample; here: its expectation, since every member is equally likely to have drawn it.
    """
    members, others = p.mean.shape[0], p.mean.shape[0] - 1
    square = (p.mean - p.mean.mean(0)).square_()  # g^2 about the common mean, of which the others' mean is -g / others away
    var = (p.var.sum(0) + square.sum(0) - p.var).div_(others).sub_(square, alpha=members / others**2)
    var = var.clamp_(min=p.var.amin(0))  # holds anyway, but for rounding
    ratio = p.var / var
    distance = square.mul_((members / others) ** 2).div_(var)
    return 0.5 * distance.add_(ratio).sub_(1).sub_(ratio.log_()).sum(-1).mean(0)


def geometric_js(p: Prediction) -> Tensor:
    """MACURA's uncertainty, [B]: geometric Jensen-Shannon divergence between two members, averaged over pairs.

    The dual form with equal weights, as in the authors' code: with G the normalised geometric mean of two Gaussians,
    (KL(G || N_1) + KL(G || N_2)) / 2 = sum_d (mu_1 - mu_2)^2 / (4 (v_1 + v_2)) + log((v_1 + v_2) / 2) / 2 - log(v_1 v_2) / 4.
    """
    members, log_var = p.mean.shape[0], p.var.log()
    total = p.mean.new_zeros(p.mean.shape[1])
    for shift in range(1, members // 2 + 1):  # every pair once, without a tensor [E, E, B, D]
        pairs = members // 2 if 2 * shift == members else members
        both = (p.var + p.var.roll(shift, 0))[:pairs]
        distance = (p.mean - p.mean.roll(shift, 0))[:pairs].square() / (4 * both)
        shape = (both / 2).log() / 2 - (log_var + log_var.roll(shift, 0))[:pairs] / 4
        total += (distance + shape).sum((0, 2))
    return total / (members * (members - 1) / 2)


def stored_share(h: int, k: int, keep_ratio: float) -> float:
    """M2AC's w_h, the share of rows stored at step h: the keep ratio where k = 1, otherwise keep ratio * (k - h) / (k + 1)."""
    return keep_ratio if k == 1 else keep_ratio * (k - h) / (k + 1)


def least_uncertain(u: Tensor, alive: Tensor, share: float) -> Tensor:
    """The `share` of alive rows with the least uncertainty u [B], rounded up; bool [B]. Rows whose u is not finite are never among them."""
    rank = torch.where(alive & u.isfinite(), u, torch.inf).argsort(stable=True).argsort()
    return alive & u.isfinite() & (rank < share * alive.sum() - 1e-6)


def percentile(u: Tensor, alive: Tensor, q: float) -> Tensor:
    """The q-th percentile of u [B] among alive rows, linear between ranks, shape [1]."""
    ordered = torch.where(alive, u, torch.inf).sort().values
    place = (q / 100 * (alive.sum() - 1).clamp(min=0)).view(1)
    low, high = ordered[place.floor().long()], ordered[place.ceil().long()]
    return low + torch.where(high > low, (high - low) * (place - place.floor()), 0.0)


class Stateless:
    """A gate that depends on nothing but the present step."""

    def state_dict(self) -> State:
        """Empty: this gate has no state."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to load."""


class M2AC(Stateless):
    """Stores the least uncertain share of the rows of each step, a smaller one at later steps, and penalises reward with uncertainty."""

    penalises = True  # its rewards have no lower bound

    def __init__(self, keep_ratio: float, penalty: float, hard_stop: bool) -> None:
        self.keep_ratio, self.penalty, self.hard_stop = keep_ratio, penalty, hard_stop

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict:
        """Rows that are not stored go on in the paper's non-stop mode, and end in its hard-stop mode."""
        u = one_vs_rest(prediction)
        # Paper: w_h of all B rows; here: of those still alive, so that terminations do not count as confidence.
        store = least_uncertain(u, alive, stored_share(step, k, self.keep_ratio))
        return Verdict(store, store if self.hard_stop else torch.ones_like(store), self.penalty * u)


class MACURA:
    """Stores and continues a rollout while its uncertainty is below kappa = xi * (zeta-th percentile of the uncertainty at first steps)."""

    def __init__(self, xi: float, zeta: float, device: torch.device) -> None:
        self.xi, self.zeta = xi, zeta
        self.total = torch.zeros(1, device=device)  # of xi * percentile, over all rounds so far
        self.rounds = torch.zeros(1, device=device)

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict:
        """Kappa is the mean over all rounds of rollouts, as in the authors' code (theirs: over the last 2000 rounds)."""
        u = geometric_js(prediction)
        if step == 0:
            threshold = self.xi * percentile(u, alive & u.isfinite(), self.zeta)
            self.total += torch.where(threshold.isfinite(), threshold, 0.0)  # a round without a finite row does not count
            self.rounds += threshold.isfinite()
        certain = u < self.total / self.rounds
        return Verdict(certain, certain, torch.zeros_like(u))

    def state_dict(self) -> State:
        """Kappa's running mean."""
        return {"total": self.total.cpu().clone(), "rounds": self.rounds.cpu().clone()}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.total.copy_(state["total"])
        self.rounds.copy_(state["rounds"])


class Confidence(Stateless):
    """Stores everything, with a weight in the critics' loss that falls with the uncertainty: w = 1 / (1 + sigma).

    sigma is the standard deviation of the mixture of members, noise and disagreement together, in units of the model's targets, averaged
    over dimensions. After WIMLE (ICLR 2026), whose rows are means of implicit models; here a row stays the sample of one member.

    Args:
        scale: [D] the units of the targets, a tensor that the model changes in place when it is fitted.
    """

    weighs = True  # its verdicts have weights, which the buffer stores

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict:
        """All rows are stored and go on."""
        variance = prediction.var.mean(0) + prediction.mean.var(0, correction=0)
        sigma = (variance.sqrt() / self.scale).mean(-1)
        every = torch.ones_like(alive)
        return Verdict(every, every, torch.zeros_like(sigma), 1 / (1 + sigma))


@gates.register("m2ac", NoOptions)
def m2ac(cfg: Any, scale: Tensor) -> M2AC:
    """The least uncertain share of every step's rows, penalised by their uncertainty."""
    return M2AC(cfg.keep_ratio, cfg.penalty, cfg.hard_stop)


@gates.register("macura", NoOptions)
def macura(cfg: Any, scale: Tensor) -> MACURA:
    """Rollouts as long as the members agree as well as at first steps."""
    return MACURA(cfg.xi, cfg.zeta, scale.device)


@gates.register("confidence", NoOptions)
def confidence(cfg: Any, scale: Tensor) -> Confidence:
    """All rows, weighted in the critics' loss by 1 / (1 + uncertainty)."""
    return Confidence(scale)
