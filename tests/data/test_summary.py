"""Summaries against plain NumPy on the whole, and what they say of rows that fail."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import LENGTHS, about, columns, dataset

from mbkit.data import Dataset
from mbkit.data.summary import summary
from mbkit.storage import plain


def in_chunks(data: Dataset, rows: int) -> Dataset:
    """The same data set, read in small chunks."""
    raw = data.raw
    data.raw = lambda: raw(rows)
    return data


@settings(max_examples=25)
@given(lengths=LENGTHS, rows=st.integers(1, 9), choices=st.sampled_from([0, 4]))
def test_summary_is_that_of_all_rows_at_once(lengths, rows, choices):
    facts = summary(in_chunks(dataset(lengths, choices, env="Some-v0"), rows))
    whole = columns(lengths, choices)
    returns = [whole.reward[whole.episode == i].sum() for i in range(len(lengths))]
    for name, values in (("return", returns), ("length", lengths)):
        expected = [np.mean(values), np.std(values), np.min(values), np.max(values)]
        np.testing.assert_allclose([facts[f"{name}_{key}"] for key in ("mean", "std", "min", "max")], expected)
    assert (facts["rows"], facts["episodes"], facts["env"]) == (sum(lengths), len(lengths), "Some-v0")
    assert facts["terminated"] == whole.terminated.sum()
    assert facts["truncated"] == (whole.truncated & ~whole.terminated).sum()
    assert facts["neither"] == 0
    assert facts["problem"] is None
    assert set(facts["nan"].values()) == {0}
    assert facts["sha256"] == dataset(lengths, choices).sha256
    assert json.loads(json.dumps(plain(facts), allow_nan=False))["episodes"] == len(lengths)


def test_summary_counts_what_is_covered_and_what_is_constant():
    action = np.stack([np.linspace(-1, 0, 10), np.full(10, 2.0)], 1)  # the lower half and its middle; the upper bound
    rows = columns([4, 6])._replace(action=action, obs=np.ones((10, 2)), next_obs=np.ones((10, 2)))
    facts = summary(Dataset.of(rows, **about(), obs_names=("left", "right")))
    assert facts["action_coverage"] == [10 / 20, 1 / 20]
    assert facts["actions_at_bounds"] == (1 + 10) / 20
    assert facts["constant_columns"] == ["left", "right", "action[1]"]
    facts = summary(Dataset.of(columns([4, 6])._replace(action=np.array([3] * 5 + [6] * 5)), choices=4, start=3))
    assert facts["action_coverage"] == [0.5, 0, 0, 0.5]
    assert facts["action_space"] == {"dtype": "int64", "names": [], "discrete": True, "n": 4, "start": 3}


def test_summary_counts_numbers_that_are_not_finite_and_names_the_first():
    rows = columns([4, 6])
    rows.obs[7, 1] = rows.next_obs[6, 1] = rows.reward[2] = np.nan
    rows.action[8] = np.inf
    facts = summary(in_chunks(Dataset.of(rows, **about()), 3))
    assert facts["nan"] == {"obs": 1, "action": 2, "reward": 1, "next_obs": 1}
    assert facts["problem"] == "the data set: reward of row 2 (episode 0, step 2): expected finite numbers, got nan"
    assert plain(facts)["return_mean"] is None


def test_summary_of_a_log_without_rewards_has_no_return():
    facts = summary(dataset([2, 3], has_reward=False))
    assert (facts["return_mean"], facts["length_mean"], facts["has_reward"]) == (None, 2.5, False)


def test_summary_counts_episodes_without_a_flag():
    rows = columns([2, 3, 1])._replace(truncated=np.zeros(6, bool))
    assert summary(Dataset.of(rows, **about()))["neither"] == 0  # 0 and 2 terminate, and 1 has both flags
    assert summary(Dataset.of(rows._replace(terminated=np.zeros(6, bool)), **about()))["neither"] == 3
