"""The networks of the ensemble: inputs, predictions, densities and settings, as identities."""

from dataclasses import replace

import pytest
import torch
from systems import CPU, SMALL, SPEC, linear_gaussian, small_ensemble, zero_reward

from mbkit.config import compose
from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.network import EnsembleNetwork, soft_bounded_logvar
from mbkit.errors import UserError
from mbkit.types import EnvSpec, TaskKnowledge


def trained(cfg=SMALL, **known) -> EnsembleNetwork:
    return small_ensemble(cfg, **known).network


def test_soft_bounded_logvar_stays_in_its_bounds():
    raw = torch.linspace(-200, 200, 401)
    low, high = torch.tensor(-10.0), torch.tensor(0.5)
    logvar = soft_bounded_logvar(raw, low, high)
    assert (logvar >= low).all()
    assert (logvar <= high + 1e-4).all()


def test_encode_of_preprocessed_observations_and_discrete_actions():
    spec = EnvSpec(3, 4, CPU, discrete=True)
    network = EnsembleNetwork(spec, SMALL, TaskKnowledge(zero_reward, preprocess=lambda obs: obs[..., 1:].sin()))
    assert network.input_dim == 2 + 4
    assert network.encode(torch.zeros(1, 3), torch.tensor([2])).tolist() == [[0, 0, 0, 0, 1, 0]]


def test_encode_of_several_discrete_actions_is_their_one_hot_vectors_side_by_side():
    network = EnsembleNetwork(EnvSpec(1, 5, CPU, True, (3, 2)), SMALL)
    assert network.encode(torch.zeros(2, 1, 1), torch.tensor([[[2, 0]], [[0, 1]]])).tolist() == [[[0, 0, 0, 1, 1, 0]], [[0, 1, 0, 0, 0, 1]]]


@pytest.mark.parametrize(("reward", "dimensions"), [(None, 4), (zero_reward, 3)])
def test_predict_has_one_dimension_more_where_the_reward_is_learned(reward, dimensions):
    mean, var = trained(reward=reward).predict(torch.randn(7, 3), torch.rand(7, 2))
    assert mean.shape == var.shape == (4, 7, dimensions)


def test_predict_of_deterministic_members_has_no_variance():
    network = trained(replace(SMALL, probabilistic=False))
    assert not network.predict(torch.randn(6, 3), torch.zeros(6, 2)).var.any()


