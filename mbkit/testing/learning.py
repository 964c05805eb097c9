"""Checks of models that are fitted: they learn a linear system, change in place, and are saved and loaded bit for bit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mbkit.testing.common import attributes, check_metrics, expect, saved, seeded, tensors
from mbkit.testing.systems import NOISE, random_actions, transitions
from mbkit.types import EnvSpec, Predictive, Transition

ROWS, HELD_OUT, FEW = 400, 200, 64


def check_fit(model: Any, spec: EnvSpec) -> None:
    """Check that a fit halves the error on rows of a linear system that it did not get, in metrics and in place."""
    data, held_out = transitions(spec, ROWS), transitions(spec, HELD_OUT, seed=1)
    before, places = holdout_error(model, held_out), {x.data_ptr() for x in attributes(model)}
    untouched = [column.clone() for column in data[:5]]
    check_metrics(model.fit(data), "fit")
    changed = [name for name, a, b in zip(data._fields, untouched, data[:5], strict=False) if not torch.equal(a, b)]
    expect(not changed, f"fit: expected the transitions to stay as they are, but {', '.join(changed)} changed")
    if getattr(model, "capturable", False):
        now = {x.data_ptr() for x in attributes(model)}
        expect(places <= now, "fit: expected a capturable model to change its tensors in place, but some were replaced")
    after, idle = holdout_error(model, held_out), float((held_out.next_obs - held_out.obs).square().mean())
    limit = max(min(before, idle) / 2, 2 * NOISE**2)  # the second where the model was fitted before
    expect(
        after < limit,
        f"fit: expected a squared error below {limit:.3g} on held-out rows of a linear system, where it was {before:.3g} before "
        f"and that of no change is {idle:.3g}, came {after:.3g}",
    )


@torch.no_grad()
def holdout_error(model: Any, data: Transition) -> float:
    """Mean squared error of the next observation: of the members' mean where there is `predict`, else of sampled steps."""
    if isinstance(model, Predictive):
        predicted = model.predict(data.obs, data.action).mean.mean(0)[:, : data.obs.shape[1]]
    else:
        predicted = model.step(model.init(data.obs), data.action).obs
    return float((predicted - data.next_obs).square().mean())


def check_saving(fresh: Callable[[], Any], spec: EnvSpec) -> None:
    """Check that a saved model, loaded in place into another one, predicts and learns on bit for bit."""
    first, second, third = fresh(), fresh(), fresh()
    first.fit(transitions(spec, FEW, seed=2))
    second.fit(transitions(spec, FEW, seed=3))
    places = {x.data_ptr() for x in attributes(second)}
    second.load_state_dict(saved(first.state_dict()))
    expect(
        places <= {x.data_ptr() for x in attributes(second)},
        "load_state_dict: expected tensors to be written in place, but some were replaced",
    )
    third.load_state_dict(first.state_dict())  # in the same process, where two models could share a tensor by mistake
    data = transitions(spec, 32, seed=4)
    sequences = random_actions(spec, 32, 2)
    expected = forecast(first, data, sequences)
    expect(torch.equal(forecast(second, data, sequences), expected), "load_state_dict: expected the saved model's rollouts, came others")
    seeded(lambda: second.fit(transitions(spec, FEW, seed=5)))
    expect(
        torch.equal(forecast(third, data, sequences), expected),
        "load_state_dict: expected the saved model's rollouts in the same process, came others",
    )
    before = [x.clone() for x in tensors(third.state_dict())]
    seeded(lambda: first.fit(transitions(spec, FEW, seed=5)))
    alone = all(torch.equal(a, b) for a, b in zip(before, tensors(third.state_dict()), strict=True))
    expect(alone, "load_state_dict: expected a copy of the state, but the loaded model changes with the saved one")
    pairs = list(zip(tensors(first.state_dict()), tensors(second.state_dict()), strict=True))
    expect(
        all(torch.equal(a, b) for a, b in pairs),
        "load_state_dict: expected the next fit to continue as the saved model's, came another state",
    )
    expect(
        torch.equal(forecast(first, data, sequences), forecast(second, data, sequences)),
        "load_state_dict: expected the saved model's rollouts after the next fit, came others",
    )


def forecast(model: Any, data: Transition, sequences: Tensor) -> Tensor:
    """Observations and rewards of seeded rollouts, side by side."""
    out = seeded(lambda: model.rollout(model.init(data.obs), sequences))
    return torch.cat((out.obs, out.reward[..., None]), -1)
