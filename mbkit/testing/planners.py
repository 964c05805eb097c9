"""The contract of planners: every search over action sequences passes `check_planner`.

Letters: M problems, N candidates, C proposals, K elites, H horizon, A action, n number of discrete actions, P discrete actions at once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mbkit import registry
from mbkit.testing.common import expect, plain_sentences, seeded, supported, synchronising
from mbkit.testing.objectives import HORIZON, PROBLEMS, Spy, check_actions, closeness, targets
from mbkit.testing.rows import SPEC
from mbkit.testing.systems import random_actions
from mbkit.types import EnvSpec, Objective, Plan

Build = Callable[[EnvSpec], Any]
LONG = 24  # a horizon at which no sequence is hit by chance


def check_planner(planner: Build | str, spec: EnvSpec = SPEC) -> None:
    """Check that a planner keeps its contract.

    Checked: shapes, dtypes and bounds of plans and of the candidates that the objective sees, the same in every search; that nothing is
    changed that was passed; the score; that a seed decides the plan; that problems searched together do not mix, and that each is solved
    as alone where the proposals decide; that scores of NaN and infinity are survived; that a quadratic objective improves, also from the
    plan of the search before, shifted in time where there is `shift`; that nothing synchronises with the device, unless there is a
    `budget_ms`.

    Args:
        planner: a function that makes a planner for a specification, or the name of a registered one, made with its default options.
        spec: dimensions and device; each kind of actions is tried, and may be refused by UserError.

    Raises:
        AssertionError: one sentence with the expectation and the result.
    """
    with plain_sentences():
        build = registered(planner) if isinstance(planner, str) else planner
        for space in supported(build, spec):
            check_space(build(space), space)


def registered(name: str) -> Build:
    """What makes the registered planner of this name, with its default options."""
    entry = registry.planners[name]
    return lambda spec: entry.target(spec, entry.config())


def check_space(planner: Any, spec: EnvSpec) -> None:
    """Check one planner for one kind of actions."""
    for method in ("start", "__call__"):
        expect(callable(getattr(planner, method, None)), f"{type(planner).__name__} lacks the method {method} of mbkit.types.Planner")
    start = check_start(planner, spec)
    check_search(planner, start, spec)
    check_seed(planner, start, spec)
    check_improves(planner, start, spec)
    check_shift(planner, start, spec)
    check_problems_apart(planner, start, spec)
    check_not_finite(planner, start, spec)
    check_proposals(planner, spec)
    if getattr(planner, "budget_ms", None) is None:
        objective = closeness(targets(spec))
        seeded(lambda: planner(objective, start))
        names = synchronising(lambda: seeded(lambda: planner(objective, start)))
        expect(not names, f"a search: expected no operator that synchronises with the device, came {', '.join(names)}")


def check_start(planner: Any, spec: EnvSpec) -> Plan:
    """Check the plan before any search, of the device and dtype asked for; returns it."""
    for dtype in (torch.float64, torch.float32):
        start: Plan = planner.start(torch.empty((), dtype=dtype, device=spec.device), PROBLEMS, HORIZON)
        expect(isinstance(start, Plan), f"start: expected an mbkit.types.Plan, came {type(start).__name__}")
        expect(start.mean.dtype == dtype, f"start: expected a mean of {dtype} as asked for, came {start.mean.dtype}")
        check_plan(start, spec, "start")
        expect(bool((start.score == -torch.inf).all()), f"start: expected scores of -inf before any search, came {start.score.tolist()}")
    return start


def check_plan(plan: Plan, spec: EnvSpec, what: str, horizon: int = HORIZON) -> None:
    """Check shapes, dtypes and bounds of a plan."""
    sequence = (PROBLEMS, horizon, *spec.action_shape)
    choices = (PROBLEMS, horizon, *((len(spec.parts),) if spec.parts else ()), max(spec.parts or (spec.action_dim,)))
    for name, x, shape in (("actions", plan.actions, sequence), ("mean", plan.mean, choices if spec.discrete else sequence)):
        expect(tuple(x.shape) == shape, f"{what}: expected {name} of the shape {shape}, came {tuple(x.shape)}")
    few = tuple(plan.elites.shape[:1] + plan.elites.shape[2:])
    expect(few == sequence, f"{what}: expected elites of the shape (M, K, H, ...), came {tuple(plan.elites.shape)}")
    expect(tuple(plan.score.shape) == (PROBLEMS,), f"{what}: expected score of the shape {(PROBLEMS,)}, came {tuple(plan.score.shape)}")
    devices = {x.device.type for x in plan}
    expect(devices == {spec.device.type}, f"{what}: expected tensors on {spec.device}, came {', '.join(sorted(devices))}")
    expect(not any(x.requires_grad for x in plan), f"{what}: expected a plan without gradient")
    check_actions(plan.actions, spec, f"{what}: expected actions")
    if spec.discrete:
        total = plan.mean.sum(-1)
        expect(bool((plan.mean >= 0).all()), f"{what}: expected probabilities as the mean, came {float(plan.mean.min()):.6g}")
        expect(
            torch.allclose(total, torch.ones_like(total), atol=1e-4),
            f"{what}: expected probabilities that sum to 1, came {total.flatten()[:3].tolist()}",
        )
    else:
        check_actions(plan.mean, spec, f"{what}: expected a mean")
        check_actions(plan.elites.nan_to_num(), spec, f"{what}: expected elites")


def check_search(planner: Any, start: Plan, spec: EnvSpec) -> None:
    """Check two searches, the second from the first's plan: one form, as many candidates each time, the score, nothing changed."""
    before, plan, counts = [x.clone() for x in start], start, None
    for what in ("a search", "a search from the plan of another"):
        spy = Spy(closeness(targets(spec)), spec)
        plan = planner(spy, plan)
        check_plan(plan, spec, what)
        for name, x, first in zip(Plan._fields, plan, start, strict=True):
            form = (tuple(first.shape), first.dtype)
            expect(
                (tuple(x.shape), x.dtype) == form,
                f"{what}: expected {name} in the form of `start`, {form}, came {(tuple(x.shape), x.dtype)}",
            )
        if getattr(planner, "budget_ms", None) is None:
            expect(counts in (None, spy.counts), f"{what}: expected as many candidates as in the first search, {counts}, came {spy.counts}")
        counts = spy.counts
        best = torch.full_like(plan.score, -torch.inf) if spy.best is None else spy.best
        expect(
            torch.allclose(plan.score, best),
            f"{what}: expected the best score of any candidate, {best.tolist()}, came {plan.score.tolist()}",
        )
    same = all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, start, strict=True))
    expect(same, "a search: expected the plan that it starts from to stay as it is, but it was changed")


