"""Notes: whole sentences, each once."""

import pytest

from mbkit.recording.notes import noted, sentence


@pytest.mark.parametrize("text", ["no video: no renderer", "No video: no renderer.", " no video: no renderer.. "])
def test_sentence_ends_with_one_full_stop(text):
    assert sentence(text) == "No video: no renderer."


def test_noted_keeps_the_order_and_leaves_out_repetitions():
    assert noted(["b."], "a", "", "B", "a.") == ["B.", "A."]
