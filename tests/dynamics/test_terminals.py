"""Rows that end episodes: stand-ins for their successors are seen, and how well a termination function explains them."""

import pytest
import torch
from recorded_batches import recorded
from torch import Tensor

from mbkit.dynamics.terminals import CHUNK, Explained, check_explained, explained, note_left_out, true_successors
from mbkit.errors import UserError
from mbkit.types import Recorded

LENGTHS = (4, 3, 5, 2)  # episodes 0, 2 and 3 terminate, 1 is only cut


def data() -> Recorded:
    """Observation k of episode i has 100 i + k + 1 in both dimensions; its actions are 0."""
    obs, next_obs, discount = [], [], []
    for i, length in enumerate(LENGTHS):
        path = 100.0 * i + torch.arange(1.0, length + 2)[:, None].expand(-1, 2)
        obs.append(path[:-1])
        next_obs.append(path[1:])
        discount.append(torch.cat((torch.ones(length - 1), torch.tensor([float(i == 1)]))))
    n = sum(LENGTHS)
    return recorded(torch.cat(obs), torch.zeros(n, 1), torch.zeros(n), torch.cat(next_obs), torch.cat(discount), LENGTHS)


def changed(row: int, successor: Tensor) -> Recorded:
    next_obs = data().next_obs.clone()
    next_obs[row] = successor
    return data()._replace(next_obs=next_obs)


ENDS = (3, 6, 11, 13)  # last rows of the episodes; 6 is cut


def test_true_successors_stay():
    assert bool(true_successors(data()).all())


@pytest.mark.parametrize("row", [3, 11, 13])
@pytest.mark.parametrize("kind", ["zeros", "next first"])
def test_stand_ins_at_a_terminal_end_are_seen(row, kind):
    following = data().obs[(row + 1) % 14]  # of the last row: the first one's
    true = true_successors(changed(row, torch.zeros(2) if kind == "zeros" else following))
    assert (~true).nonzero().flatten().tolist() == [row]


@pytest.mark.parametrize("successor", [torch.zeros(2), torch.tensor([0.0, 104.0])], ids=["zeros", "one zero"])
@pytest.mark.parametrize("row", [6, 8])
def test_zeros_elsewhere_are_successors(row, successor):
    """Where the episode went on or was cut nothing is replaced: row 6 is cut, 8 lies within an episode."""
    assert bool(true_successors(changed(row, successor)).all())
    assert bool(true_successors(changed(11, torch.tensor([0.0, 104.0]))).all())


def test_a_terminal_state_that_stays_at_zero_is_a_successor():
    rows = changed(11, torch.zeros(2))
    rows.obs[11] = 0
    assert bool(true_successors(rows).all())


# ------------------------------------------------------------------------------------------------------- termination functions
def ends(*rows: int):
    """A termination function that is true at the ends of these rows."""
    wanted = data().next_obs[list(rows), 0]
    return lambda obs, action, next_obs: torch.isin(next_obs[:, 0], wanted)


ALL = torch.ones(14, dtype=torch.bool)


@pytest.mark.parametrize(
    ("function", "figures"),
    [
        (ends(3, 11, 13), (3, 1, 1)),
        (ends(3, 11), (3, 2 / 3, 1)),
        (ends(3, 11, 13, 0, 1), (3, 1, 3 / 5)),
        (ends(6), (3, 0, 0)),
        (lambda obs, action, next_obs: torch.zeros(len(obs), dtype=torch.bool), (3, 0, 1)),
        (None, (3, 0, 1)),
    ],
    ids=["all", "misses one", "calls two more", "others", "none", "no function"],
)
def test_recall_and_precision_by_hand(function, figures):
    assert explained(function, data(), ALL) == pytest.approx(Explained(*figures))


def test_rows_without_a_true_successor_do_not_count():
    true = ALL.clone()
    true[[3, 0]] = False
    assert explained(ends(3, 11, 13, 0), data(), true) == Explained(2, 1, 1)
    assert explained(ends(0), data(), ~ALL) == Explained(0, 0, 1)


def test_many_rows_are_asked_about_in_parts():
    n, asked = CHUNK + 5, list[int]()
    obs = torch.zeros(n, 1)
    rows = recorded(obs, obs, torch.zeros(n), obs, (torch.arange(n) % 100 != 0).float(), [n])

    def never(obs, action, next_obs):
        asked.append(len(obs))
        return torch.zeros(len(obs), dtype=torch.bool)

    assert explained(never, rows, torch.ones(n, dtype=torch.bool)) == Explained(656, 0, 1)
    assert asked == [CHUNK, 5]


@pytest.mark.parametrize(
    ("figures", "known", "sentence"),
    [
        (Explained(20, 0.94, 1), True, r"D: the known .* does not explain its terminations \(recall 0.940, precision 1.000 on 20 "),
        (Explained(20, 1, 0.94), True, r"expected at least 0.95\); dynamics.termination=learned, never or .*, pkg.mod:fn, replaces it"),
        (Explained(20, 0, 1), False, "D: 20 of its rows end an episode, but no termination function .* is known; expected dynamics.term"),
    ],
)
def test_terminations_that_are_not_explained_are_refused_in_one_sentence(figures, known, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        check_explained(figures, "D", known)
    assert "\n" not in str(caught.value)


def test_explained_terminations_and_none_at_all_pass():
    for figures in (Explained(20, 0.95, 0.95), Explained(0, 0, 0), Explained(0, 0, 1)):
        for known in (True, False):
            check_explained(figures, "D", known)


def test_rows_that_are_left_out_are_counted_and_said():
    assert note_left_out(ALL) == ""
    true = true_successors(changed(11, torch.zeros(2)))
    assert note_left_out(true).startswith("Terminal rows without a true successor (zeros, or the next episode's first observation, ")
    assert note_left_out(true).endswith("leaves out: 1.")
