"""Train, resume, load, evaluate: resumption bit for bit, and a mistake leaves nothing behind."""

import sys

import pytest
import torch
from pets_runs import LOOP, PLAN, SCORE, TINY, train_pets
from resumption import check_resumption

import mbkit
from mbkit.errors import UserError
from mbkit.run import evaluation_options


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
        (["dynamics.hidden=[1000000,1000000]"], r"^dynamics\.hidden=\[1000000, 1000000\]: the model would take 80,00\d GB"),
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
        (["planner.elites=4"], r"resume takes steps=M, threads=N, device= and data= only"),
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


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The directory of a run with the checkpoints of steps 0, 30 and 60, of which the last two have scores."""
    options = ["eval.every=30", "checkpoint.every=30", "checkpoint.keep=all"]
    return train_pets(tmp_path_factory.mktemp("scored") / "run", 60, *options).path


@pytest.mark.parametrize(("checkpoint", "step"), [("last", 60), (30, 30), ("30", 30)])
def test_load_takes_the_checkpoint_that_is_named(scored, checkpoint, step):
    assert mbkit.load(scored, checkpoint=checkpoint).loop.step == step
    assert mbkit.evaluate(scored, episodes=1, checkpoint=checkpoint)["step"] == step


@pytest.mark.parametrize("checkpoint", ["newest", 31, 2.5, True, None])
def test_load_refuses_other_checkpoints(scored, checkpoint):
    with pytest.raises(UserError, match=r"checkpoint=.*0, 30, 60"):
        mbkit.load(scored, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"episodes": 0}, "episodes=0: expected a whole number of at least 1"),
        ({"episodes": -1}, "episodes=-1"),
        ({"episodes": 2.5}, r"episodes=2\.5"),
        ({"episodes": "3"}, "episodes='3'"),
        ({"episodes": True}, "episodes=True"),
        ({"episodes": None}, "episodes=None"),
        ({"seed": -1}, r"seed=-1: expected a whole number in \[0, 4294967295\]"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"seed": 1.0}, r"seed=1\.0"),
        ({"device": "tpu"}, "device='tpu': expected cpu or cuda"),
        ({"checkpoint": "first"}, "checkpoint='first'"),
        ({"env_kwargs": {"colour": 3}}, "colour"),
    ],
)
def test_evaluate_refuses_values_that_are_none(scored, options, sentence):
    with pytest.raises(UserError, match=sentence):
        mbkit.evaluate(scored, **options)


def test_evaluate_of_a_loaded_run_takes_no_checkpoint_and_no_device(scored):
    run = mbkit.load(scored)
    for options in ({"checkpoint": "best"}, {"device": "cpu"}):
        with pytest.raises(UserError, match="applies to the directory of a run"):
            mbkit.evaluate(run, episodes=1, **options)


def test_evaluate_seed_and_env_kwargs_change_the_episodes_and_not_the_run(scored):
    run = mbkit.load(scored)
    first = mbkit.evaluate(run, episodes=2)
    assert mbkit.evaluate(run, episodes=2, seed=5)["returns"] != first["returns"]
    assert mbkit.evaluate(run, episodes=2, seed=5)["returns"] == mbkit.evaluate(run, episodes=2, seed=5)["returns"]
    assert mbkit.evaluate(run, episodes=2, env_kwargs={"max_episode_steps": 7})["length_mean"] == 7
    assert mbkit.evaluate(run, episodes=2) == first


def test_evaluate_refuses_a_task_of_other_dimensions(tmp_path):
    options = ["threads=1", "env=HalfCheetah-v5", "steps=20", "eval.episodes=1", "eval.video=false", "env_kwargs.max_episode_steps=10"]
    run = mbkit.train("random", *options, f"run_dir={tmp_path / 'run'}")
    with pytest.raises(UserError, match=r"env_kwargs\.exclude_current.*=False gives a task of 18 obs.*; the policy was trained on 17 obs"):
        mbkit.evaluate(run, episodes=1, env_kwargs={"exclude_current_positions_from_observation": False})


def test_run_act_takes_the_tasks_observations_and_gives_its_actions(scored):
    run = mbkit.load(scored)
    obs, space = run.env.reset(3), run.env.envs[0].action_space
    action = run.act(obs[0].numpy())
    assert action.shape == space.shape
    assert space.contains(action)
    agent = run.parts.actor_for(run.env)
    torch.manual_seed(0)
    native = run.act(obs, new_episode=True)
    agent.reset(torch.ones(1, dtype=torch.bool))
    torch.manual_seed(0)
    assert (native == run.env.native_action(agent.act(obs, explore=False))).all()
    assert run.agent.act(obs[0].double()).shape == (1,)


def test_run_act_needs_more_than_observations_of_the_true_model(tmp_path):
    options = [
        *LOOP[:1],
        *SCORE,
        PLAN[0],
        *PLAN[2:],
        "dynamics=mujoco",
        "loop.warmup_steps=0",
        "env_kwargs.max_episode_steps=3",
        "env=cartpole",
    ]
    run = mbkit.train("pets", *options, "steps=3", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(UserError, match="do not hold the simulator's state"):
        run.act(run.env.obs[0])


def test_stored_run_imports_what_it_names_only_from_the_python_path_and_says_so(tmp_path, monkeypatch, caplog):
    (tmp_path / "shipped_task_3.py").write_text("def height(obs, action, next_obs):\n    return next_obs[:, 0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    reward = "dynamics.reward=shipped_task_3:height"
    train_pets(tmp_path / "run", 40, reward)  # typed: found in the working directory
    assert not caplog.messages
    for call in (mbkit.load, mbkit.evaluate, mbkit.resume):
        sys.modules.pop("shipped_task_3", None)
        with pytest.raises(UserError, match=r"it lies in the working directory, which is searched only for import paths that are typed"):
            call(tmp_path / "run", **({"steps": 45} if call is mbkit.resume else {}))
        assert "shipped_task_3" not in sys.modules
        assert "module 'shipped_task_3' is imported for dynamics.reward=shipped_task_3:height" in caplog.messages[-1]
    assert evaluation_options(tmp_path / "run", [reward, "env_kwargs.max_episode_steps=5"]) == {"env_kwargs": {"max_episode_steps": 5}}
    assert mbkit.evaluate(tmp_path / "run", episodes=1)["episodes"] == 1  # imported by now
    sys.modules.pop("shipped_task_3")
    assert mbkit.resume(tmp_path / "run", reward, steps=45).loop.step == 45


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["steps=5"], r"evaluate takes env_kwargs\.\* and device=; came 'steps'"),
        (["dynamics.reward=other:fn"], "came 'dynamics'"),
        (["env_kwargs=3"], r"env_kwargs=3: expected arguments of the environment"),
        (["gravity"], "options are written key=value"),
    ],
)
def test_evaluation_options_refuses_others(scored, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluation_options(scored, arguments)
