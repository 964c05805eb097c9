"""Local linear models: recovery of known systems, limits of the prior, and one-step error on a real task."""

from dataclasses import replace

import pytest
import torch
from systems import CPU, NOISE, SPEC, A, B, linear_gaussian

from mbkit.config import compose
from mbkit.dynamics.local_linear import LocalLinear, LocalLinearConfig, k_means, local_fits, nearest, outputs, pooled, scattered
from mbkit.envs import known, make
from mbkit.errors import UserError
from mbkit.registry import dynamics
from mbkit.types import Dynamics, EnvSpec, Learnable, Predictive, Stateful, TaskKnowledge, Transition

SMALL = LocalLinearConfig(centres=4)
FEW = EnvSpec(2, 1, CPU)


def model(cfg: LocalLinearConfig = SMALL, spec: EnvSpec = SPEC, data: Transition | None = None, **knowledge) -> LocalLinear:
    torch.manual_seed(0)
    out = LocalLinear(spec, cfg, TaskKnowledge(**knowledge))
    if data is not None:
        out.fit(data)
    return out


def jacobian(m: LocalLinear, obs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """d next observation / d (obs, action), at one row."""
    return torch.autograd.functional.jacobian(lambda o, a: m.predict(o[None], a[None]).mean[0, 0, : len(o)], (obs, action))


def folded(rows: int) -> Transition:
    """A kink: x' = x + 0.1 a, but from the right half x_0 is thrown back as -0.5 x_0 + 1."""
    obs, action = torch.rand(rows, 2) * 4 - 2, torch.rand(rows, 1) * 2 - 1
    thrown = torch.where(obs[:, 0] > 0, 1 - 0.5 * obs[:, 0], obs[:, 0])
    following = torch.stack((thrown, obs[:, 1]), 1) + 0.1 * action
    return Transition(obs, action, following.sum(1), following, torch.ones(rows))


def test_local_linear_is_registered_and_fulfils_the_protocols():
    assert dynamics["local_linear"].target is LocalLinear
    for protocol in (Dynamics, Predictive, Learnable, Stateful):
        assert isinstance(model(), protocol)


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("centres", [1, 8])
def test_fit_recovers_a_linear_system(centres, delta):
    data = linear_gaussian(1000, noise=torch.zeros(3))
    data = data._replace(obs=data.obs + 5, next_obs=data.next_obs + 5)  # an offset goes to the intercept
    m = model(LocalLinearConfig(centres=centres, delta=delta), data=data)
    for row in range(5):
        of_obs, of_action = jacobian(m, data.obs[row], data.action[row])
        torch.testing.assert_close(of_obs, A.T, atol=1e-4, rtol=0)
        torch.testing.assert_close(of_action, B.T, atol=1e-4, rtol=0)
    p = m.predict(data.obs, data.action)
    torch.testing.assert_close(p.mean[0], torch.cat((data.next_obs, data.reward[:, None]), 1), atol=1e-4, rtol=0)
    assert p.var.max() < 1e-4


@pytest.mark.parametrize("centres", [1, 8])
def test_fit_recovers_the_noise(centres):
    m = model(LocalLinearConfig(centres=centres), data=linear_gaussian(5000))
    truth = torch.cat((NOISE, NOISE.square().sum().sqrt()[None])).square()  # the reward is the sum of x'
    rows = m.predict(torch.randn(1000, 3), torch.zeros(1000, 2))
    torch.testing.assert_close(rows.var[0].mean(0), truth, rtol=0.06, atol=0)
    obs, action = torch.randn(1, 3), torch.zeros(1, 2)
    draws = m.step(obs.expand(20000, 3), action.expand(20000, 2)).obs
    p = m.predict(obs, action)
    torch.testing.assert_close(draws.std(0), p.var[0, 0, :3].sqrt(), rtol=0.03, atol=0)
    torch.testing.assert_close(draws.mean(0), p.mean[0, 0, :3], rtol=0, atol=float(5 * NOISE.max() / 20000**0.5))


def test_local_fits_count_degrees_of_freedom():
    """With 4 features and 12 rows in a lone centre, dividing by the rows would give two thirds of the variance."""
    torch.manual_seed(0)
    variances = []
    for _ in range(400):
        x, y = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
        (fit,) = local_fits(x, y, torch.zeros(12, dtype=torch.int64), 1, 1e-6, [1e-3])
        variances.append(fit.var[0, 0])
    assert 0.9 < torch.stack(variances).mean() < 1.1


def test_pooled_is_the_prior_without_rows_and_the_residual_variance_with_many():
    squares, prior = torch.tensor([8.0]), torch.tensor([3.0])
    assert pooled(0 * squares, torch.tensor([0.0]), prior) == prior
    assert pooled(squares, torch.tensor([3.0]), prior) == (8 + 3) / 4
    assert abs(pooled(1e6 * squares, torch.tensor([1e6]), prior) - 8) < 1e-4


def test_local_linear_beats_one_linear_model_where_the_system_is_piecewise_linear():
    torch.manual_seed(1)
    train, test = folded(2000), folded(500)
    clear = test.obs[:, 0].abs() > 0.3  # a centre's region may straddle the kink
    local, common = (model(LocalLinearConfig(centres=c), FEW, train) for c in (24, 1))
    error = [(m.predict(test.obs, test.action).mean[0, :, :2] - test.next_obs).square().mean(1) for m in (local, common)]
    assert error[0].mean() < error[1].mean() / 10
    assert error[0][clear].median() < error[1][clear].median() / 1000
    of_obs = [jacobian(local, torch.tensor([at, 0.0]), torch.zeros(1))[0][0, 0] for at in (-1.5, 1.5)]
    torch.testing.assert_close(torch.stack(of_obs), torch.tensor([1.0, -0.5]), atol=0.02, rtol=0)


def test_shrinkage_limits_are_the_fit_to_all_rows_and_separate_fits():
    """Strong: every centre is the fit to all rows. Weak: least squares of its own rows. A centre without rows is the fit to all, too."""
    torch.manual_seed(0)
    x, y = torch.randn(400, 3, dtype=torch.float64), torch.randn(400, 2, dtype=torch.float64)
    centre = torch.randint(3, (400,))  # none in centre 3
    weak, strong = local_fits(x, y, centre, 4, 1e-6, [1e-9, 1e9])
    x1 = torch.nn.functional.pad(x, (0, 1), value=1.0)
    common = torch.linalg.lstsq(x1, y).solution
    torch.testing.assert_close(strong.coef, common[:, None].expand_as(strong.coef), atol=1e-6, rtol=0)
    torch.testing.assert_close(weak.coef[:, 3], common, atol=1e-6, rtol=0)
    for c in range(3):
        separate = torch.linalg.lstsq(x1[centre == c], y[centre == c]).solution
        torch.testing.assert_close(weak.coef[:, c], separate, atol=1e-6, rtol=0)
    torch.testing.assert_close(weak.var[3], (y - x1 @ common).square().sum(0) / 396, rtol=0.01, atol=0)


def test_shrinkage_is_that_many_rows_of_the_common_fit():
    """The closed form against ridge regression with the prior rows written out."""
    torch.manual_seed(0)
    x, y = torch.randn(50, 2, dtype=torch.float64), torch.randn(50, 1, dtype=torch.float64)
    centre = (torch.arange(50) >= 8).long()  # 8 rows in centre 0
    (fit,) = local_fits(x, y, centre, 2, 1e-6, [3.0])
    x1 = torch.nn.functional.pad(x, (0, 1), value=1.0)
    fictive = x1 * (3.0 / 50) ** 0.5  # all rows, each 3 / 50 of one
    common = torch.linalg.lstsq(x1, y).solution
    both = torch.linalg.lstsq(torch.cat((x1[:8], fictive)), torch.cat((y[:8], fictive @ common))).solution
    torch.testing.assert_close(fit.coef[:, 0], both, atol=1e-6, rtol=0)


def test_fit_chooses_the_shrinkage_by_hold_out():
    """Where all is one noisy line, many centres with few rows each are pulled to it; where there is a kink, they are not."""

    def error(shrinkage: tuple[float, ...], spec: EnvSpec, train: Transition, test: Transition) -> torch.Tensor:
        m = model(LocalLinearConfig(centres=32, shrinkage=shrinkage), spec, train)
        return (m.predict(test.obs, test.action).mean[0, :, : spec.obs_dim] - test.next_obs).square().mean()

    line, kink = (linear_gaussian(400), linear_gaussian(2000, torch.zeros(3))), (folded(2000), folded(500))
    weak, choice, strong = (0.01,), (0.01, 100.0), (100.0,)
    assert error(choice, SPEC, *line) == error(strong, SPEC, *line) < error(weak, SPEC, *line) / 3
    assert error(choice, FEW, *kink) == error(weak, FEW, *kink) < error(strong, FEW, *kink) / 3


def test_k_means_finds_blobs():
    torch.manual_seed(0)
    truth = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    x = (truth[:, None] + 0.1 * torch.randn(4, 50, 2)).flatten(0, 1)
    centres = k_means(x, 4, 5)
    assert sorted(nearest(truth, centres).tolist()) == [0, 1, 2, 3]
    assert (centres[nearest(truth, centres)] - truth).abs().max() < 0.1
    assert torch.equal(nearest(x, centres), torch.cdist(x, centres).argmin(1))


def test_k_means_takes_equal_rows_and_more_centres_than_rows():
    assert scattered(torch.ones(3, 2), 5).tolist() == [[1, 1]] * 5
    assert k_means(torch.ones(3, 2), 5, 3).isfinite().all()
    data = linear_gaussian(3)
    m = model(LocalLinearConfig(centres=50), data=data)
    assert m.predict(data.obs, data.action).mean.isfinite().all()


def test_outputs_are_each_rows_own_model():
    x, coef, centre = torch.randn(7, 3), torch.randn(4, 5, 2), torch.randint(5, (7,))
    one_by_one = torch.stack([row @ coef[:-1, c] + coef[-1, c] for row, c in zip(x, centre, strict=True)])
    torch.testing.assert_close(outputs(x, coef, centre), one_by_one)


def test_fit_uses_the_window_only():
    old, recent = linear_gaussian(300), linear_gaussian(200)
    both = Transition(*(torch.cat(c) for c in zip(old._replace(next_obs=old.next_obs * 100)[:5], recent[:5], strict=True)))
    a, b = model(replace(SMALL, window=200), data=both), model(replace(SMALL, window=200), data=recent)
    assert torch.equal(a.coef, b.coef)


@pytest.mark.parametrize("reward", [None, lambda obs, action, next_obs: next_obs[:, 0]])
def test_predict_and_rollout_shapes(reward):
    m = model(data=linear_gaussian(200), reward=reward)
    obs, actions = torch.randn(7, 3), torch.rand(7, 5, 2)
    p, out = m.predict(obs, actions[:, 0]), m.rollout(m.init(obs), actions)
    assert p.mean.shape == p.var.shape == (1, 7, m.output_dim) == (1, 7, 3 + (reward is None))
    assert out.obs.shape == (7, 5, 3)
    assert out.reward.shape == out.terminated.shape == (7, 5)
    assert out.terminated.dtype == torch.bool
    assert m.step(obs, actions[:, 0]).prediction is None
    assert torch.equal(m.step(obs, actions[:, 0], predict=True).prediction.mean, p.mean)


def test_rollout_of_means_is_prediction_after_prediction():
    m = model(replace(SMALL, noise="mean"), data=linear_gaussian(300))
    obs, actions = torch.randn(6, 3), torch.rand(6, 4, 2) * 2 - 1
    out, x = m.rollout(m.init(obs), actions), obs
    for t in range(4):
        p = m.predict(x, actions[:, t]).mean[0]
        x = p[:, :3]
        torch.testing.assert_close(out.obs[:, t], x)
        torch.testing.assert_close(out.reward[:, t], p[:, 3])


def test_rollout_passes_obs_action_and_successor_to_known_reward_and_termination():
    def reward(obs, action, next_obs):
        return obs[:, 0] + 10 * action[:, 0] + 100 * next_obs[:, 0]

    m = model(data=linear_gaussian(200), reward=reward, termination=lambda obs, action, next_obs: next_obs[:, 1] > obs[:, 1])
    obs, actions = torch.randn(7, 3), torch.rand(7, 2, 2)
    out = m.rollout(obs, actions)
    before = torch.stack((obs, out.obs[:, 0]), 1)
    torch.testing.assert_close(out.reward, before[..., 0] + 10 * actions[..., 0] + 100 * out.obs[..., 0])
    assert torch.equal(out.terminated, out.obs[..., 1] > before[..., 1])
    assert not model(data=linear_gaussian(200)).rollout(obs, actions).terminated.any()


def test_fit_of_discrete_actions_recovers_the_effect_of_each():
    spec, effect = EnvSpec(3, 4, CPU, discrete=True), torch.randn(4, 3)
    obs, action = torch.randn(400, 3), torch.randint(4, (400,))
    following = obs @ A + effect[action]
    m = model(replace(SMALL, noise="mean"), spec, Transition(obs, action, following[:, 0], following, torch.ones(400)))
    out = m.rollout(torch.zeros(4, 3), torch.arange(4)[:, None])
    torch.testing.assert_close(out.obs[:, 0], effect, atol=1e-4, rtol=0)
    torch.testing.assert_close(out.reward[:, 0], effect[:, 0], atol=1e-4, rtol=0)


def test_local_linear_unfitted_predicts_no_change():
    m, obs = model(), torch.randn(5, 3)
    assert torch.equal(m.step(obs, torch.rand(5, 2)).obs, obs)


def test_fit_again_starts_from_scratch_in_place():
    m, data = model(data=linear_gaussian(200)), linear_gaussian(300)
    places = [t.data_ptr() for t in m.state_dict().values()]
    old = m.coef.clone()
    torch.manual_seed(0)
    metrics = m.fit(data)
    assert [t.data_ptr() for t in m.state_dict().values()] == places
    assert not torch.equal(m.coef, old)
    fresh = model(data=data)
    assert torch.equal(m.coef, fresh.coef)
    assert set(metrics) == {"model/loss", "model/holdout_mse", "model/holdout_error"}
    assert all(v.dim() == 0 and v.isfinite() for v in metrics.values())


def test_fit_returns_the_error_of_the_noise():
    metrics = model().fit(linear_gaussian(5000))
    noise = torch.cat((NOISE.square(), NOISE.square().sum()[None])).mean()
    torch.testing.assert_close(metrics["model/holdout_mse"], noise, rtol=0.15, atol=0)
    torch.testing.assert_close(metrics["model/loss"], noise, rtol=0.1, atol=0)


def test_state_dict_round_trip():
    m, other = model(data=linear_gaussian(200)), model()
    places = [t.data_ptr() for t in other.state_dict().values()]
    other.load_state_dict(m.state_dict())
    assert [t.data_ptr() for t in other.state_dict().values()] == places
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    for a, b in zip(m.predict(obs, action), other.predict(obs, action), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: Transition(*(c[:1] for c in d[:5])), "at least 2 transitions, got 1"),
        (lambda d: d._replace(obs=d.obs.index_fill(0, torch.tensor([3]), torch.nan)), "inputs .* must be finite, got .* in row 3"),
        (lambda d: d._replace(reward=d.reward.index_fill(0, torch.tensor([2]), torch.inf)), "targets .* must be finite, got .* in row 2"),
    ],
)
def test_fit_refuses_bad_rows_and_leaves_the_model_alone(spoil, message):
    m = model(data=linear_gaussian(50))
    before = {k: v.clone() for k, v in m.state_dict().items()}
    with pytest.raises(UserError, match=message):
        m.fit(spoil(linear_gaussian(50)))
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centres": 0}, "dynamics.centres=0 is out of range: expected >= 1"),
        ({"ridge": 0.0}, "dynamics.ridge"),
        ({"shrinkage": (0.0, 1.0)}, "dynamics.shrinkage"),
        ({"shrinkage": ()}, "dynamics.shrinkage needs at least one number"),
        ({"holdout": 0.0}, "dynamics.shrinkage must be one number"),
        ({"holdout": 1.0}, "dynamics.holdout"),
        ({"termination": "learned"}, "dynamics.termination of local_linear must be"),
    ],
)
def test_local_linear_refuses_settings_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        LocalLinear(SPEC, replace(SMALL, **options))


