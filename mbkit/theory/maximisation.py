"""The maximum of noisy estimates overestimates, an independent estimate at its argmax does not (van Hasselt 2010).

A arms with means [A]; estimates [..., A]; E max and the bias exactly, by quadrature of the distribution function.
"""

from collections.abc import Sequence
from math import erf, pi, sqrt
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, MUTED, color, panels
from mbkit.tabular.control import double_estimator, double_q_learning, single_estimator, td_control
from mbkit.tabular.environments import BANDIT_10
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.sampling import constant, polynomial
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

POINTS = 2001  # points of the quadrature, whose error is below 1e-9
LEARNING_RATE = 0.1
VALUE = -0.1  # value of an arm in the MDP
TO_ARMS = slice(5, 10)  # actions of the initial state that lead to the arms


class Bias(NamedTuple):
    """Exact and sampled expectations of both estimators for one set of arms."""

    name: str
    best: float  # largest mean
    exact_single: float
    single: float
    single_se: float  # standard error
    exact_double: float
    double: float
    double_se: float
    above: int  # number of samples with max (Q + noise) > max Q + max noise


@experiment("maximisation", "The maximum of noisy estimates overestimates by at most the maximum noise; a double estimator does not")
def maximisation(setting: Setting) -> Findings:
    """Bias of both estimators on ten arms, exactly and by sampling; Q-learning and double Q-learning on arms of mean -0.1."""
    rng, n = np.random.default_rng(setting.seed), setting.pick(400_000, 50_000)
    equal, spread = bias_of("equal", np.zeros(10), rng, n), bias_of("on (0, 1)", BANDIT_10, rng, n)
    lengths = setting.pick((100, 300, 1000, 3000), (2000,))
    seeds = range(setting.seed, setting.seed + setting.pick(30, 6))
    runs = {  # [seeds, lengths, 2] mean and largest value of the actions that lead to the arms
        "Q-learning": np.array([[learned(False, seed, n) for n in lengths] for seed in seeds]),
        "double Q-learning": np.array([[learned(True, seed, n) for n in lengths] for seed in seeds]),
        "Q-learning, n^-0.8": np.array([[learned(False, seed, lengths[-1], power=0.8)] for seed in seeds]),
    }
    predicted = VALUE + equal.exact_single * np.sqrt(LEARNING_RATE / (2 - LEARNING_RATE))
    claims = [*arm_claims(equal, spread), *learning_claims(runs, predicted)]
    return Findings(claims, tables_of((equal, spread), runs, lengths), figure_of(runs, lengths, predicted))


def arm_claims(equal: Bias, spread: Bias) -> list[Claim]:
    """Claims on both sets of arms; the largest mean of `spread` is 1."""
    errors = [
        abs(x - e) / se
        for c in (equal, spread)
        for x, e, se in ((c.single, c.exact_single, c.single_se), (c.double, c.exact_double, c.double_se))
    ]
    bias = spread.exact_single - spread.best
    return [
        Claim(
            "ten equal arms: E max = 1.53875, the double estimator 0",
            f"quadrature {equal.exact_single:.5f} and {equal.exact_double:.5f}",
            abs(equal.exact_single - 1.53875) < 1e-5 and abs(equal.exact_double) < 1e-9,
        ),
        Claim("samples agree with quadrature", f"at most {max(errors):.2f} standard errors apart", max(errors) < 4),
        Claim(
            "E max (Q + noise) >= max Q + E max noise is false: max is subadditive",
            f"means on (0, 1): bias {bias:.3f} < {equal.exact_single:.3f}; {spread.above} of the samples above max Q + max noise",
            bias < equal.exact_single - 0.1 and spread.above == 0,
        ),
        Claim(
            "Jensen's inequality holds: E max >= max E, double <= max E",
            f"{spread.exact_single:.3f} >= 1 >= {spread.exact_double:.3f}",
            spread.exact_double <= spread.best <= spread.exact_single,
        ),
    ]


def learning_claims(runs: dict[str, Array], predicted: float) -> list[Claim]:
    """Claims on the values after the longest runs, within four standard errors and an allowance for the initial values."""
    claims = []
    for name, text, value, allowance in (
        ("Q-learning", "Q-learning overestimates by 1.53875 sigma sqrt(alpha / (2 - alpha))", predicted, 0.05),
        ("double Q-learning", "double Q-learning does not overestimate", VALUE, 0.03),
    ):
        last = runs[name][:, -1, 0]
        near = abs(last.mean() - value) < 4 * last.std() / np.sqrt(len(last)) + allowance
        claims.append(Claim(text, f"value {last.mean():.3f}, expected {value:.3f}, true {VALUE}", bool(near)))
    return claims


def tables_of(cases: Sequence[Bias], runs: dict[str, Array], lengths: tuple[int, ...]) -> list[Table]:
    """Tables of the arms and of the learned values."""
    names = ("means", "E max, exact", "sampled", "standard error", "E max noise (incorrect)", "double, exact", "sampled", "standard error")
    arms = []
    for c in cases:
        single = c.exact_single - c.best, c.single - c.best, c.single_se
        arms.append((c.name, *single, cases[0].exact_single, c.exact_double - c.best, c.double - c.best, c.double_se))
    learning = [
        (name, n, float(x[:, 0].mean()), float(x[:, 0].std()), f"{int((x[:, 1] > 0).sum())}/{len(x)}")
        for name, values in runs.items()
        for n, x in zip(lengths[-values.shape[1] :], np.moveaxis(values, 1, 0), strict=True)
    ]
    return [
        Table("Ten arms, unit noise: estimate minus the largest mean", names, arms),
        Table("Learned value of the actions to the arms (-0.1)", ("method", "steps", "mean", "std", "runs that prefer them"), learning),
    ]


