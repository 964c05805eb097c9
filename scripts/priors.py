"""What an engineer knew before, as priors: `mbkit train kl_sac env=Pendulum-v1 agent.prior=scripts.priors:swing_up`, for example.

Both are a normal distribution round a sketch of a controller, cut to the box [-1, 1]; as they are, neither solves its task.
B batch, O observation.
"""

import torch
from torch import Tensor
from torch.distributions import Normal

NOISE = 0.5  # standard deviation round the controller: how little it is trusted


def around(mean: Tensor, action: Tensor) -> Tensor:
    """Log-density [B] of actions [B, 1] that are normal round mean [B], given that they lie in the box."""
    normal, one = Normal(mean, NOISE, validate_args=False), torch.ones_like(mean)
    return normal.log_prob(action[:, 0]) - (normal.cdf(one) - normal.cdf(-one)).log()


def swing_up(obs: Tensor, action: Tensor) -> Tensor:
    """Pendulum-v1, obs (cos, sin, speed): push along while energy is missing (of mass and length 1, g = 10). It cannot hold."""
    cos, _, speed = obs.unbind(-1)
    missing = 5 - (5 * cos + speed.square() / 6)
    return around((missing * speed.sign()).clamp(-1, 1), action)


def balance(obs: Tensor, action: Tensor) -> Tensor:
    """InvertedPendulum-v5, obs (place, angle, their speeds): push to the side that it falls or drifts to. The noise topples it."""
    place, angle, moving, turning = obs.unbind(-1)
    return around((3 * angle + 0.5 * turning + 0.1 * place + 0.2 * moving).clamp(-1, 1), action)
