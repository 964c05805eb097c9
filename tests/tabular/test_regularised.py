"""Regularised value iteration: mirror descent, dual averaging, Munchausen and special cases."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tabular_problems import value_errors

from mbkit.errors import UserError
from mbkit.tabular.environments import exit_or_loop, garnet
from mbkit.tabular.mdp import MDP
from mbkit.tabular.operators import greedy, log_softmax, optimality_q, q_of, soft_optimality_q, softmax
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration, sweeps
from mbkit.tabular.regularised import (
    SPECIAL_CASES,
    Iterate,
    avi,
    da_vi,
    da_vi_entropy,
    greedy_step,
    md_vi,
    munchausen_vi,
    regularised_backup,
    take,
    uniform_log,
)

Table = np.ndarray


def stack(iterates: list[Iterate]) -> tuple[Table, Table]:
    return np.array([i.q for i in iterates]), np.array([i.log_pi for i in iterates])


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("lam", [0.05, 1.0, 10.0])
def test_md_vi_without_entropy_equals_dual_averaging(lam: float, sigma: float) -> None:
    mdp = garnet(8, 3, 3)
    q0, errors = value_errors(mdp, 1.0, 7)(0), value_errors(mdp, sigma)
    q, log_pi = stack(take(md_vi(mdp, q0, lam, 0.0, errors), 60))
    sums = np.cumsum(np.concatenate([q0[None], q[:-1]]), axis=0)
    assert np.abs(log_pi - log_softmax(sums, lam)).max() <= 1e-9
    assert np.abs(q - stack(take(da_vi(mdp, q0, lam, errors), 60))[0]).max() <= 1e-9


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize(("lam", "tau"), [(1.0, 0.3), (0.1, 0.1), (0.0, 0.5)])
def test_md_vi_with_entropy_is_a_moving_average(lam: float, tau: float, sigma: float) -> None:
    mdp, beta = garnet(8, 3, 3), lam / (lam + tau)
    q0, errors = value_errors(mdp, 1.0, 7)(0), value_errors(mdp, sigma)
    q, log_pi = stack(take(md_vi(mdp, q0, lam, tau, errors), 60))
    h = np.zeros_like(q0)
    for before, logs in zip([q0, *q[:-1]], log_pi, strict=True):
        h = beta * h + (1 - beta) * before
        assert np.abs(logs - log_softmax(h, tau)).max() <= 1e-9
    dual_q, dual_log = stack(take(da_vi_entropy(mdp, q0, lam, tau, errors), 60))
    assert np.abs(q - dual_q).max() <= 1e-9
    assert np.abs(log_pi - dual_log).max() <= 1e-9


@pytest.mark.parametrize("mdp", [garnet(8, 3, 3), exit_or_loop(0.9)], ids=["garnet", "terminal"])
@pytest.mark.parametrize(("alpha", "tau"), [(0.9, 0.03), (0.5, 1.0), (0.0, 0.5)])
def test_munchausen_vi_is_mirror_descent(mdp: MDP, alpha: float, tau: float) -> None:
    """q of M-VI is q of MD-VI plus alpha tau log pi of the same index, with the same errors."""
    errors, q0 = value_errors(mdp, 0.1), np.zeros((mdp.S, mdp.A))
    q, log_pi = stack(take(munchausen_vi(mdp, q0, alpha, tau, errors=errors), 80))
    md_q, md_log = stack(take(md_vi(mdp, q0 - alpha * tau * uniform_log(mdp), alpha * tau, (1 - alpha) * tau, errors), 80))
    alive = ~mdp.terminal
    assert np.abs(log_pi - md_log)[:, alive].max() <= 1e-9
    assert np.abs(q - alpha * tau * log_pi - md_q)[:, alive].max() <= 1e-9
    clean, _ = stack(take(munchausen_vi(mdp, q0, alpha, tau), 3))
    assert (clean[:, mdp.terminal] == 0).all()  # no bonus in terminal states


def test_munchausen_vi_alpha_0_is_soft_value_iteration() -> None:
    mdp = garnet(8, 3, 3)
    q = take(munchausen_vi(mdp, np.zeros((8, 3)), 0.0, 0.5), 300)[-1].q
    np.testing.assert_allclose(soft_optimality_q(mdp, q, 0.5), q, atol=1e-10)
    free, clipped = (take(munchausen_vi(mdp, np.zeros((8, 3)), 0.9, 0.03, l0), 20)[-1].q for l0 in (-np.inf, -1.0))
    assert np.abs(free - clipped).max() > 1e-3


def test_md_vi_averages_noise() -> None:
    mdp = garnet()
    best, zeros = policy_iteration(mdp).q, np.zeros((mdp.S, mdp.A))

    def losses(iterate: Callable[[Callable[[int], Table]], Iterator[Iterate]]) -> Table:
        runs = [take(iterate(value_errors(mdp, 0.5, seed)), 101) for seed in range(8)]
        return np.array([[np.abs(best - q_of(mdp, np.exp(run[k].log_pi))).max() for k in (10, 100)] for run in runs]).mean(0)

    kl, plain = losses(lambda e: md_vi(mdp, zeros, 1.0, 0.0, e)), losses(lambda e: avi(mdp, zeros, e))
    assert kl[1] < plain[1] / 5
    assert plain[1] > 0.5 * plain[0]  # flat
    assert kl[1] < 0.25 * kl[0]  # about 1 / k


def test_avi_without_errors_is_value_iteration() -> None:
    mdp, q = garnet(), np.zeros((30, 4))
    for iterate in take(avi(mdp, q), 20):
        assert np.abs(iterate.log_pi - np.log(np.maximum(greedy(q), 1e-300)))[greedy(q) > 0].max() == 0
        q = optimality_q(mdp, q)
        np.testing.assert_array_equal(iterate.q, q)


def test_md_vi_m_steps_is_modified_policy_iteration() -> None:
    mdp = garnet()
    theirs = policy_iteration(mdp, "q", sweeps(5), greedy(np.zeros((30, 4)))).history
    mine = take(md_vi(mdp, np.zeros((30, 4)), 0.0, 0.0, m=5), len(theirs))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.q, b, atol=1e-12)


def test_md_vi_many_evaluation_steps_is_soft_policy_iteration() -> None:
    mdp, tau = garnet(8, 3, 3), 0.3
    iterates = take(md_vi(mdp, np.zeros((8, 3)), 0.0, tau, m=600), 4)
    for mine, theirs in zip(iterates, soft_policy_iteration(mdp, tau).history, strict=False):
        np.testing.assert_allclose(mine.q, theirs, atol=1e-9)


def test_md_vi_type_2_reaches_the_optimum() -> None:
    mdp = garnet(8, 3, 3)
    for evaluate in ("full", "none"):
        last = take(md_vi(mdp, np.zeros((8, 3)), 0.1, 0.0, evaluate=evaluate), 2000)[-1]  # type: ignore[arg-type]
        assert np.abs(q_of(mdp, np.exp(last.log_pi)) - policy_iteration(mdp).q).max() < 1e-6


def test_greedy_step_maximises_the_regularised_backup() -> None:
    mdp, rng = garnet(8, 3, 3), np.random.default_rng(0)
    q, log_mu = rng.normal(size=(8, 3)), log_softmax(rng.normal(size=(8, 3)))
    best = greedy_step(q, log_mu, 0.7, 0.4)
    value = regularised_backup(mdp, best, log_mu, q, 0.7, 0.4)
    for _ in range(50):
        other = log_softmax(best + 0.3 * rng.normal(size=q.shape))
        assert (regularised_backup(mdp, other, log_mu, q, 0.7, 0.4) <= value + 1e-12).all()
    np.testing.assert_allclose(np.exp(best), softmax(q + 0.7 * log_mu, 1.1), atol=1e-12)


def test_special_cases_wrong_weights_are_refused() -> None:
    mdp, zeros = garnet(8, 3, 3), np.zeros((8, 3))
    for name, case in SPECIAL_CASES.items():
        weights = 0.5 * case.kl, 0.5 * case.entropy
        assert np.isfinite(take(case.iterate(mdp, zeros, *weights), 5)[-1].q).all(), name
    with pytest.raises(UserError, match=r"tau must be > 0 in this special case, not 0.0"):
        SPECIAL_CASES["cvi"].iterate(mdp, zeros, 0.5, 0.0)
    with pytest.raises(UserError, match=r"lambda must be 0 in this special case, not 0.5"):
        SPECIAL_CASES["vi"].iterate(mdp, zeros, 0.5, 0.0)
    with pytest.raises(UserError, match="must be >= 0"):
        greedy_step(zeros, zeros, -1.0, 0.0)
    for bad in (lambda: da_vi(mdp, zeros, 0.0), lambda: da_vi_entropy(mdp, zeros, 1.0, 0.0)):
        with pytest.raises(UserError, match="> 0"):
            next(bad())
