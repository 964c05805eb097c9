"""Kernels equal the plain computation: chunks of rows, members of a slice, constant parameters."""

import pytest
import torch
import torch.nn.functional as F

from mbkit.networks.frozen import FrozenEnsemble
from mbkit.networks.kernels import CHUNK_ROWS, FEW_ROWS, NARROW, affine, dropout_factors, many_rows_mlp, relu_mlp
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


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("rows", [FEW_ROWS - 1, FEW_ROWS])
@pytest.mark.parametrize("width", [1, 2, NARROW, NARROW + 1])
def test_narrow_products_and_their_gradients_equal_the_plain_ones(members, rows, width):
    torch.manual_seed(0)
    net = EnsembleMLP(members, (4, 16, width)).double()
    x = torch.randn(rows, 4, dtype=torch.float64, requires_grad=True)
    inputs, push = [x, *net.parameters()], torch.randn(members, rows, width, dtype=torch.float64)
    hidden = torch.baddbmm(net.bias[0], x.expand(members, -1, -1), net.weight[0]).relu()
    plain = torch.baddbmm(net.bias[1], hidden, net.weight[1])
    assert net(x).is_contiguous()
    torch.testing.assert_close(net(x), plain)
    torch.testing.assert_close(affine(net.bias[1][0], hidden[0], net.weight[1][0]), plain[0])
    grads = torch.autograd.grad(net(x), inputs, push)
    torch.testing.assert_close(grads, torch.autograd.grad(plain, inputs, push))
    assert all(grad.is_contiguous() for grad in grads)  # fused Adam reads memory in order


NORMED = [(True, 0.0), (False, 0.05), (False, 0.3), (True, 0.05), (True, 0.3)]


def reference(net: EnsembleMLP, x: torch.Tensor) -> torch.Tensor:
    """The network in small operations, differentiated by autograd, with the dropout that the kernel draws."""
    x = x.expand(net.members, *x.shape[-2:])
    for n, (w, b) in enumerate(net.layers[:-1]):
        x = torch.baddbmm(b, x, w)
        if net.dropout and net.training:
            x = x * dropout_factors(x, net.dropout)
        x = (F.layer_norm(x, x.shape[-1:]) * net.gain[n] + net.shift[n] if net.gain else x).relu()
    return torch.baddbmm(net.bias[-1], x, net.weight[-1])


def normed_net(layer_norm: bool, dropout: float) -> EnsembleMLP:
    torch.manual_seed(0)
    net = EnsembleMLP(3, (4, 16, 8, 2), layer_norm=layer_norm, dropout=dropout).double()
    for p in (*net.gain, *net.shift):
        p.data += 0.3 * torch.randn_like(p)
    return net


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer_norm", "dropout"), NORMED)
def test_normed_relu_mlp_outputs_and_gradients_equal_autograd_s(layer_norm, dropout, training, shared):
    net = normed_net(layer_norm, dropout).train(training)
    x = torch.randn(*(() if shared else (3,)), 7, 4, dtype=torch.float64, requires_grad=True)
    push, results = torch.randn(3, 7, 2, dtype=torch.float64), []
    for forward in (net, lambda x: reference(net, x)):
        torch.manual_seed(1)
        out = forward(x)
        results.append((out, *torch.autograd.grad((out * push).sum(), [x, *net.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)
    with torch.no_grad():
        torch.manual_seed(1)
        torch.testing.assert_close(net(x), results[0][0])


@pytest.mark.parametrize(("layer_norm", "dropout"), NORMED)
def test_normed_relu_mlp_fixed_gives_a_gradient_to_the_input_alone(layer_norm, dropout):
    net, slopes = normed_net(layer_norm, dropout), []
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    for fixed in (True, False):
        torch.manual_seed(1)
        out = net(x, fixed=fixed).square().sum()
        slopes.append(torch.autograd.grad(out, x, retain_graph=True)[0])
        used = torch.autograd.grad(out, list(net.parameters()), allow_unused=True)
        assert all((slope is None) == fixed for slope in used)
    assert torch.equal(*slopes)


@pytest.mark.parametrize("options", [{"layer_norm": True}, {"dropout": 0.1}])
def test_ensemble_mlp_normalisation_before_another_activation_is_refused(options):
    with pytest.raises(ValueError, match="before a ReLU, not before 'silu'"):
        EnsembleMLP(2, (3, 4, 1), "silu", **options)


@pytest.mark.parametrize("p", [0.001, 0.01, 0.1, 0.3])
def test_dropout_factors_are_independent_with_probability_p(p):
    """Counts, their variance over draws and the share of neighbours of a dropped element that are dropped too: binomial."""
    torch.manual_seed(0)
    draws, x, masks = 200, torch.zeros(40, 50), []
    for _ in range(draws):
        factors = dropout_factors(x, p)
        masks.append(factors.flatten() == 0)
        assert factors.max().item() == pytest.approx(1 / (1 - p))
    mask = torch.stack(masks).double()
    n = mask.numel()
    assert abs(mask.mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert abs(mask.sum(1).var() / (2000 * p * (1 - p)) - 1) < 4 * (2 / draws) ** 0.5
    both = (mask[:, 1:] * mask[:, :-1]).mean()
    assert abs(both - p**2) < 5 * p / n**0.5
    assert abs(mask[:, 0].mean() - p) < 4 * (p / draws) ** 0.5  # the first and the last are no exception
    assert abs(mask[:, -1].mean() - p) < 4 * (p / draws) ** 0.5


def test_relu_mlp_fixed_gives_a_gradient_to_the_input_alone():
    net, x = EnsembleMLP(2, (4, 16, 2)), torch.randn(7, 4, requires_grad=True)
    slopes = []
    for fixed in (True, False):
        out = relu_mlp(x, net.layers, fixed=fixed).square().sum()
        slopes.append(torch.autograd.grad(out, x, retain_graph=True)[0])
        used = torch.autograd.grad(out, list(net.parameters()), allow_unused=True)
        assert all((slope is None) == fixed for slope in used)
    assert torch.equal(*slopes)
