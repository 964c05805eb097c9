"""The return scale: running sums by hand, discounted returns by brute force, resume, and that it reaches the critics of a run."""

import json
from types import SimpleNamespace

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
        self.hook, self.env = hook, SimpleNamespace()

    def go(self, rewards: list[list[float]], ended: list[list[bool]], valid: list[list[bool]] | None = None) -> None:
        for k, (r, e) in enumerate(zip(rewards, ended, strict=True)):
            self.step_reward, self.step_ended = np.array(r), np.array(e)
            self.env.valid = torch.tensor([True] * len(r) if valid is None else valid[k])
            self.hook(self)


def test_scale_by_hand_of_two_environments():
    outputs = Distributional()
    hook = ReturnScale(outputs, 0.5)
    Steps(hook).go([[1.0, 2.0], [1.0, 2.0], [8.0, 0.0]], [[False, True], [False, False], [True, False]])
    sums = [1.0, 2.0, 1.5, 2.0, 8.75, 1.0]  # the second environment began anew after its first step
    assert outputs.scale.item() == pytest.approx(max(np.std(sums), 8.75 / BOUND))
    assert hook.running.tolist() == [0.0, 1.0]


def test_rows_that_were_only_resets_do_not_count():
    outputs = Distributional()
    Steps(ReturnScale(outputs, 0.5)).go([[1.0], [0.0], [3.0]], [[True], [False], [False]], [[True], [False], [True]])
    assert outputs.scale.item() == pytest.approx(np.std([1.0, 3.0]))


def test_rewards_are_scaled_as_the_agent_scales_them():
    plain, scaled, data, factor = Distributional(), Distributional(), Distributional(), torch.tensor(30.0)
    Steps(ReturnScale(plain, 0.9)).go([[1.0], [2.0]], [[False], [True]])
    Steps(ReturnScale(scaled, 0.9, factor)).go([[1.0], [2.0]], [[False], [True]])
    assert scaled.scale.item() == pytest.approx(30 * plain.scale.item())
    rows = recorded([1.0, -2.0, 3.0], [1, 1, 0])
    scale_to_data(plain, rows, 0.9)
    scale_to_data(data, rows, 0.9, factor)
    assert data.scale.item() == pytest.approx(30 * plain.scale.item())


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
    hook = ReturnScale(outputs, 0.9, continues=True)
    outputs.scale.fill_(40.0)  # the weights of the run are read after the hook is made
    Steps(hook).go([[1.0], [1.0]], [[False], [False]])
    assert outputs.scale.item() == pytest.approx(40.0)
    after = ReturnScale(Distributional(), 0.9, continues=True)
    after.load_state_dict(hook.state_dict())
    Steps(after).go([[1.0]], [[False]])
    assert after.outputs.scale.item() == pytest.approx(40.0)


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
