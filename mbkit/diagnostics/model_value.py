"""The value of a policy in a learned model: the discounted return of model rollouts from recorded first states.

Letters: P paths from each first state, E first states, B = P E rows, O observation.
"""

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.types import Dynamics, PolicyFn, ValueFn

STATES = 1000  # most first states, spread evenly over the data set's episodes
PATHS = 10  # model paths from each of them, so that each meets several members


@torch.no_grad()
def model_value(
    model: Dynamics, policy: PolicyFn, obs: Tensor, horizon: int, gamma: float, beyond: ValueFn | None = None, paths: int = PATHS
) -> Tensor:
    """Discounted return of the policy in the model from obs [E, O], [P, E]: `horizon` steps, or until the model terminates.

    Args:
        model: the dynamics; each of the P paths of a state is a row of its own, particle-major.
        policy: obs [B, O] -> actions.
        obs: first states.
        horizon: H, number of model steps.
        gamma: discount.
        beyond: value [B] of the states [B, O] after `horizon` steps, for rows that have not terminated; None: 0.
        paths: P.

    Raises:
        UserError: a return that is not finite.
    """
    states = len(obs)
    obs = obs.repeat(paths, 1)
    carry, alive, total = model.init(obs), torch.ones(len(obs), dtype=torch.bool, device=obs.device), obs.new_zeros(len(obs))
    for t in range(horizon):
        out = model.step(carry, policy(obs).to(obs.device))
        total += gamma**t * torch.where(alive, out.reward, 0)
        carry, obs, alive = out.state, out.obs, alive & ~out.terminated
    if beyond is not None:
        total += gamma**horizon * torch.where(alive, beyond(obs), 0)
    if not total.isfinite().all():
        raise UserError(f"model rollouts of {horizon} steps left the finite numbers; expected a smaller horizon, or a better model")
    return total.view(paths, states)


def first_states(obs: Tensor, most: int = STATES) -> Tensor:
    """At most so many rows of obs [E, O], evenly spread."""
    if len(obs) <= most:
        return obs
    return obs[torch.linspace(0, len(obs) - 1, most, dtype=torch.float64, device=obs.device).round().long()]
