"""Long runs: memory stays flat, and the same seed gives the same run."""

import gc
import tracemalloc

import pytest

import mbkit
from mbkit import recording

SMALL = ["threads=1", "eval.episodes=1", "eval.video=false", "loop.log_every=50"]
SAC = ["env=Pendulum-v1", "agent.hidden=[8]", "loop.warmup_steps=20", "loop.batch_size=8", "loop.buffer_size=100"]
PPO = ["env=CartPole-v1", "agent.hidden=[8]", "loop.rollout_steps=50", "agent.minibatch=25", "agent.epochs=1"]


@pytest.mark.parametrize(("algo", "options"), [("sac", SAC), ("ppo", PPO)])
def test_train_needs_no_more_memory_as_it_goes_on(tmp_path, monkeypatch, algo, options):
    sizes = []

    def measured(*arguments):
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(recording, "save_checkpoint", measured)
    tracemalloc.start()
    try:
        mbkit.train(algo, *SMALL, *options, "steps=300", "checkpoint.every=50", f"run_dir={tmp_path / 'run'}")
    finally:
        tracemalloc.stop()
    middle, end = sizes[3], sizes[6]  # after 150 and 300 steps
    assert end - middle < 100_000


@pytest.mark.parametrize(("algo", "options"), [("sac", SAC), ("ppo", PPO)])
def test_train_with_one_seed_is_one_run(tmp_path, algo, options):
    first, second = (mbkit.train(algo, *SMALL, *options, "steps=120", f"run_dir={tmp_path / name}") for name in ("first", "second"))
    assert mbkit.evaluate(first, episodes=2) == mbkit.evaluate(second, episodes=2)
    values = [[x.tolist() for x in run.agent.parameters()] for run in (first, second)]
    assert values[0] == values[1]
