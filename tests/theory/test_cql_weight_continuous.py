"""Least squares on the LQR."""

from mbkit.theory.cql_weight_continuous import least_squares_errors


def test_least_squares_errors_are_small():
    assert least_squares_errors(5) < 0.15
