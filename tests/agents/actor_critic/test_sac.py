"""SAC: densities against torch.distributions, its target by hand, the temperature, and the settings that are REDQ and DroQ."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.actor_critic.kl_sac import KLSAC, KLSACConfig
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.actor_critic.soft import policy_slopes, soft_value, temperature_loss
from mbkit.errors import UserError
from mbkit.networks.policy import TanhGaussian
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch


def make(spec=WIDE, **options) -> SAC:
    torch.manual_seed(0)
    return SAC(spec, SACConfig(hidden=(16, 16), **options), gamma=0.9)


class FixedNoise:
    """The agent with the policy's mean in place of a sample, so that a target can be computed by hand."""

    def __init__(self, agent: SAC) -> None:
        self.agent, self.backup_q = agent, agent.backup_q

    def backup_action(self, obs):
        log_prob = torch.stack([log_prob_at(self.agent, row) for row in obs])
        return self.agent.policy.mode(obs).detach(), -self.agent.log_alpha.exp().detach() * log_prob

    def path_bonus(self, obs, action):
        return SAC.path_bonus(self, obs, action)


def log_prob_at(agent: SAC, obs):
    """log pi of tanh of the mean at one observation [O]."""
    mean, log_std = agent.policy(obs[None])
    normal = Normal(mean, log_std.exp()).log_prob(mean)
    return (normal - (1 - mean.tanh().square()).log()).sum().detach()


def test_rsample_log_density_equals_torch_s():
    torch.manual_seed(0)
    policy, obs = TanhGaussian(3, 2, (16,)).double(), torch.randn(200, 3, dtype=torch.float64)
    mean, log_std = policy(obs)
    oracle = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)])
    action, log_prob = policy.rsample(obs)
    torch.testing.assert_close(log_prob, oracle.log_prob(action), atol=1e-6, rtol=1e-6)


def test_backup_without_entropy_is_the_smallest_critics_alone():
    batch, targets = random_batch(WIDE, 16), []
    for backup_entropy in (True, False):
        agent = make(backup_entropy=backup_entropy, temperature=0.3)
        torch.manual_seed(4)
        targets.append(one_step(agent, batch, 0.9).target)
    torch.manual_seed(4)
    action, log_prob = agent.policy.rsample(batch.next_obs)
    value = agent.backup_q(batch.next_obs, action).amin(0)
    torch.testing.assert_close(targets[1], batch.reward + 0.9 * batch.discount * value)
    torch.testing.assert_close(targets[0], (targets[1] - 0.9 * batch.discount * 0.3 * log_prob).detach())
    assert torch.equal(agent.path_bonus(batch.obs, action), torch.zeros(16))


def test_backup_by_hand():
    agent, batch = make(temperature=0.3), random_batch(WIDE, 16)
    torch.manual_seed(4)
    y = one_step(agent, batch, 0.9).target
    torch.manual_seed(4)
    action, log_prob = agent.policy.rsample(batch.next_obs)
    q1, q2 = agent.target_critics(batch.next_obs, action)
    expected = batch.reward + 0.9 * batch.discount * (torch.minimum(q1, q2) - 0.3 * log_prob)
    torch.testing.assert_close(y, expected.detach())


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_n_step_target_is_the_soft_return_of_brute_force(steps):
    """r_0 + sum_{0<k<n} gamma^k (r_k - alpha log pi(s_k)) + gamma^n V(s_n), fewer terms before an end; no entropy of s_0."""
    agent, gamma, alpha = make(temperature=0.3), 0.9, 0.3
    path, reward, action = torch.randn(7, 3), torch.randn(6), torch.rand(6, 2) * 2 - 1
    over = torch.tensor([False] * 5 + [True])
    buffer = ReplayBuffer(16, WIDE)
    buffer.extend(Experience(path[:6], action, reward, path[1:], over, over), column=0)
    batch = NStep(buffer, steps, gamma, FixedNoise(agent).path_bonus).at(buffer.order())
    y = one_step(FixedNoise(agent), batch, gamma).target
    for t in range(6):
        taken, expected = min(steps, 6 - t), 0.0
        for k in range(taken):
            paid = alpha * log_prob_at(agent, path[t + k]) if k else 0.0
            expected += gamma**k * (reward[t + k] - paid)
        if t + taken < 6:  # otherwise the episode has ended
            a, last = agent.policy.mode(path[None, t + taken]), path[None, t + taken]
            expected += gamma**taken * (agent.target_critics(last, a).amin() - alpha * log_prob_at(agent, last[0]))
        torch.testing.assert_close(y[t], expected.detach(), atol=1e-5, rtol=1e-5)


