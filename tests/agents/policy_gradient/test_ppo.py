"""PPO: the clipped surrogate by hand and at its limits, the KL penalty and its coefficient, and both together."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, bandit, greedy_reward
from toys import WIDE

from mbkit.agents.policy_gradient.on_policy import AdvantageBatch
from mbkit.agents.policy_gradient.ppo import BETA, PPO, PPOConfig, adapted, clipped_surrogate
from mbkit.errors import UserError
from mbkit.networks.distributions import detached
from mbkit.testing import check_agent, random_trajectory

SMALL = PPOConfig(hidden=(16,), epochs=4, minibatch=64, lr=1e-2, log_std=-0.5)


def make(spec=WIDE, **options) -> PPO:
    torch.manual_seed(0)
    return PPO(spec, replace(SMALL, **options), gamma=0.9)


def acted(agent: PPO, steps: int = 16, num_envs: int = 4, seed: int = 0):
    """A trajectory whose log-probabilities are the agent's."""
    t = random_trajectory(WIDE, steps, num_envs, seed)
    return t._replace(log_prob=agent.log_prob(t.obs, t.action))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [  # at epsilon 0.2: the smaller of two terms, and whether the ratio has a gradient
        (1.0, 2.0, 2.0, 2.0),
        (1.5, 2.0, 2.4, 0.0),
        (0.5, 2.0, 1.0, 2.0),
        (1.5, -2.0, -3.0, -2.0),
        (0.5, -2.0, -1.6, 0.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, expected, slope):
    log_ratio = torch.tensor([math.log(ratio)], requires_grad=True)
    gain = clipped_surrogate(log_ratio, torch.tensor([advantage]), 0.2)
    assert gain.item() == pytest.approx(expected)
    assert torch.autograd.grad(gain.sum(), log_ratio)[0].item() == pytest.approx(slope * ratio)  # d rho / d log rho = rho


def test_clipped_surrogate_wide_clip_is_none_and_clipping_only_lowers():
    log_ratio, advantage = torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    free = clipped_surrogate(log_ratio, advantage, None)
    torch.testing.assert_close(free, log_ratio.exp() * advantage)
    torch.testing.assert_close(clipped_surrogate(log_ratio, advantage, 1e6), free)
    assert (clipped_surrogate(log_ratio, advantage, 0.2) <= free).all()


@pytest.mark.parametrize(("kl", "factor"), [(0.0, 0.5), (0.0066, 0.5), (0.0067, 1), (0.01, 1), (0.015, 1), (0.0151, 2), (3.0, 2)])
def test_adapted_doubles_halves_or_keeps_beta(kl, factor):
    assert adapted(torch.tensor(0.7), torch.tensor(kl), target=0.01).item() == pytest.approx(0.7 * factor)


def test_adapted_after_many_halvings_can_double_again():
    beta = torch.tensor(1.0)
    for _ in range(2000):
        beta = adapted(beta, torch.tensor(0.0), 0.01)
    assert beta.item() == BETA[0]
    assert adapted(beta, torch.tensor(1.0), 0.01).item() == 2 * BETA[0]


@pytest.mark.parametrize(("target", "factor"), [(1e-9, 2.0), (1e9, 0.5)])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_update_adapts_beta(target, factor, clip):
    agent = make(kl_target=target, clip=clip, kl_coef=0.3)
    for n in range(1, 4):
        metrics = agent.update(acted(agent, seed=n))
        assert metrics["actor/kl"] > 1e-6
        assert metrics["actor/beta"].item() == pytest.approx(0.3 * factor**n)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_update_kl_is_from_the_behaviour_policy(spec):
    """Its standard deviation too, a parameter that changes in place."""
    agent = make(spec)
    before, t = deepcopy(agent), bandit(agent, spec)
    metrics = agent.update(t)
    expected = before.distribution(t.obs).kl(agent.distribution(t.obs)).mean()
    assert metrics["actor/kl"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert spec.discrete or not torch.equal(before.policy.log_std, agent.policy.log_std)
    assert "actor/beta" not in metrics  # there is no penalty


def test_kl_coef_large_keeps_the_policy_near_the_old_one():
    moved = []
    for beta in (1e-3, 30.0):
        agent = make(kl_target=0.01, clip=None, kl_coef=beta)
        moved.append(agent.update(acted(agent))["actor/kl"].item())
    assert moved[1] < moved[0] / 5


def test_kl_target_is_reached_by_adapting_beta():
    agent = make(CONTINUOUS, kl_target=0.02, clip=None)
    divergences = [agent.update(bandit(agent, CONTINUOUS))["actor/kl"].item() for _ in range(25)]
    assert 0.02 / 3 < sorted(divergences[10:])[len(divergences[10:]) // 2] < 0.02 * 3


def test_loss_by_hand():
    """Equation 8 and 9: surrogate - beta KL + entropy bonus - value error, in the value network's units."""
    agent = make(kl_target=0.01, entropy_coef=0.3, value_coef=0.7, normalize_advantage=False, normalize_value=True)
    agent.critic.rescale(torch.tensor([3.0, 7.0]))
    t = acted(agent)
    rows = agent.with_advantages(t, 0.95)
    with torch.no_grad():
        for p in agent.policy.parameters():
            p.add_(0.1 * torch.randn_like(p))
    old, new = make().policy(rows.obs), agent.policy(rows.obs)
    ratio = (new.log_prob(rows.action) - rows.log_prob).exp()
    gain = torch.minimum(ratio * rows.advantage, ratio.clamp(0.8, 1.2) * rows.advantage).mean() - old.kl(new).mean()
    error = ((agent.critic.normalized(rows.obs) - (rows.target - 5) / 2) ** 2).mean()
    loss, *terms = agent.loss(rows, detached(old))
    torch.testing.assert_close(loss, -gain + 0.7 * error - 0.3 * new.entropy().mean())
    torch.testing.assert_close(torch.stack(terms), torch.stack((error, new.entropy().mean())))


def test_loss_gradient_at_the_old_policy_equals_the_policy_gradient():
    """At the old policy nothing is clipped and the penalty is flat: grad E[A log pi]."""
    agent = make(kl_target=0.01, value_coef=1e-9, normalize_advantage=False)
    rows = agent.with_advantages(acted(agent), 0.95)
    params = list(agent.policy.parameters())
    loss, *_ = agent.loss(rows, detached(agent.policy(rows.obs)))
    expected = torch.autograd.grad(-(rows.advantage * agent.policy(rows.obs).log_prob(rows.action)).mean(), params)
    torch.testing.assert_close(torch.autograd.grad(loss, params), expected, atol=1e-6, rtol=1e-4)


def test_with_advantages_lambda_1_and_0_by_hand():
    """With lambda 1 the target is the return to the end, bootstrapped; with lambda 0 one step."""
    agent = make(normalize_value=True)
    agent.critic.rescale(torch.tensor([10.0, 30.0]))
    t = acted(agent, 3, 1)._replace(ended=torch.zeros(3, 1, dtype=torch.bool), discount=torch.ones(3, 1))
    t = t._replace(next_obs=torch.cat((t.obs[1:], torch.randn(1, 1, 3))))
    last = agent.value(t.next_obs[-1])
    rows = agent.with_advantages(t, 1.0)
    expected = t.reward[0] + 0.9 * t.reward[1] + 0.81 * t.reward[2] + 0.729 * last
    torch.testing.assert_close(rows.target[:1], expected)
    torch.testing.assert_close(rows.advantage + agent.value(t.obs[:, 0]), rows.target)
    torch.testing.assert_close(agent.with_advantages(t, 0.0).target, t.reward[:, 0] + 0.9 * agent.value(t.next_obs[:, 0]))
    assert isinstance(rows, AdvantageBatch)


def test_anneal_only_with_anneal_lr_changes_the_learning_rate():
    agent = make(anneal_lr=True)
    agent.anneal(0.25)
    assert float(agent.optimizers["networks"].param_groups[0]["lr"]) == pytest.approx(2.5e-3)
    constant = make()
    constant.anneal(0.25)
    assert float(constant.optimizers["networks"].param_groups[0]["lr"]) == pytest.approx(1e-2)


def test_ppo_without_clip_and_penalty_is_refused():
    with pytest.raises(UserError, match=r"agent.clip=null and agent.kl_target=null"):
        make(clip=None, kl_target=None)


TOGETHER = {"kl_target": 0.02, "normalize_obs": True, "normalize_value": True}


@pytest.mark.parametrize("options", [{"kl_target": 0.02, "clip": None}, {**TOGETHER, "minibatch": 20, "entropy_coef": 0.01}])
def test_ppo_with_other_settings_keeps_the_contract(options):
    check_agent(lambda spec: PPO(spec, replace(SMALL, **{"epochs": 1, **options})))


@pytest.mark.parametrize("options", [{}, {"kl_target": 0.02, "clip": None}, TOGETHER], ids=["clip", "penalty", "both"])
@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.9), (CONTINUOUS, -0.02), (SEVERAL, 0.9)])
def test_ppo_learns_the_bandit(spec, worst, options):
    agent = make(spec, **options)
    before = greedy_reward(agent, spec)
    for n in range(30):
        agent.anneal(1 - n / 30)
        agent.update(bandit(agent, spec))
    assert greedy_reward(agent, spec) > worst > before


def test_minibatch_1_with_normalize_advantage_is_refused():
    with pytest.raises(UserError, match=r"agent.minibatch=1: expected at least 2 with agent.normalize_advantage=true"):
        PPO(WIDE, PPOConfig(minibatch=1))
    PPO(WIDE, PPOConfig(minibatch=1, normalize_advantage=False))
