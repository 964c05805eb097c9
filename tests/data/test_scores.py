"""Normalised scores: D4RL's constants, what they are called, and the standard deviation, which has no offset."""

import numpy as np
import pytest
from recorded import columns

from mbkit.data import Dataset, scores
from mbkit.data.scores import Reference, references, scores_of
from mbkit.data.summary import summary


def test_table_has_d4rl_constants():
    table = {environment: (ref.low, ref.high) for (environment, convention, _), ref in references().items() if convention == "D4RL"}
    assert table["halfcheetah"] == (-280.178953, 12135.0)
    assert table["hopper"] == (-20.272305, 3234.3)
    assert table["walker2d"] == (1.629008, 4592.3)
    assert table["ant"] == (-325.6, 3879.7)
    assert table["relocate"] == (-6.425911, 4233.877797728884)
    assert len(table) == 13
    assert all(ref.low < ref.high for ref in references().values())


def test_standard_deviation_is_scaled_by_the_range_alone():
    (score,) = scores_of("halfcheetah-medium-v2", 12135.0, 500.0)
    assert score.mean == pytest.approx(100)
    assert score.std == pytest.approx(4.03, abs=0.005)  # 500 taken for a return would be 6.28


@pytest.mark.parametrize(
    ("env", "family", "indicative"),
    [
        ("hopper-medium-replay-v2", "hopper", False),
        ("walker2d-full-replay-v2", "walker2d", False),
        ("halfcheetah-random-v0", "halfcheetah", False),
        ("Hopper-v2", "hopper", False),
        ("Hopper-v5", "hopper", True),
        ("HalfCheetah-v4", "halfcheetah", True),
        ("antmaze-large-diverse-v0", "antmaze", False),
        ("maze2d-medium-v1", "maze2d-medium", False),
        ("kitchen-complete-v0", "kitchen", False),
        ("pen-cloned-v1", "pen", False),
    ],
)
def test_environments_are_known_by_their_ids(env, family, indicative):
    (score,) = scores_of(env, 0.5, 1.0)
    assert (score.reference.environment, score.indicative) == (family, indicative)
    assert score.convention.startswith("D4RL v")
    assert ("indicative" in score.convention) == indicative


@pytest.mark.parametrize(
    "env", [None, "", "Pendulum-v1", "hopper", "maze2d-open-v0", "my-hopper-medium-v2", "hopper-mine-v2", "x:Hopper-v5"]
)
def test_other_environments_have_no_score(env):
    assert scores_of(env, 1.0, 1.0) == []


def test_our_constants_apply_to_one_id(monkeypatch):
    entry = Reference("Pendulum-v1", "mbkit", "0.1.0", -1200.0, -200.0)
    monkeypatch.setattr(scores, "references", lambda: {entry[:3]: entry})
    (score,) = scores_of("Pendulum-v1", -700.0, 50.0)
    assert (score.mean, score.std, score.convention) == (50.0, 5.0, "mbkit 0.1.0, Pendulum-v1")
    assert scores_of("Pendulum-v0", -700.0, 50.0) == []


def test_summary_shows_the_score_with_its_convention():
    rows = columns([2, 2])._replace(reward=np.array([0.0, 100.0, 0.0, 300.0]))
    data = Dataset.of(rows, action_low=[-1, -2], action_high=[1, 2], env="Hopper-v5")
    (score,) = summary(data)["scores"]
    assert score["mean"] == pytest.approx(100 * (200 + 20.272305) / (3234.3 + 20.272305))
    assert score["std"] == pytest.approx(100 * 100 / (3234.3 + 20.272305))
    assert "indicative" in score["convention"]
    data.has_reward = False
    assert summary(data)["scores"] == []
