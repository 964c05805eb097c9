"""open_loop_return against a loop over particles, candidates and steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from line_model import Line

from mbkit.planning import open_loop_return, policy_proposals
from mbkit.types import Rollout


class Table:
    """Rollouts that were decided beforehand, in rows particle-major."""

    def __init__(self, out, obs, actions):
        self.out, self.obs, self.actions = out, obs, actions

    def init(self, obs):
        m, n = self.actions.shape[:2]
        for row in range(len(obs)):
            assert torch.equal(obs[row], self.obs[(row % (m * n)) // n])
        return obs

    def rollout(self, carry, actions):
        m, n = self.actions.shape[:2]
        for row in range(len(actions)):
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
def test_equals_a_loop(m, n, particles, horizon, seed, with_value, gamma):
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
                reward[row, t] = torch.nan  # what a model says after termination must not matter
            if terminated[row, t]:
                alive = False
        if with_value:
            total += gamma**horizon * states[row, -1].sum().item() if alive else 0.0
            states[row, -1] = states[row, -1] if alive else torch.nan
        want[(row % (m * n)) // n, row % n] += total / particles

    model = Table(Rollout(states, reward, terminated), obs, actions)
    got = open_loop_return(model, obs, particles, actions, (lambda x: x.sum(-1)) if with_value else None, gamma)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_one_bad_particle_spoils_its_candidate_only():
    reward = torch.ones(4, 3)  # 2 particles x 2 candidates
    reward[1, 2] = torch.nan
    out = Rollout(torch.zeros(4, 3, 1), reward, torch.zeros(4, 3, dtype=torch.bool))
    obs, actions = torch.zeros(1, 1), torch.zeros(1, 2, 3, 1)
    score = open_loop_return(Table(out, obs, actions), obs, 2, actions)
    assert score[0, 0] == 3
    assert score[0, 1].isnan()


def test_discrete_actions_and_float64_models_give_float32_scores():
    out = Rollout(torch.zeros(4, 3, 1), torch.ones(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.bool))
    obs, actions = torch.zeros(1, 1), torch.randint(2, (1, 2, 3))
    score = open_loop_return(Table(out, obs, actions), obs, 2, actions)
    assert score.dtype == torch.float32
    assert score.tolist() == [[3, 3]]


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