def check_seed(planner: Any, start: Plan, spec: EnvSpec) -> None:
    """Check that all randomness comes from torch's global generator."""
    first, second = (seeded(lambda: planner(closeness(targets(spec)), start)) for _ in range(2))
    expect(torch.equal(first.actions, second.actions), "a search: expected the same plan from the same seed of torch, came another")


def check_improves(planner: Any, start: Plan, spec: EnvSpec) -> None:
    """Check that the actions of a plan make up at least half of what the start lacks, in every problem, and again from a plan."""
    target = targets(spec)
    objective, goal = closeness(target), target
    best = objective(goal[:, None])[:, 0]
    first = objective(start.actions[:, None])[:, 0]
    plan = start
    for what in ("a search", "a search from the plan of another"):
        plan = seeded(partial(planner, objective, plan))
        score = objective(plan.actions[:, None])[:, 0]
        limit = first + (best - first) / 2
        expect(
            bool((score >= limit).all()),
            f"{what}: expected actions that score at least {rounded(limit)} on a quadratic objective, half-way from the start "
            f"to the best, came {rounded(score)}",
        )


def check_shift(planner: Any, start: Plan, spec: EnvSpec) -> None:
    """Check `shift`, where there is one: a plan one step later begins with its second step, and can be searched from."""
    if not callable(getattr(planner, "shift", None)):
        return
    plan = seeded(lambda: planner(closeness(targets(spec)), start))
    later = planner.shift(plan, 1)
    check_plan(later, spec, "shift")
    expect(torch.equal(later.mean[:, 0], plan.mean[:, 1]), "shift: expected the mean of step 2 as that of step 1, came another")
    whole = planner.shift(plan, 0)
    expect(torch.equal(whole.mean, plan.mean), "shift: expected the same mean after 0 steps, came another")
    check_plan(planner(closeness(targets(spec)), later), spec, "a search from a shifted plan")
    check_plan(planner.shift(plan, HORIZON + 1), spec, "shift by more than the horizon")


