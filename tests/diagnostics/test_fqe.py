"""Fitted Q evaluation: exact on a finite MDP, each member by itself, and no number copied to the host."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tabular_problems import episodic
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from mbkit.diagnostics.fqe import FittedQ, FQEConfig, actions_of, regression
from mbkit.errors import UserError
from mbkit.tabular.operators import q_of
from mbkit.types import EnvSpec, Transition

SYNC = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
CONTINUOUS = EnvSpec(3, 2, torch.device("cpu"))


def in_adam(event: FunctionEvent | None) -> bool:
    """Whether an operator was called by fused Adam, which reads its step count on a CPU, and only there."""
    return event is not None and (event.name == "aten::_fused_adam_" or in_adam(event.cpu_parent))


def random_rows(rows: int = 300, seed: int = 0) -> Transition:
    draw = torch.Generator().manual_seed(seed)
    obs, next_obs = (torch.randn(rows, 3, generator=draw) for _ in range(2))
    action, reward = torch.rand(rows, 2, generator=draw) * 2 - 1, torch.randn(rows, generator=draw)
    return Transition(obs, action, reward, next_obs, (torch.rand(rows, generator=draw) > 0.1).float())


def policy(obs: Tensor) -> Tensor:
    return torch.tanh(obs[:, :2] + obs[:, 1:])


@pytest.mark.parametrize("seed", range(3))
def test_exact_on_a_tabular_mdp(seed: int) -> None:
    """Every (s, a, s') as often as its probability says, one-hot observations, linear critics: the fixed point is Q of the policy."""
    mdp = episodic(seed, S=5, A=3)
    times, states = 20, np.eye(mdp.S)
    counts = np.floor(times * mdp.P).astype(int)
    counts[..., -1] += times - counts.sum(-1)  # transition probabilities that these rows hold exactly
    held = replace(mdp, P=counts / times)
    s, a, s2 = (index.repeat(counts.reshape(-1)) for index in np.indices(counts.shape).reshape(3, -1))
    rows = s != mdp.S - 1  # no action is taken in the terminal state
    s, a, s2 = s[rows], a[rows], s2[rows]
    columns = (states[s], a, held.R[s, a], states[s2], s2 != mdp.S - 1)
    obs, action, reward, next_obs, discount = (torch.tensor(np.asarray(column)) for column in columns)
    data = Transition(obs.float(), action, reward.float(), next_obs.float(), discount.float())
    choice = torch.tensor(np.random.default_rng(seed).integers(mdp.A, size=mdp.S))
    spec = EnvSpec(mdp.S, mdp.A, torch.device("cpu"), True)
    torch.manual_seed(seed)
    cfg = FQEConfig(hidden=(), members=3, lr=0.05, tau=0.2, batch_size=10_000, updates=1000)
    fitted = FittedQ(data, lambda o: choice[o.argmax(-1)], spec, mdp.gamma, cfg)
    fitted.fit()
    exact = torch.tensor(q_of(held, np.eye(mdp.A)[choice])).float()[:-1]
    everywhere = torch.eye(mdp.S)[:-1]
    for member in range(3):
        for action_number in range(mdp.A):
            q = fitted.q(everywhere, torch.full((mdp.S - 1,), action_number))[member]
            torch.testing.assert_close(q, exact[:, action_number], atol=1e-3, rtol=0)
    torch.testing.assert_close(fitted.value(everywhere).mean(0), exact.gather(1, choice[:-1, None])[:, 0], atol=1e-3, rtol=0)


def test_every_member_has_its_own_target_and_the_policy_sees_raw_observations() -> None:
    data = random_rows()
    torch.manual_seed(0)
    fitted = FittedQ(data, policy, CONTINUOUS, 0.9, FQEConfig(hidden=(8,), members=3, batch_size=1000))
    torch.testing.assert_close(fitted.next_action, policy(data.next_obs))
    with torch.no_grad():
        for p in fitted.targets.parameters():
            p.copy_(torch.randn_like(p))
        target = fitted.offset + fitted.scale * fitted.targets(data.next_obs, policy(data.next_obs))
        y = (data.reward + 0.9 * data.discount * target - fitted.offset) / fitted.scale
        expected = 0.5 * (fitted.critics(data.obs, data.action) - y).square().mean(1).sum()
    torch.testing.assert_close(fitted.update(), expected)


def test_a_member_learns_nothing_from_another() -> None:
    def q(changed: bool) -> Tensor:
        torch.manual_seed(0)
        fitted = FittedQ(random_rows(), policy, CONTINUOUS, 0.9, FQEConfig(hidden=(8,), members=2, updates=20))
        if changed:
            with torch.no_grad():
                for p in [*fitted.critics.parameters(), *fitted.targets.parameters()]:
                    p[1] += 1
        fitted.fit()
        return fitted.value(torch.ones(4, 3))

    one, other = q(False), q(True)
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


def test_the_loss_by_hand() -> None:
    q, y = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    assert regression(q, y).item() == 0.5 * (1 / 2 + (1 + 9) / 2)


def test_no_number_is_copied_to_the_host() -> None:
    fitted = FittedQ(random_rows(), policy, CONTINUOUS, 0.9, FQEConfig(hidden=(8,), batch_size=16))
    fitted.update()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        fitted.update()
    assert not [event for event in recorded.events() if event.name in SYNC and not in_adam(event)]


def test_constant_rewards_are_known_before_the_first_update() -> None:
    data = random_rows()._replace(reward=torch.full((300,), 2.0), discount=torch.ones(300))
    fitted = FittedQ(data, policy, CONTINUOUS, 0.9)
    assert fitted.offset == pytest.approx(20)
    assert fitted.scale == pytest.approx(10)


def test_diverged() -> None:
    data = random_rows()
    data.reward[0] = float("nan")
    with pytest.raises(UserError, match="fitted Q evaluation diverged: its loss is nan"):
        FittedQ(data, policy, CONTINUOUS, 0.9, FQEConfig(hidden=(8,), updates=2, batch_size=1000)).fit()


def test_actions_come_in_chunks() -> None:
    sizes = []

    def counted(obs: Tensor) -> Tensor:
        sizes.append(len(obs))
        return obs[:, :1]

    assert torch.equal(actions_of(counted, torch.arange(40_000.0)[:, None]), torch.arange(40_000.0)[:, None])
    assert sizes == [16_384, 16_384, 40_000 - 2 * 16_384]
