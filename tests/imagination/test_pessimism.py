"""Penalised and halting dynamics: the model itself without a penalty, bit for bit, and its own steps with less reward or an earlier end."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from line_model import Line
from systems import SMALL, linear_gaussian, small_ensemble, zero_reward
from torch import Tensor

from mbkit.accelerate import rng_state
from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.uncertainty import disagreement
from mbkit.errors import UserError
from mbkit.imagination.pessimism import Halting, Penalized, Pessimistic
from mbkit.recipes.measures import COMPARES_MEMBERS, MEASURES
from mbkit.types import Dynamics, Prediction, Rollout, Stateful, Step

E, B, D = 5, 6, 3
PROPAGATIONS = ["ts_inf", "ts1", "expectation", "moment_matching"]


# ----------------------------------------------------------------------------------------------------------------------- measures
def predictions(spread: float, members: int = E) -> Prediction:
    """Members of one variance whose means lie `spread` times random offsets from a common one."""
    torch.manual_seed(0)
    common, offsets = torch.randn(B, D), torch.randn(members, B, D)
    return Prediction(common + spread * offsets, (torch.rand(B, D) + 0.1).expand(members, B, D))


@pytest.mark.parametrize("name", MEASURES)
def test_measures_rise_with_disagreement_and_do_not_depend_on_the_order_of_members(name):
    u = [MEASURES[name](predictions(spread)) for spread in (0, 0.1, 0.5, 2.0)]
    for less, more in pairwise(u):
        assert torch.all(more > less) if name != "max_aleatoric" else torch.equal(more, less)  # that one knows noise alone
    order, p = torch.tensor([3, 0, 4, 1, 2]), predictions(0.5)
    torch.testing.assert_close(MEASURES[name](Prediction(p.mean[order], p.var[order])), u[2])


@pytest.mark.parametrize("name", COMPARES_MEMBERS)
@pytest.mark.parametrize("members", [2, 5])
def test_measures_that_compare_members_are_0_where_these_are_alike(name, members):
    torch.testing.assert_close(MEASURES[name](predictions(0, members)), torch.zeros(B), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in COMPARES_MEMBERS])
def test_other_measures_of_members_alike_are_the_length_of_sigma(name):
    p = predictions(0)
    torch.testing.assert_close(MEASURES[name](p), p.var[0].sum(-1).sqrt())


# --------------------------------------------------------------------------------------------------------- the model, bit for bit
def model(propagation: str = "ts_inf", termination: str = "learned") -> Ensemble:
    """3 elites, which do not divide 7 rows; both the reward and the termination are learned, so that each step draws twice."""
    return small_ensemble(replace(SMALL, propagation=propagation, termination=termination))


def seeded(dynamics: Dynamics, obs: Tensor, actions: Tensor) -> tuple[Rollout, Tensor]:
    """A rollout, and torch's random state after it."""
    torch.manual_seed(3)
    return dynamics.rollout(dynamics.init(obs), actions), rng_state()["torch"]


def stepped(dynamics: Dynamics, obs: Tensor, actions: Tensor) -> tuple[Rollout, Tensor]:
    """The same step by step."""
    torch.manual_seed(3)
    carry, steps = dynamics.init(obs), []
    for action in actions.unbind(1):
        step = dynamics.step(carry, action)
        assert step.prediction is None
        carry = step.state
        steps.append((step.obs, step.reward, step.terminated))
    return Rollout(*(torch.stack(column, 1) for column in zip(*steps, strict=True))), rng_state()["torch"]


def equal(a: tuple[Rollout, Tensor], b: tuple[Rollout, Tensor]) -> bool:
    return all(map(torch.equal, a[0], b[0])) and torch.equal(a[1], b[1])


def inactive(dynamics: Dynamics) -> list[Pessimistic]:
    def never(prediction: Prediction) -> Tensor:
        raise AssertionError("measured without need")

    stopped = Halting(dynamics, never)
    stopped.set(math.inf, -3.0)
    return [Penalized(dynamics, never, 0.0), Halting(dynamics, never), stopped]


@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_without_penalty_or_threshold_it_is_the_model_bit_for_bit(propagation, rows):
    ensemble, obs, actions = model(propagation), torch.randn(rows, 3), torch.rand(rows, 4, 2)
    for wrapped in inactive(ensemble):
        assert isinstance(wrapped, Dynamics)
        assert equal(seeded(wrapped, obs, actions), seeded(ensemble, obs, actions))
        assert equal(stepped(wrapped, obs, actions), stepped(ensemble, obs, actions))
        assert wrapped.step(obs, actions[:, 0], predict=True).prediction is not None


