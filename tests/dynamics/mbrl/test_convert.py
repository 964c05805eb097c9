"""Ensembles and replay to mbrl-lib and back; the oracle is the real mbrl-lib. Letters as in `mbkit.types`."""

import functools

import gymnasium
import numpy as np
import pytest
import torch

from mbkit.dynamics import training
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.loss import TrainingRows, loss
from mbkit.dynamics.mbrl import MbrlDynamics
from mbkit.dynamics.mbrl.convert import export_ensemble, import_ensemble, import_path, read_replay, write_replay
from mbkit.dynamics.mbrl.dynamics import library
from mbkit.errors import UserError
from mbkit.planning.objective import open_loop_return
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import episodes
from mbkit.types import EnvSpec, TaskKnowledge, Transition

models = pytest.importorskip("mbrl.models")
SPEC = EnvSpec(3, 2, torch.device("cpu"))
SMALL = {"members": 4, "elites": 2, "hidden": (16, 16)}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def reward(obs, action, next_obs):
    return next_obs[:, 0] - 0.1 * action.square().sum(1)


def turned(obs):
    """Observation processing with an import path."""
    return torch.cat([obs.sin(), obs.cos()], -1) if isinstance(obs, torch.Tensor) else np.concatenate([np.sin(obs), np.cos(obs)], -1)


KNOWN = TaskKnowledge(reward)


def ensemble(cfg=None, **knowledge):
    """Random weights behind normalisers that do something; elites are not the first ones."""
    model = Ensemble(SPEC, EnsembleConfig(**SMALL | (cfg or {})), KNOWN._replace(**knowledge))
    network = model.network
    with torch.no_grad():
        network.inputs.mean.normal_()
        network.inputs.std.uniform_(0.5, 2)
        network.elites.copy_(torch.arange(model.cfg.members)[-model.cfg.elites :])
        network.logvar_bounds += 0.3 * torch.rand(network.logvar_bounds.shape)
        if model.cfg.scale_targets:
            network.targets.mean.normal_()
            network.targets.std.uniform_(0.1, 3)
    model.refresh()
    return model


def theirs(directory):
    """The model that mbrl-lib itself reads from the directory."""
    common = library("util.common")
    return common.create_one_dim_tr_model(common.load_hydra_cfg(directory), (3,), (2,), directory)


