"""Which imagined steps are worth keeping: M2AC (Pan et al. 2020, arXiv:2010.04893), MACURA (Frauenknecht et al. 2024, arXiv:2405.19014).

Letters: E members, B rows, D prediction, k rollout length, h step of a rollout, counted from 0. Nothing here waits for the device.
"""

import torch
from torch import Tensor

from mbkit.imagination.branch import Verdict
from mbkit.types import Prediction, State


def one_vs_rest(p: Prediction) -> Tensor:
    """M2AC's uncertainty, [B]: KL(N_e || the Gaussian with the mean and variance of the others' mixture), averaged over members e.

    Paper: of the member that drew the sample; here: its expectation, since every member is equally likely to have drawn it.
    """
    others = p.mean.shape[0] - 1
    gap = p.mean - p.mean.mean(0)  # about the common mean, since variances may be tiny beside the observations
    rest = -gap / others
    square = gap.square()
    var = (p.var.sum(0) - p.var + square.sum(0) - square) / others - rest.square()
    var = torch.maximum(var, p.var.amin(0))  # holds anyway, but for rounding
    return 0.5 * ((var / p.var).log() - 1 + (p.var + (gap - rest).square()) / var).sum(-1).mean(0)


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


def share_kept(h: int, k: int, keep: float) -> float:
    """M2AC's w_h: `keep` of a single step, otherwise keep (k - h) / (k + 1), less the longer a rollout is."""
    return keep if k == 1 else keep * (k - h) / (k + 1)


def least(u: Tensor, alive: Tensor, share: float) -> Tensor:
    """The `share` of living rows with the least u [B], rounded up; bool [B]. What is not finite never belongs to them."""
    rank = torch.where(alive & u.isfinite(), u, torch.inf).argsort(stable=True).argsort()
    return alive & u.isfinite() & (rank < share * alive.sum() - 1e-6)


def percentile(u: Tensor, alive: Tensor, q: float) -> Tensor:
    """The q-th percentile of u [B] among living rows, linear between ranks, shape [1]."""
    ordered = torch.where(alive, u, torch.inf).sort().values
    place = (q / 100 * (alive.sum() - 1).clamp(min=0)).view(1)
    low, high = ordered[place.floor().long()], ordered[place.ceil().long()]
    return low + torch.where(high > low, (high - low) * (place - place.floor()), 0.0)


class M2AC:
    """Remember the least uncertain part of the rows of each step, less and less of them, and penalise reward with uncertainty."""

    def __init__(self, keep: float, penalty: float, stop: bool) -> None:
        self.keep, self.penalty, self.stop = keep, penalty, stop

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict:
        """Rows that are masked go on unless `stop` (the paper's non-stop mode and its hard-stop mode)."""
        u = one_vs_rest(prediction)
        # Paper: w_h of all B rows; here: of those still alive, so that terminations do not count as confidence.
        store = least(u, alive, share_kept(step, k, self.keep))
        return Verdict(store, store if self.stop else torch.ones_like(store), self.penalty * u)

    def state_dict(self) -> State:
        """Remembers nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Remembers nothing."""


class MACURA:
    """A rollout goes on, and is remembered, while its uncertainty is below kappa = xi * (the zeta-th percentile at first steps)."""

    def __init__(self, xi: float, zeta: float, device: torch.device) -> None:
        self.xi, self.zeta = xi, zeta
        self.total = torch.zeros(1, device=device)  # of xi * percentile, over all rounds so far
        self.rounds = torch.zeros(1, device=device)

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict:
        """Kappa is the mean over all rounds of rollouts, as in the authors' code (theirs: over the last 2000 rounds)."""
        u = geometric_js(prediction)
        if step == 0:
            found = self.xi * percentile(u, alive & u.isfinite(), self.zeta)
            self.total += torch.where(found.isfinite(), found, 0.0)  # a round without a finite row counts for nothing
            self.rounds += found.isfinite()
        certain = u < self.total / self.rounds
        return Verdict(certain, certain, torch.zeros_like(u))

    def state_dict(self) -> State:
        """Kappa's running mean."""
        return {"total": self.total.cpu().clone(), "rounds": self.rounds.cpu().clone()}

    def load_state_dict(self, state: State) -> None:
        """Goes on with the saved mean, in place."""
        self.total.copy_(state["total"])
        self.rounds.copy_(state["rounds"])
