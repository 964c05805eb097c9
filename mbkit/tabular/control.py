"""Temporal-difference control: SARSA, expected SARSA, Q-learning, double Q-learning, Dyna-Q, and Q-iteration on a data set.

Sources: Sutton & Barto, chapters 6 and 8; Watkins 1989; van Seijen et al. 2009; van Hasselt 2010; Sutton 1990. S states, A actions.
"""

from collections.abc import Callable

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array, draw
from mbkit.tabular.operators import expectation
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import UNKNOWN, ControlResult, Ints, LearningRate, average_targets, constant, epsilon_greedy

NextValue = Callable[[Array, Array, int], float]  # (Q(s', .) [A], behaviour policy pi(.|s') [A], next action a') -> value of s'
Update = Callable[[int, int, float, int, float, int, Array], None]  # s, a, r, s', discount, a', pi(.|s') [A] from which a' was sampled


# ------------------------------------------------------------------------------------------------------ value of the next state
def sarsa(q: Array, pi: Array, a: int) -> float:
    """SARSA: Q(s', a')."""
    return float(q[a])


def expected_sarsa(q: Array, pi: Array, a: int) -> float:
    """Expected SARSA: <pi, Q>(s'), the mean over a'; equal to Q-learning for a greedy pi."""
    return float(pi @ q)


def q_learning(q: Array, pi: Array, a: int) -> float:
    """Q-learning: max Q(s', .), independent of the behaviour policy."""
    return float(q.max())


# -------------------------------------------------------------------------------------------------------------- online learning
def interact(
    mdp: MDP, rng: np.random.Generator, steps: int, policy: Callable[[int], Array], update: Update, episode_steps: int | None
) -> Array:
    """Act for `steps` environment steps and call `update` after each; returns the undiscounted return of every finished episode.

    The next action is sampled before the update, so that SARSA's a' is the action taken and all methods use the same order of events.
    """
    returns, total, length = [], 0.0, 0
    s = mdp.reset(rng)
    a = draw(rng, policy(s))
    for _ in range(steps):
        reward, next_s, discount = mdp.step(rng, s, a)
        pi = policy(next_s)
        next_a = draw(rng, pi)
        update(s, a, reward, next_s, discount, next_a, pi)
        total, length = total + reward, length + 1
        s, a = next_s, next_a
        if discount == 0.0 or length == episode_steps:
            returns.append(total)
            total, length = 0.0, 0
            s = mdp.reset(rng)
            a = draw(rng, policy(s))
    return np.array(returns, float)


def td_control(
    mdp: MDP,
    rng: np.random.Generator,
    steps: int,
    next_value: NextValue = q_learning,
    epsilon: float = 0.1,
    learning_rate: LearningRate | None = None,
    episode_steps: int | None = None,
    start: Array | None = None,
) -> ControlResult:
    """Q(s, a) += alpha (r + gamma value(s') - Q(s, a)) while acting epsilon-greedily in Q.

    Args:
        mdp: the environment.
        rng: source of all randomness.
        steps: environment steps.
        next_value: `sarsa`, `expected_sarsa` or `q_learning`.
        epsilon: exploration of the behaviour policy, which the first two also evaluate.
        learning_rate: as a function of the number of earlier updates of (s, a); constant 0.5 if None.
        episode_steps: length at which episodes are truncated; None: only terminal states end them.
        start: initial Q [S, A]; zeros if None.
    """
    learning_rate = learning_rate or constant(0.5)
    q, n = first_table(mdp, start), np.zeros((mdp.S, mdp.A), np.int64)

    def update(s: int, a: int, r: float, next_s: int, discount: float, next_a: int, pi: Array) -> None:
        value = next_value(q[next_s], pi, next_a)
        q[s, a] += learning_rate(int(n[s, a])) * (r + mdp.gamma * discount * value - q[s, a])
        n[s, a] += 1

    returns = interact(mdp, rng, steps, lambda s: epsilon_greedy(q[s], epsilon), update, episode_steps)
    return ControlResult(q, n, returns)


