"""The checkpoint that a user names."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.recording import named_checkpoint, save_checkpoint


@pytest.fixture
def stored(tmp_path):
    """Checkpoints of steps 1, 2 and 30, of which 2 has the best score."""
    for step, score in ((1, 1.0), (2, 5.0), (30, 3.0)):
        save_checkpoint(tmp_path, step, {"step": step}, keep="all", score=score)
    return tmp_path


@pytest.mark.parametrize(("which", "step"), [("last", 30), ("best", 2), (1, 1), ("1", 1), (np.int64(30), 30), ("0000000002", 2)])
def test_named_checkpoint_is_the_one_that_is_named(stored, which, step):
    assert named_checkpoint(stored, which) == (step, {"step": step})


@pytest.mark.parametrize("which", ["latest", "Best", "", None, 1.0, 1.5, True, -1, "-1", "step-1", ["last"], np.float32(1), "\u0661"])
def test_named_checkpoint_refuses_what_is_none(stored, which):
    with pytest.raises(UserError, match=r"checkpoint=.*(expected last, best or a stored step|holds no checkpoint of that step).*1, 2, 30"):
        named_checkpoint(stored, which)


def test_named_checkpoint_does_not_fall_back_to_another(stored):
    with pytest.raises(UserError, match=r"checkpoint=4: .* holds no checkpoint of that step; stored steps: 1, 2, 30"):
        named_checkpoint(stored, 4)
    (stored / "step-0000000002.pt").write_bytes(b"damaged")
    for which in ("best", 2):
        with pytest.raises(UserError, match=r"step-0000000002\.pt cannot be read"):
            named_checkpoint(stored, which)


def test_named_checkpoint_best_without_scores_is_refused(tmp_path):
    save_checkpoint(tmp_path, 7, {"step": 7})
    with pytest.raises(UserError, match=r"checkpoint=best: no checkpoint in .* has a score; stored steps: 7"):
        named_checkpoint(tmp_path, "best")
