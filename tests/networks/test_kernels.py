"""Kernels equal the plain computation: chunks of rows, members of a slice, constant parameters."""

import pytest
import torch

from mbkit.networks.frozen import FrozenEnsemble
from mbkit.networks.kernels import CHUNK_ROWS, many_rows_mlp, relu_mlp
from mbkit.networks.mlp import EnsembleMLP


@pytest.mark.parametrize("rows", [CHUNK_ROWS - 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 5])
def test_member_by_member_chunks_equal_one_piece(rows):
    net = EnsembleMLP(2, (3, 16, 2))
    frozen = FrozenEnsemble(2, net.sizes, "relu", torch.device("cpu"), torch.float32)
    x = torch.randn(2, rows, 3)
    whole = net(x).detach()  # with gradient: in one piece
    with torch.no_grad():
        frozen.copy_(list(net.weight), list(net.bias))
        torch.testing.assert_close(net(x), whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(frozen(x), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_many_rows_mlp_equals_the_batched_product(activation):
    net, x = EnsembleMLP(3, (4, 16, 2), activation), torch.randn(3, 50, 4)
    with torch.no_grad():
        torch.testing.assert_close(many_rows_mlp(x, net.layers, activation), net(x), atol=1e-5, rtol=1e-5)


def test_relu_mlp_of_a_slice_equals_those_members():
    net, x = EnsembleMLP(3, (4, 16, 2)), torch.randn(7, 4)
    torch.testing.assert_close(relu_mlp(x, net.layers, slice(1, 3)), net(x)[1:])


def test_relu_mlp_fixed_gives_a_gradient_to_the_input_alone():
    net, x = EnsembleMLP(2, (4, 16, 2)), torch.randn(7, 4, requires_grad=True)
    slopes = []
    for fixed in (True, False):
        out = relu_mlp(x, net.layers, fixed=fixed).square().sum()
        slopes.append(torch.autograd.grad(out, x, retain_graph=True)[0])
        used = torch.autograd.grad(out, list(net.parameters()), allow_unused=True)
        assert all((slope is None) == fixed for slope in used)
    assert torch.equal(*slopes)
