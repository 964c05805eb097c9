"""Model-based acceleration: the mixture is exact, imagination stops when told, and without a model it is NAF."""

import pytest
import torch

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import FitModel, Imagine, Updates
from mbkit.recipes.mba import Recent, Switch
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec, Transition

TINY = ["env=Pendulum-v1", "threads=1", "gamma=0.98", "steps=150", "seed=3", "loop.warmup_steps=40", "loop.batch_size=20"]
TINY += [
    "loop.fit_every=50",
    "loop.buffer_size=1000",
    "agent.hidden=[16,16]",
    "agent.lr=1e-3",
    "eval.every=0",
    "eval.episodes=2",
    "eval.video=false",
]
TINY += ["loop.updates_per_step=1"]
TINY += ["agent.noise_scale=0.2"]  # said here, so that presets may differ
MODEL = ["dynamics=ensemble", "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[16]", "dynamics.max_epochs=2"]
LINEAR = ["dynamics=local_linear", "dynamics.centres=4", "imagination.recent=60"]


def same(a, b) -> bool:
    """Nested states, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def wired(*words):
    experiment = compose("mba", ["env=Pendulum-v1", "loop.buffer_size=1000", *words])
    return recipes.build(experiment, make(experiment.env, env_kwargs=experiment.env_kwargs))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return mbkit.train("naf", *TINY, f"run_dir={tmp_path_factory.mktemp('naf')}/run")


def test_with_real_rows_only_it_is_naf(alone, tmp_path):
    run = mbkit.train("mba", *TINY, "imagination.real_ratio=1", f"run_dir={tmp_path}/run")
    assert same(run.agent.state_dict(), alone.agent.state_dict())
    assert same(run.parts.buffer.state_dict(), alone.parts.buffer.state_dict())
    assert run.scores == alone.scores
    assert run.parts.dynamics is None


@pytest.mark.parametrize(("ratio", "batch", "real"), [(0.2, 20, 4), (0.25, 256, 64), (0.5, 7, 4), (0.0, 16, 0), (0.9, 10, 9)])
def test_the_share_of_imagined_rows_is_exact_in_every_batch(ratio, batch, real):
    parts = wired(f"imagination.real_ratio={ratio}")
    no = torch.zeros(30, dtype=torch.bool)
    parts.buffer.extend(Experience(torch.zeros(30, 3), torch.zeros(30, 1), torch.zeros(30), torch.zeros(30, 3), no, no))
    imagined = Transition(torch.ones(9, 3), torch.ones(9, 1), torch.ones(9), torch.ones(9, 3), torch.ones(9))
    parts.stateful["memory"].extend(imagined, torch.ones(9, dtype=torch.bool))
    for _ in range(5):
        drawn = parts.hooks[-1].source.sample(batch)
        assert len(drawn.reward) == batch
        assert int((drawn.reward == 0).sum()) == real


@pytest.mark.parametrize("model", [MODEL, LINEAR], ids=["ensemble", "local_linear"])
def test_imagination_stops_at_its_step_and_resumes_bit_for_bit(model, alone, tmp_path):
    words = [*TINY, *model, "imagination.until=110", "imagination.rollouts_per_step=2", "imagination.horizon=2"]
    whole = mbkit.train("mba", *words, f"run_dir={tmp_path}/whole")
    half = mbkit.train("mba", *words, "steps=105", f"run_dir={tmp_path}/half")
    memory, model_then = half.parts.stateful["memory"].state_dict(), half.parts.dynamics.state_dict()
    assert memory["size"] == 3 * 2 * 2 * 50  # after the warm-up, at 50 and at 100: starts of 50 steps, two steps each
    resumed = mbkit.resume(f"{tmp_path}/half", steps=150)
    for name in whole.parts.stateful:
        assert same(whole.parts.stateful[name].state_dict(), resumed.parts.stateful[name].state_dict()), name
    assert same(whole.parts.stateful["memory"].state_dict(), memory)  # the fit that was due at 150 did not happen
    assert same(whole.parts.dynamics.state_dict(), model_then)
    assert not same(whole.agent.state_dict(), alone.agent.state_dict())


def test_hooks_of_both_sides_of_the_switch():
    (switch,) = wired("imagination.until=5000").hooks
    assert [type(hook) for hook in switch.before] == [FitModel, Imagine, Updates]
    (real,) = switch.after
    parts = wired()
    assert real.source.capacity == parts.buffer.capacity  # the replay itself
    assert [type(hook) for hook in parts.hooks] == [FitModel, Imagine, Updates]


@pytest.mark.parametrize(("algo", "preset"), [("mba", []), ("mba", ["preset=linear"]), ("dyna", [])])
def test_presets_have_the_agent_that_they_are_compared_with(algo, preset):
    mine, base = compose(algo, ["env=Pendulum-v1", *preset]), compose("naf", ["env=Pendulum-v1"])
    assert mine.agent == base.agent
    assert (mine.gamma, mine.loop.warmup_steps, mine.loop.batch_size) == (base.gamma, base.loop.warmup_steps, base.loop.batch_size)


def test_the_switch_turns_after_its_step():
    seen = []
    switch = Switch(3, [lambda loop: seen.append(("before", loop.step))], [lambda loop: seen.append(("after", loop.step))])
    for step in (1, 3, 4, 6):
        switch(type("Loop", (), {"step": step})())
    assert seen == [("before", 1), ("before", 3), ("after", 4), ("after", 6)]


def test_how_many_rows_are_remembered():
    parts = wired("imagination.horizon=4", "imagination.rollouts_per_step=3", "imagination.memory=2", "loop.fit_every=100")
    assert parts.stateful["memory"].capacity == 2 * 4 * 3 * 100
    assert next(hook for hook in parts.hooks if isinstance(hook, Imagine)).starts == 300


@pytest.mark.parametrize(("recent", "capacity", "oldest"), [(5, 100, 25), (5, 12, 25), (50, 12, 18), (50, 100, 0), (1, 100, 29)])
def test_recent_transitions_are_the_newest_ones_and_all_of_them(recent, capacity, oldest):
    buffer = ReplayBuffer(capacity, EnvSpec(1, 1, torch.device("cpu")))
    for i in range(30):
        row, no = torch.full((1, 1), float(i)), torch.zeros(1, dtype=torch.bool)
        buffer.extend(Experience(row, row / 30, row[0], row + 1, no, torch.tensor([i % 7 == 0])))
    drawn = Recent(buffer, recent).sample(1000)
    assert set(drawn.obs[:, 0].tolist()) == set(range(oldest, 30))
    assert torch.equal(drawn.next_obs, drawn.obs + 1)
    assert torch.equal(drawn.reward, drawn.obs[:, 0])
    imagine = next(hook for hook in wired("imagination.recent=7").hooks if isinstance(hook, Imagine))
    assert imagine.data.rows == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imagination.real_ratio=1.5"], "imagination.real_ratio=1.5 is out of range: expected in [0.0, 1.0]"),
        (["imagination.horizon=-1"], "imagination.horizon=-1 is out of range: expected >= 1"),
        (["imagination.rollouts_per_step=0"], "imagination.rollouts_per_step=0 is out of range: expected >= 1"),
        (["imagination.memory=0"], "imagination.memory=0 is out of range: expected >= 1"),
        (["imagination.recent=0"], "imagination.recent=0 is out of range: expected >= 1"),
        (["imagination.until=-5"], "imagination.until=-5 is out of range: expected >= 1"),
        (["imagination.until=1000"], "imagination.until=1000: expected more than loop.warmup_steps=1000"),
        (["loop.fit_every=0"], "loop.fit_every=0: mba imagines when the warm-up ends and every loop.fit_every steps"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0: mba imagines when the warm-up ends"),
        (["loop.warmup_steps=1"], "loop.warmup_steps=1: mba would ask a model that learned nothing"),
        (["loop.fit=false"], "loop.fit=false and loop.warmup_steps=1000: mba would ask a model that learned nothing"),
        (["dynamics=local_linear", "loop.fit=false"], "mba would ask a model that learned nothing"),
        (["env=CartPole-v1"], "naf needs continuous actions, but the environment has 2 discrete ones"),
        (["dynamics=mujoco"], "dynamics=mujoco only plans"),
        (["agent=dpg"], "dpg learns on-policy, but mba replays transitions"),
    ],
)
def test_mistakes_are_named(words, said):
    with pytest.raises(UserError) as error:
        wired(*words)
    assert said in str(error.value)
