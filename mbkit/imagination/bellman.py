"""Targets less the inconsistency of the members' Bellman backups (MOBILE, Sun et al. 2023, ICML, PMLR 202).

Letters: B batch, K elites, J samples of each, O observation, A action.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mbkit.types import Backup, Prediction, TargetFn, Targets, Transition


def inconsistency(agent: Backup, prediction: Prediction, obs_dim: int, samples: int) -> Tensor:
    """Eq. 8: Std over elites i of mean over j of min_k Q(s'_ij, a'_ij), [B]; the sample's, by K - 1.

    s'_ij are `samples` draws of elite i's Gaussian, prediction [K, B, D] with the next observation in its first O = `obs_dim` columns, and
    a'_ij the agent's backup actions there. Paper: a termination predicted by the model cuts nothing here, nor does it in the code.
    """
    mean, std = prediction.mean[..., :obs_dim], prediction.var[..., :obs_dim].sqrt()
    noise = torch.randn(samples, *mean.shape, device=mean.device)
    drawn = torch.addcmul(mean, std, noise).flatten(0, 2)  # [J K B, O]
    value = agent.backup_q(drawn, agent.backup_action(drawn)[0]).amin(0)
    return value.view(samples, *mean.shape[:2]).mean(0).std(0, correction=1)


class BellmanInconsistency:
    """Targets y - c u for rows of a model, y for recorded ones; c = 0 is `target` itself, bit for bit: nothing is computed or drawn.

    Args:
        predict: obs [B, O], action [B, A] -> the elites' Gaussians of the next observation [K, B, D].
        target: the target function that is lowered.
        weight: c.
        samples: J.
        clip: whether targets are kept at 0 or above, as in the authors' code: only where no reward is negative.

    Raises:
        ValueError: a single elite, at the first call.
    """

    def __init__(
        self, predict: Callable[[Tensor, Tensor], Prediction], target: TargetFn, weight: float, samples: int = 10, clip: bool = False
    ) -> None:
        self.predict, self.target, self.weight, self.samples, self.clip = predict, target, weight, samples, clip

    @torch.no_grad()
    def __call__(self, agent: Backup, batch: Transition, gamma: float) -> Targets:
        """[B], the rows of `target`."""
        y = self.target(agent, batch, gamma)
        if self.weight and batch.real is not None:
            prediction = self.predict(batch.obs, batch.action)
            if len(prediction.mean) < 2:
                raise ValueError("the elites' Bellman backups are compared; expected at least 2 elites, the model has 1")
            u = inconsistency(agent, prediction, batch.obs.shape[-1], self.samples)
            y = y._replace(target=torch.where(batch.real > 0, y.target, y.target - self.weight * u))
        return y._replace(target=y.target.clamp(min=0)) if self.clip else y
