"""Train, resume, load, evaluate: resumption bit for bit, and a mistake leaves nothing behind."""

import pytest
import torch
from pets_runs import LOOP, PLAN, SCORE, TINY, train_pets
from resumption import check_resumption

import mbkit
from mbkit.errors import UserError
from mbkit.run.api import as_arguments


def test_as_arguments_lists_options_and_nested_ones():
    listed = as_arguments(("planner=cem",), {"env": "cartpole", "planner": {"elites": 5}, "agent": {"hidden": [8]}, "preset": None})
    assert listed == ["planner=cem", 'env="cartpole"', "planner.elites=5", "agent.hidden=[8]", "preset=null"]


@pytest.mark.parametrize("env", ["cartpole", "Hopper-v5", "Ant-v5", "Pendulum-v1"])
def test_resume_equals_uninterrupted_bit_for_bit(tmp_path, env):
    check_resumption(tmp_path, "pets", *TINY, "checkpoint.every=0", f"env={env}", steps=90, pause=47)


def test_load_and_evaluate_give_the_score_of_the_summary(tmp_path):
    finished = train_pets(tmp_path / "run", 80)
    again = mbkit.evaluate(mbkit.load(tmp_path / "run"), episodes=2)
    assert again["return_mean"] == finished.summary()["eval_return_mean"]
    assert (again["step"], again["episodes"], len(again["returns"])) == (80, 2, 2)


def test_train_with_a_loaded_ensemble_keeps_its_own_copy(tmp_path):
    train_pets(tmp_path / "first", 80)
    options = [*(option for option in LOOP if "warmup" not in option), *SCORE, *PLAN, "loop.fit=false", "loop.warmup_steps=0"]
    options += [f"dynamics.load={tmp_path / 'first/dynamics.pt'}", "env=cartpole", "steps=40", f"run_dir={tmp_path / 'second'}"]
    second = mbkit.train("pets", *options)
    (tmp_path / "first/dynamics.pt").unlink()
    assert mbkit.resume(tmp_path / "second", steps=50).loop.step == 50
    first = mbkit.load(tmp_path / "first")
    assert torch.equal(first.parts.dynamics.network.net.weight[0], second.parts.dynamics.network.net.weight[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["env=HalfCheeta-v5"], "unknown environment 'HalfCheeta-v5'; did you mean 'HalfCheetah-v5'"),
        (["dynamics.load=nowhere.pt"], "nowhere.pt' does not exist"),
        (["planner=discrete_cem"], "discrete"),
        (["dynamics.reward=no_such_module:fn"], "no_such_module"),
        (["env_kwargs.colour=3"], "colour"),
        (["run_dir=/proc/nowhere/run"], "run directory /proc/nowhere/run"),
        (["loop.buffer_size=2", "loop.num_envs=3"], r"loop\.buffer_size=2 must hold"),
        (["dynamics.hidden=[1000000,1000000]"], r"dynamics 'ensemble' .* needs more memory than the device has"),
        (["loop.fit=false"], r"pets would use a model that learned nothing; .* or dynamics\.load"),
        (["loop.n_step=2"], r"loop\.n_step has no meaning for pets"),
        (["device=cuda"], "torch finds no CUDA device"),
    ],
)
def test_train_mistake_leaves_nothing_behind(tmp_path, monkeypatch, options, sentence):
    if options == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        mbkit.train("pets", *LOOP[:2], *SCORE, "steps=50", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a run of 60 steps."""
    return train_pets(tmp_path_factory.mktemp("finished") / "run", 60).path


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "has 60 steps already"),
        (["planner.elites=4"], "resume takes steps=M and threads=N only"),
        (["steps=30"], "has 60 steps already"),
    ],
)
def test_resume_refuses_options_it_cannot_go_on_with(finished, options, sentence):
    with pytest.raises(UserError, match=sentence):
        mbkit.resume(finished, *options)


def test_resume_refuses_a_directory_without_a_run(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        mbkit.resume(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "culprit"),
    [
        ("[16]", "[8]", "dynamics.hidden"),
        ("seed: 0", "seed: 5", "seed"),
        ("delta: true", "delta: false", "dynamics.delta"),
        ("env: cartpole", "env: reacher", "env"),
        ("max_episode_steps: 25", "max_episode_steps: 10", "max_episode_steps"),
    ],
)
def test_resume_refuses_a_config_of_another_experiment(finished, old, new, culprit):
    path = finished / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=f"config.yaml has .*{culprit}"):
        mbkit.resume(finished, steps=80)
    assert path.read_text() == text.replace(old, new)
    path.write_text(text)


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"- a\n- b\n", "a configuration is a mapping"), (b"algo: [\n", "YAML"), (b"\xff\xfe\x00", "cannot be read")]
)
def test_resume_refuses_a_config_that_is_none(finished, content, sentence):
    path = finished / "config.yaml"
    text = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        mbkit.resume(finished, steps=80)
    path.write_bytes(text)


def test_resume_refuses_a_damaged_checkpoint(finished):
    file = next((finished / "checkpoint").glob("*.pt"))
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    with pytest.raises(UserError, match="damaged or foreign"):
        mbkit.resume(finished, steps=80)
    file.write_bytes(content)


def test_train_writes_the_number_of_threads_that_was_used(tmp_path):
    options = ["env=CartPole-v1", "steps=20", *SCORE, f"run_dir={tmp_path / 'run'}"]
    finished = mbkit.train("random", *options)
    assert "threads: 1\n" in (tmp_path / "run/config.yaml").read_text()
    assert finished.summary()["threads"] == 1
    assert repr(finished) == f"<Run: random on CartPole-v1, step 20 of 20, in {tmp_path / 'run'}>"


def test_resume_takes_threads_and_says_that_digits_differ(finished):
    again = mbkit.resume(finished, "steps=90", "threads=2")
    assert "From step 60 on, threads=2 rather than 1: last digits differ." in again.summary()["notes"]
    assert "threads: 2\n" in (finished / "config.yaml").read_text()
    assert not any("last digits" in note for note in mbkit.resume(finished, steps=100, threads=2).notes)
