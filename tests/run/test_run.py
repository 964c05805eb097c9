"""Whole runs through the Python API: directory, resume bit for bit, scoring that disturbs nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import mbkit
from mbkit import config, recording, run
from mbkit.errors import UserError
from mbkit.recording import read_metrics

TINY = (
    "threads=1", "eval.episodes=2", "eval.video=false", "loop.warmup_steps=30", "loop.log_every=10",
    "agent.horizon=4", "agent.particles=3", "planner.candidates=12", "planner.elites=3", "planner.iterations=2",
    "dynamics.members=3", "dynamics.elites=3", "dynamics.hidden=[16]", "dynamics.max_epochs=3",
)  # fmt: skip


def tiny(directory: Path, steps: int, *words: str, env: str = "cartpole") -> run.Run:
    return mbkit.train("pets", *TINY, f"run_dir={directory}", f"env={env}", f"steps={steps}", "env_kwargs.max_episode_steps=25", *words)


def same(a, b) -> bool:
    """Deep equality of states, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def final_state(directory: Path) -> dict:
    """The last checkpoint without the clock."""
    _, state = recording.load_checkpoint(directory / "checkpoint")
    for name in ("position", "seconds"):
        state["recorder"].pop(name)
    state["recorder"]["sums"] = {k: v for k, v in state["recorder"]["sums"].items() if "time/" not in k}
    state.pop("best")
    return state


def curve(directory: Path) -> list[dict]:
    """Metrics without clocks, and without evaluations, which a run that paused has more of."""
    rows = [{k: v for k, v in row.items() if k != "seconds" and not k.startswith("time/")} for row in read_metrics(directory)]
    return [row for row in rows if "eval/return" not in row and len(row) > 1]


def test_a_run_directory_holds_what_it_should(tmp_path):
    finished = tiny(tmp_path / "run", 80)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    expected = "algo env seed steps eval_return_mean eval_return_std eval_episodes best_eval_return wall_seconds device versions"
    assert set(expected.split()) <= summary.keys()
    assert (summary["algo"], summary["steps"], summary["eval_episodes"]) == ("pets", 80, 2)
    assert config.from_dict(yaml.safe_load((tmp_path / "run/config.yaml").read_text())) == finished.config
    assert (tmp_path / "run/dynamics.pt").is_file()
    assert read_metrics(tmp_path / "run")[-1]["step"] <= 80
    assert finished.agent.act(torch.zeros(1, 4)).shape == (1, 1)


@pytest.mark.parametrize("env", ["cartpole", "Hopper-v5", "Ant-v5", "Pendulum-v1"])
def test_resume_equals_uninterrupted_bit_for_bit(tmp_path, env):
    words = ("checkpoint.every=0",)
    tiny(tmp_path / "whole", 90, *words, env=env)
    tiny(tmp_path / "halves", 47, *words, env=env)
    torch.rand(17)  # a resumed process has another past
    mbkit.resume(tmp_path / "halves", steps=90)
    assert same(final_state(tmp_path / "whole"), final_state(tmp_path / "halves"))
    assert curve(tmp_path / "whole") == curve(tmp_path / "halves")


def test_scoring_does_not_change_learning(tmp_path):
    tiny(tmp_path / "quiet", 90)
    tiny(tmp_path / "scored", 90, "eval.every=20")
    assert same(final_state(tmp_path / "quiet"), final_state(tmp_path / "scored"))


def test_load_and_evaluate_give_the_score_of_the_summary(tmp_path):
    finished = tiny(tmp_path / "run", 80)
    again = mbkit.evaluate(mbkit.load(tmp_path / "run"), episodes=2)
    assert again["return_mean"] == finished.summary()["eval_return_mean"]


def test_a_trained_ensemble_serves_another_run(tmp_path):
    tiny(tmp_path / "first", 80)
    second = tiny(tmp_path / "second", 40, f"dynamics.load={tmp_path / 'first/dynamics.pt'}", "loop.fit=false", "loop.warmup_steps=0")
    (tmp_path / "first/dynamics.pt").unlink()  # the second run has its own copy by now
    assert mbkit.resume(tmp_path / "second", steps=50).loop.step == 50
    first = mbkit.load(tmp_path / "first")
    assert torch.equal(first.parts.dynamics.net.weight[0], second.parts.dynamics.net.weight[0])


def test_several_environments_at_once(tmp_path):
    finished = tiny(tmp_path / "run", 120, "loop.num_envs=3")
    assert len(finished.parts.buffer) == 120
    assert finished.loop.episodes >= 3


