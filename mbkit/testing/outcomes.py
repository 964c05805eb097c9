"""Checks of what a model's `step`, `rollout` and `predict` return.

Letters: M states, B rows, H steps, P particles, N candidates, E members, O observation, A action, D prediction.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.planning.objective import environment_of_rows, rows_of
from mbkit.testing.common import expect, seeded
from mbkit.testing.systems import random_actions
from mbkit.types import EnvSpec, TaskKnowledge

PARTICLES, CANDIDATES = 20, 30  # rows from one state, by which distributions are compared
MOST_APART = 4.0  # ratio of variances between and within candidates; of 30 times 20 equal rows above 3.5 once in 1e9
SIGMAS = 6.0


def same(a: Any, b: Any) -> bool:
    """Whether two tensors or arrays are equal, NaN included."""
    return np.array_equal(np.asarray(torch.as_tensor(a).cpu()), np.asarray(torch.as_tensor(b).cpu()), equal_nan=True)


def check_step(model: Any, carry: Any, action: Tensor, spec: EnvSpec) -> None:
    """Check the types of two steps, the second from where the first led, under actions [B, A]."""
    for number in ("step", "step from a step's state"):
        step = model.step(carry, action)
        b, carry = len(action), step.state
        check_column(step.obs, (b, spec.obs_dim), torch.float32, spec, f"{number}: obs")
        check_column(step.reward, (b,), torch.float32, spec, f"{number}: reward")
        check_column(step.terminated, (b,), torch.bool, spec, f"{number}: terminated")
        expect(step.prediction is None, f"{number}: expected no prediction unless it is asked for by predict=True, came one")


def check_rollout(model: Any, carry: Any, sequences: Tensor, spec: EnvSpec) -> None:
    """Check the types of a rollout under actions [B, H, A]."""
    out, (b, h) = model.rollout(carry, sequences), sequences.shape[:2]
    check_column(out.obs, (b, h, spec.obs_dim), torch.float32, spec, "rollout: obs")
    check_column(out.reward, (b, h), torch.float32, spec, "rollout: reward")
    check_column(out.terminated, (b, h), torch.bool, spec, "rollout: terminated")


def check_column(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, spec: EnvSpec, what: str) -> None:
    """Check one result: shape, dtype, device, finite numbers, no gradient."""
    expect(isinstance(x, Tensor), f"{what}: expected a tensor, came {type(x).__name__}")
    expect(x.shape == shape, f"{what}: expected the shape {shape}, came {tuple(x.shape)}")
    expect(x.dtype == dtype, f"{what}: expected {dtype}, came {x.dtype}")
    expect(x.device.type == spec.device.type, f"{what}: expected it on {spec.device}, came {x.device}")
    expect(not x.requires_grad, f"{what}: expected no gradient unless it is asked for by grad=True")
    expect(dtype == torch.bool or bool(x.isfinite().all()), f"{what}: expected finite numbers, came {x[~x.isfinite()][:3].tolist()}")


def check_known(model: Any, carry: Any, obs: Tensor, sequences: Tensor, task: TaskKnowledge) -> None:
    """Check that every step of rollouts from obs [B, O] has the known reward and termination of that step alone."""
    out = model.rollout(carry, sequences)
    before = torch.cat((obs[:, None], out.obs[:, :-1]), 1)
    if task.reward is not None:
        expected = task.reward(before, sequences, out.obs)
        gap = (out.reward - expected).abs() - 1e-4 * (1 + expected.abs())
        worst = int(gap.argmax())
        expect(
            bool((gap <= 0).all()),
            f"rollout: expected the known reward {float(expected.flatten()[worst]):.6g}, came {float(out.reward.flatten()[worst]):.6g}",
        )
    if task.termination is not None:
        ended = task.termination(before, sequences, out.obs)
        wrong = (ended != out.terminated).nonzero()
        where = f" at step {int(wrong[0, 1]) + 1} of row {int(wrong[0, 0])}" if len(wrong) else ""
        expect(
            not len(wrong),
            f"rollout: expected terminated to be the known termination of each step alone, whatever was before, came another{where}",
        )


def check_continues(model: Any, carry: Any, sequences: Tensor) -> None:
    """Check that a row does not stand still after its termination: what is behind it is for the evaluator to mask."""
    out = model.rollout(carry, sequences)
    behind = out.terminated[:, :-1].unsqueeze(-1)
    moved = (out.obs[:, 1:] - out.obs[:, :-1]).abs().sum(-1, keepdim=True) > 0
    others = (moved | behind).all()  # in a system at rest nothing moves anyway
    expect(
        not bool(others) or bool((moved | ~behind).all()),
        "rollout: expected rows to go on after they terminated, but they stand still: masking is the evaluator's",
    )


def check_rows_apart(model: Any, carry: Any, sequences: Tensor, spec: EnvSpec) -> None:
    """Check that what row 1 does has no influence on the outcome of any other row."""
    changed = sequences.clone()
    changed[1] = random_actions(spec, len(sequences), sequences.shape[1], 9)[1] if spec.discrete else -sequences[1]
    a, b = (seeded(partial(model.rollout, carry, rows)) for rows in (sequences, changed))
    other = torch.arange(len(sequences), device=sequences.device) != 1
    apart = ~torch.isclose(a.obs[other], b.obs[other], rtol=1e-4, atol=1e-5, equal_nan=True)
    rows = torch.nonzero(other)[:, 0][apart.flatten(1).any(1)].tolist()
    expect(
        not rows,
        f"rollout: expected other actions of row 1 to change row 1 alone, but row {rows[:1]} changed too: rows were mixed or reordered",
    )


def crowd(model: Any, states: Tensor, spec: EnvSpec, steps: int) -> tuple[Any, Tensor]:
    """The carry of P N equal rows from the first state, and equal actions of them [P N, H, A]."""
    count = PARTICLES * CANDIDATES
    carry = rows_of(model.init(states), environment_of_rows(len(states), 1, 1, states.device)[:1].expand(count))
    one = random_actions(spec, 1, steps, 5)
    return carry, one.expand(count, *one.shape[1:]).clone()


def check_distribution(model: Any, states: Tensor, spec: EnvSpec) -> None:
    """Check that steps one after another lead where a rollout does: mean and deviation of observations after each step."""
    steps = 3
    carry, sequences = crowd(model, states, spec, steps)
    rolled = seeded(lambda: model.rollout(carry, sequences), 11).obs
    with torch.random.fork_rng():
        torch.manual_seed(12)
        for t in range(steps):
            step = model.step(carry, sequences[:, t])
            carry = step.state
            a, b = step.obs.double(), rolled[:, t].double()
            allowed = SIGMAS * ((a.var(0) + b.var(0)) / len(a)).sqrt() + 1e-4 * (1 + b.mean(0).abs())
            gap = (a.mean(0) - b.mean(0)).abs()
            expect(
                bool((gap <= allowed).all()),
                f"step: expected {t + 1} steps to lead where a rollout does, on average {b.mean(0).tolist()}, came {a.mean(0).tolist()}",
            )
            ratio = (a.std(0) + 1e-4) / (b.std(0) + 1e-4)
            expect(
                bool(((ratio > 0.7) & (ratio < 1.4)).all()),
                f"step: expected the standard deviation of rollouts after {t + 1} steps, {b.std(0).tolist()}, came {a.std(0).tolist()}",
            )


def check_members_met(model: Any, states: Tensor, spec: EnvSpec) -> None:
    """Check that equal candidates differ no more than their particles do: each meets every member, rows being particle-major."""
    carry, sequences = crowd(model, states, spec, 1)
    obs = seeded(lambda: model.rollout(carry, sequences), 13).obs[:, 0].double().view(PARTICLES, CANDIDATES, -1)
    within = obs.var(0).mean(0)
    between = PARTICLES * obs.mean(0).var(0)
    ratio = float((between / (within + 1e-10 * (1 + obs.square().mean((0, 1))))).max())
    expect(
        ratio < MOST_APART,
        "rollout: expected every candidate to meet every member (rows are particle-major), but equal candidates differ "
        f"{ratio:.3g} times as much as their particles do",
    )


def check_gaussians(model: Any, obs: Tensor, action: Tensor, spec: EnvSpec, task: TaskKnowledge) -> None:
    """Check shapes, finite means and variances of every member's Gaussians at obs [B, O] under actions [B, A]."""
    mean, var = (x.detach() for x in model.predict(obs, action))
    b, d = len(obs), spec.obs_dim + (mean.shape[-1] > spec.obs_dim)
    for name, x in (("mean", mean), ("var", var)):
        expect(x.ndim == 3 and x.shape[1:] == (b, d), f"predict: expected {name} of the shape (E, {b}, {d}), came {tuple(x.shape)}")
        expect(bool(x.isfinite().all()), f"predict: expected a finite {name}, came {x[~x.isfinite()][:3].tolist()}")
    expect(mean.shape == var.shape, f"predict: expected mean and var of one shape, came {tuple(mean.shape)} and {tuple(var.shape)}")
    expect(bool((var >= 0).all()), f"predict: expected variances of at least 0, came {float(var.min())}")
    reward = task.reward is None or d == spec.obs_dim
    expect(reward, "predict: expected the next observation alone, since the reward is known, came the reward too")
    members = getattr(model, "members", len(mean))
    expect(members == len(mean), f"predict: expected the {members} members that the model says it has, came {len(mean)}")


