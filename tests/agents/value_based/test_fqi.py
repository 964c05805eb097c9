"""Fitted Q-iteration: on a table it is value iteration on the data, with one step it is DQN; initial weights of an iteration."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import WIDE

from mbkit.agents.value_based.dqn import DQN, DQNConfig
from mbkit.agents.value_based.fqi import FQI, FQIConfig, minibatches, restart_
from mbkit.agents.value_based.regression import taken_slope
from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes, garnet
from mbkit.tabular.mdp import MDP
from mbkit.tabular.offline import counts, empirical_mdp, fitted_q_iteration
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.sampling import sample_rows
from mbkit.targets import one_step
from mbkit.testing import random_batch
from mbkit.types import EnvSpec, Targets, Transition

DISCRETE = WIDE._replace(discrete=True, action_dim=4)
CFG = FQIConfig(hidden=(16, 16), gradient_steps=5, minibatch=8)
S, A, GAMMA = 6, 2, 0.6


def make(spec=DISCRETE, gamma=0.9, target=one_step, seed=0, **options) -> FQI:
    torch.manual_seed(seed)
    return FQI(spec, replace(CFG, **options), gamma, target)


def table(**options) -> FQI:
    """One weight for each state and action, float64, from 0; full batches, so that nothing is drawn."""
    options = {"hidden": (), "minibatch": 0, "max_grad_norm": 1e9, **options}
    agent = make(EnvSpec(S, A, torch.device("cpu"), discrete=True), GAMMA, **options).double()
    for p in [*agent.q.parameters(), *agent.target_q.parameters()]:
        p.data.zero_()
    return agent


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    """120 rows of a random MDP whose last state is terminal; every pair of the others is among them, most with several successors."""
    base = garnet(S, A, 3, seed=2)
    P, R = base.P.copy(), base.R.copy()
    P[S - 1], R[S - 1] = np.eye(S)[S - 1], 0.0
    rows = sample_rows(MDP(P, R, base.mu0, GAMMA, np.arange(S) == S - 1), np.random.default_rng(0), 120)
    assert (counts(rows, S, A)[: S - 1] > 0).all()
    assert (rows.discount == 0).any()
    return rows


def transitions(rows: Episodes) -> Transition:
    """The same rows with one-hot observations, float64."""
    eye = torch.eye(S, dtype=torch.float64)
    state, action, following = (torch.from_numpy(x) for x in (rows.state, rows.action, rows.next_state))
    return Transition(eye[state], action, torch.from_numpy(rows.reward), eye[following], torch.from_numpy(rows.discount))


def values(agent: FQI) -> np.ndarray:
    """Q of the states that have data, [S - 1, A]."""
    return agent.q(torch.eye(S, dtype=torch.float64))[0, : S - 1].detach().numpy()


# -------------------------------------------------------------------------------------------------------------------- on a table
def test_targets_tabular_iterate_is_stationary(episodes):
    """The mean target of each pair is where the squared error to frozen targets has no slope, iteration by iteration."""
    agent, batch = table(), transitions(episodes)
    for k in range(1, 10):
        q = torch.from_numpy(fitted_q_iteration(episodes, S, A, GAMMA, k))
        agent.q.net.weight[0].data[0] = q
        out = agent.q(batch.obs)
        slope = torch.autograd.grad(out, list(agent.q.parameters()), taken_slope(out, agent.targets(batch), "mse")[0])
        assert max(g.abs().max().item() for g in slope) < 1e-12
        agent.target_q.net.weight[0].data[0] = q


def test_update_many_gradient_steps_are_value_iteration_on_the_data(episodes):
    agent, batch = table(gradient_steps=300, lr=0.03), transitions(episodes)
    for k in range(1, 5):
        agent.update(batch)
        exact = fitted_q_iteration(episodes, S, A, GAMMA, k)[: S - 1]
        assert np.abs(values(agent) - exact).max() < 1e-4
    for _ in range(6):
        agent.update(batch)
    optimal = policy_iteration(empirical_mdp(episodes, S, A, GAMMA, np.full(S, 1 / S))).q[: S - 1]
    assert np.abs(values(agent) - optimal).max() < GAMMA**10 / (1 - GAMMA)


def test_initial_weights_random_reaches_value_iteration_too(episodes):
    agent, batch = table(gradient_steps=600, lr=0.03, initial_weights="random"), transitions(episodes)
    for k in range(1, 4):
        agent.update(batch)
        assert np.abs(values(agent) - fitted_q_iteration(episodes, S, A, GAMMA, k)[: S - 1]).max() < 1e-3


def test_loss_huber_has_another_minimum():
    """Rewards 0, 0, 10 of one pair: the mean is 10/3; Huber's slopes 2 m and -1 are in balance at 1/2."""
    batch = Transition(
        torch.eye(S, dtype=torch.float64)[[0, 0, 0]],
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([0.0, 0.0, 10.0], dtype=torch.float64),
        torch.eye(S, dtype=torch.float64)[[1, 1, 1]],
        torch.zeros(3, dtype=torch.float64),
    )
    minima = {}
    for loss in ("mse", "huber"):
        agent = table(gradient_steps=600, lr=0.03, loss=loss)
        agent.update(batch)
        minima[loss] = agent.q(batch.obs)[0, 0, 0].item()
    assert minima == pytest.approx({"mse": 10 / 3, "huber": 0.5}, abs=1e-3)


