"""C5, C9, C11, C12, C15: what the experiments on policy gradients compute, against brute force, finite differences and closed forms."""

import numpy as np
import pytest

from mbkit.tabular.environments import LQR, garnet, lqr_return, riccati_gain
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.natural_gradient import fisher, npg_step, policy_gradient
from mbkit.tabular.occupancy import discounted, stationary
from mbkit.tabular.offline import conservative_q
from mbkit.tabular.operators import expectation, kl, kl_bellman_q, lse, performance, q_of, softmax, value_of
from mbkit.theory import baselines as b
from mbkit.theory import policy_gradient as pg
from mbkit.theory import soft_equivalence as soft
from mbkit.theory import trust_region as tr

SEEDS = range(5)


def problem(seed: int) -> tuple[MDP, Array, Array]:
    theta = np.random.default_rng(seed).normal(size=(8, 3))
    return garnet(8, 3, 3, seed=seed), theta, softmax(theta)


# ------------------------------------------------------------------------------------------------------------------------- C5
@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_c5_equivalence_in_closed_form(alpha: float) -> None:
    """A table Q as parameters: grad log pi = (e_a - pi) / alpha, grad V = pi, and the gradient of the loss is d pi (Q - y)."""
    for seed in SEEDS:
        mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
        prior, q = random_policy(mdp, rng), rng.normal(size=(8, 3))
        v = lse(q + alpha * np.log(prior), alpha)[:, None]
        ratio = (q - v) / alpha
        pi = prior * np.exp(ratio)
        assert np.abs(pi.sum(1) - 1).max() <= 1e-12
        d, divergence = discounted(mdp, pi)[:, None], kl(pi, prior)[:, None]
        y = kl_bellman_q(mdp, pi, q, prior, alpha)

        def three(delta: Array, d=d, pi=pi, ratio=ratio, divergence=divergence) -> Array:
            mean = expectation(pi, delta)[:, None]
            score, pull, value = pi * (delta - mean) / alpha, pi * (ratio - divergence) / alpha, mean * pi
            return d * (-alpha * score + alpha**2 * pull - value)

        right = d * pi * (q - y)
        assert np.abs(three(y - alpha * divergence - v) - right).max() <= 1e-12
        excess = three(y - alpha * ratio - v) - right
        assert np.abs(excess - d * alpha**2 * pi * (ratio - divergence) / alpha).max() <= 1e-12
        assert np.abs(excess).max() > 1e-6


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_c5_equivalence_with_shared_parameters(alpha: float) -> None:
    for seed in SEEDS:
        right, double, rest, term, spurious = soft.equivalence(seed, alpha)
        assert right <= 1e-12
        assert rest <= 1e-12
        assert double == pytest.approx(term, abs=1e-12)
        assert term > 1e-6
        assert (spurious > 1e-3) == (alpha != 1)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_c5b_soft_policy_gradient_against_finite_differences(alpha: float) -> None:
    for seed in SEEDS:
        beside, inside, both, rest, slope = soft.soft_gradient(seed, alpha)
        assert max(beside, inside) <= 1e-6
        assert both > 1e-3 * slope
        assert rest <= 1e-10


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95])
def test_the_sum_from_n_0_loses_a_factor_lambda(lam: float) -> None:
    ratio, rest = soft.weight_of_the_sum_from_zero(0, lam)
    assert ratio == pytest.approx(lam, abs=1e-12)
    assert rest <= 1e-12


# ------------------------------------------------------------------------------------------------------------------------- C9
def test_c9_order_of_variances_and_the_mean() -> None:
    for seed in SEEDS:
        (none, moved), (v, moved_v), (best, moved_best), (each, moved_each) = b.one_sample(seed, 0.0, 1.0)
        assert none >= v >= best >= each
        assert max(moved, moved_v, moved_best, moved_each) <= 1e-10


def test_c9_no_other_baseline_has_less_variance() -> None:
    mdp, _, pi = problem(0)
    q, law, rng = q_of(mdp, pi), discounted(mdp, pi), np.random.default_rng(0)
    best = b.optimal_baseline(pi, q)
    least, _ = b.sample_covariance(law, pi, q, np.repeat(best[:, None], 3, 1))
    for size in (1e-3, 0.1, 1.0):
        other = best + size * rng.normal(size=8)
        assert b.sample_covariance(law, pi, q, np.repeat(other[:, None], 3, 1))[0] > least
    components = b.component_baselines(pi, q)
    lowest, _ = b.sample_covariance(law, pi, q, components)
    assert b.sample_covariance(law, pi, q, components + 0.1 * rng.normal(size=(8, 3)))[0] > lowest


def test_c9_covariance_against_samples() -> None:
    mdp, _, pi = problem(1)
    q, law, rng, n = q_of(mdp, pi), discounted(mdp, pi), np.random.default_rng(0), 200_000
    pair = rng.choice(24, n, p=(law[:, None] * pi).ravel())
    s, a = np.divmod(pair, 3)
    x = np.zeros((n, 8, 3))
    x[np.arange(n), s] = (np.eye(3)[a] - pi[s]) * q[s, a][:, None]
    trace, mean = b.sample_covariance(law, pi, q, np.zeros((8, 3)))
    assert x.reshape(n, 24).var(0).sum() == pytest.approx(trace, rel=0.01)
    assert np.abs(x.mean(0) - mean).max() < 5 * x.std(0).max() / np.sqrt(n)


def test_c9_with_two_actions_the_optimal_baseline_leaves_nothing_and_v_is_worse_than_none() -> None:
    none, v, best = b.counterexample()
    assert v > 10 * none
    assert best <= 1e-15


