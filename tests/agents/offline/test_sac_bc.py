"""SAC+BC: its loss by hand and by finite differences, SAC's critics, entropy bonus and temperature, and cloning as a limit."""

from copy import deepcopy

import pytest
import torch
from recorded_batches import recorded
from toys import SPEC, WIDE, bandit, learn_bandit

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.actor_critic.soft import soft_value
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.sac_bc import EDGE, SACBC, SACBCConfig, cloned_soft_loss, cloning_loss
from mbkit.errors import UserError
from mbkit.networks.distributions import squashed_log_prob
from mbkit.testing import check_agent, random_batch


def make(**options) -> SACBC:
    torch.manual_seed(0)
    return SACBC(WIDE, SACBCConfig(**{"hidden": (16, 16), **options}), gamma=0.9)


def test_loss_by_hand():
    q, log_prob = torch.tensor([2.0, -4.0], requires_grad=True), torch.tensor([1.0, 3.0])
    loss = cloned_soft_loss(q, log_prob, torch.tensor(0.5), 2.5, torch.tensor(0.25))
    assert loss.item() == pytest.approx(0.5 * 2 - 2.5 / 3 * -1 + 0.25)
    assert torch.autograd.grad(loss, q)[0].tolist() == pytest.approx([-2.5 / 6] * 2)  # lambda is a constant


def test_cloning_losses_by_hand():
    mean, log_std = torch.tensor([[0.0, 0.0], [0.5, -0.5]]).atanh(), torch.full((2, 2), -1.0)
    data = torch.tensor([[0.5, 0.0], [0.5, 1.0]])
    assert cloning_loss(mean, log_std, data, "squared_error").item() == pytest.approx((0.25 + 2.25) / 4)
    raw = data.clamp(-EDGE, EDGE).atanh()
    likelihood = -squashed_log_prob(mean, log_std, raw).mean()
    normal = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), [torch.distributions.TanhTransform()]
    )
    assert cloning_loss(mean, log_std, data, "log_likelihood").item() == pytest.approx(likelihood.item())
    assert likelihood.item() == pytest.approx(-normal.log_prob(data.clamp(-EDGE, EDGE)).sum(1).mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["squared_error", "log_likelihood"])
def test_policy_s_gradient_by_finite_differences(kind):
    """Through mean and deviation, at fixed noise, of entropy, value and cloning; lambda is held, as a constant."""
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(3, 4, 2, dtype=torch.float64)
    data, slope = (2 * torch.rand(2, 4, 2, dtype=torch.float64) - 1).unbind()
    rows = torch.rand(4, dtype=torch.float64) + 1

    def loss(mean: torch.Tensor, log_std: torch.Tensor, weight: float | None = None) -> torch.Tensor:
        raw = mean + log_std.exp() * noise
        q, log_prob = rows + (slope * raw.tanh()).sum(1), squashed_log_prob(mean, log_std, raw)
        cloning = cloning_loss(mean, log_std, data, kind)
        if weight is None:
            return cloned_soft_loss(q, log_prob, torch.tensor(0.3), 2.5, cloning)
        return 0.3 * log_prob.mean() - weight * q.mean() + cloning

    held = 2.5 / float((rows + (slope * (mean + log_std.exp() * noise).tanh()).sum(1)).abs().mean())
    inputs = mean.requires_grad_(), log_std.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: loss(*x, weight=held), inputs)
    for mine, exact in zip(
        torch.autograd.grad(loss(*inputs), inputs), torch.autograd.grad(loss(*inputs, weight=held), inputs), strict=True
    ):
        torch.testing.assert_close(mine, exact)


