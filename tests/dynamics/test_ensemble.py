"""The ensemble as dynamics: protocols, known rewards and terminations, predictions, state."""

import io
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from systems import CPU, SMALL, SPEC, linear_gaussian, small_ensemble, zero_reward

import mbkit.dynamics  # noqa: F401 - registers all models
from mbkit.diagnostics.summary import to_predict
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.registry import dynamics
from mbkit.types import Dynamics, EnvSpec, Learnable, Predictive, Stateful, TaskKnowledge, Transition


def test_ensemble_is_registered_and_fulfils_the_protocols():
    assert dynamics["ensemble"].target is Ensemble
    for protocol in (Dynamics, Predictive, Learnable, Stateful):
        assert isinstance(small_ensemble(fit=False), protocol)


def test_step_leaves_absolute_dimensions_without_the_observation():
    ensemble = small_ensemble(replace(SMALL, propagation="expectation"), fit=False, absolute=(0,))
    with torch.no_grad():
        for p in ensemble.network.net.parameters():
            p.zero_()
    ensemble.refresh()
    assert ensemble.step(torch.ones(2, 3), torch.zeros(2, 2)).obs.tolist() == [[0, 1, 1]] * 2


def test_rollout_passes_obs_action_and_successor_to_known_reward_and_termination():
    def reward(obs, action, next_obs):
        return obs[:, 0] + 10 * action[:, 0] + 100 * next_obs[:, 0]

    ensemble = small_ensemble(reward=reward, termination=lambda obs, action, next_obs: next_obs[:, 1] > obs[:, 1])
    assert ensemble.network.output_dim == 3
    obs, actions = torch.randn(7, 3), torch.rand(7, 2, 2)
    out = ensemble.rollout(obs, actions)
    before = torch.stack((obs, out.obs[:, 0]), 1)
    torch.testing.assert_close(out.reward, before[..., 0] + 10 * actions[..., 0] + 100 * out.obs[..., 0])
    assert torch.equal(out.terminated, out.obs[..., 1] > before[..., 1])


def test_rollout_of_preprocessed_observations_and_discrete_actions():
    spec = EnvSpec(3, 4, CPU, discrete=True)
    ensemble = Ensemble(spec, SMALL, TaskKnowledge(zero_reward, preprocess=lambda obs: obs[..., 1:].sin()))
    out = ensemble.rollout(torch.randn(5, 3), torch.randint(4, (5, 2)))
    assert out.obs.shape == (5, 2, 3)


def test_step_of_deterministic_members_is_not_random():
    ensemble = small_ensemble(replace(SMALL, probabilistic=False))
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    assert torch.equal(ensemble.step(obs, action).obs, ensemble.step(obs, action).obs)


def test_step_with_predict_returns_every_members_targets_and_the_same_sample():
    ensemble = small_ensemble()
    obs, action = torch.randn(6, 3), torch.zeros(6, 2)
    torch.manual_seed(1)
    plain = ensemble.step(obs, action)
    assert plain.prediction is None
    torch.manual_seed(1)
    asked = ensemble.step(obs, action, predict=True)
    assert asked.prediction.mean.shape == (4, 6, 4)
    assert torch.equal(asked.prediction.mean, ensemble.network.predict_targets(obs, action).mean)
    assert torch.equal(asked.obs, plain.obs)


def test_deepcopy_shares_nothing():
    ensemble, obs, actions = small_ensemble(), torch.randn(6, 3), torch.rand(6, 4, 2)
    twin = deepcopy(ensemble)
    before = seeded_rollout(ensemble, obs, actions)
    ensemble.fit(linear_gaussian(200))
    assert torch.equal(seeded_rollout(twin, obs, actions), before)
    assert not torch.equal(seeded_rollout(ensemble, obs, actions), before)


