"""mbrl-lib's models as Dynamics; the oracle is the real mbrl-lib. Letters as in `mbkit.types`."""

import sys

import gymnasium
import numpy as np
import pytest
import torch
from mbrl_peer import KNOWN, SPEC, arrays, models, peer, reward

from mbkit.dynamics.mbrl import MbrlConfig, MbrlDynamics, build, load
from mbkit.dynamics.mbrl import dynamics as ours
from mbkit.errors import UserError
from mbkit.planning.objective import environment_of_rows, rows_of
from mbkit.registry import dynamics as registered
from mbkit.types import Dynamics, EnvSpec, Learnable, Predictive, Stateful, TaskKnowledge, Transition


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def peer_reward(action, next_obs):
    return reward(torch.zeros_like(next_obs), action, next_obs)[:, None]


def never(action, next_obs):
    return torch.zeros(len(action), 1, dtype=torch.bool)


def transitions(rows):
    obs, action, next_obs, gain = (torch.as_tensor(x, dtype=torch.float32) for x in arrays(rows))
    return Transition(obs, action, gain, next_obs, torch.ones(rows))


def peer_env(model):
    class Spaces(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (SPEC.obs_dim,))
        action_space = gymnasium.spaces.Box(-1, 1, (SPEC.action_dim,))

    return models.ModelEnv(
        Spaces(), model, never, None if model.learned_rewards else peer_reward, generator=torch.Generator().manual_seed(1)
    )


def returns(dynamics, obs, actions, particles):
    """Mean return [N] over particle-major rows of actions [N, H, A]."""
    carry = rows_of(dynamics.init(obs[None]), environment_of_rows(1, particles, len(actions), obs.device))
    return dynamics.rollout(carry, actions.repeat(particles, 1, 1)).reward.sum(1).view(particles, -1).mean(0)


def no_obs_reward(obs, action, next_obs):
    return reward(torch.zeros_like(obs), action, next_obs)


def test_mbrl_dynamics_fulfils_the_protocols():
    dynamics = MbrlDynamics(peer(), SPEC, task=KNOWN)
    for protocol in (Dynamics, Predictive, Learnable, Stateful):
        assert isinstance(dynamics, protocol)


@pytest.mark.parametrize(
    ("members", "propagation", "quiet", "deterministic"), [(1, "random_model", False, True), (5, "expectation", True, False)]
)
def test_rollout_without_noise_is_that_of_model_env(members, propagation, quiet, deterministic):
    model = peer(members, propagation, quiet=quiet, deterministic=deterministic)
    obs, actions = torch.tensor([0.3, -0.2, 0.9]), torch.rand(7, 6, 2) * 2 - 1
    theirs = peer_env(model).evaluate_action_sequences(actions, obs.double().numpy(), 5)
    mine = returns(MbrlDynamics(model, SPEC, task=TaskKnowledge(no_obs_reward)), obs, actions, 5)
    torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("propagation", ["random_model", "fixed_model", "expectation"])
def test_rollout_is_that_of_model_env_within_sampling_error(propagation):
    model = peer(4, propagation, elites=[2, 0, 3])
    obs, actions, particles = torch.tensor([0.3, -0.2, 0.9]), torch.rand(1, 4, 2) * 2 - 1, 3000
    spread = actions.repeat(particles, 1, 1)  # one return per row, so that its spread is known
    theirs = peer_env(model).evaluate_action_sequences(spread, obs.double().numpy(), 1)
    dynamics = MbrlDynamics(model, SPEC, task=TaskKnowledge(no_obs_reward))
    mine = returns(dynamics, obs, spread, 1)
    error = (mine.var() / particles + theirs.var() / particles).sqrt()
    assert (mine.mean() - theirs.mean()).abs() < 4 * error


