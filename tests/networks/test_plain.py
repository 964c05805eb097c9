"""Copies in torch's own layers: the same numbers, nothing shared, nothing of mbkit's fast paths."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mbkit.networks.form import CriticForm
from mbkit.networks.heads import ActionValues
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.normalizer import RunningNormalizer
from mbkit.networks.plain import GreedyRule, of_mode, plain
from mbkit.networks.policy import TanhGaussian


def observations(scale: float) -> torch.Tensor:
    """257 rows within +-scale."""
    return (torch.rand(257, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1) * scale


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_plain_action_values_take_the_smallest_critic(norm, members):
    torch.manual_seed(2)
    network = ActionValues(members, 3, 4, (16, 16), CriticForm("layer_norm" if norm else "mlp"))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    copy = plain(network)
    assert not any("mbkit" in type(m).__module__ for m in copy.net.members.modules())
    torch.testing.assert_close(copy(observations(5)), network(observations(5)), rtol=1e-5, atol=1e-5)
    assert torch.equal(copy.mode(observations(5)), network(observations(5)).amin(0).argmax(-1))


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_plain_members_take_shared_rows_or_their_own(activation):
    torch.manual_seed(0)
    net = EnsembleMLP(2, (3, 8, 8, 2), activation)
    copy, own_rows = plain(net), torch.randn(2, 5, 3)
    torch.testing.assert_close(copy(own_rows), net(own_rows))
    torch.testing.assert_close(copy(own_rows[0]), net(own_rows[0]))
    torch.testing.assert_close(copy(own_rows[:1], members=slice(1, 2)), net(own_rows[:1], members=slice(1, 2)))
    assert sorted({type(m).__name__ for m in copy.members[0]}) == sorted(["Linear", "ReLU" if activation == "relu" else "SiLU"])


def test_plain_drops_nothing_whatever_the_mode_of_the_network():
    net = EnsembleMLP(1, (3, 64, 1), dropout=0.5).train()
    copy = plain(net)
    torch.testing.assert_close(copy(observations(1)), net.eval()(observations(1)))


def policy_with_statistics() -> TanhGaussian:
    """A policy that sees observations through a normaliser, far from the identity."""
    policy = TanhGaussian(3, 2, (8,))
    policy.inputs = RunningNormalizer(3, clip=2.0)
    policy.inputs.update(50 + 7 * torch.randn(100, 3))
    return policy


def test_plain_policy_has_its_normaliser_and_clip():
    policy = policy_with_statistics()
    copy = plain(of_mode(policy))
    torch.testing.assert_close(copy(observations(1000)), policy.mode(observations(1000)))
    assert {name.rpartition(".")[2] for name, _ in copy.named_buffers()} == {"mean", "std"}


def test_plain_leaves_the_networks_and_the_random_numbers_alone():
    policy = policy_with_statistics()
    before, state = deepcopy(policy.state_dict()), torch.get_rng_state()
    copy = plain(of_mode(policy))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for p in copy.parameters())
    with torch.no_grad():
        for tensor in (*copy.parameters(), *copy.buffers()):
            tensor.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert all(p.requires_grad for p in policy.parameters())


def test_plain_network_in_two_places_stays_one():
    net = EnsembleMLP(1, (3, 2))
    copy = plain(nn.ModuleList([nn.Sequential(net), nn.Sequential(net)]))
    assert copy[0][0] is copy[1][0]


def test_greedy_rule_is_called_with_copies_of_its_parts():
    table, net = torch.tensor([[1.0], [2.0]]), ActionValues(1, 3, 2, (4,))
    rule = GreedyRule(lambda obs, values, table: table.index_select(0, values.mode(obs)), values=net, table=table)
    expected = table[net.mode(observations(1))]
    copy = plain(rule)
    table.zero_()
    assert torch.equal(copy(observations(1)), expected)
    assert not rule(observations(1)).any()