def double_q_learning(
    mdp: MDP,
    rng: np.random.Generator,
    steps: int,
    epsilon: float = 0.1,
    learning_rate: LearningRate | None = None,
    episode_steps: int | None = None,
) -> ControlResult:
    """Double Q-learning: a coin flip selects the table to update, Q_A <- r + gamma Q_B(s', argmax Q_A(s', .)) or the reverse.

    One table selects the action and the other, learned from other samples, evaluates it, which removes the maximisation bias. The
    behaviour policy is epsilon-greedy in their sum; the Q returned is their mean. `learning_rate` counts the updates of each table.
    """
    learning_rate = learning_rate or constant(0.5)
    tables, n = np.zeros((2, mdp.S, mdp.A)), np.zeros((2, mdp.S, mdp.A), np.int64)

    def update(s: int, a: int, r: float, next_s: int, discount: float, next_a: int, pi: Array) -> None:
        coin = int(rng.random() < 0.5)
        table, other = tables[coin], tables[1 - coin]
        value = other[next_s, table[next_s].argmax()]
        table[s, a] += learning_rate(int(n[coin, s, a])) * (r + mdp.gamma * discount * value - table[s, a])
        n[coin, s, a] += 1

    returns = interact(mdp, rng, steps, lambda s: epsilon_greedy(tables[:, s].sum(0), epsilon), update, episode_steps)
    return ControlResult(tables.mean(0), n.sum(0), returns)


def dyna_q(
    mdp: MDP,
    rng: np.random.Generator,
    steps: int,
    planning_steps: int = 10,
    epsilon: float = 0.1,
    learning_rate: LearningRate | None = None,
    episode_steps: int | None = None,
    start: Array | None = None,
) -> ControlResult:
    """Q-learning with `planning_steps` additional updates from stored transitions after every environment step.

    A planning update samples a visited pair (s, a) uniformly, then one of its stored outcomes uniformly.
    # Paper: a deterministic model, the last outcome; here: all outcomes (a sample of the empirical MDP, the same where P is
    # deterministic). `planning_steps` = 0 is Q-learning. Arguments as in `td_control`.
    """
    learning_rate = learning_rate or constant(0.5)
    q, n = first_table(mdp, start), np.zeros((mdp.S, mdp.A), np.int64)
    planned = np.zeros((mdp.S, mdp.A), np.int64)
    outcomes: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    visited: list[tuple[int, int]] = []

    def learn(s: int, a: int, r: float, next_s: int, discount: float) -> None:
        target = r + mdp.gamma * discount * q[next_s].max()
        q[s, a] += learning_rate(int(n[s, a] + planned[s, a])) * (target - q[s, a])

    def update(s: int, a: int, r: float, next_s: int, discount: float, next_a: int, pi: Array) -> None:
        learn(s, a, r, next_s, discount)
        n[s, a] += 1
        if (s, a) not in outcomes:
            outcomes[s, a] = []
            visited.append((s, a))
        outcomes[s, a].append((r, next_s, discount))
        for u, w in rng.random((planning_steps, 2)).tolist():
            pair = visited[int(u * len(visited))]
            stored = outcomes[pair]
            r, next_s, discount = stored[int(w * len(stored))]
            learn(*pair, r, next_s, discount)
            planned[pair] += 1

    returns = interact(mdp, rng, steps, lambda s: epsilon_greedy(q[s], epsilon), update, episode_steps)
    return ControlResult(q, n, returns)


def first_table(mdp: MDP, start: Array | None) -> Array:
    """Initial table [S, A]: a copy of `start`, or zeros."""
    if start is None:
        return np.zeros((mdp.S, mdp.A))
    if start.shape != (mdp.S, mdp.A):
        raise UserError(f"start must have shape {(mdp.S, mdp.A)}, not {start.shape}")
    return np.array(start, float)