def test_rollout_takes_any_number_of_rows_where_model_env_wants_a_multiple():
    model = peer(4)
    with pytest.raises(ValueError, match="multiple"):
        peer_env(model).evaluate_action_sequences(torch.zeros(3, 2, 2), np.zeros(3), 1)
    rollout = MbrlDynamics(model, SPEC, task=KNOWN).rollout(
        MbrlDynamics(model, SPEC, task=KNOWN).init(torch.zeros(3, 3)), torch.zeros(3, 2, 2)
    )
    assert rollout.obs.shape == (3, 2, 3)
    assert rollout.terminated.shape == (3, 2)
    assert not rollout.terminated.any()


def test_rollout_of_fixed_model_leaves_each_row_with_its_member():
    dynamics = MbrlDynamics(peer(2, "fixed_model", quiet=True), SPEC, task=KNOWN)
    obs, actions = torch.zeros(8, 3), torch.zeros(8, 12, 2)
    ends = dynamics.rollout(dynamics.init(obs), actions).obs[:, -1]
    assert len(torch.unique((ends * 1e3).round(), dim=0)) == 2


def test_init_repeated_by_an_index_deals_members_at_the_first_step():
    """One observation, encoded once: each of its eight rows still gets a member of its own, as if mbrl-lib had been given eight rows."""
    model = peer(2, "fixed_model", quiet=True)
    dynamics = MbrlDynamics(model, SPEC, task=KNOWN)
    carry = rows_of(dynamics.init(torch.zeros(1, 3)), torch.zeros(8, dtype=torch.int64))
    torch.manual_seed(3)
    state = model.reset(torch.zeros(8, 3), rng=torch.default_generator)
    expected = model.sample(torch.zeros(8, 2), state, rng=torch.default_generator)[0]
    torch.manual_seed(3)
    step = dynamics.step(carry, torch.zeros(8, 2))
    torch.testing.assert_close(step.obs, expected, rtol=0, atol=0)
    torch.testing.assert_close(step.state.state["propagation_indices"], state["propagation_indices"], rtol=0, atol=0)
    assert carry.state is None


def test_step_with_predict_returns_every_members_prediction():
    dynamics = MbrlDynamics(peer(3), SPEC, task=KNOWN)
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    assert dynamics.step(dynamics.init(obs), action).prediction is None
    torch.testing.assert_close(dynamics.step(dynamics.init(obs), action, predict=True).prediction, dynamics.predict(obs, action))


def test_step_twice_from_one_carry_is_the_same():
    dynamics = MbrlDynamics(peer(1, deterministic=True), SPEC, task=KNOWN)
    carry = dynamics.init(torch.randn(4, 3))
    first, second = (dynamics.step(carry, torch.ones(4, 2)).obs for _ in range(2))
    torch.testing.assert_close(first, second)


def test_predict_gives_every_member_in_raw_units():
    model = peer(3, learned_rewards=True, no_delta_list=[1])
    dynamics = MbrlDynamics(model, SPEC)
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    mean, var = dynamics.predict(obs, action)
    model.set_propagation_method(None)
    raw, log_var = model.forward(model._get_model_input(obs, action))
    absolute = raw.clone()
    absolute[..., [0, 2]] += obs[:, [0, 2]]
    torch.testing.assert_close(mean, absolute)
    torch.testing.assert_close(var, log_var.exp())


def test_step_takes_a_learned_reward_from_the_last_output():
    dynamics = MbrlDynamics(peer(1, learned_rewards=True, deterministic=True), SPEC)
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    step = dynamics.step(dynamics.init(obs), action)
    torch.testing.assert_close(step.reward, dynamics.predict(obs, action).mean[0, :, -1])