def check_predictions(model: Any, carry: Any, obs: Tensor, action: Tensor, spec: EnvSpec) -> None:
    """Check that a step from obs [B, O] is the same with `predict`, has every member's Gaussian, and lies among those of `predict`."""
    (mean, var), b = (x.detach() for x in model.predict(obs, action)), len(obs)
    plain, asked = seeded(lambda: model.step(carry, action)), seeded(lambda: model.step(carry, action, predict=True))
    expect(asked.prediction is not None, "step: expected every member's prediction with predict=True, came None")
    shape = tuple(asked.prediction.mean.shape[:2])
    expect(shape == (len(mean), b), f"step: expected a prediction of {len(mean)} members and {b} rows, came the shape {shape}")
    alike = torch.allclose(plain.obs, asked.obs, rtol=1e-4, atol=1e-5)
    expect(alike, "step: expected the same outcome with and without predict from the same seed, came another")
    reach = SIGMAS * var.sqrt() + 1e-4 * (1 + mean.abs())
    low, high = ((mean + side * reach)[..., : spec.obs_dim] for side in (-1, 1))
    outside = (asked.obs < low.amin(0)) | (asked.obs > high.amax(0))
    row = int(outside.any(1).nonzero()[0, 0]) if bool(outside.any()) else 0
    expect(
        not bool(outside.any()),
        f"step: expected an outcome within {SIGMAS:g} deviations of a member's prediction, whose means for row {row} are "
        f"{mean[:, row, : spec.obs_dim].tolist()}, came {asked.obs[row].tolist()}",
    )


