"""Tables and vectors of several discrete actions, as identities."""

import pytest
import torch
from torch.nn.functional import one_hot

from mbkit.networks.parts import as_table, as_vector, counts, one_hot_parts

SIZES = pytest.mark.parametrize("parts", [(3, 1, 2), (2, 2), (5,)])


@SIZES
def test_as_table_has_a_row_for_each_part_and_as_vector_is_its_inverse(parts):
    vector = torch.randn(4, 6, sum(parts))
    table = as_table(vector, parts, -7.0)
    for i, expected in enumerate(vector.split(parts, -1)):
        assert torch.equal(table[..., i, : parts[i]], expected)
        assert (table[..., i, parts[i] :] == -7).all()
    assert torch.equal(as_vector(table, parts), vector)


@SIZES
def test_one_hot_parts_are_the_parts_one_hot_vectors_side_by_side(parts):
    action = torch.stack([torch.randint(n, (4, 6)) for n in parts], -1)
    expected = torch.cat([one_hot(action[..., i], n) for i, n in enumerate(parts)], -1)
    assert torch.equal(one_hot_parts(action, parts), expected.float())


def test_counts_are_infinite_where_a_part_has_no_such_action():
    inverse = 1 / counts((3, 2), torch.float64, torch.device("cpu"))
    assert inverse.tolist() == [[1 / 3] * 3, [0.5, 0.5, 0]]


def test_as_table_gradient_reaches_every_entry_once():
    vector = torch.randn(2, 5, requires_grad=True)
    as_table(vector, (3, 2), 0.0).sum().backward()
    assert torch.equal(vector.grad, torch.ones(2, 5))
