"""Consequences of model error: value expansion, the simulation lemma, and error growth with the rollout length.

`model` is an MDP with the same states and actions as `mdp`. S states, A actions. Sources: Feinberg et al. 2018, arXiv:1803.00101 (MVE);
Kearns & Singh 2002; Janner et al. 2019, arXiv:1906.08253 (MBPO, lemma B.2).
"""

import numpy as np

from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.occupancy import total_variation, transition_of
from mbkit.tabular.operators import bellman_q, value_of


def value_expansion(model: MDP, pi: Array, q: Array, horizon: int) -> list[Array]:
    """Expected targets of depths 0..H, each [S, A]: [Q, B_Q^pi Q, ..., (B_Q^pi)^H Q] in the model.

    Depth H - t is the target of model state t; with a perfect model the error is at most |Q - Q^pi| gamma^depth.
    """
    targets = [q]
    for _ in range(horizon):
        targets.append(bellman_q(model, pi, targets[-1]))
    return targets


def simulation_bound(mdp: MDP, model: MDP, pi: Array) -> float:
    """Bound on |V^pi - V^pi of the model|: (eps_r + gamma TV span V_model) / (1 - gamma); eps_r and TV are maxima over (s, a)."""
    v = value_of(model, pi)
    reward_error = float(np.abs(mdp.R - model.R).max())
    transition_error = float(total_variation(mdp.P, model.P).max())
    return (reward_error + mdp.gamma * transition_error * float(np.ptp(v))) / (1 - mdp.gamma)


def compounding(mdp: MDP, model: MDP, pi: Array, steps: int) -> Array:
    """Total variation between the state distributions after k = 0..steps steps from mu0, [steps + 1]; at most k one-step errors."""
    transition, modelled = transition_of(mdp, pi), transition_of(model, pi)
    p = q = mdp.mu0
    distances = [0.0]
    for _ in range(steps):
        p, q = p @ transition, q @ modelled
        distances.append(float(total_variation(p, q)))
    return np.array(distances)


def one_step_error(mdp: MDP, model: MDP, pi: Array) -> float:
    """Maximum over states of the total variation between P_pi and the model's."""
    return float(total_variation(transition_of(mdp, pi), transition_of(model, pi)).max())
