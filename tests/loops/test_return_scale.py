"""The return scale: running sums by hand, discounted returns by brute force, resume, and that it reaches the critics of a run."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mbkit
from mbkit.loops.return_scale import ReturnScale, discounted_returns, return_scale, scale_to_data
from mbkit.networks.values import BOUND, Distributional
from mbkit.types import Recorded


class Steps:
    """What the hook sees of a loop."""

    step_reward: np.ndarray
    step_ended: np.ndarray

    def __init__(self, hook: ReturnScale) -> None:
        self.hook = hook

    def go(self, rewards: list[list[float]], ended: list[list[bool]]) -> None:
        for r, e in zip(rewards, ended, strict=True):
            self.step_reward, self.step_ended = np.array(r), np.array(e)
            self.hook(self)


def test_scale_by_hand_of_two_environments():
    outputs = Distributional()
    hook = ReturnScale(outputs, 0.5)
    Steps(hook).go([[1.0, 2.0], [1.0, 2.0], [8.0, 0.0]], [[False, True], [False, False], [True, False]])
    sums = [1.0, 2.0, 1.5, 2.0, 8.75, 1.0]  # the second environment began anew after its first step
    assert outputs.scale.item() == pytest.approx(max(np.std(sums), 8.75 / BOUND))
    assert hook.running.tolist() == [0.0, 1.0]


def test_state_goes_on_as_if_never_stopped():
    rewards, ended = np.random.default_rng(0).normal(size=(20, 1)).tolist(), [[k % 7 == 6] for k in range(20)]
    whole, first, second = Distributional(), Distributional(), Distributional()
    Steps(ReturnScale(whole, 0.9)).go(rewards, ended)
    hook, after = ReturnScale(first, 0.9), ReturnScale(second, 0.9)
    Steps(hook).go(rewards[:11], ended[:11])
    after.load_state_dict(hook.state_dict())
    Steps(after).go(rewards[11:], ended[11:])
    assert torch.equal(whole.scale, second.scale)


def test_no_rewards_leave_the_scale_at_one_and_a_continued_run_s_scale_is_the_least():
    assert return_scale(0.0, 0.0) == 1.0
    outputs = Distributional()
    Steps(ReturnScale(outputs, 0.9, least=40.0)).go([[1.0]], [[False]])
    assert outputs.scale.item() == pytest.approx(40.0)


def recorded(reward: list[float], follows: list[int]) -> Recorded:
    column = torch.tensor(reward)
    rest = [column] * 8
    return Recorded(*rest[:2], column, *rest[:2], None, None, column, torch.tensor(follows, dtype=torch.float32), column, column)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), gamma=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_discounted_returns_by_brute_force(lengths, gamma, seed):
    draw = np.random.default_rng(seed)
    rewards, follows, expected = [], [], []
    for n in lengths:
        episode = draw.normal(size=n).astype(np.float32)
        expected += [sum(gamma**k * float(r) for k, r in enumerate(episode[t:])) for t in range(n)]
        rewards += episode.tolist()
        follows += [1] * (n - 1) + [0]
    data = recorded(rewards, follows)
    assert discounted_returns(data, gamma).tolist() == pytest.approx(expected, abs=1e-5)
    outputs = Distributional()
    scale_to_data(outputs, data, gamma)
    assert outputs.scale.item() == pytest.approx(max(np.std(expected), np.abs(expected).max() / BOUND), rel=1e-4)


def test_a_run_with_distributions_logs_its_scale_and_resumes_bit_for_bit(tmp_path):
    options = ["env=Pendulum-v1", "steps=60", "loop.warmup_steps=20", "loop.batch_size=8", "agent.hidden=[8]", "eval.every=0"]
    modern = ["agent.critic=batch_norm", "agent.loss=c51", "eval.episodes=1", "checkpoint.every=30", "checkpoint.keep=all", "threads=1"]
    mbkit.train("sac", *options, *modern, run_dir=str(tmp_path / "run"))
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "critic/scale" in rows
    assert "critic/outside" in rows
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["eval_episodes"] == 1
