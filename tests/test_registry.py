"""Half-sentences that name what is known."""

import pytest

from mbkit.registry import LISTED, nearest

MANY = [f"name{i:03d}" for i in range(100)]


@pytest.mark.parametrize("count", [0, 1, LISTED - 1, LISTED, LISTED + 1, LISTED + 2, 100])
def test_a_name_like_no_other_lists_the_known_ones_and_counts_the_rest(count):
    told = nearest("quite another", MANY[:count])
    listed = told.removeprefix("known: ").split(" and ")[0].split(", ")
    others = told.partition(" and ")[2].removesuffix(" others")
    assert listed == (MANY[: count if count <= LISTED + 1 else LISTED] or ["none"])
    assert others == (f"{count - LISTED}" if count > LISTED + 1 else "")


def test_a_name_with_a_slip_names_the_closest():
    assert nearest("nmae004", MANY) == "did you mean 'name004'?"
