"""FusedAdam: torch's Adam by another door."""

from copy import deepcopy

import torch
from torch import nn

from mbkit.networks.optimizers import FusedAdam


def problem(seed=0):
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(()))]


def gradients(n):
    torch.manual_seed(100 + n)
    return [torch.randn(3, 4), torch.randn(5), torch.randn(())]


def test_steps_are_those_of_torch():
    mine, other = problem(), problem()
    ours, theirs = FusedAdam(mine, 1e-2), torch.optim.Adam(other, lr=1e-2, fused=True)
    for n in range(5):
        ours.descend(gradients(n))
        for p, g in zip(other, gradients(n), strict=True):
            p.grad = g
        theirs.step()
    assert all(map(torch.equal, mine, other))
    assert all(p.grad is None for p in mine)
    for a, b in zip(ours.state_dict()["state"].values(), theirs.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_goes_on_from_a_saved_state_and_from_a_copy():
    params = problem()
    optimizer = FusedAdam(params, 1e-2)
    for n in range(3):
        optimizer.descend(gradients(n))
    saved, values = deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params]
    twin_params, twin = deepcopy((params, optimizer))
    optimizer.descend(gradients(3))
    twin.descend(gradients(3))
    assert all(map(torch.equal, params, twin_params))
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for p, v in zip(params, values, strict=True):
            p.copy_(v)
    optimizer.descend(gradients(3))
    assert all(map(torch.equal, params, twin_params))
