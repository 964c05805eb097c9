"""Open-loop returns against a loop over particles, candidates and steps; carries whose rows are repeated."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from line_model import Line

from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.planning import open_loop_return, policy_proposals
from mbkit.planning.objective import discounted_return, environment_of_rows, rows_of
from mbkit.types import EnvSpec, Rollout, Step

CPU = torch.device("cpu")


class Table:
    """Rollouts that were decided beforehand, in rows particle-major; the carry is the observation."""

    def __init__(self, out, obs, actions):
        self.out, self.obs, self.actions = out, obs, actions

    def init(self, obs):
        assert torch.equal(obs, self.obs)
        return obs

    def rollout(self, carry, actions):
        m, n = self.actions.shape[:2]
        for row in range(len(actions)):
            assert torch.equal(carry[row], self.obs[(row % (m * n)) // n])
            assert torch.equal(actions[row], self.actions[(row % (m * n)) // n, row % n])
        return self.out


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([1.0, 0.9]),
)
def test_open_loop_return_equals_a_loop(m, n, particles, horizon, seed, with_value, gamma):
    make = torch.Generator().manual_seed(seed)
    rows = particles * m * n
    reward = torch.randn(rows, horizon, generator=make)
    terminated = torch.rand(rows, horizon, generator=make) < 0.3
    states = torch.randn(rows, horizon, 2, generator=make)
    obs, actions = torch.randn(m, 2, generator=make), torch.randn(m, n, horizon, 1, generator=make)

    want = torch.zeros(m, n)
    for row in range(rows):
        total, alive = 0.0, True
        for t in range(horizon):
            if alive:
                total += gamma**t * reward[row, t].item()
            else:
                reward[row, t] = torch.nan  # a model's reward after termination must not matter
            if terminated[row, t]:
                alive = False
        if with_value:
            total += gamma**horizon * states[row, -1].sum().item() if alive else 0.0
            states[row, -1] = states[row, -1] if alive else torch.nan
        want[(row % (m * n)) // n, row % n] += total / particles

    model = Table(Rollout(states, reward, terminated), obs, actions)
    score = open_loop_return(model, obs, particles, gamma, (lambda x: x.sum(-1)) if with_value else None)(actions)
    torch.testing.assert_close(score, want, atol=1e-5, rtol=1e-5)


def test_open_loop_return_one_nan_particle_spoils_its_candidate_only():
    reward = torch.ones(4, 3)  # 2 particles x 2 candidates
    reward[1, 2] = torch.nan
    out = Rollout(torch.zeros(4, 3, 1), reward, torch.zeros(4, 3, dtype=torch.bool))
    obs, actions = torch.zeros(1, 1), torch.zeros(1, 2, 3, 1)
    score = open_loop_return(Table(out, obs, actions), obs, 2)(actions)
    assert score[0, 0] == 3
    assert score[0, 1].isnan()


def test_open_loop_return_discrete_actions_and_float64_model_gives_float32_scores():
    out = Rollout(torch.zeros(4, 3, 1), torch.ones(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.bool))
    obs, actions = torch.zeros(1, 1), torch.randint(2, (1, 2, 3))
    score = open_loop_return(Table(out, obs, actions), obs, 2)(actions)
    assert score.dtype == torch.float32
    assert score.tolist() == [[3, 3]]


@pytest.mark.parametrize("propagation", ["ts1", "ts_inf", "expectation", "moment_matching"])
@pytest.mark.parametrize(("m", "n", "particles"), [(1, 7, 4), (3, 5, 1), (2, 6, 3)])
def test_open_loop_return_ensemble_is_bit_identical_to_repeated_observations(propagation, m, n, particles):
    torch.manual_seed(0)
    spec = EnvSpec(3, 2, CPU)
    model = Ensemble(spec, EnsembleConfig(members=3, elites=2, hidden=(8,), propagation=propagation, termination="learned"))
    obs, actions = torch.randn(m, 3), torch.rand(m, n, 5, 2) * 2 - 1
    torch.manual_seed(1)
    score = open_loop_return(model, obs, particles, 0.9)(actions)
    torch.manual_seed(1)
    carry = model.init(obs.repeat_interleave(n, 0).repeat(particles, 1))
    out = model.rollout(carry, actions.flatten(0, 1).repeat(particles, 1, 1))
    assert torch.equal(score, discounted_return(out, 0.9).view(particles, m, n).mean(0))


class Latent:
    """A line whose carry holds a tensor, an array, a dict with a tuple, and a number."""

    class Carry(NamedTuple):
        position: torch.Tensor  # [B, 1]
        physics: np.ndarray  # [B] the same position, on the host
        more: dict  # {"pair": (position, None)}
        rate: float

    def init(self, obs):
        return self.Carry(obs, obs[:, 0].numpy(), {"pair": (obs, None)}, 0.1)

    def rollout(self, carry, actions):
        position, nothing = carry.more["pair"]
        assert nothing is None
        assert torch.equal(position, carry.position)
        assert np.array_equal(carry.physics, position[:, 0].numpy())
        path = carry.position + carry.rate * actions[..., 0].cumsum(1)
        return Rollout(path[..., None], path, torch.zeros_like(path, dtype=torch.bool))


def test_open_loop_return_nested_carry_is_repeated_over_candidates_and_particles():
    obs, actions = torch.tensor([[1.0], [-2.0]]), torch.randn(2, 5, 3, 1)
    score = open_loop_return(Latent(), obs, 4)(actions)
    torch.testing.assert_close(score, (obs[:, None] + 0.1 * actions[..., 0].cumsum(2)).sum(2))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_environment_of_rows_is_that_of_repeated_observations(m, n, particles):
    index, obs = environment_of_rows(m, particles, n, CPU), torch.randn(m, 3)
    assert torch.equal(obs[index], obs.repeat_interleave(n, 0).repeat(particles, 1))


def test_environment_of_rows_does_not_read_the_device():
    meta = torch.device("meta")  # meta tensors have no content: reading any would raise
    index = environment_of_rows(3, 2, 4, meta)
    assert index.shape == (24,)
    assert rows_of(torch.zeros(3, 5, device=meta), index).shape == (24, 5)


def test_rows_of_unknown_object_is_refused():
    with pytest.raises(UserError, match="holds a list, whose rows a plan cannot repeat"):
        rows_of((torch.zeros(2), [1, 2]), torch.tensor([0, 0, 1]))


def test_policy_proposals_follow_the_policy_in_the_model():
    propose = policy_proposals(lambda obs: (0.5 - obs).clamp(-1, 1), Line(), candidates=2, horizon=3)
    obs = torch.tensor([[0.0], [0.4]])
    proposals = propose(obs)
    assert proposals.shape == (2, 2, 3, 1)
    for problem in range(2):
        at = obs[problem]
        for t in range(3):
            torch.testing.assert_close(proposals[problem, 0, t], 0.5 - at)
            at = at + 0.1 * (0.5 - at)
    assert proposals[0, 0, 0].item() == pytest.approx(0.5)


def test_policy_proposals_model_with_a_latent_carry_encodes_once():
    class Once(Line):
        def init(self, obs):
            assert obs.shape == (2, 1)
            return {"hidden": obs}

        def step(self, carry, action, predict=False):
            hidden = carry["hidden"] + action
            return Step({"hidden": hidden}, hidden, hidden[:, 0], hidden[:, 0] > 9)

    proposals = policy_proposals(lambda obs: obs, Once(), candidates=3, horizon=2)(torch.tensor([[1.0], [2.0]]))
    assert proposals[..., 0].tolist() == [[[1, 2]] * 3, [[2, 4]] * 3]
