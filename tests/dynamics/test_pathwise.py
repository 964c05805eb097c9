"""Model steps with gradients: the same step, the members' own slopes, and nothing through what is decided."""

from dataclasses import replace

import pytest
import torch
from systems import SMALL, SPEC, linear_gaussian, small_ensemble

from mbkit.dynamics.local_linear import LocalLinear, LocalLinearConfig
from mbkit.dynamics.propagation import ONE_ELITE
from mbkit.envs import task_knowledge
from mbkit.envs.rewards import GYMNASIUM
from mbkit.errors import UserError
from mbkit.types import EnvSpec


def grads(step, obs, action, seed=1):
    """The step, and the gradients of a random sum of its observation and reward in obs and action."""
    torch.manual_seed(seed)
    out = step(obs, action, grad=True)
    weight = torch.linspace(-1, 1, out.obs.numel()).view_as(out.obs)
    return out, torch.autograd.grad((weight * out.obs).sum() + out.reward.sum(), (obs, action))


def rows(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(n, 3, generator=draw).requires_grad_(), (torch.rand(n, 2, generator=draw) * 2 - 1).requires_grad_()


KNOWN = {
    "learned": {},
    "known": {"reward": lambda o, a, n: o.sum(-1) * a[..., 0] - n.square().sum(-1), "termination": lambda o, a, n: n[..., 0] > 0.5},
    "part": {"reward_part": lambda o, a, n: a.square().sum(-1)},
}


@pytest.mark.parametrize("propagation", ONE_ELITE)
@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("options", [{}, {"termination": "learned"}, {"probabilistic": False}, {"delta": False, "scale_targets": False}])
@pytest.mark.parametrize("n", [12, 13])
def test_ensemble_step_with_gradient_is_the_step(propagation, known, options, n):
    if known == "known" and "termination" in options:
        options = {}
    model = small_ensemble(replace(SMALL, propagation=propagation, **options), **KNOWN[known])
    obs, action = rows(n)
    torch.manual_seed(1)
    plain = model.step(obs, action)
    out, slopes = grads(model.step, obs, action)
    assert not plain.obs.requires_grad
    torch.testing.assert_close(out.obs, plain.obs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.reward, plain.reward, rtol=1e-4, atol=1e-5)
    assert torch.equal(out.terminated, plain.terminated)
    assert all(slope.isfinite().all() and (slope != 0).any(1).all() for slope in slopes)
    assert all(p.grad is None for p in model.network.parameters())
    with torch.no_grad():
        torch.manual_seed(1)
        assert torch.equal(model.step(obs, action).obs, plain.obs)  # which the other path left as it was


def test_ensemble_slopes_are_those_of_the_network_row_by_row():
    """Without noise: the slope of the elite's mean, by the way of the network with its normalisers."""
    model = small_ensemble(replace(SMALL, probabilistic=False))
    obs, action = rows(7)
    _, slopes = grads(model.step, obs, action)
    mean = model.network.predict(obs, action).mean[model.network.elites]
    row = torch.arange(7)
    mine = mean[row * 3 // 7, row]
    weight = torch.linspace(-1, 1, 21).view(7, 3)
    expected = torch.autograd.grad((weight * mine[:, :3]).sum() + mine[:, 3].sum(), (obs, action))
    for a, b in zip(slopes, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_ensemble_noise_is_reparameterised():
    """The slope of mean + std noise, noise being what made the outcome of the other rows' mean and std."""
    model = small_ensemble(replace(SMALL, members=1, elites=1))
    obs, action = rows(8)
    out, slopes = grads(model.step, obs, action)
    mean, var = (x[0] for x in model.network.predict(obs, action))
    noise = ((torch.cat((out.obs, out.reward[:, None]), 1) - mean) / var.sqrt()).detach()
    outcome = mean + var.sqrt() * noise
    weight = torch.linspace(-1, 1, 24).view(8, 3)
    expected = torch.autograd.grad((weight * outcome[:, :3]).sum() + outcome[:, 3].sum(), (obs, action))
    for a, b in zip(slopes, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


def test_ensemble_step_with_gradient_predicts_too():
    model = small_ensemble()
    obs, action = rows(6)
    prediction = model.step(obs, action, predict=True, grad=True).prediction
    assert not prediction.mean.requires_grad
    assert torch.equal(prediction.mean, model.network.predict_targets(obs, action).mean)


@pytest.mark.parametrize("propagation", ["expectation", "moment_matching"])
def test_ensemble_refuses_gradients_through_all_members(propagation):
    with pytest.raises(UserError, match=rf"dynamics\.propagation={propagation}: a gradient passes through one member for each row"):
        small_ensemble(replace(SMALL, propagation=propagation), fit=False).step(*rows(6), grad=True)


def test_bfloat16_layers_have_nearly_the_same_slopes():
    exact, coarse = (small_ensemble(replace(SMALL, probabilistic=False, precision=p)) for p in ("float32", "bfloat16"))
    obs, action = rows(12)
    for a, b in zip(grads(exact.step, obs, action)[1], grads(coarse.step, obs, action)[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("noise", ["sample", "mean"])
def test_local_linear_slopes_equal_finite_differences(noise):
    torch.manual_seed(0)
    model = LocalLinear(SPEC, LocalLinearConfig(centres=3, noise=noise))
    model.fit(linear_gaussian(300))
    obs, action = rows(6)
    torch.manual_seed(1)
    plain = model.step(obs, action)
    out, slopes = grads(model.step, obs, action)
    torch.testing.assert_close(out.obs, plain.obs)
    weight, size = torch.linspace(-1, 1, 18).view(6, 3), 1e-3

    def total(o, a):
        torch.manual_seed(1)
        step = model.step(o, a)
        return float((weight * step.obs).sum() + step.reward.sum())

    with torch.no_grad():
        for x, slope, call in ((obs, slopes[0], lambda o: total(o, action)), (action, slopes[1], lambda a: total(obs, a))):
            direction = torch.randn_like(x)
            rate = (call(x + size * direction) - call(x - size * direction)) / (2 * size)
            assert rate == pytest.approx(float((slope * direction).sum()), rel=0.02, abs=0.02)


TASKS = {"Hopper-v5": 11, "HalfCheetah-v5": 17, "Walker2d-v5": 17, "Swimmer-v5": 8, "Ant-v5": 27, "Humanoid-v5": 45, "Pendulum-v1": 3}
TASKS |= {"InvertedDoublePendulum-v5": 9, "InvertedPendulum-v5": 4, "Reacher-v5": 10, "Pusher-v5": 23, "MountainCarContinuous-v0": 2}
TASKS |= {"cartpole": 4, "halfcheetah": 18, "reacher": 17, "pusher": 20}
ACTIONS = {"Pendulum-v1": 1, "InvertedPendulum-v5": 1, "MountainCarContinuous-v0": 1, "cartpole": 1, "InvertedDoublePendulum-v5": 1}


@pytest.mark.parametrize("name", TASKS)
def test_known_rewards_are_differentiated(name):
    """Rewards, or their known part, against central differences where nothing jumps."""
    spec = EnvSpec(TASKS[name], ACTIONS.get(name, 7), torch.device("cpu"))
    task = task_knowledge(name, spec)
    reward = task.reward or task.reward_part
    assert reward is not None
    torch.manual_seed(0)
    inputs = [
        x.double().requires_grad_()
        for x in (torch.rand(5, TASKS[name]) + 0.2, torch.rand(5, spec.action_dim), torch.rand(5, TASKS[name]) + 0.3)
    ]
    value = reward(*inputs)
    if not value.requires_grad:  # a constant where nothing falls
        assert name == "InvertedPendulum-v5"
        return
    slopes = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    assert any(slope is not None for slope in slopes)
    for i, slope in enumerate(slopes):
        direction, size = torch.randn_like(inputs[i]), 1e-6
        with torch.no_grad():
            moved = [[x + sign * size * direction if j == i else x for j, x in enumerate(inputs)] for sign in (1, -1)]
            rate = (reward(*moved[0]) - reward(*moved[1])) / (2 * size)
        expected = torch.zeros(5, dtype=torch.float64) if slope is None else (slope * direction).sum(1)
        torch.testing.assert_close(rate, expected, rtol=1e-5, atol=1e-6)


def test_known_rewards_are_all_there():
    assert {name for name in GYMNASIUM if name not in ("CartPole-v1", "MountainCar-v0")} <= set(TASKS)
