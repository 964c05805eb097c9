"""Prior policies made of simple controllers: `mbkit train kl_sac env=Pendulum-v1 agent.prior=scripts.priors:swing_up`, for example.

Both are a normal distribution around a controller's action, truncated to the box [-1, 1]; neither solves its task alone.
Letters: B batch, O observation.
"""

import torch
from torch import Tensor
from torch.distributions import Normal

NOISE = 0.5  # standard deviation around the controller's action


def around(mean: Tensor, action: Tensor) -> Tensor:
    """Log-density [B] of actions [B, 1] of a normal distribution around mean [B], truncated to the box."""
    normal, one = Normal(mean, NOISE, validate_args=False), torch.ones_like(mean)
    return normal.log_prob(action[:, 0]) - (normal.cdf(one) - normal.cdf(-one)).log()


def swing_up(obs: Tensor, action: Tensor) -> Tensor:
    """Pendulum-v1, obs (cos, sin, speed): torque with the motion while energy is missing (mass and length 1, g = 10); it cannot hold."""
    cos, _, speed = obs.unbind(-1)
    missing = 5 - (5 * cos + speed.square() / 6)
    return around((missing * speed.sign()).clamp(-1, 1), action)


def balance(obs: Tensor, action: Tensor) -> Tensor:
    """InvertedPendulum-v5, obs (place, angle, their speeds): force towards the side of the fall or drift; with its noise the pole falls."""
    place, angle, moving, turning = obs.unbind(-1)
    return around((3 * angle + 0.5 * turning + 0.1 * place + 0.2 * moving).clamp(-1, 1), action)
