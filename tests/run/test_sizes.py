"""Sizes that nobody has are refused, with the option and its GB, before anything is allocated."""

import tracemalloc
from contextlib import suppress
from dataclasses import fields
from typing import get_type_hints

import pytest
import torch

from mbkit import registry
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import memory
from mbkit.run import Run
from mbkit.run.sizes import bytes_of, check_rollouts, checked_environments

HUGE = 10**9
OVERSIZED = [
    ("pets", "planner.candidates", []),
    ("pets", "planner.candidates", ["planner=cem"]),
    ("pets", "planner.candidates", ["planner=mppi"]),
    ("pets", "planner.candidates", ["planner=shooting"]),
    ("pets", "planner.candidates", ["planner=discrete_cem", "env=CartPole-v1"]),
    ("pets", "planner.candidates", ["dynamics=mujoco"]),
    ("pets", "agent.particles", []),
    ("pets", "agent.horizon", []),
    ("pets", "agent.horizon", ["planner=mppi"]),
    ("pets", "agent.horizon", ["dynamics=mujoco"]),
    ("pets", "dynamics.members", []),
    ("pets", "dynamics.members", ["dynamics=mbrl"]),
    ("pets", "dynamics.layers", ["dynamics=mbrl"]),
    ("pets", "dynamics.hidden", ["dynamics=mbrl"]),
    ("pets", "dynamics.hidden=[1000000,1000000]", []),
    ("pets", "dynamics.hidden=[1000000]", ["steps=100000"]),
    ("pets", "dynamics.centres", ["dynamics=local_linear"]),
    ("pets", "eval.episodes", []),
    ("sac", "loop.batch_size", []),
    ("sac", "loop.num_envs=1000000", []),
    ("ppo", "loop.num_envs=1000000", ["env=Hopper-v5"]),
    ("sac", "loop.buffer_size=1000000000000", []),
    ("sac", "agent.critics", []),
    ("sac", "agent.hidden=[1000000,1000000]", []),
    ("ppo", "agent.hidden=[1000000,1000000]", []),
    ("dqn", "loop.batch_size", []),
    ("dpg", "loop.batch_size", ["loop.updates_per_step=1e-10"]),
    ("retrace", "agent.samples", ["env=Pendulum-v1"]),
    ("mbpo", "imagination.horizon", []),
    ("mbpo", "imagination.final_horizon", ["imagination.grow_epochs=[0,1]", "steps=10000"]),
    ("mbpo", "imagination.rollouts_per_step", []),
    ("mbpo", "loop.fit_every", []),
    ("mba", "imagination.horizon", []),
    ("mve", "imagination.horizon", []),
    ("mve", "imagination.particles", ["imagination.weighting=steve", "agent=sac", "dynamics.propagation=ts1"]),
    ("svg", "imagination.horizon", []),
    ("svg", "imagination.target_horizon", []),
    ("svg", "imagination.spread", []),
    ("svg", "imagination.rollouts_per_step", ["imagination.spread=20"]),
    ("loop", "imagination.horizon", []),
    ("loop", "imagination.particles", []),
    ("loop", "imagination.proposals", []),
    ("dyna", "loop.batch_size", []),
]


@pytest.fixture(autouse=True)
def sixteen_gigabytes(monkeypatch):
    """A machine of 16 GB, whatever this one has."""
    monkeypatch.setattr(memory, "available", lambda device: memory.Available(16e9, 8e9))


@pytest.mark.parametrize(("algo", "option", "more"), OVERSIZED, ids=lambda value: "-".join(value) if isinstance(value, list) else value)
def test_run_of_a_size_that_nobody_has_is_refused_before_it_is_allocated(algo, option, more):
    name, typed = option.split("=")[0], option if "=" in option else f"{option}={HUGE}"
    experiment = compose(algo, ["threads=1", typed, *more])
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"^{name}=.*: .* GB") as refused:
            Run(experiment)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refused.value)


def test_refusal_names_part_needed_and_available_memory():
    with pytest.raises(
        UserError, match=r"^loop.batch_size=1000000000: an update of the agent would take 1,\d\d\d GB of memory; this machine has 16 GB av"
    ):
        Run(compose("sac", ["threads=1", f"loop.batch_size={HUGE}"]))


def test_refusal_of_a_gpu_compares_with_its_own_memory(monkeypatch):
    experiment = compose("sac", ["device=cuda", "loop.buffer_size=200000000"])
    with pytest.raises(
        UserError, match=r"^loop.buffer_size=200000000: the replay buffer would take .* GB of memory; the GPU has 8 GB available"
    ):
        memory.check_memory(experiment, make("InvertedPendulum-v5").spec)


def whole_numbers(algo):
    """Every option of an algorithm that is a whole number."""
    experiment = compose(algo, ["env=cartpole"] if algo == "random" else [])
    for group in ("loop", "agent", "dynamics", "planner", "imagination"):
        options = experiment.group(group)
        if options is not None:
            hints = get_type_hints(type(options))
            yield from (f"{group}.{f.name}" for f in fields(options) if "int" in str(hints[f.name]))


@pytest.mark.slow
@pytest.mark.parametrize("algo", [*(e.name for e in registry.recipes), *(e.name for e in registry.agents)])
def test_whole_numbers_of_any_algorithm_are_refused_in_a_sentence_or_harmless(algo):
    """A billion in each of them: Run() either succeeds or says what is wrong."""
    for option in whole_numbers(algo):
        typed = f"{option}=[{HUGE}]" if option.endswith("hidden") else f"{option}={HUGE}"
        with suppress(UserError):
            Run(compose(algo, ["threads=1", *(["env=cartpole"] if algo == "random" else []), typed])).env.close()


def test_checked_environments_are_as_many_as_asked_for():
    for n in (3, 20):
        env = checked_environments(
            compose("random", ["env=Pendulum-v1", f"loop.num_envs={n}"]), lambda m, seed: make("Pendulum-v1", num_envs=m, seed=seed)
        )
        assert env.num_envs == n
        env.close()


def test_bytes_of_counts_a_simulators_model():
    plain, simulated = make("Pendulum-v1"), make("Humanoid-v5")
    assert bytes_of(plain.envs[0]) < 100_000 < bytes_of(simulated.envs[0]) < 100_000_000


def test_check_rollouts_leaves_long_rollouts_of_few_rows_alone():
    check_rollouts(compose("mbpo", ["imagination.horizon=1000"]), 100)
    check_rollouts(compose("mbpo", ["imagination.real_ratio=1"]), 100)
    with pytest.raises(
        UserError, match=r"^imagination.horizon=100000: one round .* of which imagination.memory_gb=4 stores the last; expected at most 100"
    ):
        check_rollouts(compose("mbpo", ["imagination.horizon=100000"]), 100)


def test_presets_fit_into_the_memory_of_a_small_machine(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: memory.Available(2e9, 2e9))
    for algo in ("pets", "mbpo", "sac", "ppo", "loop", "mve", "dyna", "mba", "dqn"):
        experiment = compose(algo, [])
        memory.check_memory(experiment, make(experiment.env).spec, 1e6)
    assert torch.get_num_threads() >= 1
