"""The default number of threads: of the configuration alone."""

import os

import pytest

from mbkit.config import compose, from_dict
from mbkit.config.threads import default_threads, wait_passively, widest


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        (["sac", "env=Hopper-v5"], 1),
        (["sac", "env=Hopper-v5", "agent.hidden=[1024,1024]"], 2),
        (["sac", "env=Hopper-v5", "agent.hidden=[1024,1024]", "device=cuda"], 1),
        (["ppo", "env=CartPole-v1"], 1),
        (["a2c", "env=CartPole-v1"], 1),
        (["mbpo", "env=Hopper-v5"], 1),
        (["random", "env=CartPole-v1"], 1),
        (["pets", "env=cartpole"], 2),
        (["pets", "env=cartpole", "dynamics.hidden=[16,16]"], 1),
        (["pets", "env=cartpole", "device=cuda"], 1),
        (["pets", "env=cartpole", "dynamics=mbrl"], 2),
        (["pets", "env=cartpole", "dynamics=local_linear"], 2),
        (["pets", "env=cartpole", "dynamics=mujoco", "device=cuda"], 2),
        (["loop", "env=Hopper-v5"], 2),
        (["pets", "env=cartpole", "threads=3"], 3),
    ],
)
def test_compose_resolves_threads(options, threads):
    algo, *rest = options
    assert compose(algo, rest).threads == threads


def test_default_threads_does_not_look_at_the_machine(monkeypatch):
    experiments = [compose("pets", ["env=cartpole"]), compose("sac", ["env=Hopper-v5"])]
    before = [default_threads(experiment) for experiment in experiments]
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (50.0, 50.0, 50.0), raising=False)
    assert [default_threads(experiment) for experiment in experiments] == before


def test_from_dict_resolves_threads_of_an_older_file():
    experiment = compose("pets", ["env=cartpole"])
    assert from_dict({**experiment.to_dict(), "threads": 0}) == experiment


@pytest.mark.parametrize(("hidden", "product"), [((), 0), ((400,), 0), ((400, 300), 120_000), ((64, 256, 256), 65_536), (200, 40_000)])
def test_widest_is_the_largest_product_of_two_layers(hidden, product):
    assert widest(hidden) == product


def test_wait_passively_leaves_what_the_user_set(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
