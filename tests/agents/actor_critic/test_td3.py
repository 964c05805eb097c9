"""TD3: its target by hand, actions in the box, the delay, and DDPG as the limit without its three changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.actor_critic.ddpg import DDPG, DDPGConfig
from mbkit.agents.actor_critic.td3 import TD3, TD3Config, smoothed
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch

FINITE = st.floats(-1e3, 1e3)


def make(spec=WIDE, **options) -> TD3:
    torch.manual_seed(0)
    return TD3(spec, TD3Config(hidden=(16, 16), **options), gamma=0.9)


def test_backup_by_hand():
    agent, batch = make(target_noise=0.6, noise_clip=0.4), random_batch(WIDE, 32)
    for p in agent.target_policy.parameters():
        p.add_(0.3)
    torch.manual_seed(5)
    y = one_step(agent, batch, 0.9)
    torch.manual_seed(5)
    draws = torch.randn(32, 2)
    capped = []
    for i in range(32):
        s = batch.next_obs[i : i + 1]
        action = torch.tensor(
            [[min(1.0, max(-1.0, m + min(0.4, max(-0.4, 0.6 * n)))) for m, n in zip(agent.target_policy(s)[0], draws[i], strict=True)]]
        )
        capped += [abs(0.6 * n) > 0.4 for n in draws[i]]
        q1, q2 = agent.target_critics(s, action)[:, 0]
        torch.testing.assert_close(y.target[i], batch.reward[i] + 0.9 * batch.discount[i] * min(q1, q2))
    assert 0 < sum(capped) < 64  # both sides of the clip were met
    assert y.weight is None


@given(action=st.floats(-1, 1), noise=FINITE, clip=st.floats(0, 3))
def test_smoothed_actions_stay_in_the_box(action, noise, clip):
    out = smoothed(torch.tensor([[action]]), torch.tensor([[noise]]), clip).item()
    assert -1 <= out <= 1
    assert abs(out - action) <= min(clip, abs(noise)) + 1e-6


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_delay_updates_policy_and_target_networks_once_in_a_cycle(delay):
    agent = make(delay=delay)
    assert agent.cycle == delay
    delayed = [*agent.policy.parameters(), *agent.target_policy.parameters(), *agent.target_critics.parameters()]
    for n in range(1, 2 * delay + 1):
        before, critic = [p.clone() for p in delayed], agent.critics.net.weight[0].clone()
        loss = agent.update(random_batch(WIDE, 16, n))["actor/loss"]
        moved = [not torch.equal(p, q) for p, q in zip(before, delayed, strict=True)]
        assert all(moved) if n % delay == 0 else not any(moved)
        assert not torch.equal(agent.critics.net.weight[0], critic)
        assert (loss == 0) == (n < delay)  # before the first policy update there is no loss to report


def test_update_metrics_are_not_overwritten_by_later_updates():
    agent = make()
    agent.update(random_batch(WIDE, 16))
    first = agent.update(random_batch(WIDE, 16))["actor/loss"]
    value = first.item()
    agent.update(random_batch(WIDE, 16))
    agent.update(random_batch(WIDE, 16))
    assert first.item() == value


def test_update_policy_climbs_the_first_critic_only():
    agent, batch = make(delay=1, lr=1e-6), random_batch(WIDE, 16)
    twin = make(delay=1, lr=1e-6)
    with torch.no_grad():
        for p in twin.critics.parameters():
            p[1].add_(1.0)  # the second critic, in every layer
    twin.target_critics.load_state_dict(agent.target_critics.state_dict())
    agent.update(batch)
    twin.update(batch)
    for p, q in zip(agent.policy.parameters(), twin.policy.parameters(), strict=True):
        assert torch.equal(p, q)


def test_td3_without_its_changes_is_ddpg():
    ours = make(critics=1, delay=1, target_noise=0.0, lr=1e-3)
    torch.manual_seed(0)
    theirs = DDPG(WIDE, DDPGConfig(hidden=(16, 16), lr=1e-3), gamma=0.9)
    for seed in range(4):
        mine, other = (agent.update(random_batch(WIDE, 16, seed)) for agent in (ours, theirs))
        assert mine == other
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)


def test_state_dict_holds_the_place_in_the_cycle():
    agent, other = make(delay=3), make(delay=3)
    agent.update(random_batch(WIDE, 16))
    other.load_state_dict(agent.state_dict())
    assert other.count == agent.count == 1


@pytest.mark.parametrize("options", [{"delay": 1}, {"delay": 3, "critics": 1}])
def test_td3_options_keep_the_contract(options):
    check_agent(lambda spec: TD3(spec, TD3Config(hidden=(16,), **options)))


def test_update_on_a_bandit_learns_its_best_action():
    torch.manual_seed(0)
    assert learn_bandit(TD3(SPEC, TD3Config(hidden=(32,), lr=1e-2)), 300) < 0.15
