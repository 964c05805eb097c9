"""Hot paths never wait for the device: no operator that copies a number to the host, and on a GPU a captured graph equals eager steps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

import mbkit.agents  # noqa: F401  # registers them
from mbkit.accelerate import accelerated
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.imagination.branch import branch
from mbkit.registry import agents
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.mixture import Mixture
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.replay.n_step import NStep
from mbkit.testing import random_trajectory
from mbkit.types import EnvSpec, Learner, Trajectory, TrajectoryLearner, Transition

WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}
WAITS |= {"aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave", "aten::allclose"}
NAMES = [entry.name for entry in agents if entry.target.__module__.startswith("mbkit.agents")]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OBS, ACTION, BATCH, ROWS = 4, 2, 16, 64


def waiting(call: Callable[[], object]) -> set[str]:
    """Operators of a call, after one to warm up, that would wait for a GPU."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    return {event.name for event in seen.events() if event.name in WAITS and not in_adam(event)}


def in_adam(event: FunctionEvent | None) -> bool:
    """Whether an operator was called by fused Adam, which on a CPU, and only there, reads its step counter."""
    return event is not None and (event.name == "aten::_fused_adam_" or in_adam(event.cpu_parent))


def learner(name: str, device: torch.device) -> tuple[Learner, EnvSpec]:
    """A registered agent with its default settings, for continuous actions if it has them."""
    entry = agents[name]
    for discrete in (False, True):
        spec = EnvSpec(OBS, ACTION, device, discrete)
        try:
            made = entry.target(spec, entry.config())
        except UserError:
            continue
        return made, spec
    pytest.fail(f"{name} supports neither kind of actions")


def drawn(agent: Learner | TrajectoryLearner, buffer: ReplayBuffer, spec: EnvSpec) -> Transition | Trajectory:
    """What `update` takes: a batch from the replay, or always the same trajectory."""
    if not isinstance(agent, TrajectoryLearner):
        return buffer.sample(BATCH)
    return Trajectory(*(x.to(spec.device) for x in random_trajectory(spec, BATCH, 2)))


def replay(spec: EnvSpec, generator_seed: int = 0) -> ReplayBuffer:
    g = torch.Generator().manual_seed(generator_seed)
    obs, next_obs = torch.randn(2, ROWS, OBS, generator=g)
    box, choice = torch.rand(ROWS, ACTION, generator=g) * 2 - 1, torch.randint(ACTION, (ROWS,), generator=g)
    ended = torch.rand(ROWS, generator=g) < 0.1
    buffer = ReplayBuffer(ROWS, spec)
    buffer.extend(Experience(obs, choice if spec.discrete else box, torch.randn(ROWS, generator=g), next_obs, ended, ended), column=0)
    return buffer


def dreams(device: torch.device) -> tuple[Ensemble, ModelBuffer, Tensor]:
    """A small ensemble with a learned reward and termination, an empty model buffer, states to begin with."""
    spec = EnvSpec(OBS, ACTION, device)
    cfg = EnsembleConfig(members=3, elites=2, hidden=(8,), propagation="ts1", reward="learned", termination="learned")
    return Ensemble(spec, cfg), ModelBuffer(3 * ROWS, spec), torch.randn(ROWS, OBS, device=device)


def calls_of(name: str, device: torch.device) -> list[Callable[[], object]]:
    agent, spec = learner(name, device)
    buffer, obs = replay(spec), torch.randn(BATCH, OBS, device=device)
    once = [lambda: agent.update(drawn(agent, buffer, spec))] * agent.cycle
    return [*once, lambda: agent.act(obs), lambda: agent.act(obs, explore=False), lambda: agent.sample(obs), lambda: agent.value(obs)]


def data_calls(device: torch.device) -> list[Callable[[], object]]:
    """Drawing from every source, storing, imagining."""
    model, memory, obs = dreams(device)
    buffer = replay(EnvSpec(OBS, ACTION, device))
    batch, mask = buffer.sample(BATCH), torch.arange(BATCH, device=device) % 2 == 0
    mixture, three_step = Mixture([buffer, memory], [0.25, 0.75]), NStep(buffer, 3, 0.99)
    return [
        lambda: memory.extend(batch, mask),
        lambda: memory.sample(BATCH),
        lambda: buffer.sample(BATCH),
        lambda: three_step.sample(BATCH),
        lambda: mixture.sample(BATCH),
        lambda: branch(model, lambda o: torch.rand(len(o), ACTION, device=o.device), obs, 3, memory),
    ]


def test_waiting_operators_are_found():
    x = torch.ones(3)
    assert waiting(lambda: float(x.sum())) >= {"aten::item", "aten::_local_scalar_dense"}
    assert "aten::nonzero" in waiting(lambda: x[x > 0])
    assert not waiting(lambda: x + 1)


@pytest.mark.parametrize("name", NAMES)
def test_agents_do_not_wait(name):
    for call in calls_of(name, CPU):
        assert not waiting(call)


def test_drawing_storing_and_imagining_do_not_wait():
    for call in data_calls(CPU):
        assert not waiting(call)


def raises_when_it_waits(call: Callable[[], object]) -> None:
    for _ in range(2):  # lazy initialisations may wait, once
        call()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_agents_do_not_wait_for_a_gpu(name):
    for call in calls_of(name, CUDA):
        raises_when_it_waits(call)


@pytest.mark.gpu
def test_drawing_storing_and_imagining_do_not_wait_for_a_gpu():
    for call in data_calls(CUDA):
        raises_when_it_waits(call)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_captured_updates_equal_eager_ones(name):
    """K updates in one graph, replayed three times, drawing included, against as many eager ones from the same seed."""
    (eager, spec), (graphed, _) = learner(name, CUDA), learner(name, CUDA)
    graphed.load_state_dict(eager.state_dict())
    buffer = replay(spec)

    def updates(agent: Learner) -> tuple[Tensor, ...]:
        for _ in range(2 * agent.cycle):
            metrics = agent.update(drawn(agent, buffer, spec))
        return tuple(metrics.values())

    call = accelerated(lambda: updates(graphed), "cudagraph", CUDA, changes=graphed)
    outputs = []
    for run in (lambda: updates(eager), call):
        torch.manual_seed(7)
        outputs = [*outputs, [run() for _ in range(3)]]
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    tensors = [{k: v for k, v in agent.state_dict().items() if isinstance(v, Tensor)} for agent in (eager, graphed)]
    torch.testing.assert_close(*tensors, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_captured_rollouts_store_what_eager_ones_do():
    model, eager, obs = dreams(CUDA)
    graphed = ModelBuffer(eager.capacity, eager.spec)

    def policy(o: Tensor) -> Tensor:
        return o[:, :ACTION].tanh()

    call = accelerated(lambda: branch(model, policy, obs, 2, graphed), "cudagraph", CUDA, changes=graphed)
    for run in (lambda: branch(model, policy, obs, 2, eager), call):
        torch.manual_seed(7)
        run()
    rows: list[Transition] = [eager.all(), graphed.all()]
    torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-6)
