"""The contract of dynamics models: every model, learned or true, passes `check_dynamics`.

Letters: M states, B rows, H steps, P particles, N candidates, E members, O observation, A action, D prediction.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbkit import registry
from mbkit.errors import UserError
from mbkit.planning.objective import environment_of_rows, rows_of
from mbkit.testing.common import expect, plain_sentences, seeded, supported, synchronising
from mbkit.testing.learning import check_fit, check_saving
from mbkit.testing.outcomes import (
    check_continues,
    check_distribution,
    check_gaussians,
    check_gradients,
    check_known,
    check_members_met,
    check_predictions,
    check_rollout,
    check_rows_apart,
    check_step,
    same,
)
from mbkit.testing.rows import SPEC, random_batch
from mbkit.testing.systems import KNOWN, random_actions
from mbkit.types import Dynamics, EnvSpec, Learnable, Predictive, Stateful, TaskKnowledge

Build = Callable[[EnvSpec, TaskKnowledge], Any]
STATES, PARTICLES, STEPS = 4, 3, 3  # M, P and H of most checks


def check_dynamics(
    model: Dynamics | Build | str, spec: EnvSpec = SPEC, task: TaskKnowledge | None = None, obs: Tensor | None = None
) -> None:
    """Check that a dynamics model keeps its contract.

    Checked: shapes, dtypes and devices of `init`, `step` and `rollout`; that the two agree; that a carry is not changed and its rows can
    be repeated; that rows do not mix and every candidate meets every member (particle-major rows); that rows go on after a termination;
    known rewards and terminations; that a seed decides the outcome. Of `predict` shapes, variances, and that outcomes lie where it says;
    of `grad` finite differences and that parameters get none; of a `capturable` model that nothing synchronises with the device. A
    model with `fit` must learn a linear system and, with `state_dict`, be saved and loaded in place, bit for bit.

    Args:
        model: a function that makes a model of a specification and what is known of the task, with new random weights each time; the name
            of a registered one, which is made with its default options; or a model, of which copies are fitted.
        spec: dimensions and device; a function or a name is tried with each kind of actions, and may refuse some by UserError.
        task: what the model was made to know; None: a function or a name is tried with a known reward and termination, and with none.
        obs: states [M, O] to start from; None: random ones.

    Raises:
        AssertionError: one sentence with the expectation and the result.
    """
    with plain_sentences():
        if not isinstance(model, str) and isinstance(model, Dynamics) and not isinstance(model, type):
            copied = deepcopy(model) if isinstance(model, Learnable) else model
            check_model(copied, lambda: deepcopy(model), spec, TaskKnowledge() if task is None else task, obs)
            return
        build: Any = registered(model) if isinstance(model, str) else model
        refusals, tasks = [], (KNOWN, TaskKnowledge()) if task is None else (task,)
        for knowledge in tasks:
            try:
                spaces = supported(knowing(build, knowledge), spec)
            except AssertionError as error:
                refusals.append(error)
                continue
            for space in spaces:
                fresh = partial(knowing(build, knowledge), space)
                torch.manual_seed(0)
                check_model(fresh(), fresh, space, knowledge, obs)
        if len(refusals) == len(tasks):
            raise refusals[0]


def registered(name: str) -> Build:
    """What makes the registered model of this name, with its default options."""
    entry = registry.dynamics[name]
    return lambda spec, task: entry.target(spec, entry.config(), task)


def knowing(build: Build, task: TaskKnowledge) -> Callable[[EnvSpec], Any]:
    """What makes models that know this of the task."""
    return lambda spec: build(spec, task)


def check_model(model: Any, fresh: Callable[[], Any], spec: EnvSpec, task: TaskKnowledge, obs: Tensor | None) -> None:
    """Check one model; `fresh` makes others like it."""
    expect(isinstance(model, Dynamics), f"{type(model).__name__} lacks a method of mbkit.types.Dynamics: init, step or rollout")
    states = random_batch(spec, STATES).obs.to(spec.device) if obs is None else obs
    rows = environment_of_rows(len(states), PARTICLES, 1, states.device)
    sequences = random_actions(spec, len(rows), STEPS)
    carry = check_init(model, states, rows)
    check_step(model, carry, sequences[:, 0], spec)
    check_rollout(model, carry, sequences, spec)
    check_pure(model, carry, sequences)
    check_seed(model, carry, sequences)
    if isinstance(model, Predictive):
        check_gaussians(model, states[rows], sequences[:, 0], spec, task)
    if isinstance(model, Learnable):
        check_fit(model, spec)
        if isinstance(model, Stateful):
            check_saving(fresh, spec)
    check_known(model, carry, states[rows], sequences, task)
    check_continues(model, carry, sequences)
    check_rows_apart(model, carry, sequences, spec)
    check_distribution(model, states, spec)
    check_members_met(model, states, spec)
    if isinstance(model, Predictive):
        check_predictions(model, carry, states[rows], sequences[:, 0], spec)
    if getattr(model, "differentiable", False) and not spec.discrete:
        check_gradients(model, states[rows], sequences[:, 0])
    if getattr(model, "capturable", False):
        names = synchronising(lambda: (model.step(carry, sequences[:, 0]), model.rollout(carry, sequences)))
        expect(not names, f"capturable: expected no operator that synchronises with the device, came {', '.join(names)}")


def check_init(model: Any, obs: Tensor, rows: Tensor) -> Any:
    """Check that the carry has one row for each of obs [M, O], which a plan can repeat; returns that of `rows` [B]."""
    before = obs.clone()
    carry = model.init(obs)
    expect(torch.equal(obs, before), "init: expected the observations to stay as they are, but they were changed")
    for leaf in leaves(carry):
        expect(
            len(leaf.shape) > 0 and len(leaf) == len(obs),
            f"init: expected {len(obs)} rows in the carry, came the shape {tuple(leaf.shape)}",
        )
    try:
        return rows_of(carry, rows)
    except UserError as error:
        raise AssertionError(f"init: {error}") from error


def check_pure(model: Any, carry: Any, sequences: Tensor) -> None:
    """Check that neither carry nor actions are changed, since a plan uses them again."""
    before, actions_before = deepcopy(carry), sequences.clone()
    for name, call in calls(model, carry, sequences).items():
        call()
        unchanged = all(same(a, b) for a, b in zip(leaves(before), leaves(carry), strict=True))
        expect(
            unchanged, f"{name}: expected the carry to stay as it is, since every iteration of a plan starts from it, but it was changed"
        )
        expect(torch.equal(sequences, actions_before), f"{name}: expected the actions to stay as they are, but they were changed")


def check_seed(model: Any, carry: Any, sequences: Tensor) -> None:
    """Check that all randomness comes from torch's global generator, and that `step` is a `rollout` of one step."""
    for name, call in calls(model, carry, sequences).items():
        first, second = seeded(call), seeded(call)
        expect(same(first.obs, second.obs), f"{name}: expected the same outcome from the same seed of torch, came another")
    if sequences.is_cuda:
        return  # there the noise of all steps may be drawn at once
    one, all_at_once = seeded(lambda: model.step(carry, sequences[:, 0])), seeded(lambda: model.rollout(carry, sequences[:, :1]))
    for name in ("obs", "reward", "terminated"):
        a, b = getattr(one, name).float(), getattr(all_at_once, name)[:, 0].float()
        agree = torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        expect(agree, f"step: expected the {name} of a rollout of one step from the same seed, {b.flatten()[:3]}, came {a.flatten()[:3]}")


def calls(model: Any, carry: Any, sequences: Tensor) -> dict[str, Callable[[], Any]]:
    """The two ways to ask a model."""
    return {"step": lambda: model.step(carry, sequences[:, 0]), "rollout": lambda: model.rollout(carry, sequences)}


def leaves(carry: Any) -> list[Any]:
    """The tensors and arrays of a carry."""
    if isinstance(carry, dict):
        return [leaf for value in carry.values() for leaf in leaves(value)]
    if isinstance(carry, tuple | list):
        return [leaf for value in carry for leaf in leaves(value)]
    return [carry] if hasattr(carry, "shape") else []