def check_problems_apart(planner: Any, start: Plan, spec: EnvSpec) -> None:
    """Check that another objective of problem 1 changes the plan of problem 1 alone."""
    target = targets(spec)
    other = target.clone()
    other[1] = (other[1] + 1) % torch.tensor(spec.parts or spec.action_dim) if spec.discrete else -other[1]
    first, second = (seeded(partial(planner, closeness(goal), start)) for goal in (target, other))
    for problem in (0, 2):
        for name in ("actions", "mean", "score"):
            a, b = getattr(first, name)[problem], getattr(second, name)[problem]
            expect(
                torch.allclose(a.float(), b.float(), atol=1e-5),
                f"a search: expected problem {problem} to be solved whatever problem 1 is, but its {name} changed with it",
            )


def check_proposals(planner: Any, spec: EnvSpec) -> None:
    """Check that proposals [M, C, H, ...] take part, and decide alike whether problems are searched together or alone.

    The objective has no finite score but for proposals, so that no random number counts; plans are too long to hit one by chance.
    """
    start = planner.start(torch.empty((), device=spec.device), PROBLEMS, LONG)
    proposals = random_actions(spec, PROBLEMS * 4, LONG, 6)
    proposals = proposals.view(PROBLEMS, 4, *proposals.shape[1:])
    values = torch.arange(4.0, device=spec.device)

    def only(proposals: Tensor) -> Objective:
        def objective(actions: Tensor) -> Tensor:
            match = (actions[:, :, None] == proposals[:, None].to(actions.dtype)).flatten(3).all(3)  # [M, N, C]
            return torch.where(match, values, -torch.inf).amax(2).where(match.any(2), torch.nan)

        return objective

    together = seeded(lambda: planner(only(proposals), start, proposals))
    check_plan(together, spec, "a search with proposals", LONG)
    expect(bool((together.score == 3).all()), f"a search with proposals: expected the score of the best, 3, came {together.score.tolist()}")
    for m in range(PROBLEMS):
        one = Plan(*(x[m : m + 1] for x in start))
        alone = seeded(partial(planner, only(proposals[m : m + 1]), one, proposals[m : m + 1]))
        for name in ("mean", "score"):
            a, b = getattr(together, name)[m].float(), getattr(alone, name)[0].float()
            expect(
                torch.allclose(a, b, atol=1e-5),
                f"a search with proposals: expected problem {m} among {PROBLEMS} to be solved as alone, "
                f"with the {name} {b.flatten()[:4].tolist()}, came {a.flatten()[:4].tolist()}",
            )


def check_not_finite(planner: Any, start: Plan, spec: EnvSpec) -> None:
    """Check plans where some scores are NaN or infinite, and where none of problem 0 is finite."""
    inner = closeness(targets(spec))

    def objective(actions: Tensor) -> Tensor:
        score = inner(actions)
        column = torch.arange(score.shape[1], device=score.device)
        for remainder, value in ((0, torch.nan), (1, torch.inf), (2, -torch.inf)):
            score = torch.where(column % 5 == remainder, value, score)
        return torch.cat((torch.full_like(score[:1], torch.nan), score[1:]))

    spy = Spy(objective, spec)
    plan = seeded(lambda: planner(spy, start))
    check_plan(plan, spec, "a search with scores that are not finite")
    for name in ("actions", "mean"):
        finite = bool(getattr(plan, name).isfinite().all())
        expect(
            finite, f"a search with scores that are not finite: expected finite {name}, came {getattr(plan, name).flatten()[:4].tolist()}"
        )
    first = float(plan.score[0])
    expect(first == -torch.inf, f"a search without any finite score: expected the score -inf, came {first}")
    best = torch.full_like(plan.score, -torch.inf) if spy.best is None else spy.best
    expect(
        torch.allclose(plan.score[1:], best[1:]),
        f"a search with scores that are not finite: expected the best finite score {rounded(best[1:])}, came {rounded(plan.score[1:])}",
    )
    check_plan(seeded(lambda: planner(inner, plan)), spec, "a search after one without any finite score")


def rounded(x: Tensor) -> list[float]:
    """Numbers for a message."""
    return [round(value, 3) for value in x.tolist()]
