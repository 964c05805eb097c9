"""Similarity of policies to one-step RL."""

import numpy as np

from mbkit.theory.offline_problems import same_argmax


def test_same_argmax_ties_count_as_equal():
    reference = np.array([[0.4, 0.4, 0.2], [0.2, 0.5, 0.3]])
    assert same_argmax(np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0]]), reference).tolist() == [1, 0]
