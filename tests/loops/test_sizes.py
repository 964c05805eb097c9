"""Bytes of a run's parts from its configuration: formulas, and what a real run allocates is at least as much."""

import pytest
import torch

from mbkit.config import compose
from mbkit.loops.sizes import Hidden, hidden_layers, parts, row
from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import EnvSpec

SPEC = EnvSpec(4, 2, torch.device("cpu"))


def sizes(algo, *options, spec=SPEC, env_bytes=0.0):
    return {part.name: part.bytes for part in parts(compose(algo, options), spec, env_bytes)}


def test_hidden_counts_the_weights_of_a_network():
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 2))
    count = sum(p.numel() for p in net.parameters())
    assert Hidden((5, 5, 5)).weights(3, 2) == count == Hidden((5,), again=2).weights(3, 2)
    assert (Hidden((5,), again=2).units, Hidden((7, 5)).widest, Hidden(()).weights(3, 2)) == (15, 7, 0)
    assert hidden_layers(compose("pets", ["dynamics=mbrl", "dynamics.layers=4", "dynamics.hidden=8"]), "dynamics") == Hidden((8,), 3)


def test_row_is_that_of_the_replay_buffer():
    for spec in (SPEC, EnvSpec(3, 5, SPEC.device, discrete=True)):
        assert row(spec) == ReplayBuffer(2, spec).data[0].nbytes


@pytest.mark.parametrize(
    ("algo", "options", "part", "option"),
    [
        ("sac", [], "the environments", "loop.num_envs"),
        ("sac", [], "an update of the agent", "loop.batch_size"),
        ("sac", [], "the agent's networks", "agent.critics"),
        ("pets", [], "a plan", "planner.candidates"),
        ("pets", [], "a plan", "agent.particles"),
        ("loop", [], "a plan", "imagination.particles"),
        ("pets", [], "the model", "dynamics.members"),
        ("pets", ["dynamics=local_linear"], "the local models", "dynamics.centres"),
        ("pets", [], "an evaluation", "eval.episodes"),
        ("mbpo", [], "a round of model rollouts", "imagination.rollouts_per_step"),
        ("retrace", ["env=Pendulum-v1"], "the agent's sampled actions", "agent.samples"),
        ("svg", [], "an update of the agent", "imagination.target_horizon"),
        ("mve", ["imagination.weighting=steve", "agent=sac"], "an update of the agent", "imagination.particles"),
    ],
)
def test_parts_grow_with_their_options(algo, options, part, option):
    first, second = (sizes(algo, *options, f"{option}={n}", env_bytes=100.0)[part] for n in (1000, 2000))
    assert second == pytest.approx(2 * first, rel=0.01)


def test_parts_of_a_replay_buffer_are_what_the_run_fills():
    assert sizes("sac", "steps=1000", "loop.buffer_size=1000")["the replay buffer"] == 1000 * (row(SPEC) + 24)
    assert sizes("sac", "steps=1000", "loop.buffer_size=100000")["the replay buffer"] == 1001 * (row(SPEC) + 16) + 100_000 * 8
    gpu = sizes("sac", "steps=1000", "loop.buffer_size=100000", "device=cuda")["the replay buffer"]
    assert gpu == 100_000 * (row(SPEC) + 24)


def test_parts_of_a_plan_on_a_gpu_hold_a_hidden_layer_of_all_rows():
    options = [
        "planner.candidates=100",
        "agent.particles=3",
        "agent.horizon=5",
        "dynamics.hidden=[50]",
        "eval.episodes=1",
        "planner.elites=9",
    ]
    host, gpu = (sizes("pets", *options, f"device={device}")["a plan"] for device in ("cpu", "cuda"))
    assert gpu - host == 300 * 50 * 4
    assert host == 300 * 5 * 4 * (4 + 1 + 2)


def test_parts_leave_out_what_an_experiment_lacks():
    assert {name for name, size in sizes("random", "env=Pendulum-v1").items() if size} == {
        "the environments",
        "the replay buffer",
        "an evaluation",
    }
    model_free = sizes("mbpo", "imagination.real_ratio=1")
    assert model_free["a round of model rollouts"] == 0
