"""What the experiments on regularised dynamic programming measure with: closed forms, limits and brute force."""

import math

import numpy as np
import pytest

from mbkit.tabular.bounds import avi_bound, lambert_w, md_vi_bound, softmax_regret
from mbkit.tabular.environments import BANDIT_10, exit_or_loop, garnet
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.natural_gradient import npg_step
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.operators import greedy, optimality_q, q_of
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration
from mbkit.tabular.regularised import avi, take
from mbkit.theory.averaging import NOISES, SCHEMES, Scheme, errors, measure, slope
from mbkit.theory.entropy_npg import hard_loss, run, tail_rate
from mbkit.theory.horizon import EPSILON, LEFT, STAY, both, chain, conspiring, constant, errors_of, loops
from mbkit.theory.maximisation import VALUE, bias_of, chances, expected_double, expected_maximum, learned, ten_arms
from mbkit.theory.rollout_length import branched_bound, expansion_bound, mbpo_bound, model_of, padded, perfect_model
from mbkit.theory.rollout_length import errors as expansion_errors
from mbkit.theory.temperature import exits_of, optima, regret, sweep, trap


# ------------------------------------------------------------------------------------------------------------------- averaging
def test_errors_are_what_their_names_say() -> None:
    mdp = garnet(8, 3, 3)
    fresh, alternating, constant_ = (errors(mdp, noise, 0, 1000) for noise in NOISES)
    assert np.abs(fresh.mean(0)).max() < 0.5 * 5 / math.sqrt(1000)
    np.testing.assert_array_equal(alternating[:-1], -alternating[1:])
    assert np.ptp(constant_, axis=0).max() == 0
    np.testing.assert_array_equal(errors(mdp, "fresh", 0, 10), errors(mdp, "fresh", 0, 1000)[:10])


def test_the_loss_is_that_of_the_policy_after_k_errors() -> None:
    """AVI by hand: q_{j} = T* q_{j-1} + eps_j for j = 1..k, then the greedy policy of q_k."""
    mdp, k = garnet(seed=3), 7
    eps, q = errors(mdp, "fresh", 3, k), np.zeros((30, 4))
    for e in eps:
        q = optimality_q(mdp, q) + e
    loss, bound, _ = measure(SCHEMES[0], "fresh", 3, (k,))
    assert loss[0] == pytest.approx(np.abs(policy_iteration(mdp).q - q_of(mdp, greedy(q))).max(), abs=1e-12)
    assert bound[0] == pytest.approx(avi_bound(mdp, eps))


def test_c6e_averaging_needs_errors_that_cancel() -> None:
    seeds = range(4)
    plain, kl = (np.mean([measure(s, "fresh", seed, (100,))[0][0] for seed in seeds]) for s in (SCHEMES[0], Scheme("", 1.0)))
    same = np.mean([measure(Scheme("", 1.0), "constant", seed, (100,))[0][0] for seed in seeds])
    assert kl < plain / 5
    assert same > plain / 5
    assert slope((1, 10, 100), [3.0, 0.3, 0.03]) == pytest.approx(-1)


# --------------------------------------------------------------------------------------------------------------------- horizon
def test_the_chain_deceives_value_iteration_as_its_docstring_says() -> None:
    gamma, n = 0.9, 40
    mdp, eps = chain(gamma, n)
    assert np.abs(eps).max() == EPSILON
    u = EPSILON * (1 - gamma ** np.arange(n + 2)) / (1 - gamma)
    iterates = take(avi(mdp, np.zeros((n + 1, 2)), errors_of(eps)), n + 1)
    for i in range(1, n):
        v = iterates[i - 1].q.max(-1)  # after i errors
        assert v[i] == pytest.approx(-u[i], rel=1e-6)
        assert v[i + 1] == pytest.approx(u[i], rel=1e-6)
    assert iterates[n].log_pi[n].argmax() == STAY
    best = policy_iteration(mdp)
    assert np.abs(best.v).max() < 1e-9
    assert (best.pi[1:, LEFT] == 1).all()
    loss = np.abs(best.q - q_of(mdp, np.exp(iterates[n].log_pi))).max()
    assert loss == pytest.approx(2 * gamma * u[n] / (1 - gamma), rel=1e-6)


