"""QT-Opt keeps the contract of agents, finds the best action of a known function, and is registered by its entry point."""

import torch
from mbkit_example_plugin.qt_opt import QTOpt, QTOptConfig, greedy
from torch import nn

from mbkit.registry import agents
from mbkit.testing import check_agent
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(obs_dim=1, action_dim=1, device=torch.device("cpu"))
SMALL = QTOptConfig(candidates=64, iterations=3, hidden=(64,), lr=1e-2, noise_scale=0.0)


class Peak(nn.Module):
    """Values -(a - s)^2 of two critics, whose best action is the observation itself."""

    def forward(self, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """obs [B, 1], action [B, 1] -> [2, B]."""
        return -(action - obs).square().sum(-1).expand(2, len(obs))


def test_qt_opt_keeps_the_contract_of_agents():
    """Shapes, ranges, metrics, no synchronisation with the device, a state that is restored bit for bit, refused action spaces."""
    check_agent(lambda spec: QTOpt(spec, QTOptConfig(candidates=8, elites=2, hidden=(8,))))


def test_the_entry_point_registers_the_agent():
    """`mbkit list agents` has it once the package is installed."""
    assert agents["qt_opt"].target is QTOpt


def test_the_search_meets_the_best_action_of_a_known_function():
    """More iterations come closer."""
    torch.manual_seed(0)
    obs, noise = torch.linspace(-0.8, 0.8, 9)[:, None], torch.randn(4, 64, 1)
    errors = [float((greedy(obs, Peak(), noise[:i], 6) - obs).abs().max()) for i in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-2


def test_qt_opt_learns_a_bandit():
    """The reward is -(a - s)^2 and every step is the last: the greedy action comes to be the observation."""
    torch.manual_seed(0)
    agent = QTOpt(SPEC, SMALL)
    for _ in range(200):
        obs, action = torch.rand(2, 64, 1) * 2 - 1
        agent.update(Transition(obs, action, -(action - obs).square()[:, 0], obs, torch.zeros(64)))
    obs = torch.linspace(-0.7, 0.7, 8)[:, None]
    torch.testing.assert_close(agent.act(obs, explore=False), obs, atol=0.3, rtol=0)