def test_path_bonus_is_kl_sac_s_plus_a_constant():
    """The divergence from the uniform prior is minus the entropy, plus A log 2."""
    sac, obs = make(temperature=0.3), torch.randn(50, 3)
    kl_sac = KLSAC(WIDE, KLSACConfig(hidden=(16, 16), temperature=0.3), 0.9)
    kl_sac.policy.load_state_dict(sac.policy.state_dict())
    torch.manual_seed(5)
    ours = sac.path_bonus(obs, obs[:, :2])
    torch.manual_seed(5)
    theirs = kl_sac.path_bonus(obs, obs[:, :2])
    torch.testing.assert_close(ours, theirs + 0.3 * 2 * math.log(2))


@pytest.mark.parametrize("mean", [False, True])
def test_soft_value_takes_the_minimum_or_the_mean(mean):
    agent, obs = make(critics=3), random_batch(WIDE, 16).obs
    torch.manual_seed(4)
    action, log_prob = agent.policy.rsample(obs)
    q, alpha = agent.critics(obs, action), torch.tensor(0.5)
    value = soft_value(q, log_prob, alpha, mean)
    torch.testing.assert_close(value, (q.sum(0) / 3 if mean else q.min(0).values) - 0.5 * log_prob)
    expected = torch.autograd.grad(-value.mean(), (q, log_prob))
    torch.testing.assert_close(policy_slopes(q, alpha, mean), expected)


@pytest.mark.parametrize("options", [{}, {"policy_every": 2}, {"policy_q": "mean", "temperature": 0.2}, {"normalize_obs": True}])
def test_update_by_one_pass_of_the_policy_equals_that_by_the_target_function(options):
    """The same random numbers, as long as a batch's have a multiple of 16."""
    agents = make(**options), make(**options)
    agents[1].target = lambda *arguments: one_step(*arguments)
    for seed in range(4):
        metrics = []
        for agent in agents:
            torch.manual_seed(seed)
            metrics.append(agent.update(random_batch(WIDE, 16, seed)))
        torch.testing.assert_close(*metrics, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(list(agent.parameters()) for agent in agents), rtol=1e-3, atol=1e-5)


def test_update_without_measures_makes_the_same_steps():
    agents = make(), make()
    for seed in range(3):
        for agent, measures in zip(agents, (True, False), strict=True):
            torch.manual_seed(seed)
            agent.measures = measures
            assert bool(agent.update(random_batch(WIDE, 16, seed))) == measures
    assert all(map(torch.equal, agents[0].parameters(), agents[1].parameters()))


@pytest.mark.parametrize(("target", "rises"), [(50.0, True), (-50.0, False)])
def test_temperature_rises_while_entropy_is_below_its_target(target, rises):
    agent = make(target_entropy=target)
    before = agent.log_alpha.item()
    for seed in range(3):
        agent.update(random_batch(WIDE, 16, seed))
    assert (agent.log_alpha.item() > before) == rises