def figure_of(runs: dict[str, Array], lengths: tuple[int, ...], predicted: float) -> Figure:
    """Figure of the bias over the number of arms and of learned values over steps."""
    arms = np.array([2, 3, 5, 10, 20, 50, 100])
    figure, (left, right) = panels(("number of arms", "estimate - largest mean"), ("steps", "value of the actions to the arms"))
    equal, ladder = ([np.zeros(n) for n in arms], [np.linspace(0, 1, n) for n in arms])
    left.semilogx(arms, [expected_maximum(m) for m in equal], "o--", ms=3.5, color=MUTED, label="max, equal (= E max noise)")
    left.semilogx(arms, [expected_maximum(m) - 1 for m in ladder], "o-", ms=3.5, color=color(0), label="max, means on (0, 1)")
    left.semilogx(arms, [expected_double(m) for m in equal], "o--", ms=3.5, color=color(2), label="double, equal")
    left.semilogx(arms, [expected_double(m) - 1 for m in ladder], "o-", ms=3.5, color=color(1), label="double, means on (0, 1)")
    for i, name in enumerate(("Q-learning", "double Q-learning")):
        value = runs[name][..., 0]
        right.errorbar(lengths, value.mean(0), value.std(0), fmt="o-", ms=3.5, capsize=3, color=color(i), label=name)
    right.axhline(predicted, color=color(0), ls="--", lw=1.0, label="predicted bias")
    right.axhline(VALUE, color=MUTED, ls=":", label="true value")
    right.set_xscale("log")
    left.set_ylim(-0.6, 3.9)
    right.set_ylim(-0.35, 0.75)
    for ax in (left, right):
        ax.legend(frameon=False, labelcolor=INK, fontsize=7.5, loc="upper left", ncols=1 if ax is left else 2)
    return figure


# -------------------------------------------------------------------------------------------------------------------- measuring
def bias_of(name: str, means: Array, rng: np.random.Generator, n: int) -> Bias:
    """Both estimators on n samples of N(means, 1), with their exact expectations."""
    noise = rng.standard_normal((2, n, len(means)))
    one, two = single_estimator(means + noise[0]), double_estimator(means + noise[0], means + noise[1])
    above = int((one > means.max() + noise[0].max(-1) + 1e-12).sum())
    errors = [float(x.std() / np.sqrt(n)) for x in (one, two)]
    exact = expected_maximum(means), expected_double(means)
    return Bias(name, float(means.max()), exact[0], float(one.mean()), errors[0], exact[1], float(two.mean()), errors[1], above)


def learned(double: bool, seed: int, steps: int, power: float | None = None) -> tuple[float, float]:
    """Mean and largest learned value of the actions that lead to the arms, under a uniform behaviour policy."""
    rate = constant(LEARNING_RATE) if power is None else polynomial(power)
    learn = double_q_learning if double else td_control
    q = learn(ten_arms(), np.random.default_rng(seed), steps, epsilon=1.0, learning_rate=rate).q[0, TO_ARMS]
    return float(q.mean()), float(q.max())


# ----------------------------------------------------------------------------------------------------------- exact expectations
def normal_cdf(x: Array) -> Array:
    """Distribution function of N(0, 1), of the shape of x."""
    return np.array([0.5 * (1 + erf(v / sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def expected_maximum(means: Array) -> float:
    """E max of N(means, 1), means [A]: upper limit minus the integral of the product of the arms' distribution functions."""
    x = np.linspace(means.min() - 8, means.max() + 8, POINTS)
    return float(x[-1] - np.trapezoid(normal_cdf(x - means[:, None]).prod(0), x))


def selection_probabilities(means: Array) -> Array:
    """Probability that arm a has the largest of the estimates N(means, 1), [A]."""
    x = np.linspace(means.min() - 8, means.max() + 8, POINTS)
    F = normal_cdf(x - means[:, None])  # [A, points]
    density = np.exp(-((x - means[:, None]) ** 2) / 2) / sqrt(2 * pi)
    others = np.array([np.delete(F, a, 0).prod(0) for a in range(len(means))])
    return np.asarray(np.trapezoid(density * others, x))


def expected_double(means: Array) -> float:
    """Expectation of an independent estimate at the argmax: the mean weighted by the selection probabilities."""
    return float(selection_probabilities(means) @ means)


def ten_arms() -> MDP:
    """MDP with ten arms: in state 0 five actions terminate, five lead to state 1, both with reward 0; there ten arms N(-0.1, 1).

    After example 6.7 of Sutton & Barto, with the same number of actions in both states.
    """
    P, R = np.zeros((3, 10, 3)), np.zeros((3, 10))
    P[0, :5, 2] = P[0, 5:, 1] = P[1, :, 2] = P[2, :, 2] = 1.0
    R[1] = VALUE

    def pull(rng: np.random.Generator, s: int, a: int, next_s: int) -> float:
        return float(rng.normal(VALUE, 1)) if s == 1 else 0.0

    return MDP(P, R, np.eye(3)[0], 1.0, np.arange(3) == 2, pull)
