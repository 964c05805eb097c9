"""Propagation, prediction and files of the ensemble, as identities."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import CPU, SPEC, linear_gaussian

from mbkit import recipes  # noqa: F401  registers pets
from mbkit.config import compose
from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.propagation import Gaussian, blocks, deal, mixture, soft_bounded_logvar, soft_bounded_std
from mbkit.errors import UserError
from mbkit.registry import dynamics
from mbkit.types import Dynamics, EnvSpec, Learnable, Predictive, Stateful

SMALL = EnsembleConfig(members=4, elites=3, hidden=(16, 16), max_epochs=2, batch=64)


def zero_reward(obs, action, next_obs):
    return torch.zeros(len(obs))


def model(cfg: EnsembleConfig = SMALL, fit: bool = True, **parts) -> Ensemble:
    torch.manual_seed(0)
    ensemble = Ensemble(SPEC, cfg, **parts)
    if fit:
        ensemble.fit(linear_gaussian(200))
    return ensemble


def silent(ensemble: Ensemble) -> Ensemble:
    """Without noise: the members' variances go to (nearly) nothing."""
    with torch.no_grad():
        ensemble.logvar_bounds.copy_(torch.tensor([-60.0, -59.0])[:, None].expand_as(ensemble.logvar_bounds))
    ensemble.refresh()
    return ensemble


def test_registered_and_fulfils_the_protocols():
    assert dynamics["ensemble"].target is Ensemble
    for protocol in (Dynamics, Predictive, Learnable, Stateful):
        assert isinstance(model(fit=False), protocol)


def test_logvar_stays_in_its_bounds_and_closed_form_agrees():
    raw = torch.linspace(-200, 200, 401)
    low, high = torch.tensor(-10.0), torch.tensor(0.5)
    logvar = soft_bounded_logvar(raw, low, high)
    assert (logvar >= low).all()
    assert (logvar <= high + 1e-4).all()
    torch.testing.assert_close(soft_bounded_std(raw, low.exp(), high.exp()), (0.5 * logvar).exp(), rtol=1e-4, atol=0)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), members=st.integers(1, 7))
def test_blocks_follow_the_row_order_and_lose_nothing(rows, members):
    pad = blocks(rows, members, CPU)
    if pad is None:
        assert rows % members == 0
        return
    row = torch.arange(rows)
    size = len(pad.source) // members
    assert torch.equal(pad.source[pad.place], row)
    assert torch.equal(pad.place // size, row * members // rows)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), members=st.integers(1, 7))
def test_deal_gives_equal_shares_and_loses_nothing(rows, members):
    hand = deal(rows, members, CPU)
    assert torch.equal(hand.source[hand.place], torch.arange(rows))
    shares = torch.bincount(hand.place // (len(hand.source) // members), minlength=members)
    assert shares.max() - shares.min() <= 1


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 23), mode=st.sampled_from(["ts_inf", "ts1", "expectation", "moment_matching"]))
def test_any_number_of_rows(rows, mode):
    ensemble = model(replace(SMALL, propagation=mode), fit=False)
    out = ensemble.rollout(ensemble.init(torch.randn(rows, 3)), torch.zeros(rows, 4, 2))
    assert out.obs.shape == (rows, 4, 3)
    assert out.reward.shape == out.terminated.shape == (rows, 4)
    assert out.terminated.dtype == torch.bool
    assert out.obs.isfinite().all()


def test_ts_inf_shows_every_candidate_to_every_member():
    """With P = K particles, rows repeated particle-major, particle k of every candidate follows elite k all the way."""
    ensemble = silent(model())
    candidates, horizon = 5, 4
    obs, actions = torch.randn(candidates, 3), torch.rand(candidates, horizon, 2) * 2 - 1
    out = ensemble.rollout(ensemble.init(obs.repeat(3, 1)), actions.repeat(3, 1, 1)).obs.view(3, candidates, horizon, 3)
    for k, member in enumerate(ensemble.elites.tolist()):
        x = obs
        for t in range(horizon):
            x = ensemble.predict(x, actions[:, t]).mean[member, :, :3].detach()
            torch.testing.assert_close(out[k, :, t], x, atol=1e-4, rtol=1e-4)