def check_gradients(model: Any, obs: Tensor, action: Tensor, width: float = 1e-2) -> None:
    """Check the gradient of `grad` steps against finite differences along random directions, and that parameters get none.

    A model that refuses its gradients by UserError, as it is configured, is not checked.
    """
    draw = torch.Generator().manual_seed(0)
    out, along_obs, along_action = (torch.randn(x.shape, generator=draw).to(x) for x in (obs, obs, action))

    def score(shift: Tensor | float) -> Tensor:
        """A weighted sum of each row's outcome [B], `shift` of the way along the direction."""
        carry = model.init(obs + shift * along_obs)
        step = seeded(lambda: model.step(carry, action + shift * along_action, grad=True))
        expect(step.terminated.dtype == torch.bool, "step: expected bool terminations with grad=True")
        total: Tensor = (out * step.obs).sum(-1) + step.reward
        return total

    shift = torch.zeros(len(obs), 1, device=obs.device, requires_grad=True)
    try:
        value = score(shift)
    except UserError:
        return
    expect(value.requires_grad, "step: expected observation and reward with gradients with grad=True, came none")
    slope = torch.autograd.grad(value.sum(), shift, retain_graph=True)[0][:, 0]
    with torch.no_grad():
        expected = (score(width) - score(-width)) / (2 * width)
    agree = torch.isclose(slope, expected, rtol=0.05, atol=0.02 * float(expected.abs().mean() + 1e-3))
    row = int((slope - expected).abs().argmax())
    expect(
        float(agree.float().mean()) >= 0.75,  # a kink of the model may lie within the finite difference of a few rows
        f"step: expected the gradient {float(expected[row]):.4g} of finite differences with grad=True, came {float(slope[row]):.4g}",
    )
    parameters = [p for part in vars(model).values() if isinstance(part, nn.Module) for p in part.parameters()]
    parameters += list(model.parameters()) if isinstance(model, nn.Module) else []
    reached = [p for p in parameters if p.requires_grad]
    grads = torch.autograd.grad(value.sum(), reached, allow_unused=True) if reached else ()
    expect(all(g is None for g in grads), "step: expected parameters without gradient with grad=True, but some have one")
