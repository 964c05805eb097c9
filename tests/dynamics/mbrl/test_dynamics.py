"""mbrl-lib's models as Dynamics and its files read safely; the oracle is the real mbrl-lib. Letters as in `mbkit.types`."""

import pickle
import sys

import gymnasium
import numpy as np
import pytest
import torch

from mbkit.dynamics.mbrl import dynamics as ours
from mbkit.dynamics.mbrl import files
from mbkit.dynamics.mbrl.dynamics import MbrlConfig, MbrlDynamics
from mbkit.errors import UserError
from mbkit.registry import dynamics as registered
from mbkit.types import Dynamics, EnvSpec, Learnable, Predictive, Stateful, Transition

models = pytest.importorskip("mbrl.models")
SPEC = EnvSpec(3, 2, torch.device("cpu"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def reward(obs, action, next_obs):
    return next_obs[:, 0] - 0.1 * action.square().sum(1) + 0.01 * obs[:, 1]


def peer_reward(action, next_obs):
    return reward(torch.zeros_like(next_obs), action, next_obs)[:, None]


def never(action, next_obs):
    return torch.zeros(len(action), 1, dtype=torch.bool)


def peer(members=4, propagation="random_model", elites=None, quiet=False, **options):
    """A random mbrl-lib model with a normaliser that does something; `quiet`: hardly any sampling noise."""
    learned, no_delta = options.pop("learned_rewards", False), options.pop("no_delta_list", None)
    sizes = (SPEC.obs_dim + SPEC.action_dim, SPEC.obs_dim + learned)
    silu = {"_target_": "torch.nn.SiLU"}
    network = models.GaussianMLP(*sizes, "cpu", 2, members, 16, propagation_method=propagation, activation_fn_cfg=silu, **options)
    if quiet:
        network.min_logvar.data.fill_(-70)
        network.max_logvar.data.fill_(-60)
    if elites is not None:
        network.set_elite(np.array(elites))
    model = models.OneDTransitionRewardModel(
        network, normalize=True, normalize_double_precision=True, learned_rewards=learned, no_delta_list=no_delta
    )
    model.update_normalizer(ours.library("types").TransitionBatch(*arrays(50), None, None))
    return model


def arrays(rows):
    rng = np.random.default_rng(0)
    obs, action = rng.normal(1, 2, (rows, SPEC.obs_dim)), rng.uniform(-1, 1, (rows, SPEC.action_dim))
    next_obs = 0.9 * obs + 0.3 * np.pad(action, ((0, 0), (0, SPEC.obs_dim - SPEC.action_dim)))
    return obs, action, next_obs, next_obs[:, 0]


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
    carry = dynamics.init(obs.repeat(len(actions) * particles, 1))
    return dynamics.rollout(carry, actions.repeat(particles, 1, 1)).reward.sum(1).view(particles, -1).mean(0)


def no_obs_reward(obs, action, next_obs):
    return reward(torch.zeros_like(obs), action, next_obs)


# ------------------------------------------------------------------------------------------------------------ as Dynamics


def test_speaks_every_protocol():
    dynamics = MbrlDynamics(peer(), SPEC, reward)
    for protocol in (Dynamics, Predictive, Learnable, Stateful):
        assert isinstance(dynamics, protocol)


@pytest.mark.parametrize(
    ("members", "propagation", "quiet", "deterministic"), [(1, "random_model", False, True), (5, "expectation", True, False)]
)
def test_same_evaluation_as_model_env_without_noise(members, propagation, quiet, deterministic):
    model = peer(members, propagation, quiet=quiet, deterministic=deterministic)
    obs, actions = torch.tensor([0.3, -0.2, 0.9]), torch.rand(7, 6, 2) * 2 - 1
    theirs = peer_env(model).evaluate_action_sequences(actions, obs.double().numpy(), 5)
    mine = returns(MbrlDynamics(model, SPEC, no_obs_reward), obs, actions, 5)
    torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("propagation", ["random_model", "fixed_model", "expectation"])
def test_same_evaluation_as_model_env_within_sampling_error(propagation):
    model = peer(4, propagation, elites=[2, 0, 3])
    obs, actions, particles = torch.tensor([0.3, -0.2, 0.9]), torch.rand(1, 4, 2) * 2 - 1, 3000
    spread = actions.repeat(particles, 1, 1)  # one return per row, so that its spread is known
    theirs = peer_env(model).evaluate_action_sequences(spread, obs.double().numpy(), 1)
    dynamics = MbrlDynamics(model, SPEC, no_obs_reward)
    mine = returns(dynamics, obs, spread, 1)
    error = (mine.var() / particles + theirs.var() / particles).sqrt()
    assert (mine.mean() - theirs.mean()).abs() < 4 * error


def test_any_number_of_rows_passes_though_the_peer_wants_a_multiple():
    model = peer(4)
    with pytest.raises(ValueError, match="multiple"):
        peer_env(model).evaluate_action_sequences(torch.zeros(3, 2, 2), np.zeros(3), 1)
    rollout = MbrlDynamics(model, SPEC, reward).rollout(MbrlDynamics(model, SPEC, reward).init(torch.zeros(3, 3)), torch.zeros(3, 2, 2))
    assert rollout.obs.shape == (3, 2, 3)
    assert rollout.terminated.shape == (3, 2)
    assert not rollout.terminated.any()


def test_fixed_model_rows_keep_their_member():
    dynamics = MbrlDynamics(peer(2, "fixed_model", quiet=True), SPEC, reward)
    obs, actions = torch.zeros(8, 3), torch.zeros(8, 12, 2)
    ends = dynamics.rollout(dynamics.init(obs), actions).obs[:, -1]
    assert len(torch.unique((ends * 1e3).round(), dim=0)) == 2


def test_a_carry_can_be_branched_from_twice():
    dynamics = MbrlDynamics(peer(1, deterministic=True), SPEC, reward)
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


def test_learned_reward_is_the_last_output():
    dynamics = MbrlDynamics(peer(1, learned_rewards=True, deterministic=True), SPEC)
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    step = dynamics.step(dynamics.init(obs), action)
    torch.testing.assert_close(step.reward, dynamics.predict(obs, action).mean[0, :, -1])


def test_actions_are_scaled_to_the_models_own_bounds():
    cfg = MbrlConfig(action_low=(-3.0, 0.0), action_high=(3.0, 2.0))
    model = peer(1, deterministic=True)
    obs, action = torch.randn(6, 3), torch.rand(6, 2) * 2 - 1
    scaled = MbrlDynamics(model, SPEC, reward, cfg=cfg).predict(obs, action)
    plain = MbrlDynamics(model, SPEC, reward).predict(obs, action * torch.tensor([3.0, 1.0]) + torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(scaled.mean, plain.mean)


def test_termination_is_reported():
    dynamics = MbrlDynamics(peer(1, deterministic=True), SPEC, reward, lambda obs, action, next_obs: obs[:, 0] > 0)
    obs = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
    assert dynamics.step(dynamics.init(obs), torch.zeros(2, 2)).terminated.tolist() == [True, False]


def test_fit_learns_and_state_round_trips():
    cfg = MbrlConfig(members=3, elites=2, layers=2, hidden=32, epochs=20, holdout=0.2, lr=1e-3, batch=32)
    fitted = registered["mbrl"].target(SPEC, cfg, reward)
    data = transitions(300)
    before = (fitted.predict(data.obs, data.action).mean - data.next_obs).square().mean()
    metrics = fitted.fit(data)
    after = (fitted.predict(data.obs, data.action).mean - data.next_obs).square().mean()
    assert after < 0.1 * before
    assert metrics["model/holdout_mse"] < 0.1 * before
    twin = ours.build(SPEC, cfg, reward)
    twin.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(twin.predict(data.obs, data.action), fitted.predict(data.obs, data.action), rtol=0, atol=0)
    assert twin.model.model.elite_models == [int(e) for e in fitted.model.model.elite_models]


# ------------------------------------------------------------------------------------------------------------------ files


def saved(tmp_path, **options):
    model = peer(**options)
    model.save(tmp_path)
    return model


@pytest.mark.parametrize("options", [{"elites": [2, 0]}, {"deterministic": True}, {"learned_rewards": True}])
def test_loads_what_mbrl_lib_saved(tmp_path, options):
    model = saved(tmp_path, **options)
    known = None if options.get("learned_rewards") else reward
    loaded = ours.load(tmp_path, SPEC, reward=known)
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    torch.testing.assert_close(loaded.predict(obs, action), MbrlDynamics(model, SPEC, known).predict(obs, action), rtol=0, atol=0)
    assert loaded.model.model.elite_models == options.get("elites")
    torch.testing.assert_close(loaded.model.input_normalizer.std, model.input_normalizer.std, rtol=0, atol=0)


def test_network_and_statistics_round_trip(tmp_path):
    model = saved(tmp_path, elites=[3, 1])
    again = tmp_path / "again"
    again.mkdir()
    files.write_network(again, files.read_network(tmp_path))
    files.write_stats(again, files.read_stats(tmp_path))
    fresh = peer(4)
    fresh.load(again)  # mbrl-lib's own reader
    assert fresh.model.elite_models == [3, 1]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], value, rtol=0, atol=0)
    torch.testing.assert_close(fresh.input_normalizer.mean, model.input_normalizer.mean, rtol=0, atol=0)


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_a_pickle_of_anything_but_arrays_is_refused_unrun(tmp_path, capsys):
    (tmp_path / files.STATS).write_bytes(pickle.dumps({"mean": Evil(), "std": np.ones(3)}))
    with pytest.raises(UserError, match=r"env_stats.pickle .* asks for builtins.print"):
        files.read_stats(tmp_path)
    torch.save({"state_dict": Evil(), "elite_models": None}, tmp_path / files.MODEL)
    with pytest.raises(UserError, match=r"model.pth cannot be read"):
        files.read_network(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_missing_truncated_and_foreign_files_are_named(tmp_path, content):
    saved(tmp_path)
    whole = (tmp_path / files.MODEL).read_bytes()
    (tmp_path / files.MODEL).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"model.pth cannot be read"):
        ours.load(tmp_path, SPEC, reward=reward)
    (tmp_path / files.MODEL).unlink()
    with pytest.raises(UserError, match=r"model.pth is missing"):
        ours.load(tmp_path, SPEC, reward=reward)


def test_refusals_name_the_culprit(tmp_path):
    saved(tmp_path)
    with pytest.raises(UserError, match=r"has 5 inputs; expected 6"):
        ours.load(tmp_path, EnvSpec(4, 2, SPEC.device), reward=reward)
    with pytest.raises(UserError, match=r"did not learn rewards"):
        ours.load(tmp_path, SPEC)
    with pytest.raises(UserError, match=r"must both have 2 numbers"):
        ours.load(tmp_path, SPEC, MbrlConfig(action_low=(-1.0,)), reward=reward)
    with pytest.raises(UserError, match=r"cannot learn when episodes terminate"):
        MbrlDynamics(peer(), SPEC, reward, cfg=MbrlConfig(termination="learned"))
    with pytest.raises(UserError, match=r"discrete actions"):
        MbrlDynamics(peer(), EnvSpec(3, 2, SPEC.device, discrete=True), reward)
    with pytest.raises(UserError, match=r"cannot propagate expectations"):
        MbrlDynamics(peer(2, "expectation", deterministic=True), SPEC, reward)
    with pytest.raises(UserError, match=r"expected a function of mbrl.env"):
        ours.named_process("os.system")
    with pytest.raises(UserError, match=r"NaN or infinity"):
        MbrlDynamics(peer(), SPEC, reward).fit(transitions(4)._replace(reward=torch.full((4,), torch.nan)))


def test_missing_mbrl_lib_prints_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mbrl.models", None)
    with pytest.raises(UserError, match=r"pip install --no-deps mbrl==0.2.0 hydra-core==1.3.8 antlr4-python3-runtime==4.9.3 termcolor$"):
        ours.library("models")


def test_observation_processing_is_found_by_the_name_in_the_configuration(tmp_path):
    spec = EnvSpec(18, 6, SPEC.device)
    process = ours.named_process("mbrl.env.pets_halfcheetah.HalfCheetahEnv.preprocess_fn")
    settings = files.Settings(no_delta=(0,), obs_process="mbrl.env.pets_halfcheetah.HalfCheetahEnv.preprocess_fn")
    model = ours.network_model(spec, MbrlConfig(members=2, hidden=8), (24, 18), settings, process, normalize=True)
    model.save(tmp_path)
    files.write_settings(tmp_path, settings, files.read_network(tmp_path), normalize=True)
    assert files.read_settings(tmp_path) == settings
    common = ours.library("util.common")
    theirs = common.create_one_dim_tr_model(common.load_hydra_cfg(tmp_path), (18,), (6,), tmp_path)
    mine = ours.load(tmp_path, spec, reward=reward)
    obs, action = torch.randn(5, 18), torch.rand(5, 6)
    torch.testing.assert_close(mine.predict(obs, action), MbrlDynamics(theirs, spec, reward).predict(obs, action), rtol=0, atol=0)
    assert theirs.no_delta_list == [0]


def test_a_basic_ensemble_is_a_model_like_any_other():
    member = {"_target_": "mbrl.models.GaussianMLP", "in_size": 5, "out_size": 3, "device": "cpu", "num_layers": 1, "hid_size": 8}
    network = models.BasicEnsemble(3, "cpu", member, propagation_method="random_model")
    dynamics = MbrlDynamics(models.OneDTransitionRewardModel(network, learned_rewards=False), SPEC, reward)
    obs, action = torch.randn(7, 3), torch.rand(7, 2)
    assert dynamics.rollout(dynamics.init(obs), action[:, None].expand(7, 4, 2)).obs.shape == (7, 4, 3)
    mean, var = dynamics.predict(obs, action)
    raw, log_var = network[1].forward(torch.cat([obs, action], 1))
    torch.testing.assert_close(mean[1], obs + raw)
    torch.testing.assert_close(var[1], log_var.exp())
    before = (mean - obs).square().mean()
    dynamics.fit(transitions(64))
    assert (dynamics.predict(obs, action).mean - obs).square().mean() != before
