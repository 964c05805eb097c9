"""One-step model predictions: pairs come from the replay, outcomes from the model, and from the replay where they are not finite."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbkit.imagination.dyna import ModelPredictions, predicted
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec, Source, Step, Transition

CPU = torch.device("cpu")


@dataclass
class Scripted:
    """A model with a fixed answer that stores its last inputs."""

    obs: Tensor  # [B, O]
    reward: Tensor  # [B]
    terminated: Tensor  # bool [B]

    def init(self, obs):
        return {"of": obs}  # an opaque carry

    def step(self, carry, action, predict=False):
        self.asked = carry["of"], action
        return Step(None, self.obs, self.reward, self.terminated)

    def rollout(self, carry, actions):
        raise NotImplementedError


class Shift:
    """obs' = obs + 100, reward = 7 sum of the action, terminates where obs' is even."""

    def init(self, obs):
        return obs

    def step(self, carry, action, predict=False):
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
def test_model_predictions_sample_has_replayed_pairs_and_the_models_outcomes(rows, capacity, n, discrete):
    batch = ModelPredictions(filled(rows, capacity, discrete), Shift()).sample(n)
    index = batch.obs[:, 0]
    assert torch.equal(batch.obs, index[:, None].expand(n, 2))
    assert set(index.tolist()) <= set(range(max(0, rows - capacity), rows))  # those still stored
    assert torch.equal(batch.action, index.long() if discrete else index[:, None] / 50)  # the action taken there, not another row's
    assert torch.equal(batch.next_obs, batch.obs + 100)
    torch.testing.assert_close(batch.reward, 7 * index * (1 if discrete else 1 / 50))
    assert torch.equal(batch.discount, index % 2)


def test_model_predictions_sample_covers_every_replayed_pair():
    batch = ModelPredictions(filled(5, 10, False), Shift()).sample(500)
    assert set(batch.obs[:, 0].tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_predicted_rows_that_are_not_finite_stay_real(bad):
    real = Transition(torch.zeros(4, 2), torch.rand(4, 1), torch.arange(4.0), torch.full((4, 2), 5.0), torch.tensor([1.0, 1, 0, 1]))
    model = Scripted(torch.full((4, 2), 9.0), torch.full((4,), 8.0), torch.tensor([False, True, False, True]))
    model.obs[1, 1], model.reward[2] = bad, bad
    rows, finite = predicted(real, model)
    assert finite.tolist() == [True, False, False, True]
    assert rows.reward.tolist() == [8, 1, 2, 8]
    assert rows.next_obs[:, 0].tolist() == [9, 5, 5, 9]
    assert rows.next_obs[:, 1].tolist() == [9, 5, 5, 9]
    assert rows.discount.tolist() == [1, 1, 0, 0]  # the model's termination, or the real one
    assert model.asked[0] is real.obs
    assert model.asked[1] is real.action
    assert rows.obs is real.obs
    assert rows.action is real.action


def test_model_predictions_is_a_source_and_does_not_change_the_replay():
    buffer = filled(3, 5, False)
    source, before = ModelPredictions(buffer, Shift()), buffer.data.clone()
    assert isinstance(source, Source)
    source.sample(8).next_obs.zero_()
    assert torch.equal(buffer.data, before)


def test_model_predictions_counters_count_broken_rows_and_survive_a_checkpoint():
    model = Scripted(torch.full((8, 2), 9.0), torch.full((8,), 8.0), torch.zeros(8, dtype=torch.bool))
    model.reward[:3] = torch.nan
    source = ModelPredictions(filled(3, 5, False), model)
    source.sample(8)
    source.sample(8)
    other = ModelPredictions(source.data, source.dynamics)
    values = other.counters.values
    other.load_state_dict(source.state_dict())
    assert other.counters.values is values
    assert source.counters.take() == other.counters.take() == {"asked": 16, "broken": 6}
    assert source.counters.take() == {"asked": 0, "broken": 0}