def test_gradients_of_episodes_by_hand() -> None:
    mdp, _, pi = problem(2)
    rng = np.random.default_rng(0)
    state, action = b.rollouts(mdp, pi, rng, 5, 7)
    weight = rng.normal(size=(7, 5))
    out = b.episode_gradients(pi, state, action, weight).reshape(5, 8, 3)
    for n in range(5):
        expected = np.zeros((8, 3))
        for t in range(7):
            s = state[t, n]
            expected[s] += weight[t, n] * (np.eye(3)[action[t, n]] - pi[s])
        assert np.abs(out[n] - expected).max() <= 1e-12


# ------------------------------------------------------------------------------------------------------------------------ C11
def test_finite_differences_are_of_sixth_order() -> None:
    x = np.array([[0.3, -0.7], [1.1, 0.2]])
    assert np.abs(pg.finite_differences(lambda y: float((y**6 + y).sum()), x) - 6 * x**5 - 1).max() <= 1e-11


def test_c11_policy_gradient_theorem_and_its_misprints() -> None:
    for seed in SEEDS:
        right, short, still, both = pg.formulas(seed)
        assert right[0] <= 1e-6
        assert short[1] == pytest.approx(0.1, abs=1e-8)  # 1 - gamma
        assert short[2] == pytest.approx(1, abs=1e-10)
        assert still[0] > 1e-2
        assert both[0] > 0.5
    dead, alive = pg.gradients_where_episodes_end()
    assert dead <= 1e-12 < alive


def test_c11_surrogate_gradient_and_performance_difference_lemma() -> None:
    for seed in SEEDS:
        assert pg.surrogate_slope_error(seed) <= 1e-6
        mdp, _, pi = problem(seed)
        new = random_policy(mdp, np.random.default_rng(seed))
        gain = performance(mdp, new) - performance(mdp, pi)
        assert abs(pg.weighed_advantage(mdp, pi, new, discounted(mdp, new)) - gain) <= 1e-10
        assert abs(pg.weighed_advantage(mdp, pi, new, stationary(mdp, new)) - gain) > 1e-6
        assert abs(pg.surrogate(mdp, pi, pi)) <= 1e-12


def test_c11_off_policy_gradient_is_exact_on_policy_only() -> None:
    for seed in SEEDS:
        assert max(pg.off_policy(seed, 0.0)) <= 1e-12
        dropped, kept = pg.off_policy(seed, 1.0)
        assert kept <= 1e-12 < 1e-3 < dropped


@pytest.mark.parametrize("gain", [-0.1, 0.4, 1.0, 2.0, 2.9])
def test_c11_deterministic_gradient_of_the_regulator(gain: float) -> None:
    lqr, h = LQR(), 1e-5
    exact = pg.deterministic_gradient(lqr, gain)
    assert abs(exact - (lqr_return(lqr, gain + h) - lqr_return(lqr, gain - h)) / (2 * h)) <= 1e-6
    assert abs(exact - pg.slope_of_gain(lqr, gain)) <= 1e-9


def test_c11_ascent_in_the_gain_solves_riccati() -> None:
    assert abs(pg.ascend_gain(LQR()) - riccati_gain(LQR())) <= 1e-6
    assert round(pg.ascend_gain(LQR()), 6) == 1.324624


# ------------------------------------------------------------------------------------------------------------------------ C12
def test_c12_conjugate_gradients_solve_from_products_alone() -> None:
    for seed in SEEDS:
        mdp, _, pi = problem(seed)
        g, F, product = policy_gradient(mdp, pi), fisher(mdp, pi), tr.fisher_product(mdp, pi)
        x = np.random.default_rng(seed).normal(size=(8, 3))
        assert np.abs(product(x).ravel() - F @ x.ravel()).max() <= 1e-14
        solved = tr.conjugate_gradient(product, g)
        assert np.abs(product(solved) - g).max() <= 1e-12
        assert np.abs(softmax(np.log(pi) + 0.05 * solved) - npg_step(mdp, pi, 0.05)).max() <= 1e-10


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
def test_c12_natural_steps_ignore_coordinates(skew: float) -> None:
    for seed in SEEDS:
        natural, plain = tr.reparameterised(seed, skew)
        assert natural <= 1e-10
        assert (plain > 1e-4) == (skew > 0)


@pytest.mark.parametrize("delta", [1e-5, 1e-4, 1e-3, 1e-2])
def test_c12_full_misprinted_and_backtracked_steps(delta: float) -> None:
    for seed in SEEDS:
        full, wrong, _, kept, gain = tr.spent(seed, delta)
        assert 0.9 <= full <= 1.1
        assert wrong > 20
        assert 0.5 < kept <= 1
        assert gain > 0


def test_c12_every_step_of_a_run_stays_inside_and_the_optimum_is_reached() -> None:
    run = tr.climb(garnet(8, 3, 3), 0.1, 300)
    assert run.spent <= 1
    assert run.regret[-1] <= tr.REACHED


# ------------------------------------------------------------------------------------------------------------------------ C15
def test_c15_conservative_values_to_an_absolute_tolerance() -> None:
    """Data that hold every action often enough that no ratio pi / beta is large."""
    mdp, alpha = garnet(20, 4, 5, low=0.1), 0.3
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        beta, pi = 0.5 * random_policy(mdp, rng) + 0.125, random_policy(mdp, rng)
        D = expectation(pi, pi / beta - 1)
        gap = alpha * np.linalg.solve(np.eye(20) - mdp.gamma * np.einsum("sa,sat->st", pi, mdp.P), D)
        assert (D >= 0).all()
        assert np.abs(expectation(pi, conservative_q(mdp, pi, beta, alpha)) - value_of(mdp, pi) + gap).max() <= 1e-10
