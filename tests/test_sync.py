"""Hot paths do not synchronise with the device: no operator copies a number to the host; on a GPU a captured graph equals eager steps."""

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

SYNC = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}
SYNC |= {"aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave", "aten::allclose"}
NAMES = [entry.name for entry in agents if entry.target.__module__.startswith("mbkit.agents")]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OBS, ACTION, BATCH, ROWS = 4, 2, 16, 64
SHORT = {"relabel_every": 2, "gradient_steps": 3, "epochs": 2, "value_epochs": 2, "value_steps": 2, "cg_iterations": 3, "backtracks": 3}


def synchronising(call: Callable[[], object]) -> set[str]:
    """Operators of a call, after one to warm up, that would synchronise with a GPU."""
    call()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        call()
    return {event.name for event in recorded.events() if event.name in SYNC and not in_adam(event)}


def in_adam(event: FunctionEvent | None) -> bool:
    """Whether an operator was called by fused Adam, which reads its step count on a CPU, and only there."""
    return event is not None and (event.name == "aten::_fused_adam_" or in_adam(event.cpu_parent))


def learner(name: str, device: torch.device) -> tuple[Learner, EnvSpec]:
    """A registered agent with its default settings but for few steps inside an update, for continuous actions if it supports them."""
    entry = agents[name]
    cfg = entry.config(**{option: n for option, n in SHORT.items() if option in entry.config.__dataclass_fields__})
    for discrete in (False, True):
        spec = EnvSpec(OBS, ACTION, device, discrete)
        try:
            agent = entry.target(spec, cfg)
        except UserError:
            continue
        return agent, spec
    pytest.fail(f"{name} supports neither kind of actions")


def experience(agent: Learner | TrajectoryLearner, spec: EnvSpec) -> Callable[[], Transition | Trajectory]:
    """A call that returns data for `update`: a batch drawn from a replay, or always the same trajectory."""
    if isinstance(agent, TrajectoryLearner):
        trajectory = Trajectory(*(x.to(spec.device) for x in random_trajectory(spec, BATCH, 2)))
        return lambda: trajectory
    buffer = replay(spec)
    return lambda: buffer.sample(BATCH)


def replay(spec: EnvSpec, generator_seed: int = 0) -> ReplayBuffer:
    g = torch.Generator().manual_seed(generator_seed)
    obs, next_obs = torch.randn(2, ROWS, OBS, generator=g)
    continuous, discrete = torch.rand(ROWS, ACTION, generator=g) * 2 - 1, torch.randint(ACTION, (ROWS,), generator=g)
    ended = torch.rand(ROWS, generator=g) < 0.1
    buffer = ReplayBuffer(ROWS, spec)
    buffer.extend(
        Experience(obs, discrete if spec.discrete else continuous, torch.randn(ROWS, generator=g), next_obs, ended, ended), column=0
    )
    return buffer


def model_and_buffer(device: torch.device) -> tuple[Ensemble, ModelBuffer, Tensor]:
    """A small ensemble with a learned reward and termination, an empty model buffer, initial states."""
    spec = EnvSpec(OBS, ACTION, device)
    cfg = EnsembleConfig(members=3, elites=2, hidden=(8,), propagation="ts1", reward="learned", termination="learned")
    return Ensemble(spec, cfg), ModelBuffer(3 * ROWS, spec), torch.randn(ROWS, OBS, device=device)


def calls_of(name: str, device: torch.device) -> list[Callable[[], object]]:
    agent, spec = learner(name, device)
    draw, obs = experience(agent, spec), torch.randn(BATCH, OBS, device=device)
    once = [lambda: agent.update(draw())] * agent.cycle
    return [*once, lambda: agent.act(obs), lambda: agent.act(obs, explore=False), lambda: agent.sample(obs), lambda: agent.value(obs)]


def data_calls(device: torch.device) -> list[Callable[[], object]]:
    """Sampling from every source, storing, model rollouts."""
    model, memory, obs = model_and_buffer(device)
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


def test_synchronising_operators_are_detected():
    x = torch.ones(3)
    assert synchronising(lambda: float(x.sum())) >= {"aten::item", "aten::_local_scalar_dense"}
    assert "aten::nonzero" in synchronising(lambda: x[x > 0])
    assert not synchronising(lambda: x + 1)


@pytest.mark.parametrize("name", NAMES)
def test_agent_does_not_synchronise(name):
    for call in calls_of(name, CPU):
        assert not synchronising(call)


def test_replay_and_branch_do_not_synchronise():
    for call in data_calls(CPU):
        assert not synchronising(call)


def raise_on_synchronisation(call: Callable[[], object]) -> None:
    for _ in range(2):  # lazy initialisations may synchronise, once
        call()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_agent_does_not_synchronise_with_a_gpu(name):
    for call in calls_of(name, CUDA):
        raise_on_synchronisation(call)


@pytest.mark.gpu
def test_replay_and_branch_do_not_synchronise_with_a_gpu():
    for call in data_calls(CUDA):
        raise_on_synchronisation(call)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_update_captured_equals_eager(name):
    """K updates in one graph, replayed three times, sampling included, against as many eager ones from the same seed."""
    (eager, spec), (graphed, _) = learner(name, CUDA), learner(name, CUDA)
    graphed.load_state_dict(eager.state_dict())
    draw = experience(eager, spec)

    def updates(agent: Learner) -> tuple[Tensor, ...]:
        for _ in range(2 * agent.cycle):
            metrics = agent.update(draw())
        return tuple(metrics.values())

    call = accelerated(lambda: updates(graphed), "cudagraph", CUDA, changes=[graphed])
    outputs = []
    for run in (lambda: updates(eager), call):
        torch.manual_seed(7)
        outputs = [*outputs, [run() for _ in range(3)]]
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    tensors = [{k: v for k, v in agent.state_dict().items() if isinstance(v, Tensor)} for agent in (eager, graphed)]
    torch.testing.assert_close(*tensors, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_branch_captured_stores_the_rows_of_eager():
    model, eager, obs = model_and_buffer(CUDA)
    graphed = ModelBuffer(eager.capacity, eager.spec)

    def policy(o: Tensor) -> Tensor:
        return o[:, :ACTION].tanh()

    call = accelerated(lambda: branch(model, policy, obs, 2, graphed), "cudagraph", CUDA, changes=[graphed])
    for run in (lambda: branch(model, policy, obs, 2, eager), call):
        torch.manual_seed(7)
        run()
    rows: list[Transition] = [eager.all(), graphed.all()]
    torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-6)
