"""The copy for inference equals its networks with every kernel, and its tensors keep their addresses."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mbkit.networks.frozen as frozen_module
from mbkit.networks.frozen import PACKED_ROWS, FrozenEnsemble
from mbkit.networks.kernels import MANY_ROWS
from mbkit.networks.mlp import EnsembleMLP, truncated_normal_init_

has_fused_linear = frozen_module._has_fused_linear


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 2 * MANY_ROWS), activation=st.sampled_from(["relu", "silu"]))
def test_frozen_ensemble_equals_the_network(rows, activation):
    net = EnsembleMLP(2, (3, 32, 32, 4), activation)
    frozen = FrozenEnsemble(2, net.sizes, activation, torch.device("cpu"), torch.float32)
    frozen.copy_(list(net.weight), list(net.bias))
    x = torch.randn(2, rows, 3)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), net(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("fused", [False, True])
def test_frozen_ensemble_packed_weights_follow_every_refill(activation, fused, monkeypatch):
    """With oneDNN's packed weights and without, the same as the network; a deep copy keeps the weights it was made from."""
    monkeypatch.setattr(frozen_module, "_has_fused_linear", (lambda: fused and has_fused_linear()))
    net, other = (EnsembleMLP(2, (3, 32, 32, 4), activation) for _ in range(2))
    frozen = FrozenEnsemble(2, net.sizes, activation, torch.device("cpu"), torch.float32)
    x = torch.randn(2, PACKED_ROWS + 3, 3)
    with torch.no_grad():
        frozen.copy_(list(net.weight), list(net.bias))
        twin = deepcopy(frozen)
        frozen.copy_(list(other.weight), list(other.bias))
        assert bool(frozen.packed) == (fused and has_fused_linear())
        torch.testing.assert_close(frozen(x), other(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(twin(x), net(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [10, 1100])
def test_frozen_ensemble_bfloat16_is_close(rows):
    torch.manual_seed(0)  # the largest of thousands of errors passes any bound now and then
    net = truncated_normal_init_(EnsembleMLP(2, (3, 64, 64, 4), "silu"))
    frozen = FrozenEnsemble(2, net.sizes, "silu", torch.device("cpu"), torch.bfloat16)
    with torch.no_grad():
        frozen.copy_(list(net.weight), list(net.bias))
        x = torch.randn(2, rows, 3)
        error = (frozen(x) - net(x)).abs().max() / net(x).std()
    assert frozen(x).dtype == torch.float32
    assert 0 < error < 0.05


def test_frozen_ensemble_refill_keeps_addresses():
    net = EnsembleMLP(2, (3, 8, 4))
    frozen = FrozenEnsemble(2, net.sizes, "relu", torch.device("cpu"), torch.float32)
    places = [w.data_ptr() for w in frozen.weight + frozen.bias + frozen.transposed]
    with torch.no_grad():
        frozen.copy_(list(net.weight), list(net.bias))
    assert places == [w.data_ptr() for w in frozen.weight + frozen.bias + frozen.transposed]
