"""Nested states with one leaf made odd: for files that somebody else wrote, or edited."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st

from mbkit.errors import UserError

ODD = [None, True, -1, 10**9, 2**70, 1.5, float("nan"), float("inf"), "x", "", "${x}", [], {}, (1, 2), [[[1]]]]
TENSORS = [torch.zeros(3), torch.tensor(float("nan")), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(-5)]
CHANGES = ["drop", "odd", "tensor", "double", "longer", "shorter", "nan", "less"]


def refusal_of(attempt: Callable[[], object]) -> str | None:
    """The one sentence with which this is refused; None where it is not."""
    try:
        attempt()
    except UserError as error:
        sentence = str(error)
        assert sentence.strip() and len(sentence.splitlines()) == 1, sentence  # noqa: PT018
        return sentence
    return None


def places(tree: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every node below the top."""
    if place:
        yield place
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, value in entries:
        if not (isinstance(tree, (list, tuple)) and key > 2):
            yield from places(value, (*place, key))


def with_leaf(tree: Any, place: tuple[Any, ...], change: str, odd: Any) -> Any:
    """A copy of the tree with one node changed; tensors elsewhere are shared."""
    key, *rest = place
    copied = dict(tree) if isinstance(tree, dict) else list(tree)
    if rest:
        copied[key] = with_leaf(copied[key], tuple(rest), change, odd)
    elif change == "drop":
        del copied[key]
    else:
        copied[key] = changed(copied[key], change, odd)
    return tuple(copied) if isinstance(tree, tuple) else copied


def changed(value: Any, change: str, odd: Any) -> Any:
    """A tensor of another type, shape or content; anything else becomes `odd`."""
    if not isinstance(value, torch.Tensor) or change in ("odd", "tensor"):
        return odd
    if change == "double":
        return value.double() if value.is_floating_point() else value.float()
    if change == "longer":
        return value[None]
    if change == "shorter":
        return value.flatten()[:1]
    return value * float("nan") if change == "nan" and value.is_floating_point() else value - 10**6 if value.dtype != torch.bool else ~value


def mutations(tree: Any) -> st.SearchStrategy[Any]:
    """Copies of the tree with one odd node."""
    return st.builds(
        lambda place, change, odd: with_leaf(tree, place, change, odd),
        st.sampled_from(list(places(tree))),
        st.sampled_from(CHANGES),
        st.sampled_from([*ODD, *TENSORS]),
    )