CASES = {
    "plain": ({}, {}),
    "deterministic": ({"probabilistic": False}, {}),
    "scaled targets": ({"scale_targets": True}, {}),
    "scaled deterministic": ({"scale_targets": True, "probabilistic": False}, {}),
    "learned reward, absolute": ({"scale_targets": True}, {"reward": None, "absolute": (1,)}),
    "next observation itself": ({"delta": False}, {}),
    "processed observation": ({}, {"preprocess": turned}),
    "one member": ({"members": 1, "elites": 1}, {}),
    "all elite": ({"elites": 4}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_export_ensemble_gives_mbrl_lib_the_same_means_variances_and_elites(tmp_path, name):
    cfg, knowledge = CASES[name]
    mine = ensemble(cfg, **knowledge)
    export_ensemble(mine, tmp_path)
    obs, action = torch.randn(20, 3), torch.rand(20, 2) * 2 - 1
    peer = theirs(tmp_path)
    prediction = MbrlDynamics(peer, SPEC, task=mine.task).predict(obs, action)
    torch.testing.assert_close(prediction, mine.predict(obs, action), rtol=2e-5, atol=2e-6)
    all_in = mine.cfg.elites == mine.cfg.members
    assert peer.model.elite_models == (None if all_in else mine.network.elites.tolist())


@pytest.mark.parametrize("name", CASES)
def test_import_ensemble_of_an_export_is_the_same_ensemble(tmp_path, name):
    cfg, knowledge = CASES[name]
    mine = ensemble(cfg, **knowledge)
    export_ensemble(mine, tmp_path)
    back = import_ensemble(tmp_path, SPEC, mine.task._replace(absolute=()))  # which are absolute stands in the files
    obs, action = torch.randn(20, 3), torch.rand(20, 2) * 2 - 1
    torch.testing.assert_close(back.predict(obs, action), mine.predict(obs, action), rtol=2e-5, atol=2e-6)
    assert back.network.elites.tolist() == mine.network.elites.tolist()
    torch.testing.assert_close(back.network.inputs.std, mine.network.inputs.std, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("probabilistic", [True, False])
def test_export_ensemble_gives_mbrl_lib_the_same_loss(tmp_path, probabilistic):
    mine = ensemble({"probabilistic": probabilistic, "scale_targets": False})
    export_ensemble(mine, tmp_path)
    rows = [torch.randn(30, 3), torch.rand(30, 2), torch.randn(30), torch.randn(30, 3), torch.ones(30)]
    data = Transition(*rows)
    raw, inputs = training.rows(mine.network, data), mine.network.inputs
    batch = TrainingRows(inputs(raw.x).expand(4, -1, -1), raw.y.expand(4, -1, -1), raw.ended.expand(4, -1))
    peer = theirs(tmp_path)
    their_batch = MbrlDynamics(peer, SPEC, task=KNOWN).batch(data)
    their_loss, _ = peer.loss(their_batch)
    per_entry = 1 if probabilistic else 30 * 3  # theirs sums squared errors over rows and dimensions, ours averages
    torch.testing.assert_close(loss(mine.network, batch) * per_entry, their_loss, rtol=1e-5, atol=1e-5)
    score = peer.eval_score(their_batch)[0].mean((1, 2))
    holdout = TrainingRows(batch.x[0], raw.y, raw.ended)
    torch.testing.assert_close(training.holdout_error(mine.network, holdout), score, rtol=1e-5, atol=1e-6)


def test_export_ensemble_gives_mbrl_lib_the_same_normaliser(tmp_path):
    data = torch.randn(200, 5) * torch.tensor([1, 0.1, 50, 1, 0]) + torch.tensor([0, 5, -3, 1, 1])  # ours scales a constant by its size
    mine = ensemble()
    mine.network.inputs.fit(data)
    export_ensemble(mine, tmp_path)
    normalizer = library("util.math").Normalizer(5, torch.device("cpu"), torch.double)
    normalizer.update_stats(data.double().numpy())
    torch.testing.assert_close(theirs(tmp_path).input_normalizer.mean, normalizer.mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(theirs(tmp_path).input_normalizer.std, normalizer.std, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(mine.network.inputs(data), normalizer.normalize(data).float(), rtol=1e-4, atol=1e-4)


def evaluated(directory, actions, obs, particles, propagation):
    """mbrl-lib's returns [N] of actions [N, H, A] with its own ModelEnv."""
    model = theirs(directory)
    model.set_propagation_method(propagation)

    class Spaces(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
        action_space = gymnasium.spaces.Box(-1, 1, (2,))

    env = models.ModelEnv(
        Spaces(),
        model,
        lambda action, next_obs: next_obs[:, :1] > 2,
        lambda action, next_obs: reward(None, action, next_obs)[:, None],
        generator=torch.Generator().manual_seed(1),
    )
    return env.evaluate_action_sequences(actions, obs.double().numpy(), particles)


def ends(obs, action, next_obs):
    return next_obs[:, 0] > 2


@pytest.mark.parametrize("name", ["one deterministic member", "expectation without noise"])
def test_export_ensemble_gives_mbrl_lib_the_same_returns_without_noise(tmp_path, name):
    expectation = name.startswith("expectation")
    one = {"propagation": "expectation", "elites": 3} if expectation else {"members": 1, "elites": 1, "probabilistic": False}
    mine = ensemble(one, termination=ends)
    if expectation:  # theirs samples with the mean log-variance: make it vanish
        with torch.no_grad():
            mine.network.logvar_bounds.copy_(torch.tensor([[-70.0], [-60.0]]).expand(2, 3))
        mine.refresh()
    export_ensemble(mine, tmp_path)
    obs, actions = torch.tensor([0.3, -0.2, 0.9]), torch.rand(11, 8, 2) * 2 - 1
    peer = evaluated(tmp_path, actions, obs, 3, "expectation" if expectation else "random_model")
    ours = open_loop_return(mine, obs[None], 3)(actions[None])[0]
    torch.testing.assert_close(ours, peer, rtol=5e-5, atol=5e-5)
    assert peer.std() > 0.05


@pytest.mark.parametrize(("propagation", "peer_method"), [("ts1", "random_model"), ("ts_inf", "fixed_model")])
def test_export_ensemble_gives_mbrl_lib_the_same_returns_within_sampling_error(tmp_path, propagation, peer_method):
    mine = ensemble({"propagation": propagation, "elites": 3}, termination=ends)
    export_ensemble(mine, tmp_path)
    obs, rows = torch.tensor([0.3, -0.2, 0.9]), 6000
    for actions in (torch.rand(3, 1, 6, 2) * 2 - 1).expand(3, rows, 6, 2):  # one row per sample, so that their spread is known
        peer = evaluated(tmp_path, actions, obs, 1, peer_method)
        ours = open_loop_return(mine, obs[None], 1)(actions[None])[0]
        error = (ours.var() / rows + peer.var() / rows).sqrt()
        assert (ours.mean() - peer.mean()).abs() < 4 * error
        torch.testing.assert_close(ours.std(), peer.std(), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ensemble({"termination": "learned"}), "learned termination"),
        (lambda: ensemble({"hidden": (16, 8)}), r"one width; came: dynamics.hidden=\(16, 8\)"),
        (lambda: ensemble(preprocess=lambda obs: obs), "import path"),
        (lambda: ensemble(preprocess=functools.partial(turned)), "import path"),
        (lambda: Ensemble(EnvSpec(3, 2, SPEC.device, True), EnsembleConfig(**SMALL), KNOWN), "discrete actions"),
    ],
)
def test_export_ensemble_refuses_what_mbrl_lib_cannot_express_and_writes_nothing(tmp_path, make, sentence):
    with pytest.raises(UserError, match=sentence):
        export_ensemble(make(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_import_ensemble_refuses_what_the_ensemble_is_not(tmp_path):
    export_ensemble(ensemble(), tmp_path)
    with pytest.raises(UserError, match=r"has 5 inputs; expected 6"):
        import_ensemble(tmp_path, EnvSpec(4, 2, SPEC.device), KNOWN)
    with pytest.raises(UserError, match=r"did not learn rewards"):
        import_ensemble(tmp_path, SPEC)
    config = tmp_path / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("SiLU", "ReLU"))
    with pytest.raises(UserError, match=r"activation is torch.nn.ReLU; expected torch.nn.SiLU"):
        import_ensemble(tmp_path, SPEC, KNOWN)
    config.write_text("a: [")
    with pytest.raises(UserError, match=r"config.yaml cannot be read"):
        import_ensemble(tmp_path, SPEC, KNOWN)


def test_import_ensemble_without_statistics_or_configuration(tmp_path):
    network = models.GaussianMLP(5, 4, "cpu", 3, 2, 8, activation_fn_cfg={"_target_": "torch.nn.SiLU"})
    peer = models.OneDTransitionRewardModel(network)
    peer.save(tmp_path)
    mine = import_ensemble(tmp_path, SPEC)
    obs, action = torch.randn(9, 3), torch.rand(9, 2)
    torch.testing.assert_close(mine.predict(obs, action), MbrlDynamics(peer, SPEC).predict(obs, action), rtol=1e-5, atol=1e-6)
    assert mine.cfg.hidden == (8, 8, 8)
    assert mine.cfg.elites == 2


def test_export_and_import_ensemble_convert_action_units(tmp_path):
    bounds = ((-3.0, 0.0), (3.0, 2.0))
    mine = ensemble()
    export_ensemble(mine, tmp_path, bounds)
    obs, action = torch.randn(20, 3), torch.rand(20, 2) * 2 - 1
    native = action * torch.tensor([3.0, 1.0]) + torch.tensor([0.0, 1.0])
    prediction = MbrlDynamics(theirs(tmp_path), SPEC, task=KNOWN).predict(obs, native)
    torch.testing.assert_close(prediction, mine.predict(obs, action), rtol=2e-5, atol=2e-6)
    back = import_ensemble(tmp_path, SPEC, KNOWN, action_bounds=bounds)
    torch.testing.assert_close(back.network.inputs.mean, mine.network.inputs.mean, rtol=1e-6, atol=1e-6)
    with pytest.raises(UserError, match="must be 2 numbers each"):
        import_ensemble(tmp_path, SPEC, KNOWN, action_bounds=((1.0,), (2.0,)))


def test_import_path_names_functions_of_modules_only():
    assert import_path(torch.sin) is None or import_path(torch.sin).endswith("sin")
    assert import_path(turned) == f"{__name__}.turned"
    assert import_path(lambda x: x) is None


def peer_buffer(rows, capacity=100):
    """Episodes of five steps in mbrl-lib's buffer, every second one truncated, its last one unfinished."""
    buffer = library("util.replay_buffer").ReplayBuffer(capacity, (3,), (2,), obs_type=np.double, rng=np.random.default_rng(0))
    rng, obs = np.random.default_rng(0), np.zeros(3)
    for i in range(rows):
        next_obs, last = rng.normal(size=3), i % 5 == 4
        buffer.add(obs, rng.uniform(-3, 3, 2), next_obs, rng.normal(), last and i % 10 == 4, last and i % 10 == 9)
        obs = rng.normal(size=3) if last else next_obs
    return buffer


def test_read_replay_finds_the_episodes(tmp_path):
    theirs = peer_buffer(33)
    theirs.save(tmp_path)
    rows = read_replay(tmp_path, ((-3, -3), (3, 3)))
    assert rows.ended.sum() == 6
    assert rows.terminated.sum() == 3
    assert rows.action.abs().max() <= 1
    mine = ReplayBuffer(50, SPEC)
    mine.extend(rows, column=0)
    assert [len(episode.reward) for episode in episodes(mine)] == [5] * 6
    torch.testing.assert_close(mine.all().obs.double(), torch.from_numpy(theirs.get_all().obs), rtol=1e-6, atol=1e-6)


def test_read_replay_ends_an_episode_at_the_seam_of_the_ring(tmp_path):
    peer_buffer(33, capacity=17).save(tmp_path)  # rows 17.. overwrote the first ones, in the middle of an episode
    rows = read_replay(tmp_path)
    follows = (rows.next_obs[:-1] == rows.obs[1:]).all(1)
    assert (rows.ended[:-1] | follows).all()
    assert rows.ended[15]


def test_write_replay_round_trips_through_mbrl_lib(tmp_path):
    rows = Experience(
        torch.randn(9, 3), torch.rand(9, 2) * 2 - 1, torch.randn(9), torch.randn(9, 3), torch.arange(9) == 3, torch.arange(9) % 4 == 3
    )
    write_replay(tmp_path, rows, ((-2, -2), (2, 2)))
    theirs = library("util.replay_buffer").ReplayBuffer(20, (3,), (2,))
    theirs.load(tmp_path)
    batch = theirs.get_all()
    np.testing.assert_allclose(batch.act, 2 * rows.action.numpy(), rtol=1e-6)
    assert batch.terminateds.tolist() == rows.terminated.tolist()
    assert batch.truncateds.tolist() == (rows.ended & ~rows.terminated).tolist()
    again = tmp_path / "again"
    again.mkdir()
    theirs.save(again)
    back = read_replay(again, ((-2, -2), (2, 2)))
    for name in ("obs", "action", "reward", "next_obs", "terminated"):
        torch.testing.assert_close(getattr(back, name), getattr(rows, name), rtol=1e-6, atol=1e-6)


def test_read_replay_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"replay_buffer.npz is missing"):
        read_replay(tmp_path)


def test_export_ensemble_that_knows_a_part_of_the_reward_is_refused(tmp_path):
    with pytest.raises(UserError, match="learn whole rewards; came: an ensemble that learned a part and knows the rest"):
        export_ensemble(ensemble(reward=None, reward_part=reward), tmp_path)


def test_import_ensemble_learned_the_whole_reward(tmp_path):
    export_ensemble(ensemble(reward=None), tmp_path)
    again = import_ensemble(tmp_path, SPEC, TaskKnowledge(reward_part=reward))
    assert again.reward_part is None
