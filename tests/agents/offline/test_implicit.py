"""What IQL and XQL share: the target of the critics, and all of an update but the loss of V."""

import pytest
import torch
from toys import WIDE

from mbkit.agents.offline.implicit import ImplicitActorCritic, ImplicitConfig, implicit_target
from mbkit.agents.offline.iql import IQL, IQLConfig
from mbkit.agents.offline.xql import XQL, XQLConfig
from mbkit.targets import one_step
from mbkit.testing import random_batch
from mbkit.types import Transition

SMALL = {"hidden": (16, 16), "lr": 0.01}


def test_implicit_target_by_hand():
    batch = Transition(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([9.0, 9.0]), torch.zeros(2, 1), torch.tensor([1.0, 0.0]))
    y = implicit_target(batch, torch.tensor([1.0, 2.0]), torch.tensor([10.0, 5.0]), 0.9)
    assert y.target.tolist() == [10.0, 2.0]
    assert y.weight is None


def test_one_update_of_iql_and_xql_differs_in_v_alone():
    iql, xql, batch = IQL(WIDE, IQLConfig(**SMALL)), XQL(WIDE, XQLConfig(**SMALL)), random_batch(WIDE, 32)
    xql.load_state_dict(iql.state_dict())
    for agent in (iql, xql):
        agent.update(batch)
    pairs = zip(iql.named_parameters(), xql.named_parameters(), strict=True)
    different = {name for (name, ours), (_, theirs) in pairs if not torch.equal(ours, theirs)}
    assert different
    assert all(name.startswith("v.") for name in different)


def test_an_agent_without_a_loss_of_v_says_so():
    with pytest.raises(TypeError, match="ImplicitActorCritic has no loss of V"):
        ImplicitActorCritic(WIDE, ImplicitConfig(**SMALL), 0.9, one_step).update(random_batch(WIDE, 8))
