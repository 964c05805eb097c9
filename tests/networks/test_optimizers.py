"""FusedAdam equals torch's Adam, states are restored in place, and target networks follow."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import FusedAdam, copy_when_, descend_together, params_of, polyak_, restore_optimizer_


def problem(seed=0):
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(()))]


def gradients(n):
    torch.manual_seed(100 + n)
    return [torch.randn(3, 4), torch.randn(5), torch.randn(())]


def test_fused_adam_steps_equal_those_of_torch():
    mine, other = problem(), problem()
    ours, theirs = FusedAdam(mine, 1e-2), torch.optim.Adam(other, lr=1e-2, fused=True)
    for n in range(5):
        ours.descend(gradients(n))
        for p, g in zip(other, gradients(n), strict=True):
            p.grad = g
        theirs.step()
    assert all(map(torch.equal, mine, other))
    assert all(p.grad is None for p in mine)
    for a, b in zip(ours.state_dict()["state"].values(), theirs.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("rates", [(1e-2, 1e-2), (1e-2, 3e-3)])
def test_descend_together_equals_each_by_itself(rates):
    results = []
    for together in (True, False):
        params = problem(), problem()
        steps = [(FusedAdam(each, lr), gradients(n)) for n, (each, lr) in enumerate(zip(params, rates, strict=True))]
        for _ in range(3):
            if together:
                descend_together(*steps)
            else:
                for optimizer, grads in steps:
                    optimizer.descend(grads)
        results.append([p.detach() for each in params for p in each])
    assert all(map(torch.equal, *results))


def test_fused_adam_divides_gradients_as_told():
    one, other = problem(), problem()
    grads = gradients(0)
    FusedAdam(one, 1e-2).descend([g / 4 for g in grads])
    FusedAdam(other, 1e-2).descend([g.clone() for g in grads], torch.tensor(4.0))
    assert all(map(torch.equal, one, other))


def test_step_counts_are_elements_of_one_tensor_also_after_loading_in_place():
    params = problem()
    optimizer, other = FusedAdam(params, 1e-2), FusedAdam(problem(), 1e-2)
    for n in range(3):
        optimizer.descend(gradients(n))
    counts = [optimizer.state[p]["step"] for p in params]
    restore_optimizer_(optimizer, deepcopy(other.state_dict()))
    assert [float(count) for count in counts] == [0, 0, 0]
    optimizer.descend(gradients(3))
    assert all(optimizer.state[p]["step"] is count for p, count in zip(params, counts, strict=True))
    assert [float(count) for count in counts] == [1, 1, 1]


def test_fused_adam_continues_from_a_saved_state_and_from_a_copy():
    params = problem()
    optimizer = FusedAdam(params, 1e-2)
    for n in range(3):
        optimizer.descend(gradients(n))
    saved, values = deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params]
    twin_params, twin = deepcopy((params, optimizer))
    optimizer.descend(gradients(3))
    twin.descend(gradients(3))
    assert all(map(torch.equal, params, twin_params))
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for p, v in zip(params, values, strict=True):
            p.copy_(v)
    optimizer.descend(gradients(3))
    assert all(map(torch.equal, params, twin_params))


@pytest.mark.parametrize("saved_as_tensor", [False, True])
def test_restore_optimizer_keeps_the_tensor_of_a_learning_rate(saved_as_tensor):
    (saved, fresh), number = [FusedAdam(problem(), 1e-2) for _ in range(2)], FusedAdam(problem(), 3e-4)
    rate = fresh.param_groups[0]["lr"] = torch.tensor(1e-2)  # as on a GPU, where a captured graph reads it
    if saved_as_tensor:
        saved.param_groups[0]["lr"] = torch.tensor(5e-3)
    saved.set_lr(5e-3)
    for optimizer in (fresh, number):
        restore_optimizer_(optimizer, deepcopy(saved.state_dict()))
    assert fresh.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(5e-3)
    assert type(number.param_groups[0]["lr"]) is float
    assert number.param_groups[0]["lr"] == pytest.approx(5e-3)
    fresh.set_lr(2e-3)
    assert rate.item() == pytest.approx(2e-3)


def test_restore_optimizer_writes_in_place():
    net = EnsembleMLP(1, (3, 4, 1))
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def step():
        optimizer.zero_grad()
        F.mse_loss(net(torch.ones(2, 3)), torch.ones(1, 2, 1)).backward()
        optimizer.step()

    step()
    saved = deepcopy(optimizer.state_dict())
    moment = optimizer.state[net.weight[0]]["exp_avg"]
    place = moment.data_ptr()
    step()
    restore_optimizer_(optimizer, saved)
    assert optimizer.state[net.weight[0]]["exp_avg"].data_ptr() == place
    torch.testing.assert_close(optimizer.state[net.weight[0]]["exp_avg"], saved["state"][0]["exp_avg"], rtol=0, atol=0)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_polyak_is_a_weighted_mean(tau):
    target, online = EnsembleMLP(2, (3, 4, 1)), EnsembleMLP(2, (3, 4, 1))
    expected = [(1 - tau) * t + tau * o for t, o in zip(target.parameters(), online.parameters(), strict=True)]
    polyak_(target, online, tau)
    for t, e in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(t.detach(), e.detach())


@pytest.mark.parametrize("due", [False, True])
def test_copy_when_copies_only_when_due(due):
    online, target = EnsembleMLP(2, (3, 4, 2)), EnsembleMLP(2, (3, 4, 2))
    before = [p.detach().clone() for p in target.parameters()]
    copy_when_(target, online, torch.tensor(due))
    expected = online.parameters() if due else before
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), expected, strict=True))


def test_params_of_a_copied_module_are_those_of_the_copy():
    net = EnsembleMLP(2, (3, 4, 2))
    assert [id(p) for p in params_of(net)] == [id(p) for p in net.parameters()]
    twin = deepcopy(net)
    assert [id(p) for p in params_of(twin)] == [id(p) for p in twin.parameters()]
    assert not {id(p) for p in params_of(twin)} & {id(p) for p in params_of(net)}


def test_training_imports_no_compiler() -> None:
    """Torch's own methods of optimizers do: a second and 80 MB in every run."""
    program = """
import sys, torch
from mbkit import registry
from mbkit.testing import random_batch
from mbkit.types import EnvSpec
spec = EnvSpec(3, 2, torch.device("cpu"))
agent = registry.agents["sac"].target(spec, registry.agents["sac"].config(hidden=(4,)), 0.99)
agent.update(random_batch(spec, 8))
agent.load_state_dict(agent.state_dict())
agent.update(random_batch(spec, 8))
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_restore_optimizer_shares_no_tensor_with_the_state_it_is_given():
    """torch's `load_state_dict` takes the tensors themselves, which are those of the optimizer that was saved."""
    first, second = (EnsembleMLP(1, (3, 4, 1)) for _ in range(2))
    saved, fresh = (torch.optim.Adam(net.parameters(), fused=True) for net in (first, second))
    first(torch.ones(1, 2, 3)).sum().backward()
    saved.step()
    restore_optimizer_(fresh, saved.state_dict())
    before = [slots["exp_avg"].clone() for slots in fresh.state.values()]
    saved.step()
    assert all(torch.equal(a, slots["exp_avg"]) for a, slots in zip(before, fresh.state.values(), strict=True))
    assert any(not torch.equal(a, slots["exp_avg"]) for a, slots in zip(before, saved.state.values(), strict=True))
