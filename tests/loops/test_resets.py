"""Resets of networks: when they are due, what they leave, and that a resumed run makes the same ones."""

import pytest
import torch
from resumption import final_state, same
from toys import WIDE

import mbkit
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.loops.resets import Resets, begin_anew_
from mbkit.testing import random_batch


@pytest.mark.parametrize(("before", "now", "due"), [(0, 9, False), (9, 10, True), (10, 19, False), (5, 31, True), (20, 20, False)])
def test_a_reset_is_due_where_a_multiple_was_passed(before, now, due):
    agent = SAC(WIDE, SACConfig(hidden=(4,)))
    first = agent.policy.net.weight[0].clone()
    Resets(agent, 10, lambda: SAC(WIDE, SACConfig(hidden=(4,)))).after(before, now)
    assert torch.equal(agent.policy.net.weight[0], first) != due


def test_networks_and_moments_begin_anew_in_place_and_statistics_stay():
    agent, fresh = (SAC(WIDE, SACConfig(hidden=(8,), critic="batch_norm", loss="hl_gauss")) for _ in range(2))
    agent.critics.outputs.scale.fill_(7.0)
    for _ in range(3):
        agent.update(random_batch(WIDE, 16))
    tensors = list(agent.parameters())
    begin_anew_(agent, fresh)
    assert all(mine is before for mine, before in zip(agent.parameters(), tensors, strict=True))
    assert all(map(torch.equal, agent.parameters(), fresh.parameters()))
    assert agent.critics.outputs.scale.item() == 7.0
    batch, results = random_batch(WIDE, 16), []
    fresh.critics.outputs.scale.fill_(7.0)
    for one in (agent, fresh):
        torch.manual_seed(3)
        one.update(batch)
        results.append([p.clone() for p in one.parameters()])
    assert all(map(torch.equal, *results)), "the optimizers remember"


def test_a_resumed_run_resets_as_the_whole_one(tmp_path):
    options = ["env=Pendulum-v1", "steps=60", "loop.warmup_steps=20", "loop.batch_size=8", "agent.hidden=[8]", "eval.every=0"]
    options += ["agent.reset_every=15", "eval.episodes=1", "checkpoint.every=30", "checkpoint.keep=all", "threads=1"]
    mbkit.train("sac", *options, run_dir=str(tmp_path))
    expected = final_state(tmp_path)
    for checkpoint in (tmp_path / "checkpoint").glob("step-*60.pt"):
        checkpoint.unlink()
    mbkit.resume(tmp_path)
    assert same(final_state(tmp_path)["parts"]["agent"], expected["parts"]["agent"])
