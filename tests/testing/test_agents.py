"""The contract of agents is violated by one broken agent for each clause."""

import pytest
import torch

from mbkit import registry
from mbkit.agents.actor_critic.td3 import TD3, TD3Config
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.testing import SPEC, check_agent, experience, random_recorded
from mbkit.types import Recorded, Transition


class Sound(TD3):
    """Small, so that the tests are quick."""

    def __init__(self, spec):
        super().__init__(spec, TD3Config(hidden=(8,)))


class WrongShape(Sound):
    def act(self, obs, explore=True):
        return super().act(obs, explore)[:, 0]


class OutsideTheBox(Sound):
    def act(self, obs, explore=True):
        return super().act(obs, explore) * 3 + 2 * explore


class WrongType(Sound):
    def act(self, obs, explore=True):
        return super().act(obs, explore).double()


class RandomGreedyAction(Sound):
    def act(self, obs, explore=True):
        return super().act(obs, True)


class WithGradient(Sound):
    def sample(self, obs):
        return self.policy(obs)


class WideValue(Sound):
    def value(self, obs):
        return super().value(obs)[:, None]


class ChangingMetrics(Sound):
    def update(self, batch):
        metrics = super().update(batch)
        return metrics if self.count else metrics | {"extra": torch.zeros(())}


class AttachedMetric(Sound):
    def update(self, batch):
        return super().update(batch) | {"critic/q": self.critics(batch.obs, batch.action).mean()}


class VectorMetric(Sound):
    def update(self, batch):
        return super().update(batch) | {"critic/q": batch.reward}


class Diverging(Sound):
    def update(self, batch):
        return super().update(batch) | {"critic/q": batch.reward.mean() / 0}


class Idle(Sound):
    def update(self, batch):
        return {"critic/loss": batch.reward.mean()}


class Synchronising(Sound):
    def update(self, batch):
        metrics = super().update(batch)
        if metrics["critic/loss"] < 0:
            raise ValueError
        return metrics


class Replacing(Sound):
    def update(self, batch):
        metrics = super().update(batch)
        self.critics.net.weight[0].data = self.critics.net.weight[0].data.clone()
        self.replaced = [*getattr(self, "replaced", []), self.critics.net.weight[0].data]  # or an old address could be used again
        return metrics


class UnsavedCount(Sound):
    """Does not restore the position in its cycle."""

    def set_extra_state(self, state):
        super().set_extra_state(state | {"count": 0})


class FreshMoments(Sound):
    """Loads into new tensors."""

    def set_extra_state(self, state):
        super().set_extra_state(state)
        for optimizer in self.optimizers.values():
            for slots in optimizer.state.values():
                slots["exp_avg"] = slots["exp_avg"].clone()


class Sharing(Sound):
    """Uses the saved tensors themselves."""

    def set_extra_state(self, state):
        for name, optimizer in self.optimizers.items():
            if optimizer.state:
                super().set_extra_state(state)
                return
            optimizer.load_state_dict(state[name])
        self.count = state["count"]


def test_check_agent_passes_a_sound_agent():
    check_agent(Sound)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongShape, "shape"),
        (OutsideTheBox, r"actions in \[-1, 1\]"),
        (WrongType, "float64"),
        (RandomGreedyAction, "two different actions"),
        (WithGradient, "sample: expected actions without gradient"),
        (WideValue, "value: expected the shape"),
        (ChangingMetrics, "the metrics"),
        (AttachedMetric, "detached"),
        (VectorMetric, "0-d"),
        (Diverging, "finite"),
        (Idle, "nothing did"),
        (Synchronising, "synchronises with the device"),
        (Replacing, "in place"),
        (UnsavedCount, "after load_state_dict"),
        (Sharing, "after load_state_dict"),
        (FreshMoments, "load_state_dict: expected every tensor"),
    ],
)
def test_check_agent_names_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_agent(broken)


def test_check_agent_checks_discrete_actions_where_supported():
    class IgnoresDiscrete(Sound):
        """Accepts any specification, but returns a vector for discrete actions."""

        def __init__(self, spec):
            super().__init__(spec._replace(discrete=False))

    with pytest.raises(AssertionError, match=r"expected actions of the shape \(1,\)"):
        check_agent(IgnoresDiscrete)


def test_check_agent_checks_several_discrete_actions_where_they_are_not_refused():
    class IgnoresParts(PPO):
        """Accepts any specification, but chooses one action where several are taken."""

        def __init__(self, spec):
            super().__init__(spec._replace(parts=()), PPOConfig(hidden=(8,), epochs=1))

    with pytest.raises(AssertionError, match=r"expected actions of the shape \(1, 2\)"):
        check_agent(IgnoresParts)


def test_check_agent_takes_no_other_error_than_a_user_error_for_an_unsupported_space():
    def build(spec):
        if spec.discrete:
            raise TypeError("no idea")
        return Sound(spec)

    with pytest.raises(TypeError):
        check_agent(build)


def test_experience_is_recorded_rows_for_agents_of_data_sets_alone():
    assert isinstance(experience(BC(SPEC, BCConfig(hidden=(8,))), SPEC), Recorded)
    assert isinstance(experience(Sound(SPEC), SPEC), Transition)


def test_random_recorded_is_a_data_set_in_order():
    data = random_recorded(SPEC, 40)
    ends = (data.next_known == 0).nonzero()[:, 0].tolist()
    assert 1 < len(ends) < 20
    assert ends[-1] == 39
    assert (data.next_known[data.discount == 0] == 0).all()
    assert torch.equal(data.next_action[:-1], data.action[1:])
    begin = 0
    for end in ends:
        torch.testing.assert_close(data.return_to_go[begin], data.reward[begin : end + 1].sum())
        begin = end + 1


class SmallClone(BC):
    """Small, so that the tests are quick."""

    def __init__(self, spec):
        super().__init__(spec, BCConfig(hidden=(8,)))


class AccumulatingStatistics(SmallClone):
    def prepare(self, data):
        super().prepare(data)
        self.target_return.add_(1)


class UnsavedStatistics(SmallClone):
    def prepare(self, data):
        super().prepare(data)
        self.shift = data.obs.mean(0)

    def output(self, obs):
        return super().output(obs - getattr(self, "shift", 0))


@pytest.mark.parametrize(
    ("broken", "message"),
    [(AccumulatingStatistics, "same state after a second call"), (UnsavedStatistics, "a loaded agent acts differently")],
)
def test_check_agent_names_what_is_broken_in_preparing(broken, message):
    assert registry.agents["bc"].target is BC
    check_agent(SmallClone)
    with pytest.raises(AssertionError, match=message):
        check_agent(broken)
