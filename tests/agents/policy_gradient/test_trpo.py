"""The trust region is one: the divergence of every accepted step is within it, and a rejected step changes nothing."""

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, bandit, greedy_reward
from hypothesis import given, settings
from hypothesis import strategies as st

from mbkit.agents.policy_gradient.natural import assign_, fisher_product, flattened, surrogate
from mbkit.agents.policy_gradient.npg import normalized_step
from mbkit.agents.policy_gradient.trpo import TRPO, TRPOConfig
from mbkit.networks.distributions import detached
from mbkit.testing import random_trajectory

DOUBLE = torch.float64


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@given(seed=st.integers(0, 2**32 - 1), delta=st.floats(1e-5, 1.0), backtracks=st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_update_accepted_steps_lie_within_the_trust_region(spec, seed, delta, backtracks):
    torch.manual_seed(seed)
    cfg = TRPOConfig(delta=delta, backtracks=backtracks, damping=1e-3, hidden=(8,), value_epochs=1, minibatch=256)
    agent = TRPO(spec, cfg)
    steps = random_trajectory(spec, 16, 4, seed % 1000)
    steps = steps._replace(log_prob=agent.log_prob(steps.obs, steps.action))
    rows, old, before = agent.prepare(steps), detached(agent.policy(steps.obs.flatten(0, 1))), flattened(agent.params).detach().clone()
    metrics = agent.update(steps)
    new = agent.policy(rows.obs)
    kl = old.kl(new).mean().item()
    assert metrics["trpo/kl"].item() == pytest.approx(kl, abs=1e-7)
    if metrics["trpo/accepted"].item():
        assert 0 < kl <= delta
        assert surrogate(new.log_prob(rows.action) - rows.log_prob, rows.advantage) > rows.advantage.mean()
        assert metrics["trpo/backtracks"].item() < backtracks
    else:
        assert torch.equal(flattened(agent.params), before)
        assert kl == metrics["trpo/kl"].item() == 0
        assert metrics["trpo/backtracks"].item() == backtracks


def agent_and_rows(spec, **options):
    torch.manual_seed(0)
    agent = TRPO(spec, TRPOConfig(damping=1e-8, cg_iterations=60, hidden=(), log_std=-0.7, **options)).double()
    return agent, agent.prepare(bandit(agent, spec, dtype=DOUBLE))


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("delta", [1e-4, 1e-3, 1e-2])
def test_normalized_step_has_kl_delta(spec, delta):
    """Within a tenth; the length sqrt(2 delta / g^T F g), which is in print too, is far off."""
    agent, rows = agent_and_rows(spec)
    start = flattened(agent.params).detach().clone()
    x, g, old = agent.direction(rows)
    assign_(agent.params, start + normalized_step(x, g, delta) * x)
    assert agent.kl_and_surrogate(rows, old)[0].item() / delta == pytest.approx(1, abs=0.1)
    assign_(agent.params, start)
    image = fisher_product(old.kl(agent.policy(rows.obs)).mean(), agent.params, 0.0)(g)
    assign_(agent.params, start + normalized_step(image, g, delta) * x)
    wrong = agent.kl_and_surrogate(rows, old)[0].item() / delta
    assert not 0.5 < wrong < 2


def test_search_takes_the_longest_good_candidate():
    """Against trying one after the other; the full step is made three times too long."""
    agent, rows = agent_and_rows(DISCRETE, backtracks=10, shrink=0.8)
    start = flattened(agent.params).detach().clone()
    x, g, old = agent.direction(rows)
    full = 3 * normalized_step(x, g, agent.cfg.delta) * x
    before = agent.kl_and_surrogate(rows, old)[1]
    rejected, expected = 0, start
    for k in range(10):
        assign_(agent.params, start + 0.8**k * full)
        kl, gain = agent.kl_and_surrogate(rows, old)
        if kl <= agent.cfg.delta and gain > before:
            expected = flattened(agent.params).detach().clone()
            break
        rejected += 1
    assert 3 <= rejected < 10
    assign_(agent.params, start)
    result = agent.search(rows, old, full)
    assert torch.equal(flattened(agent.params), expected)
    assert [x.item() for x in result] == [kl.item(), True, rejected]


@pytest.mark.parametrize("direction", [-1.0, torch.nan, torch.inf, 0.0])
def test_search_rejects_steps_that_do_not_climb(direction):
    agent, rows = agent_and_rows(DISCRETE)
    before = flattened(agent.params).detach().clone()
    x, g, old = agent.direction(rows)
    kl, accepted, rejected = agent.search(rows, old, direction * normalized_step(x, g, agent.cfg.delta) * x)
    assert not accepted
    assert kl == 0
    assert rejected == agent.cfg.backtracks
    assert torch.equal(flattened(agent.params), before)


def test_update_without_advantages_keeps_the_policy():
    torch.manual_seed(0)
    agent = TRPO(DISCRETE, TRPOConfig(hidden=(8,), normalize_advantage=False, gae_lambda=0.0))
    with torch.no_grad():
        for p in agent.critic.parameters():
            p.zero_()
    steps = bandit(agent, DISCRETE)
    before = flattened(agent.params).detach().clone()
    metrics = agent.update(steps._replace(reward=torch.zeros_like(steps.reward)))
    assert torch.equal(flattened(agent.params), before)
    assert metrics["trpo/accepted"] == 0
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.9), (CONTINUOUS, -0.02), (SEVERAL, 0.9)])
def test_trpo_learns_the_bandit(spec, worst):
    torch.manual_seed(0)
    agent = TRPO(spec, TRPOConfig(delta=0.05, hidden=(16,), damping=1e-2, log_std=-0.5, value_epochs=2, minibatch=256))
    before = greedy_reward(agent, spec)
    for _ in range(25):
        agent.update(bandit(agent, spec))
    assert greedy_reward(agent, spec) > worst > before
