"""Every row that must not pass, and the sentence that names it, wherever in the chunks it lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import refusal_of
from recorded import LENGTHS, about, columns

from mbkit.data import Dataset
from mbkit.data.checks import EDGE
from mbkit.errors import UserError

LENGTHS_HERE = [3, 1, 4]  # row 5 is step 1 of episode 2


def refusal(changes: dict, rows: int = 65_536, choices: int = 0) -> str:
    """The sentence for a data set with other columns than it should have; "" where there is none."""
    data = Dataset.of(columns(LENGTHS_HERE, choices)._replace(**changes), **about(choices))
    return refusal_of(lambda: list(data.chunks(rows))) or ""


def changed(name: str, place, value, choices: int = 0) -> dict:
    """A column with one entry changed."""
    column = getattr(columns(LENGTHS_HERE, choices), name).copy()
    column[place] = value
    return {name: column}


@pytest.mark.parametrize("rows", [1, 2, 5, 65_536])
@pytest.mark.parametrize(
    ("name", "place", "value", "sentence"),
    [
        ("obs", (5, 1), np.nan, "obs, dimension 1 of row 5 (episode 2, step 1): expected finite numbers, got nan"),
        ("next_obs", (2, 0), np.inf, "next_obs, dimension 0 of row 2 (episode 0, step 2): expected finite numbers, got inf"),
        ("reward", 3, -np.inf, "reward of row 3 (episode 1, step 0): expected finite numbers, got -inf"),
        ("reward", 7, 1e39, "reward of row 7 (episode 2, step 3): expected finite numbers within float32, got 1e+39"),
        ("action", (4, 1), np.nan, "action, dimension 1 of row 4 (episode 2, step 0): expected finite numbers, got nan"),
        ("action", (4, 1), 2.1, "action, dimension 1 of row 4 (episode 2, step 0): expected a number in [-2, 2], got 2.1"),
        ("terminated", 1, True, "terminated of row 1 (episode 0, step 1): expected False before the last row of an episode, got True"),
        ("truncated", 5, True, "truncated of row 5 (episode 2, step 1): expected False before the last row of an episode, got True"),
        (
            "next_obs",
            (5, 0),
            7.0,
            "next_obs, dimension 0 of row 5 (episode 2, step 1): expected 2002.0, the observation of the following row, got 7.0",
        ),
    ],
)
def test_rows_that_fail_are_named(rows, name, place, value, sentence):
    assert refusal({}, rows) == ""
    assert refusal(changed(name, place, value), rows) == f"the data set: {sentence}"


def test_actions_may_touch_the_edge_by_a_rounding_error():
    width = 4
    assert refusal(changed("action", (4, 1), 2 + 0.9 * EDGE * width)) == ""
    assert "expected a number in [-2, 2]" in refusal(changed("action", (4, 1), 2 + 1.1 * EDGE * width))
    assert "expected a number in [-2, 2]" in refusal(changed("action", (4, 1), -2 - 1.1 * EDGE * width))


@pytest.mark.parametrize("value", [2, 7, -1])
def test_discrete_actions_are_among_the_choices(value):
    assert refusal({}, choices=4) == ""
    assert f"action of row 6 (episode 2, step 2): expected one of 3 to 6, got {value}" in refusal(changed("action", 6, value, 4), choices=4)


@settings(max_examples=25)
@given(lengths=LENGTHS, shift=st.sampled_from([-2, -1, 1, 2]), rows=st.integers(1, 9))
def test_shifted_successors_are_refused(lengths, shift, rows):
    lengths = [n + 1 for n in lengths]  # an episode of one row says nothing
    right = columns(lengths)
    for name in ("obs", "next_obs"):
        wrong = right._replace(**{name: np.roll(getattr(right, name), shift, 0)})
        with pytest.raises(UserError, match=r"next_obs, dimension 0 of row \d+ .*the observation of the following row"):
            list(Dataset.of(wrong, **about()).chunks(rows))


def test_observations_shifted_by_one_row_an_episode_are_refused():
    """What comes of slicing T + 1 observations with the numbers of T actions: [5 100 101] where [100 101 102] is true."""
    obs = np.array([0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 200, 201, 202, 203, 204], float)[:, None]  # 5, 3, 4 actions
    lengths = [5, 3, 4]
    episode = np.repeat([0, 1, 2], lengths)
    rows = np.arange(12)
    shifted, last = obs[rows], np.append(np.diff(episode), 1) > 0
    assert shifted[episode == 1, 0].tolist() == [5, 100, 101]
    right = obs[rows + episode]
    assert right[episode == 1, 0].tolist() == [100, 101, 102]
    facts = {"action": np.zeros((12, 1)), "reward": np.zeros(12), "terminated": last, "truncated": ~last & False, "episode": episode}
    following = obs[rows + episode + 1]
    box = {"action_low": [-1], "action_high": [1]}
    columns_of = type(columns([1]))
    assert Dataset.of(columns_of(obs=right, next_obs=following, **facts), **box).columns().obs.tolist() == right.tolist()
    with pytest.raises(UserError, match=r"row 5 \(episode 1, step 0\): expected 100.0, the observation of the following row, got 101.0"):
        Dataset.of(columns_of(obs=shifted, next_obs=following, **facts), **box).columns()


def test_rows_of_another_width_are_refused():
    with pytest.raises(UserError, match=r"action from row 0: expected shape \[8, 2\], got \[8, 3\]"):
        Dataset.of(columns(LENGTHS_HERE)._replace(action=np.zeros((8, 3))), **about()).columns()