def test_predict_of_absolute_dimensions_adds_no_observation():
    network = EnsembleNetwork(SPEC, SMALL, TaskKnowledge(absolute=(0,)))
    with torch.no_grad():
        for p in network.net.parameters():
            p.zero_()
    assert network.predict(torch.ones(2, 3), torch.zeros(2, 2)).mean[0, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("changes", [{}, {"delta": False}, {"termination": "learned"}])
def test_outcome_is_the_inverse_of_predict(scaled, changes):
    """Predictions are built on the present observation exactly as targets are taken from it."""
    network, data = trained(replace(SMALL, scale_targets=scaled, **changes), absolute=(1,)), linear_gaussian(50)
    mean = network.predict(data.obs, data.action).mean[0].detach()
    raw = network.split(network.net(network.inputs(network.encode(data.obs, data.action))))[0][0]
    targets = network.outcome(data.obs, mean[:, :3], mean[:, 3])
    torch.testing.assert_close(targets, network.targets.inverse(raw).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("reward", [None, zero_reward])
def test_log_prob_is_torchs(reward, scaled):
    network, data = trained(replace(SMALL, scale_targets=scaled), reward=reward), linear_gaussian(50)
    mean, var = network.predict(data.obs, data.action)
    gaussian = torch.distributions.Normal(mean, var.sqrt())
    observed = data.next_obs if reward else torch.cat((data.next_obs, data.reward[:, None]), 1)
    each = gaussian.log_prob(observed)
    torch.testing.assert_close(network.log_prob(data.obs, data.action, data.next_obs, data.reward), each.sum(-1))
    torch.testing.assert_close(network.log_prob(data.obs, data.action, data.next_obs), each[..., :3].sum(-1))


def test_log_prob_integrates_to_one():
    """The mean density over a wide grid times its volume, for a model of one dimension."""
    torch.manual_seed(0)
    network = EnsembleNetwork(EnvSpec(1, 1, CPU), SMALL, TaskKnowledge(zero_reward)).double()
    grid = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]
    obs = torch.full_like(grid, 0.3)
    density = network.log_prob(obs, torch.zeros_like(grid), grid).exp()
    torch.testing.assert_close(density.mean(1) * 60, torch.ones(4, dtype=torch.float64), atol=1e-4, rtol=0)


def test_log_prob_gradient_in_parameters_and_arguments_by_finite_differences():
    torch.manual_seed(0)
    network = EnsembleNetwork(SPEC, replace(SMALL, hidden=(8,), scale_targets=True)).double()
    obs, action, next_obs, reward = (x.double().requires_grad_() for x in (*linear_gaussian(6)[:2], torch.randn(6, 3), torch.randn(6)))
    weights = torch.randn(4, 6).double()  # every member's density counts differently

    def value() -> torch.Tensor:
        return (weights * network.log_prob(obs, action, next_obs, reward)).sum()

    places = [network.net.weight[0], network.net.bias[1], network.logvar_bounds, obs, action, next_obs, reward]
    gradients = torch.autograd.grad(value(), places)
    for place, gradient in zip(places, gradients, strict=True):
        direction = torch.randn_like(place)
        with torch.no_grad():
            ends = [value() for step in (1e-5, -2e-5) if place.add_(step * direction) is not None]
            place.add_(1e-5 * direction)
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, (gradient * direction).sum(), rtol=1e-5, atol=1e-7)


def test_log_prob_of_deterministic_members_is_refused():
    data = linear_gaussian(5)
    with pytest.raises(UserError, match=r"log_prob needs members that predict a variance; came: dynamics\.probabilistic=false"):
        trained(replace(SMALL, probabilistic=False)).log_prob(data.obs, data.action, data.next_obs)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"elites": 9}, "elites"), ({"min_logvar": 1.0}, "min_logvar"), ({"holdout": 0.0, "max_epochs": None}, "max_epochs")],
)
def test_ensemble_config_with_contradicting_settings_is_refused(change, named):
    with pytest.raises(UserError, match=named):
        Ensemble(SPEC, replace(SMALL, **change))


def test_absolute_dimensions_beyond_the_observation_are_refused():
    with pytest.raises(UserError, match=r"absolute dimensions must lie in 0\.\.2, got \(3,\)"):
        Ensemble(SPEC, SMALL, TaskKnowledge(absolute=(3,)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_epochs": 0}, r"dynamics\.max_epochs=0 is out of range: expected >= 1"),
        ({"hidden": (16, 0)}, r"dynamics\.hidden=\(16, 0\) is out of range: expected >= 1"),
        ({"weight_decay": (0.0, -1e-5)}, r"dynamics\.weight_decay=.* expected >= 0"),
        ({"members": 0, "elites": 0}, r"dynamics\.members=0"),
        ({"batch": 0}, r"dynamics\.batch=0"),
        ({"patience": 0}, r"dynamics\.patience=0"),
        ({"lr": 0.0}, r"dynamics\.lr=0\.0 is out of range: expected > 0"),
        ({"holdout": 1.0}, r"dynamics\.holdout=1\.0 is out of range: expected in \[0\.0, 0\.9\]"),
    ],
)
def test_ensemble_config_out_of_range_is_refused_from_python_and_as_options(change, named):
    with pytest.raises(UserError, match=named):
        Ensemble(SPEC, replace(SMALL, **change))
    options = [f"dynamics.{k}={list(v) if isinstance(v, tuple) else v}" for k, v in change.items()]
    with pytest.raises(UserError, match=f"dynamics.{next(iter(change))}="):
        compose("pets", ["env=cartpole", *options])