# -------------------------------------------------------------------------------------------------------------- against DQN, by hand
def test_update_one_step_of_all_rows_is_dqn_with_target_every_1():
    fitted = make(gradient_steps=1, minibatch=0)
    torch.manual_seed(0)
    dqn = DQN(DISCRETE, DQNConfig(hidden=(16, 16), target_every=1, loss="mse"), 0.9)
    for seed in range(5):
        batch = random_batch(DISCRETE, 32, seed)
        assert fitted.update(batch)["critic/loss"] == dqn.update(batch)["critic/loss"]
        assert all(map(torch.equal, fitted.q.parameters(), dqn.q.parameters()))


def test_update_keeps_targets_frozen_through_an_iteration():
    """The same steps by torch's own Adam and autograd, on targets computed once; the next iteration's come from the result."""
    agent, batch = make(gradient_steps=20, minibatch=0, max_grad_norm=1e9), random_batch(DISCRETE, 32)
    torch.manual_seed(0)
    twin = FQI(DISCRETE, CFG).q
    adam = torch.optim.Adam(twin.parameters(), 1e-3)
    for _ in range(2):
        with torch.no_grad():
            y = batch.reward + 0.9 * batch.discount * twin(batch.next_obs)[0].amax(-1)
        for _ in range(20):
            loss = 0.5 * (twin(batch.obs)[0].gather(1, batch.action[:, None])[:, 0] - y).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        metrics = agent.update(batch)
        assert metrics["critic/loss"].item() == pytest.approx(loss.item(), rel=1e-4)
        assert metrics["critic/first_loss"] > metrics["critic/loss"]
        for ours, theirs in zip(agent.q.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert all(map(torch.equal, agent.q.parameters(), agent.target_q.parameters()))


def test_target_function_is_called_once_for_each_iteration():
    calls = []

    def strange(agent, batch, gamma):
        calls.append((gamma, len(batch.reward)))
        return one_step(agent, batch, gamma)

    agent, batch = make(target=strange), random_batch(DISCRETE, 32)
    torch.testing.assert_close(agent.targets(batch).target, make().targets(batch).target)
    agent.update(batch)
    assert calls == [(0.9, 32)] * 2


# ----------------------------------------------------------------------------------------------------------------------- iterations
def test_initial_weights_random_forgets_network_and_optimizer():
    """Where no target bootstraps, earlier updates have no influence."""
    random, other = make(initial_weights="random"), make(initial_weights="random", seed=1)
    other.update(random_batch(DISCRETE, 16, 7))
    random.update(random_batch(DISCRETE, 16, 8))
    batch = random_batch(DISCRETE, 32)._replace(discount=torch.zeros(32))
    for agent in (random, other):
        torch.manual_seed(5)
        agent.update(batch)
    assert all(map(torch.equal, random.q.parameters(), other.q.parameters()))
    previous = make()
    previous.update(random_batch(DISCRETE, 16, 8))
    torch.manual_seed(5)
    previous.update(batch)
    assert not any(map(torch.equal, random.q.parameters(), previous.q.parameters()))


def test_restart_draws_as_a_new_network_does():
    agent = make(hidden=(400, 30))
    agent.update(random_batch(DISCRETE, 16))
    addresses = [p.data_ptr() for p in agent.q.parameters()]
    restart_(agent.q, agent.optimizers["q"])
    assert addresses == [p.data_ptr() for p in agent.q.parameters()]
    new = make(hidden=(400, 30), seed=3).q
    for p, q in zip(agent.q.parameters(), new.parameters(), strict=True):
        ours, theirs = p.abs().max().item(), q.abs().max().item()
        assert ours == pytest.approx(theirs, rel=0.6 if p.numel() < 100 else 0.05)
        assert abs(p.mean().item()) < 4 * theirs / (3 * p.numel()) ** 0.5
    assert all(not slot.any() for slots in agent.optimizers["q"].state.values() for slot in slots.values())


def test_minibatches_draw_rows_with_replacement():
    y = Targets(torch.arange(20.0)[:, None], torch.arange(20) % 4, torch.arange(20.0), torch.ones(20))
    assert all(each is y for each in minibatches(y, 3, 0))
    drawn = minibatches(y, 50, 8)
    assert len(drawn) == 50
    targets = torch.cat([each.target for each in drawn])
    assert set(targets.tolist()) == set(range(20))
    for each in drawn:
        assert each.obs.shape == (8, 1)
        assert torch.equal(each.obs[:, 0], each.target)
        assert torch.equal(each.action, each.target.long() % 4)


def test_fqi_continuous_actions_are_refused():
    with pytest.raises(UserError, match="fqi needs discrete actions, but the environment has continuous ones, of 2 dimensions"):
        FQI(WIDE, CFG)
