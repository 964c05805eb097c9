import pytest

from mbkit.report.text import ranges


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([7], "7"), ([1, 2], "1, 2"), ([13, 11, 12], "11 to 13"), ([1, 3, 11, 12, 13, 15, 16], "1, 3, 11 to 13, 15, 16")],
)
def test_three_numbers_in_a_row_are_a_range(numbers, text):
    assert ranges(numbers) == text
