"""Whole runs: what their directories hold, and that scoring disturbs nothing."""

import json
import os
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.wrappers import NormalizeObservation
from pets_runs import MODEL, PLAN, SCORE, TINY, train_pets
from resumption import check_same_end, final_state, same

import mbkit
from mbkit import config
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.recording import read_metrics
from mbkit.report import write_report
from mbkit.run import Run
from mbkit.run.finishing import never_fitted
from mbkit.run.sizes import check_buffer
from mbkit.storage import read_json


def test_run_directory_holds_what_it_should(tmp_path):
    finished = train_pets(tmp_path / "run", 80)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    expected = "algo env seed steps eval_return_mean eval_return_std eval_episodes best_eval_return wall_seconds device versions"
    assert set(expected.split()) <= summary.keys()
    assert (summary["algo"], summary["steps"], summary["eval_episodes"]) == ("pets", 80, 2)
    assert config.from_dict(yaml.safe_load((tmp_path / "run/config.yaml").read_text())) == finished.config
    assert (tmp_path / "run/dynamics.pt").is_file()
    assert read_metrics(tmp_path / "run")[-1]["step"] <= 80
    assert finished.agent.act(torch.zeros(1, 4)).shape == (1, 1)


def test_run_scoring_does_not_change_learning(tmp_path):
    train_pets(tmp_path / "quiet", 90)
    train_pets(tmp_path / "scored", 90, "eval.every=20")
    assert same(final_state(tmp_path / "quiet"), final_state(tmp_path / "scored"))


def test_run_of_several_environments_stores_all_their_steps(tmp_path):
    finished = train_pets(tmp_path / "run", 120, "loop.num_envs=3")
    assert len(finished.parts.replay) == 120
    assert finished.loop.episodes >= 3


def test_run_killed_twice_resumes_to_the_same_end(tmp_path):
    """SIGKILL somewhere in the middle: the result is that of an uninterrupted run."""
    train_pets(tmp_path / "whole", 120, "checkpoint.every=10")
    options = [*TINY, f"run_dir={tmp_path / 'killed'}", "env=cartpole", "steps=120", "checkpoint.every=10"]
    start = f"import mbkit; mbkit.train('pets', *{options!r})"
    go_on = f"import mbkit; mbkit.resume({str(tmp_path / 'killed')!r})"
    for code, wanted in ((start, 40), (go_on, 80)):
        process = subprocess.Popen([sys.executable, "-c", code])
        while process.poll() is None:
            files = sorted((tmp_path / "killed/checkpoint").glob("step-*.pt"))
            if files and int(files[-1].stem.removeprefix("step-")) >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    mbkit.resume(tmp_path / "killed")
    check_same_end(tmp_path / "whole", tmp_path / "killed")


def test_run_that_fails_can_be_resumed(tmp_path):
    with pytest.raises(UserError, match="finite"):
        train_pets(tmp_path / "run", 60, "dynamics.lr=1e9")
    with pytest.raises(UserError, match="finite"):
        mbkit.resume(tmp_path / "run")


def test_run_without_a_directory_has_no_path():
    run = Run(compose("random", ["env=CartPole-v1"]))
    with pytest.raises(UserError, match="this run has no directory yet; expected one that was trained or loaded"):
        _ = run.path


@pytest.mark.parametrize(("env", "note"), [("HalfCheetah-v5", "is learned"), ("Acrobot-v1", "never terminate")])
def test_run_notes_what_the_model_does_not_know(tmp_path, env, note):
    planner = ["planner=discrete_cem", "planner.candidates=12", "planner.elites=10"] if env == "Acrobot-v1" else PLAN[2:]
    options = [*PLAN[:2], *planner, *MODEL, *SCORE, "threads=1", "loop.warmup_steps=30", "env_kwargs.max_episode_steps=25"]
    finished = mbkit.train("pets", *options, f"env={env}", "steps=31", f"run_dir={tmp_path / 'run'}")
    assert any(note in line for line in finished.notes)
    assert finished.notes == finished.summary()["notes"]


@pytest.mark.parametrize(("steps", "notes"), [(30, 1), (31, 0)])
def test_never_fitted_notes_a_run_that_is_all_warm_up(steps, notes):
    experiment = compose("pets", ["loop.warmup_steps=30", f"steps={steps}"])
    assert len(never_fitted(experiment, object())) == notes
    assert never_fitted(experiment, None) == []


