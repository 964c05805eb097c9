"""Crafted and foreign checkpoints: one sentence each, or exactly what the file says."""

import warnings

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_values import mutations, refusal_of, with_leaf

import mbkit
from mbkit.errors import UserError
from mbkit.recording import load_checkpoint, save_checkpoint
from mbkit.run import Run
from mbkit.run.api import without_load
from mbkit.run.reading import read_config
from mbkit.run.restoring import differing
from mbkit.run.restoring import settings as hyperparameters

COMMON = ("threads=1", "agent.hidden=[4]", "eval.episodes=1", "eval.video=false")
REPLAY = ("loop.warmup_steps=10", "loop.batch_size=4", "env_kwargs.max_episode_steps=12", "env=Pendulum-v1", "loop.buffer_size=100")
MODEL = ("dynamics.hidden=[4]", "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=1", "loop.fit_every=10")
RUNS = {
    "sac": (*COMMON, *REPLAY, "steps=20"),
    "mbpo": (*COMMON, *REPLAY, *MODEL, "steps=20", "imagination.epoch_length=10"),
    "ppo": (*COMMON, "env=CartPole-v1", "loop.rollout_steps=16", "steps=20"),
}


@pytest.fixture(scope="module", params=RUNS)
def finished(request, tmp_path_factory):
    """The directory of a short run."""
    path = tmp_path_factory.mktemp(request.param) / "run"
    mbkit.train(request.param, *RUNS[request.param], f"run_dir={path}")
    return path


def unfilled(path) -> Run:
    """The run of this directory, before its checkpoint was taken up."""
    run = Run(without_load(read_config(path)), restored=True)
    run.directory = path
    return run


def takes(run: Run, state, step: int) -> bool:
    """Whether the run took up this state; otherwise it was refused with one sentence that names its directory."""
    refused = refusal_of(lambda: run.restore(state, step))
    assert refused is None or (str(run.path) in refused and len(refused) < 800)
    return refused is None


def check_mutations(path, examples: int) -> None:
    step, state = load_checkpoint(path / "checkpoint")
    runs = [unfilled(path)]

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate])
    @given(mutated=mutations(state))
    def refused_or_exact(mutated):
        run = runs[0]
        if takes(run, mutated, step):
            for name, part in run.parts.stateful.items():
                assert differing(mutated["parts"][name], part.state_dict(), name) is None
            assert run.loop.step == mutated["loop"]["step"] == step
        try:
            for name, part in run.parts.stateful.items():  # the next one begins with the state as it was
                part.load_state_dict(state["parts"][name])
        except Exception:  # a refused state may leave parts that nothing can fill again
            runs[0].close()
            runs[0] = unfilled(path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused_or_exact()
    runs[0].close()


def test_restore_mutated_state_is_refused_or_taken_as_it_is(finished):
    check_mutations(finished, 100)


@pytest.mark.slow
def test_restore_ten_thousand_mutated_states_are_refused_or_taken_as_they_are(finished):
    check_mutations(finished, 3400)


def test_restore_unchanged_state_is_taken(finished):
    step, state = load_checkpoint(finished / "checkpoint")
    with unfilled(finished) as run:
        assert takes(run, state, step)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("loop", "step"), 7, r"of step 2\d, and its loop counts 7 steps"),
        (("loop", "returns"), torch.zeros(3, dtype=torch.float64), "loop.returns"),
        (("parts",), {}, "it holds nothing; expected"),
        (("recorder", "position"), -3, "recorder stands at byte -3"),
        (("best",), "high", "best is 'high'"),
        (("random", "python"), "[]", "does not fit"),
        (("config",), [1], "does not fit"),
    ],
)
def test_restore_names_what_does_not_fit(finished, place, value, sentence):
    step, state = load_checkpoint(finished / "checkpoint")
    with unfilled(finished) as run, pytest.raises(UserError, match=sentence):
        run.restore(with_leaf(state, place, "odd", value), step)


def test_restore_another_learning_rate_is_named(tmp_path):
    path = tmp_path / "run"
    mbkit.train("sac", *RUNS["sac"], f"run_dir={path}")
    step, state = load_checkpoint(path / "checkpoint")
    state["parts"]["agent"]["_extra_state"]["policy"]["param_groups"][0]["lr"] = 5.0
    save_checkpoint(path / "checkpoint", step, state)
    with pytest.raises(UserError, match=r"lr is 5\.0"):
        mbkit.load(path)


def test_load_checkpoint_renamed_to_another_step_is_refused(tmp_path):
    path = tmp_path / "run"
    mbkit.train("sac", *RUNS["sac"], f"run_dir={path}")
    step, state = load_checkpoint(path / "checkpoint")
    save_checkpoint(path / "checkpoint", step + 5, state)
    with pytest.raises(UserError, match="of step 25, and its loop counts 20 steps"):
        mbkit.load(path)


@given(
    st.recursive(st.none() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8)
)
@settings(max_examples=50)
def test_differing_is_none_of_a_state_and_itself(state):
    assert differing(state, state, "state") is None


@pytest.mark.parametrize(
    ("saved", "expected"),
    [(1, True), (1, 1.0), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (torch.zeros(1), torch.zeros(2)), (torch.zeros(1), torch.zeros(1).double())],
)
def test_differing_names_the_place(saved, expected):
    assert differing({"x": saved}, {"x": expected}, "state").startswith("state.x")


def test_settings_are_those_of_every_optimizer():
    assert hyperparameters({"a": {"param_groups": [{"lr": 1}], "state": {}}, "b": {"c": {"param_groups": []}}}) == [[{"lr": 1}], []]
