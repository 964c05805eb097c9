"""A model step of an ensemble with gradients in observation and action (Heess et al. 2015, arXiv:1510.09142, section 4.1).

Letters: B rows, O observation, A action, D prediction.
"""

import torch
from torch import Tensor

from mbkit.dynamics.frozen import FrozenElites, blocks
from mbkit.dynamics.network import encode_action
from mbkit.dynamics.propagation import ONE_ELITE, differentiable_step
from mbkit.errors import UserError
from mbkit.types import Step


def pathwise_step(elites: FrozenElites, obs: Tensor, action: Tensor) -> Step:
    """One step of obs [B, O] under actions [B, A], each row through one elite, whose parameters are constants.

    On a CPU the same random state gives the step of `Ensemble.step` without gradient, up to rounding.

    Raises:
        UserError: a propagation in which a row meets all elites.
    """
    network = elites.network
    mode, spec = network.cfg.propagation, network.spec
    if mode not in ONE_ELITE:
        raise UserError(f"dynamics.propagation={mode}: a gradient passes through one member for each row; expected ts_inf or ts1")

    def draw(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs = ONE_ELITE[mode](elites, elites.inputs(obs, encode_action(spec, action)))
        noise = torch.randn(len(obs), network.output_dim, device=obs.device) if network.cfg.probabilistic else None
        outcome, logit = elites.sample(outputs, noise), network.split(outputs)[2]
        return outcome, None if logit is None else logit > torch.rand_like(logit).logit()

    pad = blocks(len(obs), elites.count, obs.device) if mode == "ts_inf" else None
    if pad is None:
        return differentiable_step(draw, obs, action, network.relative, network.task)
    step = differentiable_step(draw, obs[pad.source], action[pad.source], network.relative, network.task)
    obs, reward, terminated = (column[pad.place] for column in step[1:4])
    return Step(obs, obs, reward, terminated)
