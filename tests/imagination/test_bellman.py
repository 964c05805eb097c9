"""MOBILE's targets: the inconsistency as a loop over elites and samples, one-step targets without it, and recorded rows as they are."""

from dataclasses import replace

import pytest
import torch
from systems import SMALL, SPEC, linear_gaussian, small_ensemble
from torch import Tensor

from mbkit.accelerate import rng_state
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.imagination.bellman import BellmanInconsistency, inconsistency
from mbkit.targets import one_step
from mbkit.testing import random_batch
from mbkit.types import Prediction, Targets, Transition

B, J, GAMMA = 12, 4, 0.9
RECORDED = (torch.arange(B) < 5).float()


@pytest.fixture(scope="module")
def agent() -> SAC:
    torch.manual_seed(0)
    return SAC(SPEC, SACConfig(hidden=(16,), backup_entropy=False), GAMMA)


@pytest.fixture(scope="module")
def model():
    return small_ensemble()


def batch(real: Tensor | None = RECORDED) -> Transition:
    return random_batch(SPEC, B)._replace(real=real)


def seeded(target, agent, rows: Transition) -> tuple[Targets, Tensor]:
    torch.manual_seed(7)
    return target(agent, rows, GAMMA), rng_state()["torch"]


def looped(agent: SAC, prediction: Prediction) -> Tensor:
    """The same noise and the same actions, row by row, elite by elite, sample by sample, in float64."""
    members = len(prediction.mean)
    noise = torch.randn(J, members, B, 3)
    drawn = prediction.mean[..., :3] + prediction.var[..., :3].sqrt() * noise
    action = agent.backup_action(drawn.flatten(0, 2))[0].view(J, members, B, 2)
    out = []
    for row in range(B):
        backups = []
        for i in range(members):
            smallest = [float(agent.backup_q(drawn[j, i, row][None], action[j, i, row][None]).min()) for j in range(J)]
            backups.append(sum(smallest) / J)
        mean = sum(backups) / members
        out.append((sum((x - mean) ** 2 for x in backups) / (members - 1)) ** 0.5)
    return torch.tensor(out)


def test_inconsistency_is_a_loop_over_elites_and_samples(agent, model):
    prediction = model.predict_elites(batch().obs, batch().action)
    assert prediction.mean.shape == (SMALL.elites, B, 4)  # with the reward, which has no part in it
    torch.manual_seed(5)
    u = inconsistency(agent, prediction, 3, J)
    torch.manual_seed(5)
    torch.testing.assert_close(u, looped(agent, prediction), atol=1e-5, rtol=1e-4)
    assert bool((u > 0).all())


def test_elites_that_agree_without_noise_are_consistent(agent):
    mean = torch.randn(B, 4).expand(3, B, 4)
    steady = type("Steady", (), {"backup_action": lambda self, obs: (obs[:, :2].tanh(), None), "backup_q": agent.backup_q})()
    u = inconsistency(steady, Prediction(mean, torch.zeros_like(mean)), 3, J)
    torch.testing.assert_close(u, torch.zeros(B), atol=1e-6, rtol=0)


def test_targets_are_one_steps_less_c_times_u_on_rows_of_the_model_alone(agent, model):
    (one, _), rows = seeded(one_step, agent, batch()), batch()
    y, _ = seeded(BellmanInconsistency(model.predict_elites, one_step, 1.5, J), agent, rows)
    torch.manual_seed(7)
    one_step(agent, rows, GAMMA)
    u = inconsistency(agent, model.predict_elites(rows.obs, rows.action), 3, J)
    assert torch.equal(y.target[:5], one.target[:5])
    torch.testing.assert_close(y.target[5:], (one.target - 1.5 * u)[5:])
    assert bool((y.target[5:] < one.target[5:]).all())
    for name in ("obs", "action"):
        assert torch.equal(getattr(y, name), getattr(one, name))


@pytest.mark.parametrize(("weight", "rows"), [(0.0, batch()), (2.0, batch(None))], ids=["c=0", "no model rows"])
def test_without_weight_or_model_rows_it_is_one_step_bit_for_bit(agent, weight, rows):
    def never(obs: Tensor, action: Tensor) -> Prediction:
        raise AssertionError("predicted without need")

    (y, after), (one, expected) = (seeded(t, agent, rows) for t in (BellmanInconsistency(never, one_step, weight), one_step))
    assert all(map(torch.equal, y[:3], one[:3]))
    assert y.weight is one.weight is None
    assert torch.equal(after, expected)  # nothing was drawn


def test_a_prediction_that_is_not_finite_does_not_reach_recorded_rows(agent, model):
    def broken(obs: Tensor, action: Tensor) -> Prediction:
        return Prediction(*(x * torch.where(RECORDED > 0, torch.inf, 1.0)[:, None] for x in model.predict_elites(obs, action)))

    y, _ = seeded(BellmanInconsistency(broken, one_step, 1.0, J), agent, batch())
    assert torch.equal(y.target[:5], seeded(one_step, agent, batch())[0].target[:5])
    assert bool(y.target.isfinite().all())


def test_clipped_targets_are_at_least_0(agent, model):
    plain, clipped = (
        seeded(BellmanInconsistency(model.predict_elites, one_step, 1.0, J, clip), agent, batch())[0] for clip in (False, True)
    )
    assert plain.target.min() < 0 < plain.target.max()
    assert torch.equal(clipped.target, plain.target.clamp(min=0))


def test_a_single_elite_has_nothing_to_compare_with(agent, model):
    def single(obs: Tensor, action: Tensor) -> Prediction:
        return Prediction(*(x[:1] for x in model.predict_elites(obs, action)))

    with pytest.raises(ValueError, match="expected at least 2 elites, the model has 1"):
        BellmanInconsistency(single, one_step, 1.0)(agent, batch(), GAMMA)


def test_targets_carry_no_gradient(agent, model):
    assert not seeded(BellmanInconsistency(model.predict_elites, one_step, 1.0), agent, batch())[0].target.requires_grad


def test_predict_elites_are_the_elites_of_predict():
    for termination in ("never", "learned"):
        model = small_ensemble(replace(SMALL, termination=termination))
        rows = linear_gaussian(9)
        every, elites = model.predict(rows.obs, rows.action), model.predict_elites(rows.obs, rows.action)
        for mine, theirs in zip(elites, every, strict=True):
            torch.testing.assert_close(mine, theirs[model.network.elites].detach(), atol=1e-5, rtol=1e-4)
