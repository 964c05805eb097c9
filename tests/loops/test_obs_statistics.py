"""Observations of replay agents in standard units: statistics of the warm-up, frozen afterwards, the same in any units."""

import pytest
import torch
from clocks import ManualClock
from resumption import check_resumption

from mbkit import recipes, registry
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import ObsStatistics
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.testing import check_agent
from mbkit.types import EnvSpec, Transition

CPU = torch.device("cpu")
CONTINUOUS = ("sac", "td3", "ddpg", "naf", "kl_sac")
DISCRETE = ("dqn", "double_dqn", "munchausen_dqn", "soft_q", "sac_discrete")
RUN = ("env=Pendulum-v1", "agent.hidden=[8]", "agent.normalize_obs=true", "loop.batch_size=8", "loop.warmup_steps=20")
QUIET = ("threads=1", "eval.episodes=1", "eval.video=false", "checkpoint.every=0")


def spec_of(name: str) -> EnvSpec:
    return EnvSpec(3, 2, CPU, discrete=name in DISCRETE)


def build(name: str, spec: EnvSpec, obs: torch.Tensor | None = None):
    """The agent with normalised observations; its statistics are those of `obs`, if there are any."""
    entry = registry.agents[name]
    agent = entry.target(spec, entry.config(hidden=(8,), normalize_obs=True))
    if obs is not None:
        agent.normalizer.update(obs)
    return agent


def batch(spec: EnvSpec, unit: float = 1.0) -> Transition:
    obs, next_obs = torch.randn(2, 16, spec.obs_dim) * unit
    action = torch.randint(spec.action_dim, (16,)) if spec.discrete else torch.rand(16, spec.action_dim) * 2 - 1
    return Transition(obs, action, torch.randn(16), next_obs, torch.ones(16))


def filled(rows: int, spec: EnvSpec) -> ReplayBuffer:
    buffer = ReplayBuffer(100, spec)
    for _ in range(rows):
        b = batch(spec)
        no = torch.zeros(16, dtype=torch.bool)
        buffer.extend(Experience(b.obs[:1], b.action[:1], b.reward[:1], b.next_obs[:1], no[:1], no[:1]))
    return buffer


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_normalize_obs_agents_keep_the_contract_and_one_set_of_fixed_tensors(name):
    """Among it: every tensor that a captured graph may hold is written in place, and a saved agent goes on bit for bit."""
    check_agent(lambda spec: build(name, spec, torch.randn(50, spec.obs_dim) * 7 + 3))
    agent = build(name, spec_of(name))
    places = {key: value.data_ptr() for key, value in agent.state_dict().items() if "normalizer.mean" in key or "inputs.mean" in key}
    assert len(places) >= 3  # the agent's, and that of each network, target networks included
    assert len(set(places.values())) == 1
    agent.normalizer.update(torch.randn(10, 3))
    assert {key: value.data_ptr() for key, value in agent.state_dict().items() if key in places} == places


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_normalize_obs_agents_learn_the_same_in_other_units(name):
    spec, results = spec_of(name), []
    for unit in (1.0, 1e3):
        torch.manual_seed(0)
        agent = build(name, spec, torch.randn(100, 3) * unit)
        metrics = [agent.update(batch(spec, unit)) for _ in range(4)]
        probe = torch.randn(32, 3) * unit
        results.append([*metrics[-1].values(), agent.value(probe), agent.act(probe, explore=False).float()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_obs_statistics_are_those_of_the_warm_up_and_freeze():
    spec = spec_of("sac")
    agent, buffer, clock = build("sac", spec), filled(5, spec), ManualClock(stride=2)
    hook = ObsStatistics(agent, buffer, 5)
    clock.run(4, [hook])
    assert agent.normalizer.count == 0
    clock.run(6, [hook])
    assert agent.normalizer.count == 5
    torch.testing.assert_close(agent.normalizer.mean, buffer.all().obs.mean(0))
    before = agent.normalizer.mean.clone()
    buffer.extend(Experience(torch.full((1, 3), 1e6), torch.zeros(1, 2), torch.zeros(1), torch.zeros(1, 3), *torch.zeros(2, 1).bool()))
    clock.run(40, [hook])
    for _ in range(3):
        agent.update(batch(spec))
    assert torch.equal(agent.normalizer.mean, before)


def test_obs_statistics_need_a_warm_up():
    sentence = r"agent.normalize_obs=true takes its statistics from the warm-up; expected loop.warmup_steps >= 2, got 0"
    with pytest.raises(UserError, match=sentence):
        recipes.build(compose("sac", [*RUN, "loop.warmup_steps=0"]), make("Pendulum-v1"))


@pytest.mark.parametrize("algo", ["sac", "mbpo"])
def test_normalize_obs_precedes_updates_and_fits_only_where_it_is_asked_for(algo):
    x = recipes.build(compose(algo, list(RUN)), make("Pendulum-v1"))
    assert isinstance(x.hooks[0], ObsStatistics)
    x = recipes.build(compose(algo, ["env=Pendulum-v1", "agent.hidden=[8]"]), make("Pendulum-v1"))
    assert not any(isinstance(hook, ObsStatistics) for hook in x.hooks)


@pytest.mark.parametrize("pause", [12, 30])
def test_normalize_obs_resumes_bit_for_bit(tmp_path, pause):
    runs = check_resumption(tmp_path, "sac", *RUN, *QUIET, steps=44, pause=pause)
    assert runs.resumed.agent.normalizer.count == 20
