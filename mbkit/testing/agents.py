"""The contract of agents, for tests of mbkit and of plug-ins: every agent passes `check_agent`."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mbkit import registry
from mbkit.testing.common import check_metrics, expect, saved, seeded, supported, synchronising, tensors
from mbkit.testing.rows import SPEC, random_batch, random_recorded, random_trajectory
from mbkit.types import EnvSpec, Learner, TrajectoryLearner

Agent = Learner | TrajectoryLearner
Build = Callable[[EnvSpec], Agent]


def experience(agent: Agent, spec: EnvSpec, seed: int = 0) -> Any:
    """Random data for the agent's `update`: 32 transitions, recorded ones if it learns from data sets, or 4 trajectories of 8 steps."""
    if isinstance(agent, TrajectoryLearner):
        return random_trajectory(spec, 8, 4, seed)
    return random_recorded(spec, 32, seed) if learns_from_data(agent) else random_batch(spec, 32, seed)


def learns_from_data(agent: Agent) -> bool:
    """Whether the agent is registered as one that learns from data sets."""
    entries = [entry for entry in registry.agents if isinstance(entry.target, type) and isinstance(agent, entry.target)]
    return any("dataset" in entry.learns_from for entry in entries)


def check_agent(build: Build, spec: EnvSpec = SPEC) -> None:
    """Check that a learner keeps its contract; `build` makes one for a specification, with new random weights each time.

    Checked: shapes, range and dtype of actions, values and samples; metrics (names, 0-d, finite, detached); that `update` learns without
    synchronising with the device; that `state_dict` can be saved and loaded bit for bit, in place; that what an agent takes from a data set
    as a whole is saved, too, if it has `prepare`; and that unsupported action spaces raise `UserError`. An agent registered as one that
    learns from data sets is given `Recorded` batches.

    Raises:
        AssertionError: one sentence with the expectation and the result.
    """
    for space in supported(build, spec):
        torch.manual_seed(0)
        check_acting(build(space), space)
        check_update(build(space), space)
        check_no_sync(build(space), space)
        check_round_trip(build, space)
        check_prepare(build, space)


def cycle_of(agent: Agent) -> int:
    """Calls of `update` after which it repeats the same work; 1 for learners from trajectories."""
    return 1 if isinstance(agent, TrajectoryLearner) else agent.cycle


def check_acting(agent: Agent, spec: EnvSpec) -> None:
    """Check `act`, `sample` and `value` for one row and several, after resets of some of them; greedy actions must be deterministic."""
    expect(isinstance(agent, Learner | TrajectoryLearner), f"{type(agent).__name__} lacks a method of mbkit.types.Learner")
    cycle = cycle_of(agent)
    expect(isinstance(cycle, int) and cycle >= 1, f"cycle={cycle!r}: expected a positive whole number")
    for m in (1, 4):
        obs = random_batch(spec, m).obs
        agent.reset(torch.ones(m, dtype=torch.bool))
        for explore in (True, False):
            check_action(agent.act(obs, explore=explore), m, spec, f"act(explore={explore})")
        agent.reset(torch.arange(m) % 2 == 0)
        check_action(agent.sample(obs), m, spec, "sample")
        if getattr(agent, "acts_by_sampling", False):
            expect(
                torch.equal(*(seeded(partial(call, obs)) for call in (agent.act, agent.sample))),
                "acts_by_sampling: expected act to be sample",
            )
        greedy = agent.act(obs, explore=False), agent.act(obs, explore=False)
        expect(torch.equal(*greedy), "act(explore=False) gave two different actions for the same observations")
        value = agent.value(obs)
        expect(value.shape == (m,), f"value: expected the shape {(m,)}, came {tuple(value.shape)}")
        expect(not value.requires_grad and bool(value.isfinite().all()), f"value: expected finite numbers without gradient, came {value}")


def check_action(action: Tensor, m: int, spec: EnvSpec, source: str) -> None:
    """Check for [M, A] float32 in [-1, 1], or int64 [M] or [M, P] below the numbers of actions; without gradient."""
    shape = (m, *spec.action_shape)
    dtype = torch.int64 if spec.discrete else torch.float32
    low, high = (0, torch.tensor(spec.parts) - 1) if spec.parts else (0, spec.action_dim - 1) if spec.discrete else (-1, 1)
    expect(action.shape == shape, f"{source}: expected actions of the shape {shape}, came {tuple(action.shape)}")
    expect(action.dtype == dtype, f"{source}: expected actions of type {dtype}, came {action.dtype}")
    expect(bool(((action >= low) & (action <= high)).all()), f"{source}: expected actions in [{low}, {high}], came {action}")
    expect(not action.requires_grad, f"{source}: expected actions without gradient")


