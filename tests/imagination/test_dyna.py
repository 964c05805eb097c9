"""Imagined steps from seen pairs: the pairs are really seen ones, the rest is the model's, and what the model broke is the real row."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbkit.imagination.dyna import SeenPairs, reimagined
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec, Source, Step, Transition

CPU = torch.device("cpu")


@dataclass
class Told:
    """A model that knows its answer beforehand and remembers what it was asked."""

    obs: Tensor  # [B, O]
    reward: Tensor  # [B]
    terminated: Tensor  # bool [B]

    def init(self, obs):
        return {"of": obs}  # an opaque carry

    def step(self, carry, action):
        self.asked = carry["of"], action
        return Step(None, self.obs, self.reward, self.terminated)

    def rollout(self, carry, actions):
        raise NotImplementedError


class Shift:
    """obs' = obs + 100, reward = 7 sum of the action, terminates where obs' is even."""

    def init(self, obs):
        return obs

    def step(self, carry, action):
        obs = carry + 100
        return Step(obs, obs, 7 * action.reshape(len(obs), -1).float().sum(1), obs[:, 0] % 2 == 0)

    def rollout(self, carry, actions):
        raise NotImplementedError


def filled(rows: int, capacity: int, discrete: bool) -> ReplayBuffer:
    """Row i has observation i (twice), action i, and a reward, successor and termination that Shift never gives."""
    buffer = ReplayBuffer(capacity, EnvSpec(2, 50 if discrete else 1, CPU, discrete))
    for i in range(rows):
        obs, action = torch.full((1, 2), float(i)), torch.tensor([i]) if discrete else torch.full((1, 1), i / 50)
        one = torch.ones(1, dtype=torch.bool)
        buffer.extend(Experience(obs, action, torch.full((1,), -1.0), obs - 1, one, one))
    return buffer


@settings(max_examples=40)
@given(rows=st.integers(1, 40), capacity=st.integers(1, 20), n=st.integers(1, 64), discrete=st.booleans())
def test_only_seen_pairs_and_only_the_models_outcome(rows, capacity, n, discrete):
    batch = SeenPairs(filled(rows, capacity, discrete), Shift()).sample(n)
    index = batch.obs[:, 0]
    assert torch.equal(batch.obs, index[:, None].expand(n, 2))
    assert set(index.tolist()) <= set(range(max(0, rows - capacity), rows))  # those still remembered
    assert torch.equal(batch.action, index.long() if discrete else index[:, None] / 50)  # the action taken there, not another row's
    assert torch.equal(batch.next_obs, batch.obs + 100)
    torch.testing.assert_close(batch.reward, 7 * index * (1 if discrete else 1 / 50))
    assert torch.equal(batch.discount, index % 2)


def test_every_seen_pair_comes():
    batch = SeenPairs(filled(5, 10, False), Shift()).sample(500)
    assert set(batch.obs[:, 0].tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_as_it_really_was(bad):
    seen = Transition(torch.zeros(4, 2), torch.rand(4, 1), torch.arange(4.0), torch.full((4, 2), 5.0), torch.tensor([1.0, 1, 0, 1]))
    model = Told(torch.full((4, 2), 9.0), torch.full((4,), 8.0), torch.tensor([False, True, False, True]))
    model.obs[1, 1], model.reward[2] = bad, bad
    out, finite = reimagined(seen, model)
    assert finite.tolist() == [True, False, False, True]
    assert out.reward.tolist() == [8, 1, 2, 8]
    assert out.next_obs[:, 0].tolist() == [9, 5, 5, 9]
    assert out.next_obs[:, 1].tolist() == [9, 5, 5, 9]
    assert out.discount.tolist() == [1, 1, 0, 0]  # the model's termination, or the real one
    assert model.asked[0] is seen.obs
    assert model.asked[1] is seen.action
    assert out.obs is seen.obs
    assert out.action is seen.action


def test_it_is_a_source_and_leaves_the_replay_alone():
    buffer = filled(3, 5, False)
    source, before = SeenPairs(buffer, Shift()), buffer.data.clone()
    assert isinstance(source, Source)
    source.sample(8).next_obs.zero_()
    assert torch.equal(buffer.data, before)


def test_broken_rows_are_counted_and_the_counts_travel():
    source = SeenPairs(filled(3, 5, False), Told(torch.full((8, 2), 9.0), torch.full((8,), 8.0), torch.zeros(8, dtype=torch.bool)))
    source.dynamics.reward[:3] = torch.nan
    source.sample(8)
    source.sample(8)
    other = SeenPairs(source.data, source.dynamics)
    held = other.seen.values
    other.load_state_dict(source.state_dict())
    assert other.seen.values is held
    assert source.seen.take() == other.seen.take() == {"asked": 16, "broken": 6}
    assert source.seen.take() == {"asked": 0, "broken": 0}
