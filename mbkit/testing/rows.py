"""Random rows and trajectories of any specification, without an environment."""

import torch

from mbkit.types import EnvSpec, Recorded, Trajectory, Transition

SPEC = EnvSpec(obs_dim=3, action_dim=2, device=torch.device("cpu"))


def random_batch(spec: EnvSpec, n: int, seed: int = 0) -> Transition:
    """n transitions [B] of random numbers, a tenth of which terminate."""
    draw = torch.Generator().manual_seed(seed)
    action = torch.rand(n, spec.action_dim, generator=draw) * 2 - 1
    if spec.parts:
        action = torch.stack([torch.randint(k, (n,), generator=draw) for k in spec.parts], -1)
    elif spec.discrete:
        action = torch.randint(spec.action_dim, (n,), generator=draw)
    obs, next_obs = torch.randn(2, n, spec.obs_dim, generator=draw)
    discount = (torch.rand(n, generator=draw) > 0.1).float()
    return Transition(obs, action, torch.randn(n, generator=draw), next_obs, discount)


def random_recorded(spec: EnvSpec, n: int, seed: int = 0) -> Recorded:
    """A data set of n rows [B] of random numbers, in order: episodes end where a row terminates, and with the last row."""
    batch = random_batch(spec, n, seed)
    next_known = torch.cat((batch.discount[:-1], torch.zeros(1)))
    return_to_go = batch.reward.clone()
    for i in reversed(range(n - 1)):
        return_to_go[i] += next_known[i] * return_to_go[i + 1]
    return Recorded(*batch, batch.action.roll(-1, 0), next_known, return_to_go, torch.arange(n))


def random_trajectory(spec: EnvSpec, steps: int, num_envs: int, seed: int = 0) -> Trajectory:
    """Consecutive steps [T, M] of random numbers: a tenth of them terminate, another tenth is truncated; log_prob as of random actions."""
    draw = torch.Generator().manual_seed(seed)
    rows = random_batch(spec, steps * num_envs, seed)
    action, reward = (x.reshape(steps, num_envs, *x.shape[1:]) for x in (rows.action, rows.reward))
    path = torch.randn(steps + 1, num_envs, spec.obs_dim, generator=draw)
    terminated, truncated = torch.rand(2, steps, num_envs, generator=draw) < 0.1
    ended = terminated | truncated
    next_obs = torch.where(ended[..., None], torch.randn(steps, num_envs, spec.obs_dim, generator=draw), path[1:])
    log_prob = -torch.rand(steps, num_envs, generator=draw) - 0.5
    return Trajectory(path[:-1], action, reward, next_obs, (~terminated).float(), ended, log_prob)