def test_fit_without_holdout_uses_all_rows():
    data = linear_gaussian(60)
    m = model(LocalLinearConfig(centres=1, holdout=0.0, shrinkage=(1.0,)), data=data)
    x1 = torch.cat((data.obs, data.action, torch.ones(60, 1)), 1).double()
    exact = x1 @ torch.linalg.lstsq(x1, data.next_obs.double()).solution
    torch.testing.assert_close(m.predict(data.obs, data.action).mean[0, :, :3].double(), exact, atol=1e-4, rtol=0)


def pendulum(steps: int, seed: int) -> Transition:
    env = make("Pendulum-v1", seed=seed)
    obs, rows = env.reset(), []
    for _ in range(steps):
        action = torch.rand(1, 1) * 2 - 1
        out = env.step(action)
        rows.append((obs.clone(), action, out.reward.clone(), out.next_obs.clone(), (~out.terminated).float()))
        obs = out.obs
    return Transition(*(torch.cat(column) for column in zip(*(row[:5] for row in rows), strict=True)))


def test_local_linear_learns_the_pendulum_from_a_few_hundred_steps():
    torch.manual_seed(0)
    train, test = pendulum(600, 0), pendulum(400, 1)
    m = model(LocalLinearConfig(), EnvSpec(3, 1, CPU), train)
    mean = m.predict(test.obs, test.action).mean[0, :, :3]
    error, still = (mean - test.next_obs).square().mean(0), (test.obs - test.next_obs).square().mean(0)
    assert (error < still / 9).all()
    assert error.sum() < still.sum() / 30


def test_local_linear_by_name_takes_what_is_known_of_the_task():
    part = compose("pets", ["env=Pendulum-v1", "dynamics=local_linear", "dynamics.centres=3", "dynamics.shrinkage=[0.5]"]).dynamics
    reward = known.reward_fn("Pendulum-v1")
    m = dynamics[part.name].target(make("Pendulum-v1").spec, part.config, TaskKnowledge(reward))
    assert isinstance(m, LocalLinear)
    assert m.cfg == LocalLinearConfig(centres=3, shrinkage=(0.5,))
    assert m.task.reward is reward
