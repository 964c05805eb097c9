"""Discrete CQL(H) networks: the loss and the exact critic."""

import numpy as np
import torch

from mbkit.theory import conservative as cql
from mbkit.theory import conservative_discrete_nets as nets


def test_network_loss_is_stationary_at_the_exact_critic():
    rng = np.random.default_rng(3)
    n, y, lam = rng.random((2, 6, 4)), rng.normal(size=(2, 6, 4)), np.array([0.7, 20.0])
    n /= n.sum((1, 2), keepdims=True)
    q, _, _ = cql.critic(y, n / n.sum(-1, keepdims=True), lam[:, None, None])
    leaf = torch.tensor(q, requires_grad=True)
    nets.network_loss(leaf, torch.tensor(y), torch.tensor(n), torch.tensor(lam)).backward()
    assert leaf.grad.abs().max() < 1e-10
    nets.network_loss(other := torch.tensor(q + 1, requires_grad=True), torch.tensor(y), torch.tensor(n), torch.tensor(lam)).backward()
    assert other.grad.abs().max() > 1e-3