def test_a_killed_run_resumes_to_the_same_end(tmp_path):
    """SIGKILL somewhere in the middle, twice: the result is that of an uninterrupted run."""
    tiny(tmp_path / "whole", 120, "checkpoint.every=10")
    words = [*TINY, f"run_dir={tmp_path / 'killed'}", "env=cartpole", "steps=120", "env_kwargs.max_episode_steps=25", "checkpoint.every=10"]
    start = f"import mbkit; mbkit.train('pets', *{words!r})"
    go_on = f"import mbkit; mbkit.resume({str(tmp_path / 'killed')!r})"
    for code, wanted in ((start, 40), (go_on, 80)):
        process = subprocess.Popen([sys.executable, "-c", code])
        while process.poll() is None:
            found = sorted((tmp_path / "killed/checkpoint").glob("step-*.pt"))
            if found and int(found[-1].stem.removeprefix("step-")) >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    mbkit.resume(tmp_path / "killed")
    assert same(final_state(tmp_path / "whole"), final_state(tmp_path / "killed"))
    assert curve(tmp_path / "whole") == curve(tmp_path / "killed")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["env=HalfCheeta-v5"], "unknown environment 'HalfCheeta-v5'; did you mean 'HalfCheetah-v5'"),
        (["dynamics.load=nowhere.pt"], "nowhere.pt' does not exist"),
        (["planner=discrete_cem"], "discrete"),
        (["dynamics.reward=no_such_module:fn"], "no_such_module"),
        (["env_kwargs.colour=3"], "colour"),
        (["run_dir=/proc/nowhere/run"], "run directory /proc/nowhere/run"),
        (["loop.buffer_size=2", "loop.num_envs=3"], "loop.buffer_size=2 must hold"),
        (["dynamics.hidden=[1000000,1000000]"], "dynamics 'ensemble' .* needs more memory than the device has"),
        (["loop.fit=false"], "pets would ask a model that learned nothing; .* or dynamics.load"),
        (["device=cuda"], "torch finds no CUDA device"),
    ],
)
def test_a_mistake_leaves_nothing_behind(tmp_path, monkeypatch, words, sentence):
    if words == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        mbkit.train("pets", *TINY, "steps=50", *words)
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_what_it_cannot_go_on_with(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        mbkit.resume(tmp_path)
    tiny(tmp_path / "run", 60)
    with pytest.raises(UserError, match="has 60 steps already"):
        mbkit.resume(tmp_path / "run")
    with pytest.raises(UserError, match="resume takes steps=M only"):
        mbkit.resume(tmp_path / "run", "planner.elites=4")
    with pytest.raises(UserError, match="has 60 steps already"):
        mbkit.resume(tmp_path / "run", steps=30)
    text = (tmp_path / "run/config.yaml").read_text()
    for old, new, culprit in (
        ("[16]", "[8]", "dynamics.hidden"),
        ("seed: 0", "seed: 5", "seed"),
        ("delta: true", "delta: false", "dynamics.delta"),
        ("env: cartpole", "env: reacher", "env"),
        ("max_episode_steps: 25", "max_episode_steps: 10", "max_episode_steps"),
    ):
        assert old in text
        (tmp_path / "run/config.yaml").write_text(text.replace(old, new))
        with pytest.raises(UserError, match=f"config.yaml has .*{culprit}"):
            mbkit.resume(tmp_path / "run", steps=80)
        assert (tmp_path / "run/config.yaml").read_text() == text.replace(old, new)
    for broken in ("- a\n- b\n", "algo: [\n"):
        (tmp_path / "run/config.yaml").write_text(broken)
        with pytest.raises(UserError):
            mbkit.resume(tmp_path / "run", steps=80)
    (tmp_path / "run/config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        mbkit.resume(tmp_path / "run", steps=80)
    (tmp_path / "run/config.yaml").write_text(text)
    file = next((tmp_path / "run/checkpoint").glob("*.pt"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or foreign"):
        mbkit.resume(tmp_path / "run", steps=80)


def test_a_run_that_fails_can_be_looked_at_and_resumed(tmp_path):
    with pytest.raises(UserError, match="finite"):
        tiny(tmp_path / "run", 60, "dynamics.lr=1e9")
    with pytest.raises(UserError, match="finite"):
        mbkit.resume(tmp_path / "run")


@pytest.mark.parametrize(("env", "note"), [("HalfCheetah-v5", "is learned"), ("Acrobot-v1", "never terminate")])
def test_what_the_model_does_not_know_is_said(tmp_path, env, note):
    words = ["planner=discrete_cem", "planner.elites=10"] if env == "Acrobot-v1" else []
    words = [*(w for w in TINY if not w.startswith("planner")), *words, f"env={env}", "steps=31", f"run_dir={tmp_path / 'run'}"]
    finished = mbkit.train("pets", *words, "env_kwargs.max_episode_steps=25")
    assert any(note in line for line in finished.notes)
    assert finished.notes == finished.summary()["notes"]


@pytest.mark.gpu
def test_training_on_a_gpu(tmp_path):
    finished = tiny(tmp_path / "run", 60, "device=cuda", "agent.mode=cudagraph")
    assert finished.summary()["device"] != "cpu"
