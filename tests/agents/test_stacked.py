"""Seeds that are updated together learn what each of them learns alone."""

from typing import Any

import pytest
import torch
from resumption import same
from torch import Tensor

from mbkit import registry
from mbkit.agents.base import LearningAgent
from mbkit.agents.stacked import stacked
from mbkit.config import compose
from mbkit.loops.seeds import StackedSources
from mbkit.streams import Stream, drawn_from, normal_like, uniform
from mbkit.types import EnvSpec, Transition

OBS, ACTION, ROWS, BATCH, SEEDS = 5, 2, 60, 16, (3, 4, 5)  # three seeds, and critics of other numbers
CPU = torch.device("cpu")

CASES = {
    "ddpg": ("ddpg", ["agent.critics=2"]),
    "td3": ("td3", []),
    "sac": ("sac", []),
    "sac as redq": ("sac", ["agent.critics=4", "agent.target_subset=2", "agent.policy_every=3", "agent.policy_q=mean"]),
    "sac of fixed temperature": ("sac", ["agent.temperature=0.2", "agent.critic=layer_norm"]),
    "td3 with falling rates": ("td3", ["agent.lr=1e-3", "agent.final_lr=0"]),
    "dqn": ("dqn", ["agent.loss=huber", "agent.target_every=7", "agent.max_grad_norm=0.3"]),
    "dqn with averages": ("dqn", ["agent.target_every=0", "agent.loss=mse"]),
    "double_dqn": ("double_dqn", ["agent.loss=huber", "agent.target_every=5"]),
}


class Rows:
    """Random transitions, drawn uniformly with the global random numbers."""

    def __init__(self, discrete: bool) -> None:
        action = torch.randint(3, (ROWS,)) if discrete else torch.rand(ROWS, ACTION) * 2 - 1
        discount = (torch.rand(ROWS) < 0.9).float()
        self.rows = Transition(torch.randn(ROWS, OBS), action, torch.randn(ROWS), torch.randn(ROWS, OBS), discount)

    def sample(self, n: int) -> Transition:
        index = torch.randint(ROWS, (n,))
        return Transition(*(None if column is None else column[index] for column in self.rows))


def made(case: str, seed: int) -> tuple[LearningAgent, Rows, Stream]:
    """An agent of a seed, its data, and the random numbers that follow."""
    name, options = CASES[case]
    torch.manual_seed(seed)
    discrete = "dqn" in name
    part: Any = compose(name, [*options, "agent.hidden=[8,8]"]).agent
    agent = registry.agents[name].target(EnvSpec(OBS, 3 if discrete else ACTION, CPU, discrete), part.config)
    return agent, Rows(discrete), Stream()


def annealed(agent: LearningAgent, n: int) -> LearningAgent:
    """The agent before its update n of 200."""
    agent.anneal(1 - n / 200)
    return agent


def moments(agent: LearningAgent) -> dict[str, Tensor]:
    """All moments of all optimizers."""
    slots = {name: optimizer.state_dict()["state"] for name, optimizer in agent.optimizers.items()}
    return {f"{name} {i} {key}": value for name, each in slots.items() for i, slot in each.items() for key, value in slot.items()}


@pytest.mark.parametrize("case", CASES)
def test_stacked_seeds_learn_as_each_alone(case: str) -> None:
    alone, metrics = [], []
    for seed in SEEDS:
        agent, rows, stream = made(case, seed)
        with stream.active():
            metrics.append([annealed(agent, n).update(rows.sample(BATCH)) for n in range(200)])
        alone.append((agent, stream))

    together = [made(case, seed) for seed in SEEDS]
    agents, streams = [agent for agent, _, _ in together], [stream for _, _, stream in together]
    joint, source = stacked(agents), StackedSources([rows for _, rows, _ in together], streams)
    with drawn_from(streams):
        joint_metrics = [annealed(joint, n).update(source.sample(BATCH)) for n in range(200)]

    for s, (agent, (single, stream)) in enumerate(zip(agents, alone, strict=True)):
        agent.count = joint.count
        theirs, ours = single.state_dict(), agent.state_dict()
        assert theirs.keys() == ours.keys()
        assert theirs["_extra_state"]["count"] == ours["_extra_state"]["count"]
        for key in theirs:
            if isinstance(theirs[key], Tensor):
                torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-5, msg=key)
        for key, value in moments(single).items():
            torch.testing.assert_close(moments(agent)[key], value, rtol=1e-4, atol=1e-5, msg=key)
        for mine, other in zip(metrics[s], joint_metrics, strict=True):
            for key in mine:
                torch.testing.assert_close(other[key][s], mine[key], rtol=1e-4, atol=1e-5, msg=key)
        assert torch.equal(stream._torch, streams[s]._torch)  # as many numbers were drawn
        obs = torch.randn(7, OBS)
        torch.testing.assert_close(agent.act(obs, explore=False), single.act(obs, explore=False), rtol=1e-4, atol=1e-4)


def test_stacked_goes_on_with_moments_and_counters() -> None:
    """Agents that have learned already are stacked, and unstacked by their state, without a change."""
    agents, sources, streams = [], [], []
    for seed in SEEDS:
        agent, rows, stream = made("sac as redq", seed)
        streams.append(stream)
        for _ in range(4):
            agent.update(rows.sample(BATCH))
        agents.append(agent)
        sources.append(rows)
    before = [{key: value.clone() for key, value in (*agent.named_parameters(), *agent.named_buffers())} for agent in agents]
    slots = [moments(agent) for agent in agents]
    slots = [{key: value.clone() for key, value in slot.items()} for slot in slots]
    joint = stacked(agents)
    assert joint.count == agents[0].count == 1
    for agent, tensors, slot in zip(agents, before, slots, strict=True):
        assert same({**dict(agent.named_parameters()), **dict(agent.named_buffers())}, tensors)
        assert same(moments(agent), slot)
    with drawn_from(streams):
        joint.update(StackedSources(sources, streams).sample(BATCH))
    for agent, tensors, slot in zip(agents, before, slots, strict=True):
        assert not same(dict(agent.critics.named_parameters()), {k[8:]: v for k, v in tensors.items() if k.startswith("critics.")})
        assert moments(agent)["critics 0 step"] == slot["critics 0 step"] + 1 == 5


def test_streams_of_two_runs_are_what_each_draws_alone() -> None:
    expected = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected.append((torch.randn(4, 3), torch.rand(5)))
    streams = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        streams.append(Stream())
    torch.manual_seed(7)
    after = torch.random.get_rng_state()
    with drawn_from(streams):
        normal, even = normal_like(torch.empty(2, 4, 3)), uniform(5, CPU)
    assert torch.equal(normal, torch.stack([normal for normal, _ in expected]))
    assert torch.equal(even, torch.stack([even for _, even in expected]))
    assert torch.equal(torch.random.get_rng_state(), after)
