"""Model-based acceleration: the mixture is exact, the model is used until its step, and without a model it is NAF."""

import pytest
import torch
from resumption import check_resumption, same

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import ModelFits, ModelRollouts, Until, Updates
from mbkit.replay.buffer import Experience
from mbkit.types import Transition

RUN = ["env=Pendulum-v1", "threads=1", "gamma=0.98", "seed=3", "eval.every=0", "eval.episodes=2", "eval.video=false"]
LOOP = ["loop.warmup_steps=40", "loop.batch_size=20", "loop.buffer_size=1000", "loop.updates_per_step=1"]
AGENT = ["agent.hidden=[16,16]", "agent.lr=1e-3", "agent.noise_scale=0.2"]  # said here, so that presets may differ
TINY = [*RUN, *LOOP, *AGENT]
ENSEMBLE = ["dynamics=ensemble", "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[16]", "dynamics.max_epochs=2"]
LINEAR = ["dynamics=local_linear", "dynamics.centres=4", "imagination.recent=60"]


def wired(*options):
    experiment = compose("mba", ["env=Pendulum-v1", "loop.buffer_size=1000", *options])
    return recipes.build(experiment, make(experiment.env, env_kwargs=experiment.env_kwargs))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return mbkit.train("naf", *TINY, "steps=150", f"run_dir={tmp_path_factory.mktemp('naf')}/run")


def test_mba_real_ratio_1_is_naf(alone, tmp_path):
    run = mbkit.train("mba", *TINY, "steps=150", "imagination.real_ratio=1", f"run_dir={tmp_path}/run")
    assert same(run.agent.state_dict(), alone.agent.state_dict())
    assert same(run.parts.replay.state_dict(), alone.parts.replay.state_dict())
    assert run.scores == alone.scores
    assert run.parts.dynamics is None


@pytest.mark.parametrize(("ratio", "batch", "real"), [(0.2, 20, 4), (0.25, 256, 64), (0.5, 7, 4), (0.0, 16, 0), (0.9, 10, 9)])
def test_mba_share_of_model_transitions_is_exact_in_every_batch(ratio, batch, real):
    x = wired(f"imagination.real_ratio={ratio}")
    no = torch.zeros(30, dtype=torch.bool)
    x.replay.extend(Experience(torch.zeros(30, 3), torch.zeros(30, 1), torch.zeros(30), torch.zeros(30, 3), no, no))
    predicted = Transition(torch.ones(9, 3), torch.ones(9, 1), torch.ones(9), torch.ones(9, 3), torch.ones(9))
    x.stateful["model_buffer"].extend(predicted, torch.ones(9, dtype=torch.bool))
    for _ in range(5):
        drawn = x.hooks[-1].source.sample(batch)
        assert len(drawn.reward) == batch
        assert int((drawn.reward == 0).sum()) == real


@pytest.mark.parametrize("model", [ENSEMBLE, LINEAR], ids=["ensemble", "local_linear"])
def test_mba_uses_the_model_until_its_step_and_resumes_bit_for_bit(model, alone, tmp_path):
    options = ["loop.fit_every=50", "imagination.until=110", "imagination.rollouts_per_step=2", "imagination.horizon=2"]
    whole, half, _ = check_resumption(tmp_path, "mba", *TINY, *model, *options, steps=150, pause=105)
    rollouts = half.parts.stateful["model_buffer"].state_dict()
    assert rollouts["size"] == 3 * 2 * 2 * 50  # after the warm-up, at 50 and at 100: starts of 50 steps, two steps each
    assert same(whole.parts.stateful["model_buffer"].state_dict(), rollouts)  # the fit that was due at 150 did not happen
    assert same(whole.parts.dynamics.state_dict(), half.parts.dynamics.state_dict())
    assert not same(whole.agent.state_dict(), alone.agent.state_dict())


def test_mba_until_leaves_updates_on_real_rows_alone():
    fits, updates = wired("imagination.until=5000").hooks
    assert isinstance(fits, Until)
    assert [type(hook) for hook in fits.before] == [ModelFits]
    assert list(fits.after) == []
    assert [type(hook) for hook in (*updates.before, *updates.after)] == [Updates, Updates]
    x = wired()
    assert updates.after[0].source.capacity == x.replay.capacity  # the replay itself
    assert [type(hook) for hook in x.hooks] == [ModelFits, Updates]
    assert [type(hook) for hook in x.hooks[0].then] == [ModelRollouts]


@pytest.mark.parametrize(("algo", "preset"), [("mba", []), ("mba", ["preset=linear"]), ("dyna", [])])
def test_mba_presets_have_the_agent_that_they_are_compared_with(algo, preset):
    mine, base = compose(algo, ["env=Pendulum-v1", *preset]), compose("naf", ["env=Pendulum-v1"])
    assert mine.agent == base.agent
    assert (mine.gamma, mine.loop.warmup_steps, mine.loop.batch_size) == (base.gamma, base.loop.warmup_steps, base.loop.batch_size)


def test_mba_model_buffer_holds_the_retained_fits():
    x = wired("imagination.horizon=4", "imagination.rollouts_per_step=3", "imagination.retain_fits=2", "loop.fit_every=100")
    assert x.stateful["model_buffer"].capacity == 2 * 4 * 3 * 100
    assert x.hooks[0].then[0].schedule.starts == 300


def test_mba_recent_limits_the_start_states():
    assert wired("imagination.recent=7").hooks[0].then[0].data.rows == 7
    x = wired()
    assert x.hooks[0].then[0].data is x.replay


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["imagination.real_ratio=1.5"], "imagination.real_ratio=1.5 is out of range: expected in [0.0, 1.0]"),
        (["imagination.horizon=-1"], "imagination.horizon=-1 is out of range: expected >= 1"),
        (["imagination.rollouts_per_step=0"], "imagination.rollouts_per_step=0 is out of range: expected >= 1"),
        (["imagination.retain_fits=0"], "imagination.retain_fits=0 is out of range: expected >= 1"),
        (["imagination.recent=0"], "imagination.recent=0 is out of range: expected >= 1"),
        (["imagination.until=-5"], "imagination.until=-5 is out of range: expected >= 1"),
        (["imagination.until=1000"], "imagination.until=1000: expected more than loop.warmup_steps=1000"),
        (["loop.fit_every=0"], "loop.fit_every=0: model rollouts begin when the warm-up ends and come every loop.fit_every steps"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0: model rollouts begin when the warm-up ends"),
        (["loop.warmup_steps=1"], "loop.warmup_steps=1: mba would use a model that learned nothing"),
        (["loop.fit=false"], "loop.fit=false and loop.warmup_steps=1000: mba would use a model that learned nothing"),
        (["dynamics=local_linear", "loop.fit=false"], "mba would use a model that learned nothing"),
        (["env=CartPole-v1"], "naf needs continuous actions, but the environment has 2 discrete ones"),
        (["dynamics=mujoco"], "dynamics=mujoco only plans"),
        (["agent=dpg"], "agent 'dpg' learns from its newest transitions, but mba offers replayed transitions"),
    ],
)
def test_mba_mistakes_are_named(options, sentence):
    with pytest.raises(UserError) as error:
        wired(*options)
    assert sentence in str(error.value)