def test_predict_scales_actions_to_the_models_own_bounds():
    cfg = MbrlConfig(action_low=(-3.0, 0.0), action_high=(3.0, 2.0))
    model = peer(1, deterministic=True)
    obs, action = torch.randn(6, 3), torch.rand(6, 2) * 2 - 1
    scaled = MbrlDynamics(model, SPEC, cfg, KNOWN).predict(obs, action)
    plain = MbrlDynamics(model, SPEC, task=KNOWN).predict(obs, action * torch.tensor([3.0, 1.0]) + torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(scaled.mean, plain.mean)


def test_step_reports_termination():
    dynamics = MbrlDynamics(peer(1, deterministic=True), SPEC, task=TaskKnowledge(reward, lambda obs, action, next_obs: obs[:, 0] > 0))
    obs = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    assert dynamics.step(dynamics.init(obs), torch.zeros(2, 2)).terminated.tolist() == [True, False]


def test_fit_learns_and_state_round_trips():
    cfg = MbrlConfig(members=3, elites=2, layers=2, hidden=32, epochs=20, holdout=0.2, lr=1e-3, batch=32)
    fitted = registered["mbrl"].target(SPEC, cfg, KNOWN)
    data = transitions(300)
    before = (fitted.predict(data.obs, data.action).mean - data.next_obs).square().mean()
    metrics = fitted.fit(data)
    after = (fitted.predict(data.obs, data.action).mean - data.next_obs).square().mean()
    assert after < 0.1 * before
    assert metrics["model/holdout_mse"] < 0.1 * before
    twin = build(SPEC, cfg, KNOWN)
    twin.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(twin.predict(data.obs, data.action), fitted.predict(data.obs, data.action), rtol=0, atol=0)
    assert twin.model.model.elite_models == [int(e) for e in fitted.model.model.elite_models]


def test_mbrl_dynamics_refusals_name_the_culprit(tmp_path):
    peer().save(tmp_path)
    with pytest.raises(UserError, match=r"has 5 inputs; expected 6"):
        load(tmp_path, EnvSpec(4, 2, SPEC.device), task=KNOWN)
    with pytest.raises(UserError, match=r"did not learn rewards"):
        load(tmp_path, SPEC)
    with pytest.raises(UserError, match=r"must both have 2 numbers"):
        load(tmp_path, SPEC, MbrlConfig(action_low=(-1.0,)), KNOWN)
    with pytest.raises(UserError, match=r"cannot learn when episodes terminate"):
        MbrlDynamics(peer(), SPEC, MbrlConfig(termination="learned"), KNOWN)
    with pytest.raises(UserError, match=r"discrete actions"):
        MbrlDynamics(peer(), EnvSpec(3, 2, SPEC.device, discrete=True), task=KNOWN)
    with pytest.raises(UserError, match=r"cannot propagate expectations"):
        MbrlDynamics(peer(2, "expectation", deterministic=True), SPEC, task=KNOWN)
    with pytest.raises(UserError, match=r"NaN or infinity"):
        MbrlDynamics(peer(), SPEC, task=KNOWN).fit(transitions(4)._replace(reward=torch.full((4,), torch.nan)))


def test_library_without_mbrl_lib_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mbrl.models", None)
    with pytest.raises(UserError, match=r"pip install --no-deps mbrl==0.2.0 hydra-core==1.3.8 antlr4-python3-runtime==4.9.3 termcolor$"):
        ours.library("models")


def test_mbrl_dynamics_takes_a_basic_ensemble():
    member = {"_target_": "mbrl.models.GaussianMLP", "in_size": 5, "out_size": 3, "device": "cpu", "num_layers": 1, "hid_size": 8}
    network = models.BasicEnsemble(3, "cpu", member, propagation_method="random_model")
    dynamics = MbrlDynamics(models.OneDTransitionRewardModel(network, learned_rewards=False), SPEC, task=KNOWN)
    obs, action = torch.randn(7, 3), torch.rand(7, 2)
    assert dynamics.rollout(dynamics.init(obs), action[:, None].expand(7, 4, 2)).obs.shape == (7, 4, 3)
    mean, var = dynamics.predict(obs, action)
    raw, log_var = network[1].forward(torch.cat([obs, action], 1))
    torch.testing.assert_close(mean[1], obs + raw)
    torch.testing.assert_close(var[1], log_var.exp())
    before = (mean - obs).square().mean()
    dynamics.fit(transitions(64))
    assert (dynamics.predict(obs, action).mean - obs).square().mean() != before