def test_temperature_loss_gradient_by_hand():
    """d/d log alpha of -alpha (E log pi + H) is alpha (entropy - H)."""
    alpha, log_prob = torch.tensor(2.0), torch.tensor([1.0, 3.0], requires_grad=True)
    loss = temperature_loss(alpha, log_prob, -1.5)
    torch.testing.assert_close(loss, alpha * (-2.0 + 1.5))
    assert not loss.requires_grad


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_temperature_fixed_stays_constant(alpha):
    agent = make(temperature=alpha)
    for seed in range(3):
        metrics = agent.update(random_batch(WIDE, 16, seed))
    assert metrics["alpha"].item() == pytest.approx(alpha)
    assert "alpha" not in agent.optimizers
    assert not agent.log_alpha.requires_grad


def test_state_dict_holds_the_temperature_and_its_optimizer():
    agent, other = make(), make(initial_temperature=0.5)
    for seed in range(3):
        agent.update(random_batch(WIDE, 16, seed))
    other.load_state_dict(agent.state_dict())
    assert other.log_alpha.item() == agent.log_alpha.item() != 0
    for which in (agent, other):
        torch.manual_seed(0)
        which.update(random_batch(WIDE, 16, 9))
    assert other.log_alpha.item() == agent.log_alpha.item()  # Adam's moments came along


def test_target_subset_draws_all_pairs_of_critics():
    agent, batch = make(critics=5, target_subset=2), random_batch(WIDE, 8)
    every, drawn = agent.target_critics(batch.obs, batch.action), set()
    for _ in range(100):
        q = agent.backup_q(batch.obs, batch.action)
        assert q.shape == (2, 8)
        which = [next(k for k in range(5) if torch.equal(row, every[k])) for row in q]
        assert which[0] != which[1]
        drawn.add(frozenset(which))
    assert len(drawn) == 10  # every pair


def test_target_subset_of_all_critics_is_null():
    ours, plain, batch = make(critics=4, target_subset=4), make(critics=4), random_batch(WIDE, 8)
    targets = []
    for agent in (ours, plain):
        torch.manual_seed(2)
        targets.append(one_step(agent, batch, 0.9).target)
    assert torch.equal(*targets)


def test_target_subset_above_critics_is_refused():
    with pytest.raises(UserError, match="target_subset=3"):
        make(critics=2, target_subset=3)


@pytest.mark.parametrize(
    "options",
    [
        {"critics": 5, "target_subset": 2, "policy_q": "mean", "policy_every": 3},  # REDQ
        {"critic": "layer_norm", "dropout": 0.01, "policy_q": "mean", "policy_every": 3},  # DroQ
        {"critic": "layer_norm"},
        {"temperature": 0.1},
    ],
)
def test_sac_options_keep_the_contract(options):
    check_agent(lambda spec: SAC(spec, SACConfig(hidden=(16,), **options)))


def test_dropout_reaches_targets_and_layer_norm_has_parameters():
    agent, batch = make(critic="layer_norm", dropout=0.5), random_batch(WIDE, 8)
    assert not torch.equal(agent.backup_q(batch.obs, batch.action), agent.backup_q(batch.obs, batch.action))
    assert len(agent.critics.net.gain) == 2
    assert not len(make().critics.net.gain)


def test_update_on_a_bandit_learns_its_best_action():
    torch.manual_seed(0)
    assert learn_bandit(SAC(SPEC, SACConfig(hidden=(32,), lr=1e-2, initial_temperature=0.05)), 200) < 0.1


def test_policy_every_3_updates_the_policy_every_third_time():
    agent = make(policy_every=3)
    for n in range(1, 7):
        before = (
            [p.clone() for p in agent.policy.parameters()],
            agent.log_alpha.clone(),
            [p.clone() for p in agent.target_critics.parameters()],
        )
        agent.update(random_batch(WIDE, 8, n))
        moved = not all(map(torch.equal, before[0], agent.policy.parameters()))
        assert moved == (n % 3 == 0) == (not torch.equal(before[1], agent.log_alpha))
        assert not all(map(torch.equal, before[2], agent.target_critics.parameters()))
