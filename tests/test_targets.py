"""The one-step target by hand."""

import torch
from torch import Tensor

from mbkit.targets import bootstrapped, one_step
from mbkit.types import Transition


class TwoCritics:
    """Q_1 = the action, Q_2 = 3; action and bonus are functions of the observation."""

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * obs, 0.5 * obs[:, 0]

    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.stack((action[:, 0], torch.full_like(action[:, 0], 3.0)))


def test_one_step_is_reward_plus_discounted_minimum_and_bonus() -> None:
    next_obs = torch.tensor([[1.0], [4.0], [4.0]])
    batch = Transition(torch.zeros(3, 1), torch.ones(3, 1), torch.tensor([1.0, 2.0, 3.0]), next_obs, torch.tensor([1.0, 1.0, 0.0]))
    targets = one_step(TwoCritics(), batch, 0.9)
    torch.testing.assert_close(targets.target, torch.tensor([1 + 0.9 * (2 + 0.5), 2 + 0.9 * (3 + 2), 3.0]))
    assert targets.obs is batch.obs
    assert targets.action is batch.action
    assert targets.weight is None


def test_targets_have_the_weights_of_their_rows() -> None:
    batch = Transition(
        torch.zeros(3, 1), torch.ones(3, 1), torch.zeros(3), torch.ones(3, 1), torch.ones(3), weight=torch.tensor([0.0, 1, 2])
    )
    assert one_step(TwoCritics(), batch, 0.9).weight is batch.weight
    assert bootstrapped(batch, torch.zeros(3), 0.9).weight is batch.weight