def test_both_bounds_are_attained() -> None:
    loss, bound, kl, _ = conspiring(10)
    assert 0.97 < loss / bound <= 1
    assert kl < 1e-6
    plain, plain_bound, loss, bound = constant(10)
    assert loss == pytest.approx(2 * 0.9 * EPSILON / 0.1, rel=1e-6)
    assert 0.9 * 0.98 < loss / bound <= 1
    assert plain == pytest.approx(loss)
    assert plain_bound > 8 * plain


def test_without_errors_neither_scheme_loses_much() -> None:
    mdp, _ = loops(0.9)
    eps = np.zeros((500, 1, 2))
    plain, _, kl, bound = both(mdp, eps, 0.1)
    assert plain == 0
    assert 0 <= kl <= bound == md_vi_bound(mdp, eps, 0.1)


# ----------------------------------------------------------------------------------------------------------------- temperature
@pytest.mark.parametrize("A", [2, 3, 4])
def test_c4a_the_regret_peaks_where_lambert_says(A: int) -> None:
    gap = 1 + lambert_w((A - 1) / math.e)
    near = regret(np.array([gap - 1e-3, gap, gap + 1e-3]), A)
    assert near[1] == pytest.approx(softmax_regret(A, 1.0), abs=1e-12)
    assert near.argmax() == 1
    assert regret(np.zeros(1), A)[0] == 0


def test_c4b_c4c_c12_examples() -> None:
    assert trap(0.99) == pytest.approx(49.5, abs=1e-3)
    assert trap(0.9) == pytest.approx(4.4831, abs=1e-3)
    assert exits_of(2.0) == pytest.approx((0.963, 0.498), abs=5e-4)
    low, high, soft_low, soft_high, loss = sweep(garnet(seed=1), 0.3)
    most = 0.9 * 0.3 * math.log(4)
    assert 0 < low < high <= most
    assert -most <= soft_low < soft_high < 0
    assert 0 < loss <= most / 0.1
    assert sweep(garnet(seed=1), 1e-3)[4] < loss


def test_the_two_forms_differ_by_a_constant_where_nothing_ends() -> None:
    near, soft = optima(garnet(seed=2), 0.5)
    np.testing.assert_allclose(soft - near, 0.9 * 0.5 * math.log(4) / 0.1, atol=1e-8)
    near, soft = optima(exit_or_loop(), 0.5)
    assert np.ptp((soft - near)[0]) > 1


# ----------------------------------------------------------------------------------------------------------------- entropy NPG
def test_c21_error_bound_and_the_largest_step() -> None:
    mdp = garnet(8, 3, 3)
    for share in (0.1, 0.5):
        error, bound = run(mdp, 0.3, share, 0, 120)
        assert (error <= bound + 1e-9).all()
        assert bound[1] / bound[0] == pytest.approx(1 - share * 0.1)
        assert tail_rate(error) == pytest.approx((1 - share) ** 2, abs=0.02)
    error, _ = run(mdp, 0.3, 1.0, 0, 5)
    history = soft_policy_iteration(mdp, 0.3, random_policy(mdp, np.random.default_rng(0))).history
    best = soft_policy_iteration(mdp, 0.3, tol=1e-10).q
    for mine, q in zip(error, history[1:], strict=False):
        assert mine == pytest.approx(np.abs(best - q).max(), abs=1e-9)


def test_rates_of_geometric_sequences() -> None:
    assert tail_rate(3 * 0.7 ** np.arange(100)) == pytest.approx(0.7)
    assert tail_rate(1e-4 ** np.arange(5)) == pytest.approx(1e-4)


def test_a_vanishing_entropy_is_the_plain_natural_gradient() -> None:
    mdp = garnet(8, 3, 3)
    plain, nearly = hard_loss(mdp, 0.0, 0, 30), hard_loss(mdp, 1e-7, 0, 30)
    np.testing.assert_allclose(plain, nearly, atol=1e-4)
    pi = npg_step(mdp, random_policy(mdp, np.random.default_rng(0)), 0.1)
    assert plain[0] == pytest.approx(np.abs(policy_iteration(mdp).q - q_of(mdp, pi)).max())
    assert hard_loss(mdp, 1.0, 0, 30)[-1] > 10 * plain[-1]