def test_check_buffer_names_a_replay_smaller_than_a_step():
    check_buffer(compose("pets", ["loop.buffer_size=3", "loop.num_envs=3"]))
    check_buffer(compose("ppo", ["env=CartPole-v1"]))
    with pytest.raises(UserError, match=r"loop\.buffer_size=2 must hold a step of all loop\.num_envs=3"):
        check_buffer(compose("pets", ["loop.buffer_size=2", "loop.num_envs=3"]))


@pytest.mark.gpu
def test_run_trains_on_a_gpu(tmp_path):
    finished = train_pets(tmp_path / "run", 60, "device=cuda", "agent.mode=cudagraph")
    assert finished.summary()["device"] != "cpu"


class Counter(gymnasium.Env):
    """Pays how often any copy of it was stepped."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32), gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        Counter.steps += 1
        return np.zeros(1, np.float32), float(Counter.steps), False, False, {}


gymnasium.register("tests/Counter-v0", Counter, max_episode_steps=5)
gymnasium.register("tests/Normalized-v0", lambda: NormalizeObservation(gymnasium.make("Pendulum-v1")), max_episode_steps=20)
UNSCORED = ("threads=1", "eval.episodes=1", "eval.video=false", "loop.log_every=10")


def test_resume_of_a_task_that_counts_on_its_class_goes_on_as_if_it_had_not_been_scored(tmp_path):
    options = [*UNSCORED, "env=tests/Counter-v0", f"run_dir={tmp_path / 'run'}"]
    Counter.steps = 0
    mbkit.train("random", *options, "steps=20")
    assert Counter.steps == 25  # the score's episode too
    resumed = mbkit.resume(tmp_path / "run", steps=30)
    returns = [row["episode/return"] for row in read_metrics(tmp_path / "run") if "episode/return" in row]
    assert returns[-2:] == [21 + 22 + 23 + 24 + 25, 26 + 27 + 28 + 29 + 30]
    assert resumed.loop.step == 30


def test_evaluate_and_load_normalise_observations_as_training_did(tmp_path):
    run = mbkit.train("random", *UNSCORED, "env=tests/Normalized-v0", "steps=60", f"run_dir={tmp_path / 'run'}")
    trained = run.env.statistics()
    assert trained["envs"][0][0]["count"] > 60
    for one in (run, mbkit.load(tmp_path / "run")):
        copy = one.variant(None)(2, 7)
        copy.reset()
        copy.step(torch.zeros(2, 1))
        for statistics in (one.env.statistics()["envs"], copy.statistics()["envs"][:1], copy.statistics()["envs"][1:]):
            assert same(statistics, trained["envs"])
    assert mbkit.evaluate(run, episodes=2)["returns"] == mbkit.evaluate(tmp_path / "run", episodes=2)["returns"]
    assert same(run.env.statistics(), trained)


LOADED = (*PLAN, *SCORE, "threads=1", "env=cartpole", "env_kwargs.max_episode_steps=25", "steps=0")


def test_no_steps_with_a_loaded_model_scores_it_with_the_planner(tmp_path):
    trained = train_pets(tmp_path / "trained", 80, "seed=4")
    run = mbkit.train("pets", *LOADED, "seed=4", f"dynamics.load={trained.path / 'dynamics.pt'}", f"run_dir={tmp_path / 'scored'}")
    summary = run.summary()
    assert (summary["steps"], summary["eval_return_mean"]) == (0, trained.summary()["eval_return_mean"])
    assert not any("never fitted" in note for note in run.notes)
    assert read_json(run.path / "diagnostics.json")["one_step"] == read_json(trained.path / "diagnostics.json")["one_step"]
    assert write_report([run.path]).is_file()
    assert mbkit.evaluate(run.path, 2)["return_mean"] == summary["eval_return_mean"]
    with pytest.raises(UserError, match="has 0 steps already"):
        mbkit.resume(run.path)
    assert mbkit.resume(run.path, steps=20).loop.step == 20


def test_no_steps_with_the_true_model(tmp_path):
    options = [option for option in LOADED if option != "agent.particles=3"]
    run = mbkit.train("pets", *options, "dynamics=mujoco", f"run_dir={tmp_path / 'run'}")
    assert run.summary()["steps"] == 0


@pytest.mark.parametrize(
    ("algo", "options"),
    [
        ("pets", []),
        ("sac", []),
        ("random", []),
        ("mbpo", ["dynamics.load=model.pt"]),
        ("loop", ["dynamics.load=model.pt"]),
    ],
)
def test_no_steps_are_refused_where_nothing_was_loaded_or_an_agent_would_have_to_learn(algo, options):
    with pytest.raises(UserError, match=rf"^steps=0 is out of range: {algo} would score what learned nothing; expected >= 1, or with pets"):
        mbkit.train(algo, "steps=0", "env=cartpole", *options)
