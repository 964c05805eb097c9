"""Offline problems with their one-step RL policies, and the similarity of other policies to these. N seeds, S states, A actions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mbkit.tabular.environments import SIDE, garnet, one_step_grid
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.occupancy import discounted, total_variation
from mbkit.tabular.offline import behaviour, counts, empirical_mdp, fitted_q_iteration
from mbkit.tabular.one_step import improve
from mbkit.tabular.operators import greedy, q_of
from mbkit.tabular.planning import value_iteration
from mbkit.tabular.sampling import epsilon_greedy, sample_rows
from mbkit.theory.conservative import Tables

ROWS = 2000  # rows of a data set
EPSILON = {"uniform": 1.0, "epsilon-greedy": 0.5, "expert": 0.05}  # exploration of the behaviour policies around the optimal policy
TIE = 1e-9  # relative; actions with closer probabilities count as equally likely


class OfflineProblem(NamedTuple):
    """N data sets of one kind from N MDPs, with the one-step RL policy of each; S includes the terminal state of an empirical MDP."""

    name: str
    truth: Sequence[MDP]  # N
    empirical: Sequence[MDP]  # N
    fitted: Array  # [N, S, A] Q of fitted Q-iteration, 0 for pairs without data
    n: Array  # [N, S, A] counts
    beta: Array  # [N, S, A]
    q: Array  # [N, S, A] Q^beta on the empirical MDP
    pi: Array  # [N, S, A] policy of one-step RL; uniform where there are no data
    inputs: Array  # [N, S, F] network inputs of the states

    @property
    def tables(self) -> Tables:
        """Tables for the exact solver."""
        P, R = (np.stack([getattr(e, name) for e in self.empirical]) for name in ("P", "R"))
        return Tables(P, R, self.beta, np.stack([e.terminal for e in self.empirical]), self.empirical[0].gamma)

    def mean(self, x: Array) -> Array:
        """Mean of x [..., N, S] over the states of the data, [..., N]."""
        n = self.n.sum(-1)
        return np.asarray((x * n).sum(-1) / n.sum(-1))


def problem(environment: str, kind: str, seeds: Sequence[int]) -> OfflineProblem:
    """Sample data sets: uniform pairs, or pairs from the occupancy of an epsilon-greedy policy around the optimal one."""
    parts = []
    for seed in seeds:
        rng = np.random.default_rng([seed, *environment.encode(), *kind.encode()])
        mdp = garnet(20, 4, 5, seed, low=0.1) if environment == "Garnet" else one_step_grid(2)
        S, A = mdp.S, mdp.A
        pi = epsilon_greedy(greedy(value_iteration(mdp, tol=1e-10).q), EPSILON[kind])
        weight = np.ones((S, A)) if kind == "uniform" else discounted(mdp, pi)[:, None] * pi
        data = sample_rows(mdp, rng, ROWS, weight)
        n, model = counts(data, S + 1, A), empirical_mdp(data, S, A, mdp.gamma, mdp.mu0)
        beta = behaviour(data, S + 1, A)
        q, visited = q_of(model, beta), n.sum(1) > 0
        one_step = beta.copy()
        one_step[visited] = improve(beta[visited], q[visited])
        cells = np.array([(i, j) for i in range(SIDE) for j in range(SIDE)]) * 2 / (SIDE - 1) - 1
        features = cells if environment == "grid" else rng.standard_normal((S, 8))
        inputs = np.vstack([features, np.zeros((1, features.shape[1]))])
        horizon = int(np.ceil(np.log(1e-12) / np.log(mdp.gamma)))
        parts.append((mdp, model, fitted_q_iteration(data, S + 1, A, mdp.gamma, horizon), n, beta, q, one_step, inputs))
    truth, models, *arrays = zip(*parts, strict=True)
    return OfflineProblem(f"{environment}, {kind}", truth, models, *map(np.stack, arrays))


# ------------------------------------------------------------------------------------------------------------------- similarity
def same_argmax(pi: Array, reference: Array) -> Array:
    """Whether the most likely action of pi is one of the most likely actions of the reference, [..., S]."""
    reference = np.broadcast_to(reference, pi.shape)
    chosen = np.take_along_axis(reference, pi.argmax(-1)[..., None], -1)[..., 0]
    return np.asarray((chosen >= reference.max(-1) * (1 - TIE)).astype(float))


class Similarity(NamedTuple):
    """Similarity of policies [L, N, S, A] to one-step RL, means over the states of the data."""

    closeness: Array  # [L, N] 1 - total variation
    agreement: Array  # [L, N] fraction of equal argmax
    clone: Array  # [N] closeness of beta, the limit lambda -> infinity

    def best(self, lams: Array) -> Array:
        """Lambda of the largest closeness for each seed, [N]."""
        return np.asarray(lams[self.closeness.argmax(0)])


def similarity(data: OfflineProblem, mu: Array, reference: Array) -> Similarity:
    """Similarity of mu [L, N, S, A] to the reference policies."""
    closeness, clone = (1 - data.mean(np.asarray(total_variation(pi, reference))) for pi in (mu, data.beta))
    return Similarity(closeness, data.mean(same_argmax(mu, reference)), clone)
