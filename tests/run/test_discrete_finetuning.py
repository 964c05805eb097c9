"""Agents for discrete actions alone go on online: the run is complete, and one that was resumed is the uninterrupted one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from resumption import check_same_end

import mbkit
from mbkit import registry
from mbkit.data import Columns, Dataset, write
from mbkit.errors import UserError
from mbkit.recording import load_checkpoint
from mbkit.types import EnvSpec

NETWORKS = ("agent.hidden=[8]", "loop.batch_size=16", "loop.log_every=10", "threads=1")
ONLINE = ("env=CartPole-v1", "eval.video=false", "eval.episodes=1", "eval.every=0", "checkpoint.every=10", "loop.log_every=10")
ALGOS = ("cql_discrete", "ddqn_bc")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random rows in the dimensions of CartPole-v1, four episodes of 25."""
    draw, rows = np.random.default_rng(0), 100
    episode, obs = np.repeat(np.arange(4), 25), draw.normal(size=(rows, 4))
    last = np.append(np.diff(episode), 1).astype(bool)
    table = Columns(obs, draw.integers(2, size=rows), np.ones(rows), np.roll(obs, -1, 0), last, np.zeros_like(last), episode)
    return write(Dataset.of(table, env="CartPole-v1", choices=2), tmp_path_factory.mktemp("data") / "cartpole.h5")


@pytest.mark.parametrize("algo", ALGOS)
def test_goes_on_with_weights_and_optimizers_and_learns_from_its_own_steps(algo: str, file: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    mbkit.train(algo, f"data={file}", "env=none", f"run_dir={before}", *NETWORKS, "steps=20")
    saved = load_checkpoint(before / "checkpoint")[1]["parts"]["agent"]
    untouched = mbkit.finetune(before, f"run_dir={tmp_path / 'untouched'}", *ONLINE, "steps=5", "loop.updates_per_step=0")
    now = load_checkpoint(tmp_path / "untouched/checkpoint")[1]["parts"]["agent"]
    assert all(torch.equal(now[name], value) for name, value in saved.items() if isinstance(value, torch.Tensor))
    assert untouched.parts.actor.optimizers["critics"].state_dict()["state"][0]["step"] == 20
    run = mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", *ONLINE, "steps=30")
    assert (run.loop.step, len(run.parts.replay), run.parts.recorded.rows) == (30, 30, 100)
    assert not torch.equal(next(run.parts.actor.critics.parameters()), untouched.parts.actor.critics.net.weight[0])
    assert int(mbkit.load(tmp_path / "run").act([0.1, 0.2, 0.3, 0.4])) in {0, 1}


@pytest.mark.parametrize("algo", ALGOS)
def test_resumed_is_uninterrupted(algo: str, file: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    mbkit.train(algo, f"data={file}", "env=none", f"run_dir={before}", *NETWORKS, "steps=20")
    mbkit.finetune(before, f"run_dir={tmp_path / 'whole'}", *ONLINE, "steps=40")
    mbkit.finetune(before, f"run_dir={tmp_path / 'part'}", *ONLINE, "steps=20")
    mbkit.resume(tmp_path / "part", steps=40)
    check_same_end(tmp_path / "whole", tmp_path / "part")


def test_these_are_all_agents_for_data_sets_with_discrete_actions_alone() -> None:
    def refused(entry: registry.Entry, discrete: bool) -> bool:
        try:
            entry.target(EnvSpec(4, 2, torch.device("cpu"), discrete), entry.config())
        except UserError:
            return True
        return False

    entries = [entry for entry in registry.agents if entry.learns_from == ("dataset",)]
    assert {entry.name for entry in entries if refused(entry, False) and not refused(entry, True)} == set(ALGOS)
