"""The first critic alone equals the first of all, and PopArt changes no value."""

import pytest
import torch

from mbkit.networks.form import CriticForm
from mbkit.networks.heads import Critics, StateValue, ValueNetwork


@pytest.mark.parametrize("critic", ["mlp", "layer_norm"])
def test_critics_first_equals_the_first_of_all(critic):
    critics = Critics(3, 4, 2, (16, 16), CriticForm(critic))
    obs, action = torch.randn(9, 4), torch.randn(9, 2, requires_grad=True)
    q = critics.first(obs, action)
    torch.testing.assert_close(q, critics(obs, action)[0])
    (mine,), (theirs,) = (torch.autograd.grad(v.sum(), action) for v in (q, critics(obs, action)[0]))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("times", [1, 3])
def test_value_network_rescale_changes_no_value(times):
    """PopArt: the statistics change, the values in raw units do not."""
    torch.manual_seed(0)
    critic, obs = ValueNetwork(3, (16,)), torch.randn(20, 3)
    before, normalized = critic(obs), critic.normalized(obs)
    for k in range(times):
        critic.rescale(torch.randn(50) * 30 - 100 * k - 200)
    torch.testing.assert_close(critic(obs), before, atol=1e-3, rtol=1e-4)
    assert (critic.normalized(obs) - normalized).abs().min() > 0.1
    target = torch.randn(20)
    torch.testing.assert_close(critic.normalizer.inverse(critic.normalizer(target)), target, atol=1e-4, rtol=1e-4)


def test_state_value_is_a_number_for_each_observation_through_its_normaliser():
    value, obs = StateValue(3, (8, 8)), torch.randn(5, 3)
    before = value(obs)
    assert before.shape == (5,)
    value.inputs = torch.nn.Threshold(100, 0)  # every observation becomes 0
    assert torch.equal(value(obs), value.net(torch.zeros(5, 3))[0, :, 0])
    assert not torch.equal(value(obs), before)
