"""Temporal-difference control: SARSA, expected SARSA, Q-learning, double Q-learning, Dyna-Q, and Q-iteration on a data set.

Sources: Sutton & Barto, chapters 6 and 8; Watkins 1989; van Seijen et al. 2009; van Hasselt 2010; Sutton 1990. S states, A actions.
"""

from collections.abc import Callable

import numpy as np

from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array, TabularError, draw
from mbkit.tabular.operators import expectation
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import UNKNOWN, Ints, Learned, StepSize, average_targets, constant, epsilon_greedy

NextValue = Callable[[Array, Array, int], float]  # (Q(s', .) [A], behaviour pi(.|s') [A], the a' that will be taken) -> value of s'
Update = Callable[[int, int, float, int, float, int, Array], None]  # s, a, r, s', discount, a', pi(.|s') [A] that a' was drawn from


# ---------------------------------------------------------------------------------------------------- what a successor is worth
def sarsa(q: Array, pi: Array, a: int) -> float:
    """Q(s', a')."""
    return float(q[a])


def expected_sarsa(q: Array, pi: Array, a: int) -> float:
    """<pi, Q>(s'), the mean of SARSA's over a'; with a greedy pi it is Q-learning's."""
    return float(pi @ q)


def q_learning(q: Array, pi: Array, a: int) -> float:
    """max Q(s', .), whatever the behaviour."""
    return float(q.max())