def twin_of(agent: SACBC, **options) -> SAC:
    """SAC with the same weights; without statistics both see the same observations."""
    twin = SAC(WIDE, SACConfig(hidden=(16, 16), **options), gamma=0.9)
    for name in ("policy", "critics", "target_critics"):
        weights = {k: v for k, v in getattr(agent, name).state_dict().items() if not k.startswith("inputs")}
        getattr(twin, name).load_state_dict(weights)
    return twin


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_critics_are_those_of_sac_with_the_entropy_bonus(temperature):
    agent = make(temperature=temperature)
    twin, batch = twin_of(agent, temperature=temperature), random_batch(WIDE, 32)
    torch.manual_seed(1)
    mine = agent.update(batch)
    torch.manual_seed(1)
    theirs = twin.update(batch)
    torch.testing.assert_close(mine["critic/loss"], theirs["critic/loss"])
    torch.testing.assert_close(list(agent.critics.net.weight), list(twin.critics.net.weight))
    torch.testing.assert_close(mine["actor/entropy"], theirs["actor/entropy"])  # of the same sample
    torch.testing.assert_close(agent.log_alpha, twin.log_alpha)  # the temperature has made SAC's step
    assert mine["alpha"] == (1.0 if temperature is None else pytest.approx(temperature))


def test_loss_without_cloning_and_with_lambda_1_is_sac_s():
    agent, obs = make(), random_batch(WIDE, 32).obs
    torch.manual_seed(2)
    action, log_prob = agent.policy.rsample(obs)
    value = soft_value(agent.critics(obs, action), log_prob, torch.tensor(0.3))
    q = value + 0.3 * log_prob
    loss = cloned_soft_loss(q, log_prob, torch.tensor(0.3), float(q.detach().abs().mean()), torch.tensor(0.0))
    torch.testing.assert_close(loss, -value.mean())


def test_update_s_loss_is_the_sum_of_its_parts():
    agent, batch = make(temperature=0.2, alpha=1.5), random_batch(WIDE, 32)
    old = deepcopy(agent)
    torch.manual_seed(4)
    metrics = agent.update(batch)
    torch.manual_seed(4)
    torch.randn(32, 2)  # of the target's action
    with torch.no_grad():
        mean, log_std = old.policy(batch.obs)
        raw = mean + log_std.exp() * torch.randn(32, 2)
        q = agent.critics(batch.obs, raw.tanh())  # after the critics' step, as in SAC
        weight = 1.5 / q.amin(0).abs().mean()
        cloning = (mean.tanh() - batch.action).square().mean()
        loss = 0.2 * squashed_log_prob(mean, log_std, raw).mean() - weight * q.amin(0).mean() + cloning
        recorded_q = old.critics(batch.obs, batch.action)[0]
    torch.testing.assert_close(metrics["actor/loss"], loss)
    torch.testing.assert_close(metrics["actor/cloning"], cloning)
    torch.testing.assert_close(metrics["critic/overestimation"], (q[0] - recorded_q).mean())


def test_alpha_says_how_far_the_policy_leaves_narrow_data():
    """All recorded actions are 0.9, where the reward is worst."""
    obs, distance = torch.rand(64, 2) * 2 - 1, []
    rows = bandit(torch.full((64, 1), 0.9), obs)
    for alpha in (0.1, 20.0):
        torch.manual_seed(0)
        agent = SACBC(SPEC, SACBCConfig(hidden=(32,), lr=1e-2, alpha=alpha, temperature=0.01))
        agent.prepare(recorded(*rows[:5], [64]))
        for _ in range(200):
            agent.update(rows)
        distance.append((agent.act(obs, explore=False) - 0.9).abs().mean())
    assert distance[0] < 0.15
    assert distance[1] > 0.3


@pytest.mark.parametrize("cloning", ["squared_error", "log_likelihood"])
def test_update_on_a_bandit_improves_on_cloning(cloning):
    torch.manual_seed(0)
    agent = SACBC(SPEC, SACBCConfig(hidden=(32,), lr=1e-2, cloning=cloning, temperature=0.01))
    clone = BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.7 * learn_bandit(clone, 300)


@pytest.mark.parametrize("options", [{"cloning": "log_likelihood"}, {"critics": 1, "temperature": 0.1}, {"target_entropy": -3.0}])
def test_sac_bc_options_keep_the_contract(options):
    check_agent(lambda spec: SACBC(spec, SACBCConfig(hidden=(16,), **options)))


def test_discrete_actions_are_refused():
    with pytest.raises(UserError, match="sac_bc needs continuous actions"):
        SACBC(WIDE._replace(discrete=True), SACBCConfig())
