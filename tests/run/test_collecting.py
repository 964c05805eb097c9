"""Data sets made here: exact rows, equal shares, deterministic, and what is refused."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import mbkit
from mbkit.data import read, write
from mbkit.errors import UserCodeError, UserError
from mbkit.run import collect, load

QUICK = ["threads=1", "eval.episodes=1", "eval.video=false", "agent.hidden=[8]", "loop.batch_size=8", "loop.warmup_steps=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A little trained SAC, with a checkpoint at step 40."""
    path = tmp_path_factory.mktemp("runs") / "sac"
    options = ["env=InvertedPendulum-v5", "steps=60", "checkpoint.every=40", "checkpoint.keep=all", "eval.every=40"]
    mbkit.train("sac", *QUICK, *options, "env_kwargs.max_episode_steps=30", f"run_dir={path}")
    return path


def replayed(data, **options):
    """Every episode of a data set again, by Gymnasium alone: (obs, next_obs, reward, terminated, truncated) of all rows.

    The simulator is set to each row's state through the actions alone, so that the first episode only is compared.
    """
    env = gymnasium.make(data.env, **options)
    rows = data.between(0, 1).columns()
    obs, _ = env.reset(seed=data.source["sources"][0]["env_seed"])
    out = []
    for action in rows.action:
        after, reward, terminated, truncated, _ = env.step(action)
        out.append((obs, after, reward, terminated, truncated))
        obs = after
    env.close()
    return rows, [np.array(column) for column in zip(*out, strict=True)]


@pytest.mark.parametrize("env", ["Hopper-v5", "CartPole-v1", "Pendulum-v1"])
def test_rows_are_exactly_the_environments(env, tmp_path):
    data = collect(["random"], 300, env, seed=3)
    rows, expected = replayed(data)
    for got, want in zip((rows.obs, rows.next_obs, rows.reward, rows.terminated, rows.truncated), expected, strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)
    assert data.rows == 300
    again = read(write(data, tmp_path / "data.h5"))
    assert again.sha256 == data.sha256
    assert again.source == data.source


def test_hopper_keeps_its_float64():
    rows = collect(["random"], 50, "Hopper-v5").columns()
    assert rows.obs.dtype == rows.reward.dtype == np.float64
    assert not np.array_equal(rows.obs, rows.obs.astype(np.float32))


def test_policies_act_without_exploration(run):
    data = collect([str(run)], 70)
    rows = data.columns()
    assert (data.env, data.env_kwargs) == ("InvertedPendulum-v5", {"max_episode_steps": 30})
    with load(run) as loaded:
        np.testing.assert_allclose(rows.action, loaded.act(rows.obs), atol=1e-6)
    assert data.lengths.max() <= 30
    (source,) = data.source["sources"]
    assert {key: source[key] for key in ("source", "algo", "step", "checkpoint", "rows", "noise")} == {
        "source": str(run), "algo": "sac", "step": 60, "checkpoint": "last", "rows": [0, 70], "noise": 0.0,
    }  # fmt: skip


def test_noise_is_gaussian_on_scaled_actions(run):
    data = collect([str(run)], 600, noise=0.05)
    rows = data.columns()
    with load(run) as loaded:
        clean = data.scaled(loaded.act(rows.obs))
    noise = (data.scaled(rows.action) - clean)[np.abs(clean) < 0.7]
    assert len(noise) > 200
    assert noise.std() == pytest.approx(0.05, rel=0.2)
    assert abs(noise.mean()) < 0.01


def test_noise_on_discrete_actions_is_epsilon(tmp_path):
    path = tmp_path / "run"
    mbkit.train("dqn", *QUICK, "env=CartPole-v1", "steps=40", f"run_dir={path}")
    data = collect([str(path)], 400, noise=0.5)
    with load(path) as loaded:
        differs = (loaded.act(data.columns().obs) != data.columns().action).mean()
    assert differs == pytest.approx(0.25, abs=0.1)
    with pytest.raises(UserError, match="probability of at most 1"):
        collect([str(path)], 4, noise=1.5)


def test_sources_have_equal_shares_and_their_rows_are_named(run):
    data = collect(["random", f"{run}@40", f"{run}@best"], 100, noise=0.1)
    sources = data.source["sources"]
    assert [source["rows"] for source in sources] == [[0, 33], [33, 66], [66, 100]]
    episode = data.columns().episode
    assert [source["episodes"] for source in sources] == [
        [int(episode[a]), int(episode[b - 1]) + 1] for a, b in ([0, 33], [33, 66], [66, 100])
    ]
    assert [source["noise"] for source in sources] == [0.0, 0.1, 0.1]
    assert sources[1]["step"] == 40
    assert len({source["env_seed"] for source in sources}) == 3


