"""What the checks share: one sentence for what broke, tensors of a state, operators that synchronise with the device."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mbkit.errors import UserError
from mbkit.types import EnvSpec, Metrics, State

SYNC = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}  # operators that synchronise with the device
T = TypeVar("T")


def expect(condition: bool, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


@contextmanager
def plain_sentences() -> Iterator[None]:
    """UserError, which is one sentence already, as the AssertionError of a check."""
    try:
        yield
    except UserError as error:
        raise AssertionError(str(error)) from error


def supported(build: Callable[[EnvSpec], Any], spec: EnvSpec) -> list[EnvSpec]:
    """`spec` with each kind of actions for which `build` raises no UserError: continuous, discrete, several discrete ones.

    Raises:
        AssertionError: there is none.
    """
    spaces, refusal = [], ""
    several = spec._replace(discrete=True, action_dim=spec.action_dim + 3, parts=(spec.action_dim, 3))
    for space in (spec._replace(discrete=False, parts=()), spec._replace(discrete=True, parts=()), several):
        try:
            build(space)
        except UserError as error:
            refusal = str(error)
        else:
            spaces.append(space)
    expect(bool(spaces), f"neither continuous nor discrete actions are supported: {refusal}")
    return spaces


def seeded(call: Callable[[], T], seed: int = 7) -> T:
    """What the call returns from a fixed random state; the caller's random state is restored."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return call()


def check_metrics(metrics: Metrics, call: str = "update") -> None:
    """Check for detached finite 0-d tensors, at least one."""
    expect(bool(metrics), f"{call}: expected at least one metric")
    for name, value in metrics.items():
        expect(isinstance(value, Tensor) and value.ndim == 0, f"metric {name}: expected a 0-d tensor, came {value!r}")
        expect(not value.requires_grad, f"metric {name}: expected a detached tensor")
        expect(bool(value.isfinite()), f"metric {name}: expected a finite number, came {value}")


def synchronising(call: Callable[[], object]) -> list[str]:
    """Names of the operators of a call that make the host wait for the device."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        call()
    return sorted({event.name for event in recorded.events() or () if event.name in SYNC and not on_a_cpu_only(event)})


def on_a_cpu_only(event: Any) -> bool:
    """Whether a profiled operator ran inside one that does not synchronise on a GPU: there fused Adam does not read its step count."""
    while event is not None:
        if event.name.startswith("Optimizer.step") or event.name in ("aten::_fused_adam_", "aten::one_hot"):
            return True
        event = event.cpu_parent
    return False


def tensors(state: State | Any) -> Iterator[Tensor]:
    """Every tensor of a nested state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from tensors(value)


def saved(state: State) -> State:
    """A state as it comes back from a file that holds no pickled objects."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: State = torch.load(file, weights_only=True)
    return loaded


def attributes(part: Any) -> Iterator[Tensor]:
    """Every tensor that a part holds as an attribute, in a container of them, or in an `nn.Module` among them."""
    if isinstance(part, nn.Module):
        yield from part.parameters()
        yield from part.buffers()
    for value in getattr(part, "__dict__", {}).values():
        if isinstance(value, nn.Module):
            yield from attributes(value)
        else:
            yield from tensors(value)
