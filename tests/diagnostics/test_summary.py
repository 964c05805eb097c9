"""Diagnostics on held-out episodes: a true model has no error, a wrong one the error computed by hand, and training stays the same."""

import json

import pytest
import torch
from systems import linear_gaussian

import mbkit
from mbkit import recording
from mbkit.diagnostics.summary import diagnose_model, evenly, headline, one_step, segments
from mbkit.recording import read_metrics
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import episodes
from mbkit.storage import plain
from mbkit.types import EnvSpec, Prediction, Rollout, Step

SPEC = EnvSpec(1, 1, torch.device("cpu"))
WALL = 10.0


def policy_action(obs: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.1 * torch.sin(obs)


class Policy:
    """A deterministic function of the observation that does not explore."""

    def act(self, obs, explore=True):
        assert not explore
        return policy_action(obs)

    def reset(self, mask):
        pass


class Line:
    """x' = x + a, reward 1 + bonus, terminated where x' > wall."""

    def __init__(self, bonus: float = 0.0, wall: float = WALL, members: int = 2) -> None:
        self.bonus, self.wall, self.members = bonus, wall, members

    def init(self, obs):
        return obs

    def step(self, carry, action):
        obs = carry + action
        return Step(obs, obs, torch.ones(len(obs)) + self.bonus, obs[:, 0] > self.wall)

    def rollout(self, carry, actions):
        steps = []
        for t in range(actions.shape[1]):
            steps.append(self.step(carry, actions[:, t]))
            carry = steps[-1].state
        return Rollout(*(torch.stack([getattr(s, name) for s in steps], 1) for name in Rollout._fields))


class Ensemble(Line):
    """The line as an ensemble whose members agree, with a standard deviation of 1 in 1000."""

    def predict(self, obs, action):
        mean = (obs + action).expand(self.members, -1, -1)
        return Prediction(mean, torch.full_like(mean, 1e-6))


def recorded(*lengths: int, wall: float = WALL) -> ReplayBuffer:
    """Episodes from -1, -2, ... under the policy, truncated after these lengths unless they terminate before."""
    buffer = ReplayBuffer(1000, SPEC)
    for i, length in enumerate(lengths):
        obs, rows = torch.tensor([[-1.0 - i]]), []
        for t in range(length):
            action = policy_action(obs)
            following = obs + action
            terminated = following[:, 0] > wall
            over = terminated | (t == length - 1)
            rows.append(Experience(obs, action, torch.ones(1), following, terminated, over))
            obs = following
            if over:
                break
        buffer.extend(Experience(*(torch.cat(column) for column in zip(*rows, strict=True))), column=i)
    return buffer


@pytest.mark.parametrize("policy", [None, Policy()])
def test_diagnose_model_true_model_has_neither_error_nor_gap(policy):
    held_out = recorded(60, 12, 40)
    assert held_out.all().discount.min() == 0  # some of them terminated
    diagnostics = diagnose_model(Ensemble(), held_out, policy)
    assert max(diagnostics["horizon"]["rmse"]) < 1e-5
    assert max(diagnostics["return_gap"]["abs"]) < 1e-5
    assert max(diagnostics["epistemic"]["mean"][:10]) == 0.0
    metrics = headline(diagnostics)
    expected = "error_1 error_5 error_15 coverage_90 calibration_error return_gap return_gap_abs epistemic_1 epistemic_5 epistemic_15"
    assert {f"diagnose/{name}" for name in expected.split()} <= metrics.keys()
    assert metrics["diagnose/coverage_90"] == 1.0
    json.dumps(plain(diagnostics), allow_nan=False)


def test_headline_biased_reward_is_a_gap_of_the_discounted_bias():
    """An episode that does not end: 0.25 (1 + g + ... + g^29)."""
    held_out = recorded(60, wall=torch.inf)
    for policy in (None, Policy()):
        metrics = headline(diagnose_model(Line(0.25, torch.inf), held_out, policy, gamma=0.9))
        assert metrics["diagnose/return_gap"] == pytest.approx(0.25 * (1 - 0.9**30) / 0.1, rel=1e-5)


def test_diagnose_model_without_termination_overestimates_under_the_policy():
    """From step t of a terminated episode of n steps the truth pays 1 until n, the model for all of 30 steps."""
    held_out = recorded(60)
    n, g = len(held_out), 0.9
    assert n < 30
    predicted = (1 - g**30) / (1 - g)
    real = sum((1 - g ** (n - t)) / (1 - g) for t in range(n)) / n
    gap = diagnose_model(Line(wall=torch.inf), held_out, Policy(), g)["return_gap"]
    assert gap["mean"][-1] == pytest.approx(predicted - real, rel=1e-5)
    assert diagnose_model(Line(wall=torch.inf), held_out, None, g)["return_gap"]["abs"][-1] == pytest.approx(0, abs=1e-5)


def test_one_step_by_dimension_averages_to_the_total():
    class Unit:
        def predict(self, obs, action):
            return Prediction(torch.zeros(2, len(obs), 3), torch.ones(2, len(obs), 3))

    torch.manual_seed(0)
    diagnostics = one_step(Unit(), linear_gaussian(400))
    calibration, holdout = diagnostics["calibration"], diagnostics["one_step"]
    by_dim = torch.tensor(calibration["per_dim"])
    assert by_dim.shape == (3, len(calibration["nominal"]))
    torch.testing.assert_close(by_dim.mean(0), torch.tensor(calibration["empirical"]))
    assert torch.tensor(holdout["per_dim"]).square().mean() == pytest.approx(holdout["mse"])


def test_segments_are_those_of_whole_episodes():
    held_out = recorded(8, 60, 4)  # the second terminates, the others are cut
    every = segments(held_out, 5, 1000)
    starts = []
    for e in episodes(held_out):
        n = len(e.reward)
        for t in range(n):
            if t + 5 <= n or e.terminated[-1]:
                pad = max(0, t + 5 - n)
                starts.append((e.obs[t], [*e.reward[t : t + 5].tolist(), *[0.0] * pad], e.action[t : t + 5]))
    assert len(every.obs) == len(starts)
    for i, (obs, reward, action) in enumerate(starts):
        assert every.obs[i] == obs
        assert every.reward[:, i].tolist() == reward
        assert every.taken[:, i].sum() == len(action)
        assert torch.equal(every.action[: len(action), i], action)
    some = segments(held_out, 5, 3)
    assert torch.equal(some.obs, every.obs[evenly(len(starts), 3)])


def test_diagnose_model_short_episodes_or_no_predict_leaves_out():
    diagnostics = diagnose_model(Line(), recorded(60), None)
    assert diagnostics.keys() == {"horizon", "return_gap"}  # no `predict`
    short = headline(diagnose_model(Ensemble(), recorded(7), Policy()))
    assert {"diagnose/error_1", "diagnose/error_5", "diagnose/epistemic_5"} <= short.keys()
    assert not {"diagnose/error_15", "diagnose/epistemic_15"} & short.keys()
    shortest = headline(diagnose_model(Ensemble(), recorded(1), None))
    assert shortest["diagnose/return_gap"] == 0.0
    assert diagnose_model(Ensemble(), ReplayBuffer(10, SPEC)) == {}
    assert headline({}) == {}


def test_evenly_spreads_rows():
    assert evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly(3, 4).tolist() == [0, 1, 2]
    assert evenly(0, 4).tolist() == []


TINY = ("threads=1", "eval.episodes=2", "eval.video=false", "loop.log_every=10", "loop.warmup_steps=30", "dynamics.members=3",
        "dynamics.elites=3", "dynamics.hidden=[16]", "dynamics.max_epochs=3", "env_kwargs.max_episode_steps=25", "seed=3")  # fmt: skip
MBPO = ("env=InvertedPendulum-v5", "loop.fit_every=20", "loop.updates_per_step=1", "loop.batch_size=32", "agent.hidden=[16]")


def test_diagnose_model_does_not_change_learning(tmp_path):
    """For an agent; tests/run has the same test of a planner."""
    states = []
    for name, options in (("quiet", ()), ("diagnosed", ("eval.every=20",))):
        mbkit.train("mbpo", *TINY, *MBPO, f"run_dir={tmp_path / name}", "steps=70", *options)
        _, state = recording.load_checkpoint(tmp_path / name / "checkpoint")
        states.append((state["parts"], state["random"]))
    assert same(*states)
    logged = {row["step"] for row in read_metrics(tmp_path / "diagnosed") if "diagnose/error_1" in row}
    assert logged == {40, 60, 70}  # at 20 the model was not fitted yet
    last = [row for row in read_metrics(tmp_path / "diagnosed") if "diagnose/error_1" in row][-1]
    quiet = [row for row in read_metrics(tmp_path / "quiet") if "diagnose/error_1" in row]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in quiet] == [{k: v for k, v in last.items() if k != "seconds"}]
    diagnostics = json.loads((tmp_path / "diagnosed/diagnostics.json").read_text())
    assert diagnostics.keys() == {"one_step", "calibration", "horizon", "return_gap", "epistemic", "q_gap", "dimensions"}
    assert diagnostics["return_gap"]["mean"][-1] == last["diagnose/return_gap"]


def same(a, b) -> bool:
    """Deep equality of states, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