@pytest.mark.parametrize("rows", [6, 7, 1])
@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_penalized_rollout_is_its_own_steps_and_the_models_with_less_reward(propagation, rows):
    ensemble, obs, actions = model(propagation), torch.randn(rows, 3), torch.rand(rows, 4, 2)
    penalized = Penalized(ensemble, disagreement, 0.7)
    plain, random_numbers = seeded(ensemble, obs, actions)
    out = seeded(penalized, obs, actions)
    assert equal(out, stepped(penalized, obs, actions))
    assert torch.equal(out[1], random_numbers)
    assert torch.equal(out[0].obs, plain.obs)
    assert torch.equal(out[0].terminated, plain.terminated)
    before = torch.cat((obs[:, None], plain.obs[:, :-1]), 1)
    for t in range(4):
        u = disagreement(ensemble.network.predict_targets(before[:, t], actions[:, t]))
        assert torch.equal(out[0].reward[:, t], plain.reward[:, t] - 0.7 * u)
        assert bool((u > 0).all())


def test_penalized_of_a_known_reward():
    ensemble = small_ensemble(reward=lambda obs, action, next_obs: next_obs.sum(-1))
    obs, actions = torch.randn(7, 3), torch.rand(7, 3, 2)
    plain, out = (seeded(x, obs, actions)[0] for x in (ensemble, Penalized(ensemble, disagreement, 2.0)))
    assert torch.equal(out.obs, plain.obs)
    assert bool((out.reward < plain.reward).all())


def test_penalized_of_a_model_in_which_members_agree_is_the_model():
    ensemble = small_ensemble()
    with torch.no_grad():
        for p in ensemble.network.net.parameters():
            p.copy_(p[:1].expand_as(p))
    ensemble.refresh()
    obs, actions = torch.randn(7, 3), torch.rand(7, 3, 2)
    plain, out = (seeded(x, obs, actions)[0] for x in (ensemble, Penalized(ensemble, disagreement, 5.0)))
    torch.testing.assert_close(out.reward, plain.reward, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------------------------------ halting
@pytest.mark.parametrize("rows", [6, 7])
def test_halting_ends_the_steps_beyond_the_threshold_and_no_other(rows):
    ensemble, obs, actions = model(), torch.randn(rows, 3), torch.rand(rows, 4, 2)
    u = disagreement(ensemble.network.predict_targets(obs, actions[:, 0])).detach()
    threshold = float(u.sort().values[rows // 2])
    halting = Halting(ensemble, disagreement, threshold, reward=-9.0)
    torch.manual_seed(3)
    plain = ensemble.step(obs, actions[:, 0])
    torch.manual_seed(3)
    step = halting.step(obs, actions[:, 0], predict=True)
    halted = u > threshold
    assert 0 < int(halted.sum()) < rows
    assert torch.equal(step.obs, plain.obs)
    assert torch.equal(step.reward, torch.where(halted, -9.0, plain.reward))
    assert torch.equal(step.terminated, plain.terminated | halted)
    assert torch.equal(disagreement(step.prediction), u)
    assert equal(seeded(halting, obs, actions), stepped(halting, obs, actions))


def test_halting_ends_where_the_uncertainty_is_not_a_number():
    halting = Halting(Line(), lambda prediction: torch.tensor([0.0, torch.nan, torch.inf, 2.0]), 2.0, -1.0)
    step = Step(None, torch.zeros(4, 1), torch.ones(4), torch.zeros(4, dtype=torch.bool))
    assert halting.judged(step, halting.measure(None)).terminated.tolist() == [False, True, True, False]


def test_halting_is_saved_and_set_in_place():
    halting, other = (Halting(model(), disagreement) for _ in range(2))
    place = other.limits.data_ptr()
    halting.set(0.25, -4.0)
    assert isinstance(halting, Stateful)
    other.load_state_dict(halting.state_dict())
    assert (other.active, other.limits.tolist(), other.limits.data_ptr()) == (True, [0.25, -4.0], place)
    other.load_state_dict(Halting(model(), disagreement).state_dict())
    assert not other.active


def test_a_model_without_members_is_named():
    for wrapped in (Penalized(Line(), disagreement, 1.0), Halting(Line(), disagreement, 1.0)):
        with pytest.raises(UserError, match="pessimism compares members' predictions, but Line returns none; expected an ensemble"):
            wrapped.rollout(torch.zeros(2, 1), torch.zeros(2, 3, 1))


def test_a_fit_of_the_model_is_seen_by_what_stands_around_it():
    ensemble = small_ensemble(reward=zero_reward)
    penalized, obs, action = Penalized(ensemble, disagreement, 1.0), torch.randn(4, 3), torch.zeros(4, 2)
    before = penalized.step(obs, action).reward
    ensemble.fit(linear_gaussian(100))
    assert not torch.equal(penalized.step(obs, action).reward, before)