# ----------------------------------------------------------------------------------------------------------- learning from data
def q_learning_on(rows: Episodes, start: Array, gamma: float, learning_rate: LearningRate) -> Array:
    """One pass of Q-learning over the rows in order, from `start` [S, A] -> [S, A]; the rows may come from any behaviour policy."""
    q: list[list[float]] = start.tolist()  # lists: a row takes one microsecond instead of ten
    n = [[0] * start.shape[1] for _ in q]
    fields = (rows.state, rows.action, rows.reward, rows.next_state, rows.discount)
    for s, a, r, next_s, d in zip(*(x.tolist() for x in fields), strict=True):
        here = q[s]
        here[a] += learning_rate(n[s][a]) * (r + gamma * d * max(q[next_s]) - here[a])
        n[s][a] += 1
    return np.array(q, float)


def synchronous_q_learning(
    mdp: MDP, rng: np.random.Generator, sweeps: int, learning_rate: LearningRate, start: Array | None = None
) -> Array:
    """Synchronous Q-learning: one sample of every (s, a) per sweep, all updated from the same Q [S, A], as the theorems assume."""
    q = first_table(mdp, start)
    for k in range(sweeps):
        u = rng.random((mdp.S, mdp.A, 1)) * mdp.cumulative[:, :, -1:]
        next_s: Ints = (mdp.cumulative <= u).sum(-1)
        reward = mdp.R
        if mdp.reward_sampler is not None:
            reward = np.array([[mdp.reward_sampler(rng, s, a, int(next_s[s, a])) for a in range(mdp.A)] for s in range(mdp.S)], float)
        q += learning_rate(k) * (reward + mdp.gamma * ~mdp.terminal[next_s] * q.max(-1)[next_s] - q)
    return q


# ------------------------------------------------------------------------------------- dynamic programming on the empirical MDP
def batch_policy_backup(rows: Episodes, q: Array, pi: Array, gamma: float) -> Array:
    """Mean of r + gamma <pi, Q>(s') over the rows of each (s, a), [S, A]; a pair without rows keeps its value."""
    return average_targets(rows, rows.reward + gamma * rows.discount * expectation(pi, q)[rows.next_state], q)


def batch_optimality_backup(rows: Episodes, q: Array, gamma: float) -> Array:
    """Mean of r + gamma max Q(s', .) over the rows of each (s, a), [S, A]; a pair without rows keeps its value."""
    return average_targets(rows, rows.reward + gamma * rows.discount * q.max(-1)[rows.next_state], q)


def batch_sarsa_backup(rows: Episodes, q: Array, gamma: float) -> Array:
    """Mean of r + gamma Q(s', a') with the a' of the data, [S, A]; needs no estimate of b. A pair without rows keeps its value.

    Raises:
        UserError: a row that is not terminal has no a'.
    """
    unknown = (rows.next_action == UNKNOWN) & (rows.discount > 0)
    if unknown.any():
        raise UserError(f"SARSA needs the next action of every row that is not terminal; row {int(unknown.argmax())} has none")
    return average_targets(rows, rows.reward + gamma * rows.discount * q[rows.next_state, rows.next_action], q)


def batch_evaluation(rows: Episodes, pi: Array, gamma: float, start: Array | None = None, tol: float = 1e-10) -> Array:
    """Limit of tabular fitted Q-evaluation of pi [S, A]: Q^pi of the empirical MDP if `start` is 0."""
    return fixed_point(lambda q: batch_policy_backup(rows, q, pi, gamma), np.zeros(pi.shape) if start is None else start, gamma, tol).x


def batch_q_iteration(rows: Episodes, start: Array, gamma: float, tol: float = 1e-10) -> Array:
    """Limit of tabular fitted Q-iteration from `start` [S, A]: Q* of the empirical MDP if `start` is 0."""
    return fixed_point(lambda q: batch_optimality_backup(rows, q, gamma), start, gamma, tol).x


# ------------------------------------------------------------------------------------------------------------ maximisation bias
def single_estimator(samples: Array) -> Array:
    """Maximum over a of estimates [..., A]: in expectation at least max_a E, by Jensen's inequality."""
    return np.asarray(samples.max(-1))


def double_estimator(selector: Array, evaluator: Array) -> Array:
    """evaluator[argmax selector], both [..., A] and independent: in expectation at most max_a E (van Hasselt 2010)."""
    return np.asarray(np.take_along_axis(evaluator, selector.argmax(-1)[..., None], -1)[..., 0])
