"""One-step RL: SARSA's targets and the improvements by hand, and the exact improvements on tables as what each must come to."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from recorded_batches import recorded
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.behaviour import best_of, least_reward, objective
from mbkit.agents.offline.one_step import OneStep, OneStepConfig, improvement_loss
from mbkit.errors import UserError
from mbkit.export import greedy_module
from mbkit.networks.distributions import Categorical
from mbkit.networks.plain import plain
from mbkit.tabular.mdp import MDP
from mbkit.tabular.one_step import improve, improve_exponentially
from mbkit.tabular.operators import q_of as exact_q
from mbkit.testing import check_agent, random_batch, random_recorded
from mbkit.types import EnvSpec, Recorded

CPU = torch.device("cpu")
DISCRETE = WIDE._replace(discrete=True)
SPECS = pytest.mark.parametrize("spec", [WIDE, DISCRETE], ids=["continuous", "discrete"])
IMPROVEMENTS = ["reverse_kl", "exp", "bcq", "log_q", "greedy"]


def make(spec=WIDE, gamma: float = 0.9, **options) -> OneStep:
    torch.manual_seed(0)
    return OneStep(spec, OneStepConfig(**{"hidden": (16, 16), **options}), gamma=gamma)


def test_improvement_loss_by_hand():
    value, divergence = torch.tensor([1.0, 5.0]), torch.tensor([0.5, 0.25])
    assert improvement_loss(value, divergence, 2.0).item() == pytest.approx((1.0 - 1 + 0.5 - 5) / 2)
    assert improvement_loss(value, divergence, 0.0).item() == -3


def test_improvement_loss_gradient_by_finite_differences():
    torch.manual_seed(0)
    logits, beta = torch.randn(2, 2, 3, dtype=torch.float64)
    values = torch.randn(2, 2, 3, dtype=torch.float64)
    critics = lambda obs: values  # noqa: E731  # of two critics

    def loss(logits: torch.Tensor) -> torch.Tensor:
        policy = Categorical(logits)
        return improvement_loss(objective(critics, torch.zeros(2, 1), policy, lambda q: q), policy.kl(Categorical(beta)), 0.7)

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))
    best = Categorical(values.amin(0) / 0.7 + beta.log_softmax(-1)).logits.requires_grad_()  # beta exp(Q / temperature) / Z
    assert torch.autograd.grad(loss(best), best)[0].abs().max() < 1e-12


def test_objective_of_continuous_actions_is_the_smaller_critic_s_at_one_sample():
    agent, obs = make(critics=2), random_batch(WIDE, 8).obs
    policy = agent.policy(obs)
    torch.manual_seed(5)
    value = objective(agent.critics, obs, policy)
    torch.manual_seed(5)
    action = (policy.mean + policy.log_std.exp() * torch.randn(8, 2)).clamp(-1, 1)
    torch.testing.assert_close(value, agent.critics(obs, action).amin(0))
    assert torch.autograd.grad(value.sum(), agent.policy.log_std, retain_graph=True)[0].any()
    assert all(g is None for g in torch.autograd.grad(value.sum(), list(agent.critics.parameters()), allow_unused=True))


@SPECS
def test_update_bootstraps_from_the_recorded_next_action(spec):
    """Rows whose episode was cut take an action of beta there, and those that terminated none."""
    agent, data = make(spec, critics=2), random_recorded(spec, 12)
    data = data._replace(discount=torch.ones(12).index_fill(0, torch.tensor([3]), 0), next_known=torch.ones(12))
    data.next_known[[3, 7, 11]] = 0  # terminated at 3, cut at 7 and 11
    if spec.discrete:
        data = data._replace(next_action=torch.randint(2, (12,)))
    old = deepcopy(agent)
    torch.manual_seed(1)
    loss = agent.update(data)["critic/loss"]
    torch.manual_seed(1)
    with torch.no_grad():
        drawn = old.behaviour(data.next_obs).sample()
        following = drawn.clone()
        following[data.next_known > 0] = data.next_action[data.next_known > 0]
        all_q = lambda critics, obs, a: critics(obs)[:, range(12), a] if spec.discrete else critics(obs, a)  # noqa: E731
        y = data.reward + 0.9 * data.discount * all_q(old.target_critics, data.next_obs, following).amin(0)
        q = all_q(old.critics, data.obs, data.action)
    assert loss.item() == pytest.approx(float(0.5 * (q - y).square().mean(1).sum()))


@SPECS
def test_behaviour_and_its_values_do_not_depend_on_the_improvement(spec):
    learned = []
    for improvement in IMPROVEMENTS:
        agent = make(spec, improvement=improvement, reward_shift=10.0 if improvement == "log_q" else 0.0)
        reference = make(spec)
        agent.behaviour.load_state_dict(reference.behaviour.state_dict())
        agent.critics.load_state_dict(reference.critics.state_dict())
        agent.target_critics.load_state_dict(reference.critics.state_dict())
        shifted = agent.cfg.reward_shift
        for seed in range(3):
            data = random_recorded(spec, 32, seed)
            data = data._replace(reward=data.reward - shifted, discount=torch.where(data.next_known > 0, data.discount, 0))
            agent.update(data)
        learned.append([*agent.behaviour.parameters(), *agent.critics.parameters()])
    for other in learned[1:]:
        for a, b in zip(learned[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_exp_weighs_by_advantage_over_the_mean_of_beta():
    agent, batch = make(DISCRETE, improvement="exp", temperature=0.1, weight_clip=1.05), random_recorded(DISCRETE, 32)
    old = deepcopy(agent)
    metrics = agent.update(batch)
    with torch.no_grad():
        q, beta = old.critics(batch.obs)[0], old.behaviour(batch.obs).log_probs().exp()
        weight = ((q[range(32), batch.action] - (beta * q).sum(1)) / 0.1).exp().clamp(max=1.05)
        loss = -(weight * old.policy(batch.obs).log_prob(batch.action)).mean()
    assert (weight == 1.05).any()
    torch.testing.assert_close(metrics["actor/weight"], weight.mean())
    torch.testing.assert_close(metrics["actor/loss"], loss)


def test_best_of_by_hand():
    obs = torch.zeros(2, 1)
    noise = torch.tensor([[0.0], [3.0], [-1.0]])
    agent = make(EnvSpec(1, 1, CPU), improvement="bcq")
    with torch.no_grad():
        for p in agent.behaviour.parameters():
            p.zero_()
        agent.behaviour.log_std.fill_(np.log(0.5))  # candidates 0, 1 (clipped) and -0.5
    critics = lambda obs, action: torch.stack((-(action[:, 0] - 0.8).abs(), -(action[:, 0] + 0.2).abs()))  # noqa: E731
    assert best_of(obs, agent.behaviour, critics, noise).tolist() == [[0.0], [0.0]]  # minima -0.8, -1.2, -1.3
    policy = lambda obs: Categorical(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]))  # noqa: E731
    values = lambda obs: torch.tensor([[[9.0, 1.0, 2.0], [9.0, 1.0, 2.0]]])  # noqa: E731
    noise = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.5]])  # candidates 1, 2 and 2, 2: the best action, 0, is none of them
    assert best_of(obs, policy, values, noise).tolist() == [2, 2]


@SPECS
def test_bcq_chooses_among_always_the_same_candidates_unless_exploring(spec):
    agent, obs = make(spec, improvement="bcq", samples=3), random_batch(spec, 64).obs
    assert not hasattr(agent, "policy")
    assert torch.equal(agent.act(obs, explore=False), best_of(obs, agent.behaviour, agent.critics, agent.candidates.noise))
    assert not torch.equal(agent.act(obs), agent.act(obs))
    assert "candidates.noise" in agent.state_dict()
    near = make(spec, improvement="bcq", samples=500)
    q = lambda a: near.critics(obs)[0].gather(1, a[:, None])[:, 0] if spec.discrete else near.critics(obs, a)[0]  # noqa: E731
    assert (q(near.act(obs, explore=False)) >= q(near.behaviour(obs).mode()) - 1e-3).float().mean() > 0.95


def test_greedy_of_discrete_actions_is_the_best_by_the_critics():
    agent, obs = make(DISCRETE, improvement="greedy", critics=2), random_batch(DISCRETE, 64).obs
    for explore in (True, False):
        assert torch.equal(agent.act(obs, explore=explore), agent.critics.mode(obs))


# ---------------------------------------------------------------------------------------------------------------- exact answers
def table_problem() -> tuple[MDP, np.ndarray, Recorded]:
    """Five states, the last terminal, deterministic successors; rows in proportion to the behaviour policy, with every next action."""
    S, A, rng = 5, 3, np.random.default_rng(3)
    after, R = rng.integers(S, size=(S, A)), rng.uniform(0.1, 1, size=(S, A))
    after[-1], R[-1] = S - 1, 0.0
    counts = np.array([[1, 2, 3], [4, 1, 1], [2, 2, 2], [0, 5, 1], [2, 2, 2]])
    rows = [  # (s, a, s', a'), each as often as its probability says
        (s, a, after[s, a], b)
        for s in range(S - 1)
        for a in range(A)
        for _ in range(counts[s, a])
        for b in range(A)
        for _ in range(counts[after[s, a], b])
    ]
    state, action, successor, following = map(torch.tensor, zip(*rows, strict=True))
    one_hot, reward = torch.eye(S), torch.from_numpy(R).float()[state, action]
    discount = (successor != S - 1).float()
    data = recorded(one_hot[state], action, reward, one_hot[successor], discount, [len(rows)])
    return (
        MDP(np.eye(S)[after], R, np.eye(S)[0], 0.7, np.arange(S) == S - 1),
        counts / 6,
        data._replace(next_action=following, next_known=discount),
    )


@pytest.mark.parametrize("improvement", ["log_q", "reverse_kl", "exp"])
def test_one_step_on_one_hot_states_comes_to_the_exact_improvement(improvement):
    mdp, beta, data = table_problem()
    q = exact_q(mdp, beta)
    if improvement == "log_q":
        expected = np.vstack((improve(beta[:-1], q[:-1]), beta[-1:]))
    else:
        expected = improve_exponentially(beta, q, 0.5)
    agent = make(
        EnvSpec(5, 3, CPU, True), 0.7, improvement=improvement, temperature=1.0 if improvement == "log_q" else 0.5, lr=1e-2, tau=0.1
    )
    agent.prepare(data)
    for _ in range(800):
        agent.update(data)
    with torch.no_grad():
        learned = agent.policy(torch.eye(5)).log_probs().exp().numpy()
        cloned = agent.behaviour(torch.eye(5)).log_probs().exp().numpy()
        values = agent.critics(torch.eye(5))[0].numpy()
    inside = beta[:-1] > 0
    assert np.abs(values - q)[:-1][inside].max() < 0.02
    assert np.abs(cloned - beta)[:-1].max() < 0.02
    assert np.abs(learned - expected)[:-1].max() < 0.02
    assert np.abs(learned - beta)[:-1].max() > 0.05  # an improvement


def test_reverse_kl_of_normal_policies_on_a_linear_bandit_moves_the_mean_by_the_variance():
    """b = N(m, s^2) and A = c a give b exp(A / temperature) / Z = N(m + c s^2 / temperature, s^2)."""
    quantile = (torch.arange(512)[:, None] + 0.5) / 512
    obs, action = torch.zeros(512, 1), torch.distributions.Normal(-0.2, 0.2).icdf(quantile)
    data = recorded(obs, action.clamp(-1, 1), 2 * action[:, 0], obs, torch.zeros(512), [1] * 512)
    agent = make(EnvSpec(1, 1, CPU), temperature=0.4, lr=5e-3, tau=0.1, hidden=(32,))
    agent.prepare(data)
    for _ in range(800):
        agent.update(data)
    with torch.no_grad():
        policy, beta = agent.policy(obs[:1]), agent.behaviour(obs[:1])
    spread = float(action.std())
    assert float(beta.mean) == pytest.approx(float(action.mean()), abs=0.02)
    assert float(policy.mean) == pytest.approx(float(action.mean()) + 2 * spread**2 / 0.4, abs=0.04)
    assert float(policy.log_std.exp()) == pytest.approx(spread, abs=0.03)


@pytest.mark.parametrize("improvement", ["reverse_kl", "exp", "bcq", "greedy"])
def test_update_on_a_bandit_improves_on_cloning(improvement):
    torch.manual_seed(0)
    options = {} if improvement in ("bcq", "greedy") else {"temperature": 0.1}
    agent = OneStep(SPEC, OneStepConfig(hidden=(32,), lr=1e-2, improvement=improvement, **options))
    clone = BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.75 * learn_bandit(clone, 300)


# --------------------------------------------------------------------------------------------------------------- options, contract
def test_log_q_names_the_smallest_reward_that_is_not_positive():
    agent, data = make(improvement="log_q"), random_recorded(WIDE, 16)
    smallest = f"{float(data.reward.min()):g}"
    with pytest.raises(
        UserError, match=f"agent.improvement=log_q needs rewards > 0, but the smallest is {smallest} and agent.reward_shift=0; "
    ):
        agent.prepare(data)
    assert least_reward(torch.tensor([-1.0, 3.0]), 1.5, "x") == 0.5
    shifted = make(improvement="log_q", reward_shift=5.0)
    shifted.prepare(data)
    assert float(shifted.least) == pytest.approx(5 + float(data.reward.min()))


@pytest.mark.parametrize("improvement", IMPROVEMENTS)
def test_one_step_keeps_the_contract(improvement):
    options = {"reward_shift": 50.0} if improvement == "log_q" else {}
    check_agent(lambda spec: OneStep(spec, OneStepConfig(hidden=(16,), critics=2, improvement=improvement, **options)))


@SPECS
@pytest.mark.parametrize("improvement", IMPROVEMENTS)
def test_exported_copy_acts_as_the_agent(improvement, spec):
    agent = make(spec, improvement=improvement, hidden=(24,))
    with torch.no_grad():
        for p in agent.parameters():
            p.mul_(2).add_(0.1 * torch.randn_like(p))
    copy, obs = plain(greedy_module(agent)), 10 * random_batch(spec, 257).obs
    expected, action = agent.act(obs, explore=False), copy(obs)
    assert action.dtype == expected.dtype
    assert (action == expected).all() if spec.discrete else (action - expected).abs().max() < 1e-5


def test_several_discrete_actions_are_refused():
    with pytest.raises(UserError, match="one_step takes one discrete action at a time"):
        OneStep(EnvSpec(3, 5, CPU, True, (3, 2)), OneStepConfig())