def test_collect_is_deterministic_in_the_seed_and_leaves_random_numbers_alone(run):
    torch.manual_seed(5)
    first = collect(["random", str(run)], 80, seed=1, noise=0.2)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(6)
    assert collect(["random", str(run)], 80, seed=1, noise=0.2).sha256 == first.sha256
    assert collect(["random", str(run)], 80, seed=2, noise=0.2).sha256 != first.sha256


class Dicts(gymnasium.Env):
    """Observations of two parts in float64, whole numbers at first, in an array that the task goes on writing into."""

    observation_space = spaces.Dict({"a": spaces.Box(-9, 9, (2,), np.float64), "b": spaces.Discrete(3)})
    action_space = spaces.Box(np.float32([-1, -3]), np.float32([1, 5]))

    def __init__(self, broken=False):
        self.broken, self.x = broken, np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x[:] = 1
        return {"a": self.x, "b": 0}, {}

    def step(self, action):
        self.x += 0.1
        action[:] = 0
        if self.broken:
            return {"a": np.zeros(5), "b": 0}, 0.0, False, False, {}
        return {"a": self.x, "b": 1}, np.float32(0.1), self.x[0] > 1.35, self.x[0] > 1.35, {}


def test_rows_are_copies_and_both_flags_are_told():
    gymnasium.register("Dicts-v0", Dicts)
    try:
        data = collect(["random"], 10, "Dicts-v0")
        rows = data.columns()
        assert rows.obs[:5, 0] == pytest.approx([1, 1.1, 1.2, 1.3, 1])
        assert rows.next_obs[:4].tolist() == [[x, x, 0, 1, 0] for x in rows.next_obs[:4, 0]]
        assert rows.terminated.tolist() == rows.truncated.tolist() == ([False] * 3 + [True]) * 2 + [False] * 2
        assert rows.action.any(1).all()
        assert np.array_equal(data.box, [[-1, -3], [1, 5]])
        with pytest.raises(UserError, match=r"observation of Dicts-v0 .*expected Dict"):
            collect(["random"], 10, "Dicts-v0", env_kwargs={"broken": True})
    finally:
        del gymnasium.registry["Dicts-v0"]


@pytest.mark.parametrize(
    ("sources", "options", "sentence"),
    [
        (["random"], {}, "the source random needs --env"),
        ([], {"env": "Pendulum-v1"}, r"sources=\[\]: expected a list"),
        ("random", {"env": "Pendulum-v1"}, "sources='random': expected a list"),
        (["absent"], {}, "source 'absent': expected random, or a run directory"),
        (["absent@best"], {}, "there is no absent"),
        (["."], {}, "is not a run directory: it has no config.yaml"),
        (["RUN"], {"env": "Hopper-v5"}, "was trained on InvertedPendulum-v5; expected Hopper-v5, as --env says"),
        (["RUN"], {"env_kwargs": {"max_episode_steps": 3}}, "was trained with env_kwargs"),
        (["RUN@7"], {}, "holds no checkpoint of that step; stored steps: 0, 40, 60"),
        (["RUN", "random"], {"steps": 1}, "at least one step for each of the 2 sources"),
        (["RUN"], {"noise": -0.1}, "noise=-0.1: expected a number of at least 0"),
        (["RUN"], {"noise": float("nan")}, "noise=nan"),
        (["RUN"], {"seed": -1}, "seed=-1: expected a whole number"),
        (["RUN"], {"steps": 0}, "steps=0: expected a whole number of at least 1"),
        (["random"], {"env": "Pendulum-v1", "noise": 0.1}, "are random already"),
        (["random"], {"env": "Pendulom-v1"}, "did you mean 'Pendulum-v1'"),
        (["random"], {"env": "Pendulum-v1", "env_kwargs": {"gg": 1}}, "did you mean 'g'"),
    ],
)
def test_collect_of_odd_arguments_is_refused(run, tmp_path, monkeypatch, sources, options, sentence):
    monkeypatch.chdir(tmp_path)
    sources = sources if isinstance(sources, str) else [source.replace("RUN", str(run)) for source in sources]
    with pytest.raises(UserError, match=sentence) as refusal:
        collect(sources, **{"steps": 10, **options})
    assert not isinstance(refusal.value, UserCodeError)
