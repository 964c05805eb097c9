"""Products with the Fisher matrix against the matrix, conjugate gradient against a direct solver, the surrogate's gradient by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbkit.agents.policy_gradient.natural import assign_, conjugate_gradient, fisher_product, flattened, surrogate
from mbkit.networks.distributions import detached
from mbkit.networks.policy import StochasticPolicy
from mbkit.types import EnvSpec

DOUBLE = torch.float64
DISCRETE = EnvSpec(2, 3, torch.device("cpu"), discrete=True)
CONTINUOUS = EnvSpec(2, 2, torch.device("cpu"))


def rows(n: int = 7) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def perturbed(policy: torch.nn.Module) -> torch.nn.Module:
    """In float64, with random changes of the nearly uniform initial policy."""
    torch.manual_seed(2)
    policy = policy.double()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return policy


def jacobian(outputs: Tensor, params: list[Tensor]) -> Tensor:
    """[K, P] of outputs [K]."""
    return torch.stack([flattened(torch.autograd.grad(y, params, retain_graph=True)) for y in outputs])


def fisher_of_discrete(policy: StochasticPolicy, obs: Tensor) -> Tensor:
    """E_s sum_a pi(a|s) grad log pi grad log pi^T, [P, P], by the definition."""
    params = list(policy.parameters())
    log_p = policy(obs).log_probs()
    scores = jacobian(log_p.flatten(), params)
    return (scores.T * log_p.detach().exp().flatten()) @ scores / len(obs)


def fisher_of_continuous(policy: StochasticPolicy, obs: Tensor) -> Tensor:
    """E_s J^T Sigma^-1 J of the mean, and 2 for every log standard deviation."""
    params = list(policy.net.parameters())
    distribution = policy(obs)
    slopes = jacobian(distribution.mean.flatten(), params)
    of_mean = (slopes.T * (-2 * distribution.log_std.detach()).exp().flatten()) @ slopes / len(obs)
    return torch.block_diag(2 * torch.eye(policy.log_std.numel(), dtype=DOUBLE), of_mean)  # log_std is the first parameter


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize(
    ("policy", "fisher"),
    [
        (StochasticPolicy(DISCRETE, (4,)), fisher_of_discrete),
        (StochasticPolicy(CONTINUOUS, (4,), log_std=-0.4), fisher_of_continuous),
    ],
)
def test_fisher_product_equals_the_matrix_times_a_vector(policy, fisher, damping):
    policy, obs = perturbed(policy), rows()
    params, new = list(policy.parameters()), policy(obs)
    product = fisher_product(detached(new).kl(new).mean(), params, damping)
    matrix = fisher(policy, obs)
    assert matrix.abs().max() > 0.1
    for column in torch.eye(len(matrix), dtype=DOUBLE):
        torch.testing.assert_close(product(column), matrix @ column + damping * column, rtol=1e-9, atol=1e-12)


@given(st.integers(1, 12), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_conjugate_gradient_solves_random_systems(n, seed):
    g = torch.Generator().manual_seed(seed)
    root, b = torch.randn(n, n, generator=g, dtype=DOUBLE), torch.randn(n, generator=g, dtype=DOUBLE)
    matrix = root @ root.T + torch.eye(n, dtype=DOUBLE)
    x = conjugate_gradient(lambda v: matrix @ v, b, 3 * n)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-7, atol=1e-8)


def test_conjugate_gradient_of_zero_or_without_curvature_is_zero():
    x = conjugate_gradient(lambda v: 2 * v, torch.zeros(3), 5)
    assert torch.equal(x, torch.zeros(3))
    flat = conjugate_gradient(torch.zeros_like, torch.ones(3), 5)  # no curvature anywhere: there is no solution
    assert torch.equal(flat, torch.zeros(3))


def test_conjugate_gradient_after_convergence_stays():
    """Long after the residual is zero; the matrix is singular, b in its range."""
    matrix, b = torch.diag(torch.tensor([4.0, 1.0, 0.0])), torch.tensor([2.0, 3.0, 0.0])
    torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, b, 100), torch.tensor([0.5, 3.0, 0.0]))


def test_conjugate_gradient_with_few_iterations_approximates():
    matrix = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=DOUBLE))
    b = torch.ones(3, dtype=DOUBLE)
    errors = [(conjugate_gradient(lambda v: matrix @ v, b, n) - 1 / matrix.diag()).norm().item() for n in (1, 2, 3)]
    assert errors[0] > errors[1] > 0.01
    assert errors[2] < 1e-10


def test_assign_inverts_flattened_in_place():
    policy = StochasticPolicy(DISCRETE, (4,))
    params = list(policy.parameters())
    places, before = [p.data_ptr() for p in params], flattened(params).detach().clone()
    assign_(params, before + torch.arange(len(before)))
    torch.testing.assert_close(flattened(params).detach() - before, torch.arange(len(before)).float(), rtol=0, atol=1e-4)
    assert [p.data_ptr() for p in params] == places
    assert all(p.requires_grad for p in params)


def test_surrogate_gradient_at_the_old_policy_equals_the_policy_gradient():
    """Its value is the mean advantage, its gradient E[A grad log pi]."""
    policy, obs = perturbed(StochasticPolicy(DISCRETE, (4,))), rows()
    params = list(policy.parameters())
    action, advantage = torch.arange(7) % 3, torch.linspace(-1, 2, 7, dtype=DOUBLE)
    log_p = policy(obs).log_prob(action)
    gain = surrogate(log_p - log_p.detach(), advantage)
    assert gain.item() == pytest.approx(advantage.mean().item())
    slope = flattened(torch.autograd.grad(gain, params, retain_graph=True))
    torch.testing.assert_close(slope, (advantage[:, None] * jacobian(log_p, params)).mean(0))
