"""Too little memory is a sentence that names what was too large; other errors stay as they are."""

import pytest
import torch

from mbkit.errors import UserError
from mbkit.loops import refuse_oversized


def test_refuse_oversized_names_what_needs_more_memory():
    with pytest.raises(UserError, match=r"^a batch needs more memory than the device has; expected less$"), refuse_oversized("a batch"):
        torch.empty(10**15)
    with pytest.raises(UserError, match="a list needs more memory"), refuse_oversized("a list"):
        raise MemoryError


def test_refuse_oversized_leaves_other_errors_alone():
    with pytest.raises(RuntimeError, match="size"), refuse_oversized("a product"):
        torch.zeros(2) @ torch.zeros(3)
    with refuse_oversized("nothing"):
        pass
