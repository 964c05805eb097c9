"""Where a stored run is taken up."""

import logging

import pytest
import torch

import mbkit
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.run.placement import placed

SMALL = ["threads=1", "env=Pendulum-v1", "steps=40", "eval.episodes=1", "eval.video=false", "agent.hidden=[8]", "loop.warmup_steps=20"]
GPU_WORDS = {"device: cpu": "device: cuda", "mode: auto": "mode: cudagraph"}


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def run_of_a_gpu(tmp_path_factory):
    """A run whose configuration is that of a GPU machine, with CUDA graphs."""
    directory = tmp_path_factory.mktemp("gpu") / "run"
    mbkit.train("sac", *SMALL, "loop.batch_size=8", f"run_dir={directory}")
    text = (directory / "config.yaml").read_text()
    for old, new in GPU_WORDS.items():
        assert old in text
        text = text.replace(old, new)
    (directory / "config.yaml").write_text(text)
    return directory


def test_placed_is_where_it_was_trained_unless_there_is_no_gpu(no_gpu, monkeypatch, caplog):
    gpu = compose("loop", ["device=cuda", "loop.mode=cudagraph", "imagination.mode=cudagraph"])
    with caplog.at_level(logging.WARNING, "mbkit"):
        moved, notes = placed(gpu)
    assert (moved.device, moved.loop.mode, moved.imagination.config.mode) == ("cpu", "eager", "eager")
    assert notes == caplog.messages
    assert "was trained on a GPU and is on the CPU now" in notes[0]
    assert placed(gpu, "cuda") == (gpu, [])
    assert placed(gpu, "cpu") == (moved, [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placed(gpu) == (gpu, [])
    assert placed(compose("sac", [])) == (compose("sac", []), [])


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "", 0, torch.device("cpu")])
def test_placed_refuses_other_devices(device):
    with pytest.raises(UserError, match=r"device=.*: expected cpu or cuda"):
        placed(compose("sac", []), device)


def test_load_and_evaluate_a_gpus_run_without_one(no_gpu, run_of_a_gpu):
    run = mbkit.load(run_of_a_gpu)
    assert run.config.device == "cpu"
    assert any("was trained on a GPU" in note for note in run.notes)
    assert mbkit.evaluate(run_of_a_gpu, episodes=1, device="cpu")["returns"] == mbkit.evaluate(run, episodes=1)["returns"]
    with pytest.raises(UserError, match="torch finds no CUDA device here"):
        mbkit.load(run_of_a_gpu, device="cuda")


def test_resume_a_gpus_run_without_one_only_where_it_is_asked_for(no_gpu, run_of_a_gpu):
    with pytest.raises(UserError, match="torch finds no CUDA device here; use device=cpu"):
        mbkit.resume(run_of_a_gpu, steps=45)
    run = mbkit.resume(run_of_a_gpu, steps=45, device="cpu")
    assert (run.loop.step, run.config.device, run.config.loop.mode) == (45, "cpu", "eager")
