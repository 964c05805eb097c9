"""RAMBO's adversary: densities against torch.distributions, gradients against sums and finite differences, and values that it lowers."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from systems import CPU, SMALL, SPEC, linear_gaussian, small_ensemble
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.loss import loss
from mbkit.dynamics.training import rows
from mbkit.errors import UserError
from mbkit.imagination.adversary import Adversary, adversarial_loss, mixture_log_prob
from mbkit.testing import random_recorded
from mbkit.types import EnvSpec, Stateful, TaskKnowledge, Transition

GAMMA = 0.9


class Rows:
    """A source of rows drawn from a batch, which counts what is asked for."""

    def __init__(self, data: Transition) -> None:
        self.data, self.asked = data, list[int]()

    def sample(self, n: int) -> Transition:
        self.asked.append(n)
        index = torch.randint(len(self.data.reward), (n,))
        return type(self.data)(*(None if x is None else x[index] for x in self.data))


def same_weights(one: Ensemble, other: Ensemble) -> bool:
    return all(map(torch.equal, one.network.state_dict().values(), other.network.state_dict().values()))


# ------------------------------------------------------------------------------------------------------------------------- losses
def test_mixture_log_prob_is_the_log_of_the_mean_density_and_does_not_underflow():
    torch.manual_seed(0)
    log_prob = 3 * torch.randn(5, 8)
    torch.testing.assert_close(mixture_log_prob(log_prob).double(), log_prob.double().exp().mean(0).log())
    tiny = torch.tensor([[-800.0], [-790.0]])
    assert tiny.double().exp().sum() == 0  # by exponentials it would be log 0
    assert mixture_log_prob(tiny).item() == pytest.approx(-790 + math.log1p(math.exp(-10)) - math.log(2))


@pytest.mark.parametrize("standard", [True, False])
def test_adversarial_loss_has_the_gradient_of_a_sum_over_rows(standard):
    torch.manual_seed(0)
    theta, phi, a = torch.randn(3, requires_grad=True), torch.randn(64, 3), 5 * torch.randn(64) + 2
    a = (a - a.mean()) / a.std(correction=0) if standard else a
    (slope,) = torch.autograd.grad(adversarial_loss(phi @ theta, a), theta)
    standardised = (a - a.mean()) / a.std(correction=0)
    brute = sum((standardised[i] * phi[i] for i in range(64)), torch.zeros(3)) / 64
    torch.testing.assert_close(slope, brute, atol=1e-6, rtol=1e-5)
    assert slope.norm() > 0.01
    (matrix,) = torch.autograd.grad(((phi @ theta)[:, None] * standardised[None]).sum(), theta)  # [B, B], as a product of [B] and [B, 1]
    assert matrix.norm() < 1e-3


def test_adversarial_loss_of_equal_advantages_is_0_and_the_advantage_is_a_constant():
    log_p, a = torch.randn(4, requires_grad=True), torch.ones(4, requires_grad=True)
    value = adversarial_loss(log_p, a)
    assert value.item() == 0
    assert torch.autograd.grad(value, a, allow_unused=True) == (None,)


# ------------------------------------------------------------------------------------------------------------------------ density
@pytest.mark.parametrize("known", [{}, {"reward": lambda obs, action, next_obs: next_obs.sum(-1)}], ids=["learned reward", "known reward"])
def test_density_of_outcomes_is_torchs(known):
    model, data = small_ensemble(**known), linear_gaussian(11)
    step, log_prob = model.scored_step(data.obs, data.action)
    assert log_prob.shape == (SMALL.elites, 11)
    mean, var = (x[model.network.elites].detach() for x in model.predict(data.obs, data.action))
    outcome = step.obs if known else torch.cat((step.obs, step.reward[:, None]), 1)
    torch.testing.assert_close(log_prob, Independent(Normal(mean, var.sqrt()), 1).log_prob(outcome))
    each = Independent(Normal(mean.transpose(0, 1), var.sqrt().transpose(0, 1)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(11, SMALL.elites)), each)
    torch.testing.assert_close(mixture_log_prob(log_prob), mixture.log_prob(outcome))
    assert not step.obs.requires_grad
    assert not step.reward.requires_grad
    if known:
        assert torch.equal(step.reward, step.obs.sum(-1))


def test_outcomes_are_drawn_from_the_elites_mixture():
    model, many = small_ensemble(), 20_000
    obs, action = torch.zeros(many, 3), torch.full((many, 2), 0.5)
    torch.manual_seed(1)
    step, _ = model.scored_step(obs, action)
    mean, var = (x[model.network.elites, 0].detach() for x in model.predict(obs[:1], action[:1]))
    outcome = torch.cat((step.obs, step.reward[:, None]), 1)
    std = (mean.var(0, correction=0) + var.mean(0)).sqrt()
    torch.testing.assert_close(outcome.mean(0), mean.mean(0), atol=5 * float(std.max()) / many**0.5, rtol=0)
    torch.testing.assert_close(outcome.std(0), std, rtol=0.03, atol=0)


def test_gradient_of_the_density_is_that_of_finite_differences():
    """Of the outcome that was drawn: it is a constant, though it depends on the parameters."""
    torch.set_default_dtype(torch.float64)
    try:
        model, obs, action = small_ensemble(replace(SMALL, hidden=(8,)), fit=False), torch.randn(6, 3), torch.rand(6, 2)
        step, log_prob = model.scored_step(obs, action)
        params = list(model.network.parameters())
        grads = torch.autograd.grad(mixture_log_prob(log_prob).sum(), params)
        direction = [torch.randn_like(p) for p in params]

        def shifted(by: float) -> float:
            moved = deepcopy(model.network)
            with torch.no_grad():
                for p, d in zip(moved.parameters(), direction, strict=True):
                    p.add_(by * d)
                each = moved.log_prob(obs, action, step.obs, step.reward)[moved.elites]
            return float(mixture_log_prob(each).sum())

        slope = sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True))
        assert (shifted(1e-5) - shifted(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-6)
        assert abs(slope) > 0.1
    finally:
        torch.set_default_dtype(torch.float32)


def test_known_and_learned_terminations_of_outcomes():
    data = linear_gaussian(200)
    known = small_ensemble(termination=lambda obs, action, next_obs: next_obs[:, 0] > 0)
    step, _ = known.scored_step(data.obs, data.action)
    assert torch.equal(step.terminated, step.obs[:, 0] > 0)
    learned = small_ensemble(replace(SMALL, termination="learned"))
    with torch.no_grad():
        learned.network.net.bias[-1][..., -1] = 40.0
    assert bool(learned.scored_step(data.obs, data.action)[0].terminated.all())
    assert not bool(small_ensemble().scored_step(data.obs, data.action)[0].terminated.any())


def test_deterministic_members_have_no_density():
    model = small_ensemble(replace(SMALL, probabilistic=False), fit=False)
    with pytest.raises(UserError, match=r"a density of outcomes needs .*; came: dynamics\.probabilistic=false"):
        model.scored_step(torch.zeros(2, 3), torch.zeros(2, 2))


# -------------------------------------------------------------------------------------------------------------- loss of a fit
@pytest.mark.parametrize("termination", ["never", "learned"])
def test_training_loss_is_that_of_a_fit(termination):
    """Every member sees rows of its own, normalised by the statistics of the last fit; rows of no true successor are left out."""
    model, b = small_ensemble(replace(SMALL, termination=termination)), 5
    data, net = linear_gaussian(SMALL.members * b), model.network
    raw = rows(net, data)
    by_member = raw._replace(x=net.inputs(raw.x).view(-1, b, 5), y=net.targets(raw.y).view(-1, b, 4), ended=raw.ended.view(-1, b))
    torch.testing.assert_close(model.training_loss(data), loss(net, by_member))
    known = torch.arange(SMALL.members * b) % b != 2  # the third row of each member
    without = model.training_loss(Transition(*(x[known] for x in data[:5])))
    poisoned = data._replace(next_obs=torch.where(known[:, None], data.next_obs, 1e3))
    masked = model.training_loss(poisoned, known)
    if termination == "never":
        torch.testing.assert_close(masked, without)
    else:  # as labels of terminations they count
        relabelled = poisoned._replace(discount=torch.where(known, data.discount, 1 - data.discount))
        assert masked != model.training_loss(relabelled, known)


# ------------------------------------------------------------------------------------------------------------------ the adversary
def adversary(weight: float = 0.5, **options) -> tuple[Adversary, SAC]:
    torch.manual_seed(0)
    agent = SAC(SPEC, SACConfig(hidden=(8,)), GAMMA)
    return Adversary(small_ensemble(), weight, 1e-3, 2, **options), agent


def test_training_changes_a_copy_and_leaves_the_model_as_it_is():
    it, agent = adversary()
    before, source = deepcopy(it.original), Rows(linear_gaussian(100))
    assert same_weights(it.model, it.original)
    metrics = it.train(agent, source, 3, 16, GAMMA)
    assert metrics.keys() == {"adversary/loss", "adversary/fit_loss"}
    assert not any(value.requires_grad for value in metrics.values())
    assert same_weights(it.original, before)
    assert not same_weights(it.model, before)
    assert source.asked == [16, 64, 64, 16, 64]  # states every other step, and 16 rows of each of 4 members at every one
    obs, actions = torch.randn(6, 3), torch.zeros(6, 2, 2)
    fresh = deepcopy(it.model)
    fresh.refresh()
    for torch_seed in (1, 2):
        outs = []
        for dynamics in (it, fresh):  # it rolls out the trained weights
            torch.manual_seed(torch_seed)
            outs.append(dynamics.rollout(dynamics.init(obs), actions))
        assert all(map(torch.equal, *outs))


def test_weight_0_is_likelihood_alone():
    (it, agent), source = adversary(0.0), Rows(linear_gaussian(100))
    torch.manual_seed(4)
    before = deepcopy(it)
    it.train(agent, source, 1, 16, GAMMA)
    torch.manual_seed(4)
    source.sample(16)
    before.adversarial(agent, torch.zeros(16, 3), GAMMA)  # draws as many numbers
    before.optimizer.descend(torch.autograd.grad(before.fit(source, 16), before.params))
    before.model.refresh()
    assert same_weights(it.model, before.model)


def test_saved_and_restarted():
    it, agent = adversary()
    it.train(agent, Rows(linear_gaussian(100)), 2, 16, GAMMA)
    other, _ = adversary()
    assert isinstance(it, Stateful)
    other.load_state_dict(deepcopy(it.state_dict()))
    for x in (it, other):
        torch.manual_seed(5)
        x.train(agent, Rows(linear_gaussian(100)), 2, 16, GAMMA)
    assert same_weights(it.model, other.model)
    it.original.fit(linear_gaussian(100))
    it.restart()
    assert same_weights(it.model, it.original)
    torch.manual_seed(6)
    step = it.step(it.init(torch.zeros(6, 3)), torch.zeros(6, 2))
    torch.manual_seed(6)
    assert torch.equal(step.obs, it.original.step(torch.zeros(6, 3), torch.zeros(6, 2)).obs)


def test_rows_without_a_true_successor_do_not_teach_the_adversary_states():
    data = random_recorded(SPEC, 100)
    known = torch.arange(100) % 3 != 0
    poisoned = data._replace(next_obs=torch.where(known[:, None], data.next_obs, 1e4))
    trained = []
    for rows_, mask in ((data, known), (poisoned, known), (poisoned, None)):
        it, agent = adversary(known=mask)
        torch.manual_seed(2)
        it.train(agent, Rows(rows_), 2, 16, GAMMA)
        trained.append(it.model)
    assert same_weights(trained[0], trained[1])
    assert not same_weights(trained[1], trained[2])


def test_a_rollout_goes_on_but_where_it_ended():
    """States are drawn anew every `horizon` = 3 steps; in between rows go on, and those that terminated try their last state again."""
    visited: list[Tensor] = []

    class Watched:
        def sample(self, obs):
            visited.append(obs)
            return torch.zeros(len(obs), 2)

        def backup_action(self, obs):
            return torch.zeros(len(obs), 2), torch.zeros(len(obs))

        def backup_q(self, obs, action):
            return obs[None, :, 0]

    model = small_ensemble(termination=lambda obs, action, next_obs: obs[:, 1] > 0)
    it, data = Adversary(model, 0.1, 1e-3, 3), linear_gaussian(50)
    it.train(Watched(), Rows(data), 4, 32, GAMMA)
    for before, after in pairwise(visited[:3]):
        ended = before[:, 1] > 0
        assert torch.equal(after[ended], before[ended])
        assert not bool((after[~ended] == before[~ended]).all(1).any())
    recorded = [bool((obs[:, None] == data.obs).all(-1).any(1).all()) for obs in visited]
    assert recorded == [True, False, False, True]


LINE = EnvSpec(1, 1, CPU)


class Higher:
    """The value of a state is where it lies; actions do nothing."""

    def sample(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 1)

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(obs), 1), torch.zeros(len(obs))

    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        return obs[None, :, 0]


def test_the_adversary_lowers_the_value_of_its_outcomes():
    """A random walk on a line whose value rises with it: with a large lambda the model walks to the left, with lambda 0 it does not."""
    torch.manual_seed(0)
    obs = torch.randn(400, 1)
    data = Transition(obs, torch.rand(400, 1) * 2 - 1, torch.zeros(400), obs + 0.3 * torch.randn(400, 1), torch.ones(400))
    reward = lambda obs, action, next_obs: torch.zeros(len(obs))  # noqa: E731
    cfg = EnsembleConfig(members=3, elites=2, hidden=(16,), max_epochs=4, batch=64)
    model = Ensemble(LINE, cfg, TaskKnowledge(reward=reward))
    model.fit(data)
    moved = {}
    for weight in (0.0, 10.0):
        it = Adversary(model, weight, 3e-3, 2)
        torch.manual_seed(1)
        it.train(Higher(), Rows(data), 120, 64, GAMMA)
        mean = it.model.predict_elites(obs, torch.zeros(400, 1)).mean
        moved[weight] = float((mean[..., 0] - obs[:, 0]).mean())
    assert abs(moved[0.0]) < 0.1
    assert moved[10.0] < moved[0.0] - 0.1