def check_update(agent: Agent, spec: EnvSpec) -> None:
    """Check for the same metrics every time, 0-d, finite and detached; parameters must change, every tensor in place."""
    before = deepcopy(list(tensors(agent.state_dict())))
    names, places = None, None
    for seed in range(2 * cycle_of(agent) + 1):
        metrics = agent.update(experience(agent, spec, seed))
        names = tuple(metrics) if names is None else names
        expect(tuple(metrics) == names, f"update: expected the metrics {names} every time, came {tuple(metrics)}")
        check_metrics(metrics)
        if seed >= cycle_of(agent):  # by then every optimizer has its state tensors
            now = addresses(agent)
            expect(places is None or now == places, "update: expected every tensor to be changed in place, but some were replaced")
            places = now
    after = list(tensors(agent.state_dict()))
    same = len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    expect(not same, "update: expected learned parameters to change, but nothing did")


def check_no_sync(agent: Agent, spec: EnvSpec) -> None:
    """Check that `update` calls no operator that makes the host wait for the device, anywhere in its cycle."""
    batch = experience(agent, spec)
    for _ in range(cycle_of(agent)):  # optimizers make their state tensors in the first step
        agent.update(batch)
    names = synchronising(lambda: [agent.update(batch) for _ in range(cycle_of(agent))])
    expect(not names, f"update: expected no operator that synchronises with the device, came {', '.join(names)}")


def check_round_trip(build: Build, spec: EnvSpec) -> None:
    """Check that a saved agent, loaded in place into one that had learned from other data, continues bit for bit."""
    first, second = build(spec), build(spec)
    for seed in range(cycle_of(first) + 1):  # ends in the middle of a cycle, if it has one
        first.update(experience(first, spec, seed))
        second.update(experience(second, spec, seed + 100))
    second.update(experience(second, spec, 200))
    places = addresses(second)
    second.load_state_dict(saved(first.state_dict()))
    expect(addresses(second) == places, "load_state_dict: expected every tensor to be written in place, but some were replaced")
    third = build(spec)
    third.load_state_dict(first.state_dict())  # in the same process, where two agents could share a tensor by mistake
    for seed in range(2 * cycle_of(first) + 1):
        expected, values = step(first, spec, seed), list(tensors(first.state_dict()))
        for loaded in (second, third):
            after = f"update {seed + 1} after load_state_dict"
            expect(step(loaded, spec, seed) == expected, f"{after}: expected the saved agent's metrics and action, came others")
            pairs = zip(values, tensors(loaded.state_dict()), strict=True)
            expect(all(torch.equal(a, b) for a, b in pairs), f"{after}: expected the saved agent's parameters, came others")


def check_prepare(build: Build, spec: EnvSpec) -> None:
    """Check `prepare` of a data set: twice is as good as once, updates go on from it, and a state loaded elsewhere holds what it took."""
    agent: Any = build(spec)
    if not (learns_from_data(agent) and hasattr(agent, "prepare")):
        return
    data, obs = random_recorded(spec, 64, 7), 5 * random_batch(spec, 4, 8).obs + 3
    data = data._replace(obs=5 * data.obs + 3, next_obs=5 * data.next_obs + 3)
    agent.prepare(data)
    once = deepcopy(list(tensors(agent.state_dict())))
    agent.prepare(data)
    same = all(torch.equal(a, b) for a, b in zip(once, tensors(agent.state_dict()), strict=True))
    expect(same, "prepare: expected the same state after a second call with the same data, came another")
    for _ in range(cycle_of(agent)):
        check_metrics(agent.update(data))
    other = build(spec)
    other.load_state_dict(agent.state_dict())
    actions = agent.act(obs, explore=False), other.act(obs, explore=False)
    expect(torch.equal(*actions), "prepare: expected what it takes from the data in state_dict, but a loaded agent acts differently")


def step(agent: Agent, spec: EnvSpec, seed: int) -> dict[str, float]:
    """One update and one exploring action from a seed; returns the metrics, and the action's sum."""
    torch.manual_seed(seed)
    metrics = {name: float(value) for name, value in agent.update(experience(agent, spec, seed)).items()}
    return metrics | {"action": float(agent.act(random_batch(spec, 2, seed).obs).sum())}


def addresses(agent: Agent) -> list[int]:
    """Addresses of the tensors that a captured graph of `update` may hold: parameters, buffers and the optimizers' state."""
    held = [*agent.parameters(), *agent.buffers()] if isinstance(agent, nn.Module) else []
    for optimizer in getattr(agent, "optimizers", {}).values():
        held += [slot for slots in optimizer.state.values() for slot in slots.values() if isinstance(slot, Tensor)]
    return [tensor.data_ptr() for tensor in held]
