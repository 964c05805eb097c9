"""Updates of offline agents can be captured in a CUDA graph: the same operators on the same shapes whatever the data, and no fresh state.

On a GPU graph and eager updates are compared; on a CPU what a capture asks for is.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recorded_batches import rows_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mbkit.agents  # noqa: F401  # registers them
from mbkit.accelerate import accelerated
from mbkit.errors import UserError
from mbkit.registry import agents
from mbkit.testing import random_recorded
from mbkit.types import EnvSpec, Learner, Metrics, Recorded

ROWS, BATCH = 64, 16
WAITING = {"aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select", "aten._unique2"}
NAMES = [entry.name for entry in agents if "dataset" in entry.learns_from and entry.target.__module__.startswith("mbkit.agents")]
SMALL: dict[str, dict[str, Any]] = {"awr": {"relabel_every": 2}}


class Operators(TorchDispatchMode):
    """Lists the operators that run inside, with the shapes of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Runs the operator."""
        out = func(*args, **(kwargs or {}))
        outputs = out if isinstance(out, list | tuple) else [out]
        self.calls.append((str(func).rpartition(".")[0], [x.shape for x in outputs if isinstance(x, Tensor)]))
        return out


def made(name: str, device: torch.device) -> Iterator[tuple[Learner, Recorded]]:
    """The agent with small networks for every kind of actions that it takes, with its data set of random rows."""
    entry = agents[name]
    for discrete in (False, True):
        spec = EnvSpec(3, 2, device, discrete)
        try:
            agent = entry.target(spec, entry.config(hidden=(8,), **SMALL.get(name, {})), 0.9)
        except UserError:
            continue
        data = Recorded(*(None if x is None else x.to(device) for x in random_recorded(spec, ROWS)))
        agent.prepare(data)
        yield agent, data


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a nested state."""
    if isinstance(state, Tensor):
        yield state
    for part in state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ():
        yield from tensors(part)


def held(agent: Learner) -> list[int]:
    """The addresses of parameters, buffers and optimizers' states."""
    optimizers = [x for optimizer in agent.optimizers.values() for slots in optimizer.state.values() for x in slots.values()]
    return [x.data_ptr() for x in (*agent.parameters(), *agent.buffers(), *optimizers)]


def cycle(agent: Learner, data: Recorded, seed: int) -> Metrics:
    """As many updates as the agent takes to repeat its work, on rows drawn by the seed."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(agent.cycle):
        metrics = agent.update(rows_of(data, torch.randint(ROWS, (BATCH,), generator=draw).to(data.row.device)))
    return metrics


@pytest.mark.parametrize("name", NAMES)
def test_updates_are_the_same_operators_whatever_the_data(name):
    for agent, data in made(name, torch.device("cpu")):
        cycle(agent, data, 0)  # optimizers make their states
        addresses, calls = held(agent), []
        for seed in (1, 2):
            changed = data._replace(reward=data.reward * 10**seed, discount=data.discount * (seed - 1))
            with Operators() as operators:
                cycle(agent, changed, seed)
            calls.append(operators.calls)
        assert calls[0] == calls[1]
        assert not {operator for operator, _ in calls[0]} & WAITING
        assert held(agent) == addresses


@pytest.mark.parametrize("name", NAMES)
def test_updates_that_do_not_measure_make_the_same_steps(name):
    for (agent, data), (twin, _) in zip(made(name, torch.device("cpu")), made(name, torch.device("cpu")), strict=True):
        twin.load_state_dict(agent.state_dict())
        twin.measures = False
        for each in (agent, twin):
            torch.manual_seed(3)
            for seed in range(2):
                cycle(each, data, seed)
        assert all(map(torch.equal, tensors(agent.state_dict()), tensors(twin.state_dict())))


def test_operators_that_depend_on_the_data_are_noticed():
    calls = []
    for x in (torch.zeros(3), torch.ones(3)):
        with Operators() as operators:
            x[x > 0].sum()
        calls.append(operators.calls)
    assert calls[0] != calls[1]
    assert {operator for operator, _ in calls[0]} & {"aten.nonzero", "aten.index"}


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_captured_updates_equal_eager_ones(name):
    device = torch.device("cuda")
    for (eager, data), (graphed, _) in zip(made(name, device), made(name, device), strict=True):
        graphed.load_state_dict(eager.state_dict())
        index = torch.randint(ROWS, (BATCH,), device=device)

        def updates(agent: Learner, rows: Tensor, data: Recorded = data) -> tuple[Tensor, ...]:
            for _ in range(agent.cycle):
                metrics = agent.update(rows_of(data, rows))
            return tuple(metrics.values())

        call = accelerated(lambda rows, agent=graphed: updates(agent, rows), "cudagraph", device, changes=[graphed])
        outputs = []
        for run in (lambda rows, agent=eager: updates(agent, rows), call):
            torch.manual_seed(7)
            outputs.append([run(index) for _ in range(3)])
        torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(*(list(tensors(agent.state_dict())) for agent in (eager, graphed)), rtol=1e-5, atol=1e-6)