def seeded_rollout(ensemble: Ensemble, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    return ensemble.rollout(ensemble.init(obs), actions).obs


@pytest.mark.parametrize("termination", ["learned", "never"])
def test_state_dict_continues_bit_for_bit(termination):
    """Through a weights_only file, into a model that was fitted to other data."""
    cfg = replace(SMALL, members=3, elites=2, max_epochs=3, termination=termination)
    torch.manual_seed(0)
    data, more = linear_gaussian(200), linear_gaussian(260)
    model, other = Ensemble(SPEC, cfg), Ensemble(SPEC, cfg)
    model.fit(data)
    other.fit(more)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    places = [p.data_ptr() for p in other.network.parameters()]
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert places == [p.data_ptr() for p in other.network.parameters()]
    assert other.fitted == model.fitted
    results = []
    for m in (model, other):
        torch.manual_seed(7)
        m.fit(more)
        results.append((m.rollout(data.obs, data.action[:, None]), m.network.state_dict()))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(a, b)
    for key, value in results[0][1].items():
        assert torch.equal(value, results[1][1][key]), key


def jump(obs, action, next_obs):
    """A bonus that jumps at 0, and a cost of action."""
    return 3.0 * (next_obs[..., 0] > 0) - action[..., 0]


def jumping_rows(n=400):
    """The reward is `jump` plus obs, which remains to be learned."""
    torch.manual_seed(0)
    obs, action = 0.1 * torch.randn(n, 1), torch.rand(n, 1) * 2 - 1
    next_obs = obs + 0.1 * action
    return Transition(obs, action, jump(obs, action, next_obs) + obs[:, 0], next_obs, torch.ones(n))


@pytest.mark.parametrize("name", ["ensemble", "local_linear"])
def test_learned_reward_with_a_known_part_has_its_jump(name):
    """The rest is smooth, so that the model's error is far below the jump; predictions and their measures hold the rest alone."""
    data, space = jumping_rows(), EnvSpec(1, 1, torch.device("cpu"))
    cfg = dynamics[name].config
    cfg = (
        EnsembleConfig(members=2, elites=2, hidden=(32,), probabilistic=False, batch=32, max_epochs=20)
        if name == "ensemble"
        else cfg(centres=1)
    )
    model = dynamics[name].target(space, cfg, TaskKnowledge(reward_part=jump))
    model.fit(data)
    p = model.predict(data.obs, data.action)
    rest = data.reward - jump(data.obs, data.action, data.next_obs)
    assert (p.mean[..., 1].mean(0) - rest).abs().max() < 0.3
    assert torch.equal(to_predict(model, data).reward, rest)
    rewards = torch.stack([model.step(model.init(data.obs), data.action).reward for _ in range(20)]).mean(0)
    clear = data.next_obs[:, 0].abs() > 0.05
    assert (rewards - data.reward)[clear].abs().max() < 0.6
    assert data.reward[clear].max() - data.reward[clear].min() > 3


def test_log_prob_of_a_learned_reward_leaves_out_its_known_part():
    data, space = jumping_rows(20), EnvSpec(1, 1, torch.device("cpu"))
    with_part, without = (Ensemble(space, SMALL, TaskKnowledge(reward_part=part)) for part in (jump, None))
    without.network.load_state_dict(with_part.network.state_dict())
    rest = data.reward - jump(data.obs, data.action, data.next_obs)
    ours = with_part.network.log_prob(data.obs, data.action, data.next_obs, data.reward)
    torch.testing.assert_close(ours, without.network.log_prob(data.obs, data.action, data.next_obs, rest))


def test_file_that_learned_the_whole_reward_goes_on_so(tmp_path):
    space, path = EnvSpec(1, 1, torch.device("cpu")), tmp_path / "dynamics.pt"
    Ensemble(space, SMALL).save(path)
    loaded = Ensemble(space, replace(SMALL, load=str(path)), TaskKnowledge(reward_part=jump))
    assert loaded.reward_part is None
    in_part = Ensemble(space, SMALL, TaskKnowledge(reward_part=jump))
    with pytest.raises(UserError, match="reward must be learned in part, the file has learned"):
        in_part.load(path)
    in_part.save(path)
    assert Ensemble(space, replace(SMALL, load=str(path)), TaskKnowledge(reward_part=jump)).reward_part is jump
    with pytest.raises(UserError, match="reward must be learned, the file has learned in part"):
        Ensemble(space, replace(SMALL, load=str(path)))