# --------------------------------------------------------------------------------------------------------------- learning online
def interact(
    mdp: MDP, rng: np.random.Generator, steps: int, policy: Callable[[int], Array], update: Update, episode_steps: int | None
) -> Array:
    """Act for `steps` steps, telling each to `update`; the undiscounted return of every finished episode.

    The next action is drawn before the update, so that SARSA's a' is what is done and all methods see one order of events.
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
    step_size: StepSize | None = None,
    episode_steps: int | None = None,
    start: Array | None = None,
) -> Learned:
    """Q(s, a) += alpha (r + gamma value(s') - Q(s, a)) while acting epsilon-greedily in Q.

    Args:
        mdp: where.
        rng: source of all randomness.
        steps: real steps.
        next_value: `sarsa`, `expected_sarsa` or `q_learning`.
        epsilon: of the behaviour, and of the policy that the first two evaluate.
        step_size: by the number of earlier updates of (s, a); constant 0.5 if None.
        episode_steps: episodes are truncated there; None: only terminal states end them.
        start: first Q [S, A]; zeros if None.
    """
    step_size = step_size or constant(0.5)
    q, n = first_table(mdp, start), np.zeros((mdp.S, mdp.A), np.int64)

    def update(s: int, a: int, r: float, next_s: int, discount: float, next_a: int, pi: Array) -> None:
        value = next_value(q[next_s], pi, next_a)
        q[s, a] += step_size(int(n[s, a])) * (r + mdp.gamma * discount * value - q[s, a])
        n[s, a] += 1

    returns = interact(mdp, rng, steps, lambda s: epsilon_greedy(q[s], epsilon), update, episode_steps)
    return Learned(q, n, returns)


def double_q_learning(
    mdp: MDP,
    rng: np.random.Generator,
    steps: int,
    epsilon: float = 0.1,
    step_size: StepSize | None = None,
    episode_steps: int | None = None,
) -> Learned:
    """A coin decides which of two tables learns: Q_A <- r + gamma Q_B(s', argmax Q_A(s', .)), or the other way round.

    One table chooses and the other, fed by other samples, values: the maximum of the noise is not taken for value. Behaviour is
    epsilon-greedy in their sum; the Q returned is their mean, `step_size` counts the updates of a table.
    """
    step_size = step_size or constant(0.5)
    tables, n = np.zeros((2, mdp.S, mdp.A)), np.zeros((2, mdp.S, mdp.A), np.int64)

    def update(s: int, a: int, r: float, next_s: int, discount: float, next_a: int, pi: Array) -> None:
        coin = int(rng.random() < 0.5)
        mine, other = tables[coin], tables[1 - coin]
        value = other[next_s, mine[next_s].argmax()]
        mine[s, a] += step_size(int(n[coin, s, a])) * (r + mdp.gamma * discount * value - mine[s, a])
        n[coin, s, a] += 1

    returns = interact(mdp, rng, steps, lambda s: epsilon_greedy(tables[:, s].sum(0), epsilon), update, episode_steps)
    return Learned(tables.mean(0), n.sum(0), returns)


def dyna_q(
    mdp: MDP,
    rng: np.random.Generator,
    steps: int,
    planning_steps: int = 10,
    epsilon: float = 0.1,
    step_size: StepSize | None = None,
    episode_steps: int | None = None,
    start: Array | None = None,
) -> Learned:
    """Q-learning that after every real step also learns from `planning_steps` remembered ones.

    A remembered step: a pair (s, a) uniformly among those seen, one of its outcomes uniformly among those seen.
    # Paper: a deterministic model, the last outcome; here: all outcomes (a sample of the empirical MDP, the same where P is
    # deterministic). `planning_steps` = 0 is Q-learning. Arguments as in `td_control`.
    """
    step_size = step_size or constant(0.5)
    q, n = first_table(mdp, start), np.zeros((mdp.S, mdp.A), np.int64)
    imagined = np.zeros((mdp.S, mdp.A), np.int64)
    outcomes: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    seen: list[tuple[int, int]] = []

    def learn(s: int, a: int, r: float, next_s: int, discount: float) -> None:
        target = r + mdp.gamma * discount * q[next_s].max()
        q[s, a] += step_size(int(n[s, a] + imagined[s, a])) * (target - q[s, a])

    def update(s: int, a: int, r: float, next_s: int, discount: float, next_a: int, pi: Array) -> None:
        learn(s, a, r, next_s, discount)
        n[s, a] += 1
        if (s, a) not in outcomes:
            outcomes[s, a] = []
            seen.append((s, a))
        outcomes[s, a].append((r, next_s, discount))
        for u, w in rng.random((planning_steps, 2)).tolist():
            pair = seen[int(u * len(seen))]
            kept = outcomes[pair]
            r, next_s, discount = kept[int(w * len(kept))]
            learn(*pair, r, next_s, discount)
            imagined[pair] += 1

    returns = interact(mdp, rng, steps, lambda s: epsilon_greedy(q[s], epsilon), update, episode_steps)
    return Learned(q, n, returns)


def first_table(mdp: MDP, start: Array | None) -> Array:
    """A copy of `start`, or zeros [S, A]."""
    if start is None:
        return np.zeros((mdp.S, mdp.A))
    if start.shape != (mdp.S, mdp.A):
        raise TabularError(f"start must have shape {(mdp.S, mdp.A)}, not {start.shape}")
    return np.array(start, float)


# ----------------------------------------------------------------------------------------------------------- learning from rows
def q_learning_on(rows: Episodes, start: Array, gamma: float, step_size: StepSize) -> Array:
    """Q-learning once along the rows, in their order, from `start` [S, A] -> [S, A]; the behaviour is whatever made them."""
    q: list[list[float]] = start.tolist()  # lists: a row takes a microsecond, not ten
    n = [[0] * start.shape[1] for _ in q]
    fields = (rows.state, rows.action, rows.reward, rows.next_state, rows.discount)
    for s, a, r, next_s, d in zip(*(x.tolist() for x in fields), strict=True):
        here = q[s]
        here[a] += step_size(n[s][a]) * (r + gamma * d * max(q[next_s]) - here[a])
        n[s][a] += 1
    return np.array(q, float)


def synchronous_q_learning(mdp: MDP, rng: np.random.Generator, sweeps: int, step_size: StepSize, start: Array | None = None) -> Array:
    """Every (s, a) is tried once a sweep and all are updated at once from the same Q [S, A]: the setting of the theorems."""
    q = first_table(mdp, start)
    for k in range(sweeps):
        u = rng.random((mdp.S, mdp.A, 1)) * mdp.cumulative[:, :, -1:]
        next_s: Ints = (mdp.cumulative <= u).sum(-1)
        reward = mdp.R
        if mdp.reward_sampler is not None:
            reward = np.array([[mdp.reward_sampler(rng, s, a, int(next_s[s, a])) for a in range(mdp.A)] for s in range(mdp.S)], float)
        q += step_size(k) * (reward + mdp.gamma * ~mdp.terminal[next_s] * q.max(-1)[next_s] - q)
    return q


# ------------------------------------------------------------------------------------- dynamic programming on the empirical MDP
def batch_policy_backup(rows: Episodes, q: Array, pi: Array, gamma: float) -> Array:
    """Mean of r + gamma <pi, Q>(s') over the rows of each (s, a), [S, A]; a pair without rows keeps its value."""
    return average_targets(rows, rows.reward + gamma * rows.discount * expectation(pi, q)[rows.next_state], q)


def batch_optimality_backup(rows: Episodes, q: Array, gamma: float) -> Array:
    """Mean of r + gamma max Q(s', .) over the rows of each (s, a), [S, A]; a pair without rows keeps its value."""
    return average_targets(rows, rows.reward + gamma * rows.discount * q.max(-1)[rows.next_state], q)


def batch_sarsa_backup(rows: Episodes, q: Array, gamma: float) -> Array:
    """Mean of r + gamma Q(s', a') with the a' of the data, [S, A]: B^b without an estimate of b; a pair without rows keeps its value.

    Raises:
        TabularError: a row that did not terminate has no a'.
    """
    unknown = (rows.next_action == UNKNOWN) & (rows.discount > 0)
    if unknown.any():
        raise TabularError(f"SARSA needs the next action of every row that did not terminate; row {int(unknown.argmax())} has none")
    return average_targets(rows, rows.reward + gamma * rows.discount * q[rows.next_state, rows.next_action], q)


def batch_evaluation(rows: Episodes, pi: Array, gamma: float, start: Array | None = None, tol: float = 1e-10) -> Array:
    """Fitted Q-evaluation of pi [S, A] with a table, to its limit: Q^pi of the empirical MDP if `start` is 0."""
    return fixed_point(lambda q: batch_policy_backup(rows, q, pi, gamma), np.zeros(pi.shape) if start is None else start, gamma, tol).x


def batch_q_iteration(rows: Episodes, start: Array, gamma: float, tol: float = 1e-10) -> Array:
    """Fitted Q-iteration with a table from `start` [S, A], to its limit: Q* of the empirical MDP if `start` is 0."""
    return fixed_point(lambda q: batch_optimality_backup(rows, q, gamma), start, gamma, tol).x


# --------------------------------------------------------------------------------------------------------------- maximisation bias
def single_estimator(samples: Array) -> Array:
    """max_a of estimates [..., A]: at least max_a E in expectation, by Jensen."""
    return np.asarray(samples.max(-1))


def double_estimator(chooser: Array, judge: Array) -> Array:
    """judge[argmax chooser], both [..., A] and independent: never above max_a E in expectation (van Hasselt 2010)."""
    return np.asarray(np.take_along_axis(judge, chooser.argmax(-1)[..., None], -1)[..., 0])