# ---------------------------------------------------------------------------------------------------------------- maximisation
def test_two_arms_in_closed_form() -> None:
    """E max = d Phi(d / sqrt 2) + sqrt 2 phi(d / sqrt 2) for means 0 and d; the second looks best with Phi(d / sqrt 2)."""
    for d in (0.0, 0.5, 2.0):
        Phi, phi = 0.5 * (1 + math.erf(d / 2)), math.exp(-(d**2) / 4) / math.sqrt(2 * math.pi)
        means = np.array([0.0, d])
        assert expected_maximum(means) == pytest.approx(d * Phi + math.sqrt(2) * phi, abs=1e-9)
        np.testing.assert_allclose(chances(means), [1 - Phi, Phi], atol=1e-9)
        assert expected_double(means) == pytest.approx(d * Phi, abs=1e-9)


def test_c10_ten_arms() -> None:
    assert expected_maximum(np.zeros(10)) == pytest.approx(1.53875, abs=1e-5)
    assert expected_maximum(BANDIT_10) - 1 == pytest.approx(1.123, abs=1e-3)
    assert expected_double(BANDIT_10) - 1 == pytest.approx(-0.336, abs=1e-3)
    assert chances(BANDIT_10).sum() == pytest.approx(1, abs=1e-9)
    found = bias_of("", BANDIT_10, np.random.default_rng(0), 20_000)
    assert found.above == 0
    assert abs(found.single - found.exact_single) < 4 * found.single_se
    assert abs(found.double - found.exact_double) < 4 * found.double_se


def test_the_arms_ahead_are_worth_less_than_ending() -> None:
    best = policy_iteration(ten_arms())
    assert best.v[0] == 0
    np.testing.assert_allclose(best.q[0, 5:], VALUE)
    assert learned(False, 0, 1000)[0] > 0.05 > learned(True, 0, 1000)[0]


# --------------------------------------------------------------------------------------------------------------- rollout length
def test_padding_changes_nothing() -> None:
    mdp, rng = garnet(8, 3, 3), np.random.default_rng(0)
    pi = random_policy(mdp, rng)
    both_pi = np.concatenate([pi, pi[:1]])
    np.testing.assert_allclose(q_of(padded(mdp), both_pi)[:-1], q_of(mdp, pi), atol=1e-12)
    assert (q_of(padded(mdp), both_pi)[-1] == 0).all()


def test_models_come_nearer_with_the_data_and_unseen_pairs_end() -> None:
    mdp = garnet(8, 3, 3)
    apart = [total_variation(padded(mdp).P, model_of(mdp, n, np.random.default_rng(0)).P).max() for n in (2000, 200_000)]
    assert 0 < apart[1] < apart[0] / 4
    few = model_of(mdp, 1, np.random.default_rng(0))
    assert (few.P[:-1, :, -1] == 1).sum() == 8 * 3 - 1


def test_expansion_bound_holds_and_has_its_ends() -> None:
    source, rng = garnet(8, 3, 3), np.random.default_rng(1)
    mdp, model = padded(source), model_of(source, 300, rng)
    pi = random_policy(mdp, rng)
    q = q_of(mdp, pi) + rng.standard_normal((9, 3)) * ~mdp.terminal[:, None]
    bound, found = expansion_bound(mdp, model, pi, q, 40), expansion_errors(mdp, model, pi, q)
    assert bound[0] == pytest.approx(found[0, 0])
    assert (found[:, 0] <= bound + 1e-12).all()
    np.testing.assert_allclose(expansion_bound(mdp, mdp, pi, q, 40), bound[0] * 0.9 ** np.arange(41))
    largest, off = perfect_model(0)
    assert largest <= 1 + 1e-12
    assert off < 1e-12


def test_bounds_of_mbpo_by_hand() -> None:
    mdp = garnet(8, 3, 3)
    r_max = float(mdp.R.max())
    assert mbpo_bound(mdp, 0.1) == pytest.approx(2 * 0.9 * r_max * 0.1 / 0.01)
    assert mbpo_bound(mdp, 0.1, 0.2) == pytest.approx(2 * 0.9 * r_max * 0.5 / 0.01 + 4 * r_max * 0.2 / 0.1)
    assert branched_bound(mdp, 0, 0.3, 0.2) == pytest.approx(2 * r_max * (0.9 * 0.2 / 0.01 + 0.2 / 0.1))
    assert branched_bound(mdp, 3, 0.3, 0.0) == pytest.approx(2 * r_max * 3 * 0.3 / 0.1)