def test_ts1_deals_members_afresh():
    """Every row is one elite's prediction, and over many steps each elite gets its share of each row."""
    ensemble = silent(model(replace(SMALL, propagation="ts1")))
    obs, action = torch.randn(7, 3), torch.zeros(7, 2)
    each = ensemble.predict(obs, action).mean[ensemble.elites, :, :3]
    hits = torch.zeros(3, 7)
    for _ in range(300):
        near = (ensemble.step(obs, action).obs - each).abs().amax(-1) < 1e-4
        assert near.any(0).all()
        hits += near
    assert (hits > 60).all()  # 100 expected, 8 its standard deviation


def test_expectation_of_one_member_is_the_network():
    ensemble = model(replace(SMALL, members=1, elites=1, propagation="expectation"))
    obs, action = torch.randn(9, 3), torch.rand(9, 2)
    out, prediction = ensemble.step(obs, action), ensemble.predict(obs, action)
    torch.testing.assert_close(out.obs, prediction.mean[0, :, :3].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.reward, prediction.mean[0, :, 3].detach(), atol=1e-5, rtol=1e-5)


def test_moment_matching_has_the_moments_of_the_mixture():
    mean, std = torch.randn(3, 2, 4), torch.rand(3, 2, 4) + 0.1
    both = mixture(Gaussian(mean, std, None), sampled=True)
    n = 400_000
    draws = (mean + std * torch.randn(n // 3, 3, 2, 4)).flatten(0, 1).view(-1, 2, 4)
    torch.testing.assert_close(both.mean, draws.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(both.std.square(), draws.var(0), atol=0.03, rtol=0.02)


def test_step_of_moment_matching_samples_that_gaussian():
    ensemble = model(replace(SMALL, propagation="moment_matching"))
    obs, action = torch.randn(1, 3), torch.zeros(1, 2)
    p = ensemble.predict(obs, action)
    mean, var = p.mean[ensemble.elites, 0, :3], p.var[ensemble.elites, 0, :3]
    draws = ensemble.step(obs.expand(20000, 3), action.expand(20000, 2)).obs
    sigma = (var.mean(0) + mean.var(0, correction=0)).sqrt().detach()
    torch.testing.assert_close(draws.mean(0), mean.mean(0).detach(), atol=float(5 * sigma.max() / 20000**0.5), rtol=0)
    torch.testing.assert_close(draws.std(0), sigma, rtol=0.03, atol=0)


@pytest.mark.parametrize("scaled", [False, True])
def test_folding_equals_the_network_as_written(scaled):
    data = linear_gaussian(200)
    data = data._replace(obs=data.obs * 5 + 20, next_obs=data.next_obs * 5 + 20)
    ensemble = model(replace(SMALL, scale_targets=scaled), fit=False)
    ensemble.fit(data)
    x = ensemble.encode(data.obs, data.action)
    mean, std, _ = ensemble._look(x.expand(3, *x.shape))
    p = ensemble.predict(data.obs, data.action)
    scale = ensemble.targets.std  # errors are relative to what is predicted
    torch.testing.assert_close(
        (mean[..., :3] + data.obs) / scale[:3], (p.mean[ensemble.elites, :, :3] / scale[:3]).detach(), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(std / scale, (p.var[ensemble.elites].sqrt() / scale).detach(), atol=1e-5, rtol=1e-4)


def test_absolute_dimensions_are_not_changes():
    ensemble = model(replace(SMALL, propagation="expectation"), fit=False, absolute=(0,))
    with torch.no_grad():
        for p in ensemble.net.parameters():
            p.zero_()
    ensemble.refresh()
    obs = torch.ones(2, 3)
    assert ensemble.step(obs, torch.zeros(2, 2)).obs.tolist() == [[0, 1, 1]] * 2
    assert ensemble.predict(obs, torch.zeros(2, 2)).mean[0, 0].tolist() == [0, 1, 1, 0]


def test_known_reward_and_termination_see_obs_action_and_successor():
    def reward(obs, action, next_obs):
        return obs[:, 0] + 10 * action[:, 0] + 100 * next_obs[:, 0]

    ensemble = model(reward=reward, termination=lambda obs, action, next_obs: next_obs[:, 1] > obs[:, 1])
    assert ensemble.output_dim == 3
    obs, actions = torch.randn(7, 3), torch.rand(7, 2, 2)
    out = ensemble.rollout(obs, actions)
    before = torch.stack((obs, out.obs[:, 0]), 1)
    torch.testing.assert_close(out.reward, before[..., 0] + 10 * actions[..., 0] + 100 * out.obs[..., 0])
    assert torch.equal(out.terminated, out.obs[..., 1] > before[..., 1])


def test_preprocess_and_discrete_actions():
    spec = EnvSpec(3, 4, CPU, discrete=True)
    ensemble = Ensemble(spec, SMALL, zero_reward, preprocess=lambda obs: obs[..., 1:].sin())
    assert ensemble.input_dim == 2 + 4
    out = ensemble.rollout(torch.randn(5, 3), torch.randint(4, (5, 2)))
    assert out.obs.shape == (5, 2, 3)
    x = ensemble.encode(torch.zeros(1, 3), torch.tensor([2]))
    assert x.tolist() == [[0, 0, 0, 0, 1, 0]]


def test_deterministic_members_have_no_variance():
    ensemble = model(replace(SMALL, probabilistic=False))
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    assert not ensemble.predict(obs, action).var.any()
    assert torch.equal(ensemble.step(obs, action).obs, ensemble.step(obs, action).obs)


def test_prediction_rides_along_only_when_asked():
    ensemble = model()
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    assert ensemble.step(obs, action).prediction is None
    ensemble.with_prediction = True
    assert ensemble.step(obs, action).prediction.mean.shape == (4, 6, 4)


def test_bfloat16_is_close_to_float32():
    exact = model(replace(SMALL, hidden=(64, 64), propagation="expectation"))
    coarse = Ensemble(SPEC, replace(exact.cfg, precision="bfloat16"))
    coarse.load_state_dict(exact.state_dict())
    obs, action = torch.randn(500, 3), torch.rand(500, 2)
    error = (coarse.step(obs, action).obs - exact.step(obs, action).obs).abs().max()
    assert 0 < error < 0.02


def test_file_round_trip(tmp_path):
    ensemble, path = model(termination=None), tmp_path / "dynamics.pt"
    ensemble.save(path, env="toy")
    other = Ensemble(SPEC, SMALL)
    places = [p.data_ptr() for p in other.parameters()]
    assert other.load(path) == {"env": "toy"}
    assert places == [p.data_ptr() for p in other.parameters()]
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    assert torch.equal(other.predict(obs, action).mean, ensemble.predict(obs, action).mean)
    assert other.fitted == ensemble.fitted
    assert len(other.fitted["fingerprint"]) == 64
    torch.manual_seed(1)
    out = ensemble.step(obs, action).obs
    torch.manual_seed(1)
    assert torch.equal(other.step(obs, action).obs, out)
    assert files.config(path, EnsembleConfig(lr=0.5)) == replace(EnsembleConfig(lr=0.5), members=4, elites=3, hidden=(16, 16))
    assert [p.name for p in tmp_path.iterdir()] == ["dynamics.pt"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: Ensemble(EnvSpec(4, 2, CPU), SMALL), "observation dimensions must be 4, the file has 3"),
        (lambda: Ensemble(EnvSpec(3, 1, CPU), SMALL), "action dimensions"),
        (lambda: Ensemble(SPEC, replace(SMALL, scale_targets=True)), "dynamics.scale_targets must be True, the file has False"),
        (lambda: Ensemble(SPEC, replace(SMALL, hidden=(16,))), "dynamics.hidden"),
        (lambda: Ensemble(SPEC, SMALL, zero_reward), "reward must be known, the file has learned"),
        (lambda: Ensemble(SPEC, SMALL, absolute=(1,)), "absolute dimensions"),
        (lambda: Ensemble(SPEC, SMALL, preprocess=torch.sin), "observation processing"),
        (lambda: Ensemble(SPEC, replace(SMALL, termination="learned")), "termination"),
    ],
)
def test_file_that_does_not_fit_is_refused(tmp_path, other, named):
    model(fit=False).save(tmp_path / "dynamics.pt")
    with pytest.raises(UserError, match=named):
        other().load(tmp_path / "dynamics.pt")


def test_unwritable_place_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        model(fit=False).save(tmp_path / "no" / "such" / "dynamics.pt")


def test_truncated_foreign_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "dynamics.pt"
    with pytest.raises(UserError, match="does not exist"):
        model(fit=False).load(path)
    model(fit=False).save(path)
    content = path.read_bytes()
    torch.save({"weights": torch.zeros(2)}, path)
    for bad in (content[: len(content) // 2], b"", b"hello", path.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"cannot be read: expected 'mbkit\.dynamics/1', found a damaged or foreign file"):
            model(fit=False).load(path)
    with pytest.raises(UserError, match=r"is a directory: expected FILE, e\.g\. .*/dynamics\.pt"):
        model(fit=False).load(tmp_path)


def test_a_flipped_bit_is_refused_or_harmless(tmp_path):
    tiny = replace(SMALL, members=2, elites=1, hidden=(2,))
    whole, path = model(tiny), tmp_path / "dynamics.pt"
    whole.save(path, env="toy")
    content, right = path.read_bytes(), files.read(path)["state"]
    harmless, other = 0, Ensemble(SPEC, tiny)
    flips = [(i, i % 8) for i in range(0, len(content), 41)]
    for i, bit in flips:
        path.write_bytes(content[:i] + bytes([content[i] ^ (1 << bit)]) + content[i + 1 :])
        try:
            other.load(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            harmless += 1  # padding was hit
            assert all(torch.equal(v, right[k]) for k, v in other.state_dict().items() if k in right)
    assert harmless < len(flips) / 2
    for i in (m.start() for m in re.finditer(b"PK\x01\x02", content)):  # "is a directory", which no checksum covers
        path.write_bytes(content[: i + 38] + b"\x10" + content[i + 39 :])
        with pytest.raises(UserError, match="damaged"):
            other.load(path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda c: c.pop("fits"), "damaged or foreign file"),
        (lambda c: c.pop("cfg"), "damaged or foreign file"),
        (lambda c: c.pop("state"), "damaged or foreign file"),
        (lambda c: c.update(state=[1]), "damaged or foreign file"),
        (lambda c: c["state"].pop("inputs.mean"), r"inputs\.mean must be a tensor of shape \(5,\), the file has none"),
        (lambda c: c["state"].update({"net.bias.0": torch.zeros(1)}), r"net\.bias\.0 must .* \(4, 1, 16\), the file has \(1,\)"),
        (lambda c: c["state"].update({"net.bias.0": 3}), r"net\.bias\.0 must"),
        (
            lambda c: c["state"]["net.weight.1"].view(-1)[3:4].fill_(torch.nan),
            r"dynamics\.pt' holds .* diverged: net\.weight\.1 has numbers",
        ),
        (lambda c: c["state"]["logvar_bounds"].fill_(-torch.inf), r"logvar_bounds has numbers that are not finite"),
        (lambda c: c["state"].update(elites=torch.tensor([0, 1])), r"elites must .* \(3,\), the file has \(2,\)"),
        (lambda c: c["state"].update(elites=torch.tensor([0, 1, 1])), r"3 different members of 0\.\.3, the file has \[0, 1, 1\]"),
        (lambda c: c["state"].update(elites=torch.tensor([0, 1, 4])), r"3 different members of 0\.\.3"),
        (lambda c: c["state"].update(elites=torch.tensor([-1, 1, 2])), r"3 different members of 0\.\.3"),
        (lambda c: c["state"].update(elites=torch.tensor([0.0, 1.5, 2])), r"3 different members of 0\.\.3"),
    ],
)
def test_a_file_with_a_wrong_part_is_refused_and_leaves_the_model_alone(tmp_path, damage, named):
    path, ensemble = tmp_path / "dynamics.pt", model(fit=False)
    model().save(path)
    content = files.read(path)
    damage(content)
    torch.save(content, path)
    before = {k: v.clone() for k, v in ensemble.state_dict().items() if k != "_extra_state"}
    with pytest.raises(UserError, match=named):
        ensemble.load(path)
    assert all(torch.equal(v, ensemble.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"elites": 9}, "elites"), ({"min_logvar": 1.0}, "min_logvar"), ({"holdout": 0.0, "max_epochs": None}, "max_epochs")],
)
def test_contradicting_settings_are_refused(change, named):
    with pytest.raises(UserError, match=named):
        Ensemble(SPEC, replace(SMALL, **change))


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
def test_a_number_out_of_range_is_refused_from_python_and_from_words(change, named):
    with pytest.raises(UserError, match=named):
        Ensemble(SPEC, replace(SMALL, **change))
    words = [f"dynamics.{k}={list(v) if isinstance(v, tuple) else v}" for k, v in change.items()]
    with pytest.raises(UserError, match=f"dynamics.{next(iter(change))}="):
        compose("pets", ["env=cartpole", *words])
