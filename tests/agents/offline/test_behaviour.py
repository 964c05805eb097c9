"""Values of a policy's actions, and the action of the following row, by hand."""

import math

import pytest
import torch
from recorded_batches import recorded
from toys import WIDE

from mbkit.agents.offline.base import make_critics, stochastic_policy
from mbkit.agents.offline.behaviour import expectation, following_action, repeated, values_under
from mbkit.networks.distributions import Categorical, ClippedGaussian
from mbkit.testing import random_batch

DISCRETE = WIDE._replace(discrete=True, action_dim=3)


def test_expectation_by_hand():
    q, p = torch.tensor([[1.0, 5.0], [2.0, -2.0]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert expectation(q, p.log()).tolist() == pytest.approx([4.0, 0.0])


def test_values_under_are_exact_for_discrete_actions():
    torch.manual_seed(0)
    critics, obs = make_critics(DISCRETE, 2, (8,)), random_batch(DISCRETE, 5).obs
    policy = stochastic_policy(DISCRETE, (8,))(obs)
    q, log_prob, sampled = values_under(critics, obs, policy, 1)
    assert torch.equal(q, critics(obs))
    assert torch.equal(log_prob, policy.log_probs())
    assert sampled.shape == (5,)
    assert not q.requires_grad


def test_values_under_samples_of_continuous_actions_belong_to_their_rows():
    torch.manual_seed(0)
    critics, obs = make_critics(WIDE, 2, (8,)), 10 * random_batch(WIDE, 4).obs
    still = ClippedGaussian(torch.rand(4, 2) - 0.5, torch.full((4, 2), -20.0))  # all samples are the mean
    q, log_prob, sampled = values_under(critics, obs, still, 3)
    torch.testing.assert_close(q, critics(obs, still.mean).detach()[..., None].expand(2, 4, 3))
    torch.testing.assert_close(log_prob, torch.full((4, 3), -math.log(3)))
    torch.testing.assert_close(sampled, still.mean)


def test_values_under_the_first_sample_is_the_returned_one():
    torch.manual_seed(0)
    critics, obs = make_critics(WIDE, 2, (8,)), random_batch(WIDE, 4).obs
    q, _, sampled = values_under(critics, obs, stochastic_policy(WIDE, (8,))(obs), 5)
    torch.testing.assert_close(q[..., 0], critics(obs, sampled).detach())
    assert not torch.equal(q[..., 0], q[..., 1])


def test_values_of_discrete_actions_need_a_categorical_policy():
    obs = random_batch(DISCRETE, 4).obs
    with pytest.raises(TypeError, match="expected a Categorical policy"):
        values_under(make_critics(DISCRETE, 1, (8,)), obs, ClippedGaussian(obs, obs), 1)


def test_repeated_rows_by_hand():
    assert repeated(Categorical(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), 2).logits.tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]


@pytest.mark.parametrize("discrete", [False, True])
def test_following_action_is_the_recorded_one_where_there_is_one(discrete):
    action = torch.tensor([0, 1, 2, 0]) if discrete else torch.tensor([[0.1], [0.2], [0.3], [0.4]])
    zeros = torch.zeros(4, 1)
    data = recorded(zeros, action, torch.zeros(4), zeros, torch.ones(4), [3, 1])
    behaviour = Categorical(torch.tensor([[-1e9, -1e9, -1e9, 0.0]] * 4)) if discrete else ClippedGaussian(zeros - 0.5, zeros - 20)
    drawn = 3 if discrete else [-0.5]
    expected = [1, 2, drawn, drawn] if discrete else [[0.2], [0.3], drawn, drawn]
    assert following_action(data, behaviour).tolist() == (expected if discrete else [pytest.approx(x) for x in expected])
    assert following_action(random_batch(WIDE, 4), behaviour).tolist() == [drawn] * 4  # transitions know no next action
