"""Hooks of model-based learning from data: when rounds come, what cloning changes, and how a broken adversary ends a run."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from clocks import ManualClock
from systems import SPEC, linear_gaussian, small_ensemble
from toys import SPEC as BANDIT
from toys import bandit

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.actor_critic.td3 import TD3, TD3Config
from mbkit.agents.policy_gradient.npg import NPG, NPGConfig
from mbkit.agents.value_based.dqn import DQN, DQNConfig
from mbkit.errors import UserError
from mbkit.imagination.adversary import Adversary
from mbkit.loops import Offline
from mbkit.loops.rounds import AdversaryRound, Cloning, EpisodeUpdates, ModelFacts, Rounds
from mbkit.types import EnvSpec, Trajectory


class Batches:
    """A source of bandit rows whose action is 0.5, which counts its batches."""

    def __init__(self) -> None:
        self.drawn = list[int]()

    def sample(self, n):
        self.drawn.append(n)
        return bandit(torch.full((n, 1), 0.5), torch.rand(n, 2) * 2 - 1)


# ------------------------------------------------------------------------------------------------------------------------- rounds
def called(steps: int, at_once: int, every: int, begin: int) -> list[int]:
    """The numbers of the updates that precede each call, by a loop of so many updates."""
    clock, seen = Offline(steps, at_once), []
    clock.run(steps, [Rounds(every, [lambda clock: seen.append(clock.step - clock.stride)], begin)])
    return seen


@pytest.mark.parametrize(
    ("steps", "every", "begin", "expected"),
    [(10, 4, 0, [0, 4, 8]), (8, 4, 0, [0, 4]), (9, 4, 0, [0, 4, 8]), (10, 4, 3, [3, 7]), (10, 1, 8, [8, 9]), (3, 4, 5, [])],
)
def test_rounds_precede_the_update_of_their_number(steps, every, begin, expected):
    assert called(steps, 1, every, begin) == expected


@pytest.mark.parametrize("at_once", [2, 3, 7])
def test_rounds_come_with_the_stride_that_holds_their_update(at_once):
    for every, begin in ((4, 0), (10, 3), (1, 0)):
        due = range(begin, 30, every)
        strides = sorted({number // at_once * at_once for number in due})  # at most one round a stride
        assert called(30, at_once, every, begin) == strides


def test_rounds_of_a_resumed_loop_go_on():
    clock, seen = Offline(30, 7), []
    hook = Rounds(10, [lambda clock: seen.append(clock.step - clock.stride)])
    clock.run(14, [hook])
    resumed = Offline(30, 7)
    resumed.load_state_dict(clock.state_dict())
    resumed.run(30, [hook])
    assert seen == called(30, 7, 10, 0)


def test_model_facts_are_recorded_once():
    facts, clock = ModelFacts(), ManualClock()
    facts(clock)
    facts.metrics = {"model/holdout_mse": 0.5}
    for _ in range(3):
        clock.run(clock.step + 1, [facts])
    assert clock.recorder.events == [(1, {"model/holdout_mse": 0.5})]


# ------------------------------------------------------------------------------------------------------------------------ cloning
@pytest.mark.parametrize("kind", [SAC, TD3, NPG])
def test_cloning_changes_the_policy_alone_towards_the_recorded_actions(kind):
    torch.manual_seed(0)
    config = {SAC: SACConfig, TD3: TD3Config, NPG: NPGConfig}[kind](hidden=(16,))
    agent, data = kind(BANDIT, config, 0.9), Batches()
    before = deepcopy({name: p for name, p in agent.named_parameters() if "policy" not in name})
    hook, clock = Cloning(agent, data, 32, 1e-2), ManualClock(stride=10)
    clock.run(80, [hook])
    assert data.drawn == [32] * 80
    losses = [metrics["actor/cloning_loss"] for _, metrics in clock.recorder.logs]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    obs = torch.rand(100, 2) * 2 - 1
    assert (agent.act(obs, explore=False) - 0.5).abs().mean() < 0.1
    assert all(torch.equal(p, before[name]) for name, p in agent.named_parameters() if "policy" not in name)
    if kind is TD3:  # whose targets ask the target policy
        assert all(map(torch.equal, agent.target_policy.parameters(), agent.policy.parameters()))


def test_cloning_goes_on_where_it_was_saved():
    def made():
        torch.manual_seed(0)
        agent = SAC(BANDIT, SACConfig(hidden=(8,)), 0.9)
        return agent, Cloning(agent, Batches(), 16, 1e-2)

    (agent, hook), (other, resumed) = made(), made()
    ManualClock().run(5, [hook])
    other.load_state_dict(agent.state_dict())
    resumed.load_state_dict(deepcopy(hook.state_dict()))
    for each in (hook, resumed):
        torch.manual_seed(1)
        ManualClock().run(5, [each])
    assert all(map(torch.equal, agent.policy.parameters(), other.policy.parameters()))


def test_cloning_of_a_policy_for_discrete_actions():
    agent = NPG(EnvSpec(2, 3, torch.device("cpu"), True), NPGConfig(hidden=(8,)), 0.9)
    data = SimpleNamespace(sample=lambda n: bandit(torch.zeros(n, 1), torch.randn(n, 2))._replace(action=torch.full((n,), 2)))
    ManualClock().run(60, [Cloning(agent, data, 32, 3e-2)])
    assert agent.act(torch.randn(20, 2), explore=False).tolist() == [2] * 20


def test_cloning_names_an_agent_without_a_policy():
    agent = DQN(EnvSpec(2, 3, torch.device("cpu"), True), DQNConfig(hidden=(8,)))
    with pytest.raises(UserError, match=r"imagination\.bc_updates clones a policy, but DQN has none; expected 0"):
        Cloning(agent, Batches(), 16, 1e-2)


# ------------------------------------------------------------------------------------------------------- adversary and episodes
def test_a_round_of_the_adversary_is_recorded_and_one_that_diverged_ends_the_run():
    metrics = {"adversary/loss": torch.tensor(0.5), "adversary/fit_loss": torch.tensor(2.0)}
    asked = []
    adversary = SimpleNamespace(train=lambda *arguments: asked.append(arguments) or metrics)
    hook, clock = AdversaryRound(adversary, "agent", "data", 3, 16, 0.9), ManualClock(step=7)
    hook(clock)
    assert asked == [("agent", "data", 3, 16, 0.9)]
    ((step, values),) = clock.recorder.events
    assert (step, values["adversary/loss"], values["adversary/fit_loss"]) == (7, 0.5, 2.0)
    metrics["adversary/fit_loss"] = torch.tensor(torch.nan)
    with pytest.raises(UserError, match=r"the adversarial model diverged: adversary/fit_loss is nan at step 7, .*\.adversary_lr") as caught:
        hook(clock)
    assert "\n" not in str(caught.value)


def test_updates_on_episodes_in_the_model_are_one_for_each_step_of_the_clock():
    shares, seen = list[float](), list[Trajectory]()

    class Listing(NPG):
        def anneal(self, remaining):
            shares.append(remaining)
            super().anneal(remaining)

        def update(self, trajectory):
            seen.append(trajectory)
            return super().update(trajectory)

    torch.manual_seed(0)
    first, agent = torch.randn(9, 3), Listing(SPEC, NPGConfig(hidden=(8,)), 0.9)
    hook = EpisodeUpdates("npg", agent, small_ensemble(), first, (6, 4), 20, log_every=4)
    clock = ManualClock(stride=4)
    clock.run(8, [hook])
    assert shares == pytest.approx([1 - n / 20 for n in range(8)])
    assert [tuple(trajectory.reward.shape) for trajectory in seen] == [(6, 4)] * 8
    assert all(bool((trajectory.obs[0][:, None] == first).all(-1).any(1).all()) for trajectory in seen)
    assert [step for step, _ in clock.recorder.logs] == [4, 8]
    assert {"imagination/reward", "imagination/terminated", "actor/kl"} <= clock.recorder.logs[0][1].keys()


def test_updates_on_episodes_of_an_agent_that_diverged_end_the_run():
    agent = NPG(SPEC, NPGConfig(hidden=(8,)), 0.9)
    hook, clock = EpisodeUpdates("npg", agent, small_ensemble(), torch.randn(9, 3), (6, 4), 20, log_every=1), ManualClock()
    agent.update = lambda trajectory: {"actor/kl": torch.tensor(torch.inf)}
    with pytest.raises(UserError, match="npg diverged: actor/kl is inf at step 1"):
        clock.run(1, [hook])


def test_adversary_rounds_with_a_real_adversary():
    torch.manual_seed(0)
    agent, data = SAC(SPEC, SACConfig(hidden=(8,)), 0.9), linear_gaussian(64)
    source = SimpleNamespace(sample=lambda n: type(data)(*(None if x is None else x[torch.randint(64, (n,))] for x in data)))
    hook, clock = AdversaryRound(Adversary(small_ensemble(), 0.1, 1e-3, 2), agent, source, 2, 8, 0.9), ManualClock(step=1)
    hook(clock)
    assert clock.recorder.events[0][1].keys() == {"adversary/loss", "adversary/fit_loss", "time/adversary_seconds"}
