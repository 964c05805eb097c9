"""Small random models of the real mbrl-lib, the oracle. Skips the tests of a module where mbrl-lib is missing."""

import numpy as np
import pytest
import torch

from mbkit.dynamics.mbrl.dynamics import library
from mbkit.types import EnvSpec, TaskKnowledge

models = pytest.importorskip("mbrl.models")
SPEC = EnvSpec(3, 2, torch.device("cpu"))


def reward(obs, action, next_obs):
    return next_obs[:, 0] - 0.1 * action.square().sum(1) + 0.01 * obs[:, 1]


KNOWN = TaskKnowledge(reward)


def peer(members=4, propagation="random_model", elites=None, quiet=False, **options):
    """A random mbrl-lib model with a normaliser that does something; `quiet`: hardly any sampling noise."""
    learned, no_delta = options.pop("learned_rewards", False), options.pop("no_delta_list", None)
    sizes = (SPEC.obs_dim + SPEC.action_dim, SPEC.obs_dim + learned)
    silu = {"_target_": "torch.nn.SiLU"}
    network = models.GaussianMLP(*sizes, "cpu", 2, members, 16, propagation_method=propagation, activation_fn_cfg=silu, **options)
    if quiet:
        network.min_logvar.data.fill_(-70)
        network.max_logvar.data.fill_(-60)
    if elites is not None:
        network.set_elite(np.array(elites))
    model = models.OneDTransitionRewardModel(
        network, normalize=True, normalize_double_precision=True, learned_rewards=learned, no_delta_list=no_delta
    )
    model.update_normalizer(library("types").TransitionBatch(*arrays(50), None, None))
    return model


def arrays(rows):
    rng = np.random.default_rng(0)
    obs, action = rng.normal(1, 2, (rows, SPEC.obs_dim)), rng.uniform(-1, 1, (rows, SPEC.action_dim))
    next_obs = 0.9 * obs + 0.3 * np.pad(action, ((0, 0), (0, SPEC.obs_dim - SPEC.action_dim)))
    return obs, action, next_obs, next_obs[:, 0]
