"""Presets of published constants against one table of them, by data set: medium, medium-replay, medium-expert and, where known, random."""

import pytest

from mbkit.config import compose

SETS = ("medium", "medium-replay", "medium-expert", "random")
ENVS = {"hc": "HalfCheetah-v5", "hop": "Hopper-v5", "w2d": "Walker2d-v5"}
MILLION, THREE_MILLION = 1_000_000, 3_000_000

# algorithm -> option -> task -> the value for each of SETS; None: not published
TABLE = {
    "rebrac": {
        "agent.actor_penalty": {"hc": (0.001, 0.01, 0.01, 0.001), "hop": (0.01, 0.05, 0.1, 0.001), "w2d": (0.05, 0.05, 0.01, 0.01)},
        "agent.critic_penalty": {"hc": (0.01, 0.001, 0.1, 0.1), "hop": (0.01, 0.5, 0.01, 0.01), "w2d": (0.1, 0.01, 0.01, 0.0)},
    },
    "mopo": {
        "imagination.horizon": {"hc": (5, 5, 5, None), "hop": (5, 5, 5, None), "w2d": (5, 1, 1, None)},
        "imagination.penalty": {"hc": (0.5, 0.5, 2.5, None), "hop": (5.0, 2.5, 5.0, None), "w2d": (0.5, 2.5, 2.5, None)},
    },
    "combo": {
        "imagination.horizon": {"hc": (5, 5, 5, None), "hop": (5, 5, 5, None), "w2d": (1, 1, 1, None)},
        "agent.conservative_weight": {"hc": (0.5, 0.5, 5.0, None), "hop": (5.0, 0.5, 5.0, None), "w2d": (5.0, 0.5, 5.0, None)},
    },
    "mobile": {
        "imagination.horizon": {"hc": (5, 5, 5, 5), "hop": (5, 5, 5, 5), "w2d": (5, 1, 1, 5)},
        "imagination.penalty": {"hc": (0.5, 0.1, 2.0, 0.5), "hop": (1.5, 0.1, 1.5, 5.0), "w2d": (0.5, 0.5, 1.5, 2.0)},
    },
    "rambo": {
        "imagination.adversary_weight": {"hc": (3e-4, 3e-4, 0.0, None), "hop": (3e-4, 3e-4, 0.0, None), "w2d": (0.0, 0.0, 3e-4, None)},
    },
}
STEPS = {"rebrac": MILLION, "mopo": THREE_MILLION, "combo": MILLION, "mobile": THREE_MILLION, "rambo": 2 * MILLION}
PLAIN = ("bc", "td3_bc", "iql", "awac", "cql", "xql")

CELLS = [
    (algo, key, env, kind, value)
    for algo, options in TABLE.items()
    for key, by_task in options.items()
    for env, values in by_task.items()
    for kind, value in zip(SETS, values, strict=True)
    if value is not None
]


def option(experiment, key):
    group, _, name = key.partition(".")
    return getattr(experiment.group(group), name)


@pytest.mark.parametrize(("algo", "key", "env", "kind", "value"), CELLS, ids=[f"{a}-{e}-{k}-{o}" for a, o, e, k, _ in CELLS])
def test_presets_hold_the_published_constants(algo, key, env, kind, value):
    experiment = compose(algo, [f"env={ENVS[env]}", "data=x.h5", f"preset=d4rl-{kind}"])
    assert option(experiment, key) == value
    assert experiment.steps == STEPS[algo]
    if algo != "rebrac":
        assert not experiment.dynamics.config.scale_targets  # their penalties are in the units of the observations
        assert experiment.imagination.config.starts == 50_000


@pytest.mark.parametrize("algo", PLAIN)
@pytest.mark.parametrize("env", ENVS.values())
def test_presets_without_constants_of_a_set_are_the_published_budget(algo, env):
    experiment = compose(algo, [f"env={env}", "data=x.h5", "preset=d4rl"])
    assert (experiment.steps, experiment.eval.every, experiment.eval.episodes) == (MILLION, 5000, 10)


def test_cql_has_the_networks_and_the_rates_of_its_paper():
    experiment = compose("cql", ["env=Hopper-v5", "data=x.h5", "preset=d4rl"])
    agent = experiment.agent.config
    assert (agent.hidden, agent.policy_lr, agent.conservative_weight) == ((256, 256, 256), 3e-5, 10.0)
