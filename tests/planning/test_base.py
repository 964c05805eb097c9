"""What every planner on the box promises: optima inside and at the face of it, for M problems at once, whatever the scores."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import LIKE, SPEC, plan_for, quadratic
from torch.utils._python_dispatch import TorchDispatchMode

from mbkit.errors import UserError
from mbkit.planning.base import advance
from mbkit.planning.cem import CEM, CEMConfig
from mbkit.planning.icem import ICEM, ICEMConfig
from mbkit.planning.mppi import MPPI, MPPIConfig
from mbkit.planning.shooting import Shooting, ShootingConfig
from mbkit.registry import planners
from mbkit.types import Plan

SEARCHES = {  # CEM approaches a face slowly: two sigmas must stay inside the box, hence its many iterations
    "shooting": (lambda: Shooting(SPEC, ShootingConfig(candidates=4000)), 0.25),
    "cem": (lambda: CEM(SPEC, CEMConfig(iterations=20)), 0.02),
    "cem-best": (lambda: CEM(SPEC, CEMConfig(iterations=20, returns="best")), 0.05),
    "cem-sample": (lambda: CEM(SPEC, CEMConfig(iterations=20, returns="sample")), 0.05),
    "icem": (lambda: ICEM(SPEC, ICEMConfig(candidates=100, iterations=12, exponent=0.5)), 0.08),
    "icem-mean": (lambda: ICEM(SPEC, ICEMConfig(candidates=100, iterations=12, exponent=0.5, returns="mean")), 0.08),
    "mppi": (lambda: MPPI(SPEC, MPPIConfig(iterations=20, sigma=0.3, temperature=0.02)), 0.1),
}
every_search = pytest.mark.parametrize("name", SEARCHES)


@every_search
@pytest.mark.parametrize("face", [False, True])
def test_planner_quadratic_objective_finds_the_optimum_of_every_problem(name, face):
    make, tolerance = SEARCHES[name]
    torch.manual_seed(0)
    optimum = torch.tensor([[[0.5, -0.3]], [[-0.6, 0.7]], [[0.0, 0.1]]]).repeat(1, 3, 1)
    optimum = torch.where(optimum > 0.4, 1.5, optimum) if face else optimum  # outside: the maximum lies on the face
    plan = plan_for(make(), optimum)
    assert plan.actions.abs().max() <= 1
    error = (plan.actions - optimum.clamp(-1, 1)).square().mean((1, 2)).sqrt()
    assert (error < tolerance).all(), error


@every_search
def test_planner_several_problems_are_independent(name):
    plans = []
    for neighbour in (0.5, -0.9):
        torch.manual_seed(0)
        plans.append(plan_for(SEARCHES[name][0](), torch.tensor([0.2, neighbour, -0.4]).view(3, 1, 1).repeat(1, 4, 2)))
    one, two = plans
    for mine, same in zip(one, two, strict=True):
        assert torch.equal(mine[0], same[0])
        assert torch.equal(mine[2], same[2])
    assert not torch.equal(one.actions[1], two.actions[1])


@every_search
def test_plan_score_is_the_best_of_all_candidates_which_lie_inside_the_box(name):
    planner, scores = SEARCHES[name][0](), []
    optimum = torch.full((2, 3, 2), 0.9)

    def objective(actions):
        assert actions.abs().max() <= 1
        scores.append(quadratic(optimum)(actions))
        return scores[-1]

    plan = planner(objective, planner.start(LIKE, 2, 3))
    assert torch.equal(plan.score, torch.cat(scores, 1).amax(1))


@every_search
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_planner_without_a_finite_score_keeps_the_mean(name, bad):
    planner = SEARCHES[name][0]()
    start = planner.start(LIKE, 2, 3)._replace(mean=torch.full((2, 3, 2), 0.25))
    plan = planner(lambda a: torch.where(torch.arange(2)[:, None] == 0, bad, -a.square().sum((2, 3))), start)
    assert torch.equal(plan.mean[0], start.mean[0])
    assert plan.score[0] == -torch.inf
    assert plan.score[1].isfinite()
    if name != "cem-sample":
        assert torch.equal(plan.actions[0], start.mean[0])
    assert not torch.equal(plan.mean[1], start.mean[1])


@every_search
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]), share=st.floats(0, 1))
def test_planner_scores_that_are_not_finite_never_win(name, seed, bad, share):
    torch.manual_seed(seed)
    planner, scores = SEARCHES[name][0](), []

    def objective(actions):
        score = quadratic(torch.full((1, 2, 2), 0.5))(actions)
        score = torch.where(torch.rand_like(score) < share, bad, score)
        scores.append(score)
        return score

    plan = planner(objective, planner.start(LIKE, 1, 2))
    finite = torch.cat(scores, 1)
    finite = finite[finite.isfinite()]
    assert plan.actions.isfinite().all()
    assert plan.mean.isfinite().all()
    assert plan.score.item() == (finite.max().item() if len(finite) else -torch.inf)


@every_search
def test_planner_proposal_at_the_optimum_is_scored_in_every_iteration_and_wins(name):
    torch.manual_seed(0)
    planner, evaluated = SEARCHES[name][0](), []
    optimum = torch.rand(2, 12, 2) * 2 - 1
    proposals = torch.stack([optimum, -optimum], 1)

    def objective(actions):
        evaluated.append(torch.equal(actions[:, -2:], proposals))
        return quadratic(optimum)(actions)

    plan = planner(objective, planner.start(LIKE, 2, 12), proposals)
    assert all(evaluated)
    assert plan.score.tolist() == [0, 0]
    if name in ("shooting", "cem-best", "icem"):
        assert torch.equal(plan.actions, optimum)


class NoHostSync(TorchDispatchMode):
    """Fails on any operation that synchronises with the host or whose shape depends on data."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero"}, func
        return func(*args, **(kwargs or {}))


@every_search
def test_planner_call_does_not_synchronise_with_the_host(name):
    planner = SEARCHES[name][0]()
    start = planner.start(LIKE, 2, 5)
    with NoHostSync():
        planner(quadratic(torch.zeros(2, 5, 2)), planner.shift(start, 1), torch.zeros(2, 1, 5, 2))


def test_no_host_sync_item_is_detected():
    with pytest.raises(AssertionError), NoHostSync():
        torch.ones(()).item()


@every_search
def test_budget_ms_tiny_runs_one_iteration(name):
    entry = planners[name.split("-")[0]]
    planner, calls = entry.target(SPEC, entry.config(budget_ms=1e-6, iterations=50)), []

    def objective(actions):
        calls.append(1)
        return quadratic(torch.zeros(1, 3, 2))(actions)

    plan = planner(objective, planner.start(LIKE, 1, 3))
    assert len(calls) == 1
    assert plan.score.isfinite().all()


def test_budget_ms_is_not_exceeded():
    planner, calls = CEM(SPEC, CEMConfig(budget_ms=100, iterations=10_000)), []

    def objective(actions):
        calls.append(time.sleep(0.01))
        return quadratic(torch.zeros(1, 3, 2))(actions)

    begin = time.perf_counter()
    planner(objective, planner.start(LIKE, 1, 3))
    assert 1 < len(calls) < 11
    assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize("name", ["shooting", "cem", "icem", "mppi"])
def test_box_planner_discrete_actions_is_refused(name):
    entry = planners[name]
    with pytest.raises(UserError, match="discrete_cem"):
        entry.target(SPEC._replace(discrete=True), entry.config())


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_check_elites_more_than_candidates_is_refused(name):
    entry = planners[name]
    with pytest.raises(UserError, match="elites=30"):
        entry.target(SPEC, entry.config(elites=30, candidates=20))


def test_advance_beyond_the_end_is_all_tail():
    x, tail = torch.arange(6.0).view(2, 3), torch.tensor([[-1.0], [-2.0]])
    assert advance(x, 2, tail).tolist() == [[2, -1, -1], [5, -2, -2]]
    assert advance(x, 9, tail).tolist() == [[-1, -1, -1], [-2, -2, -2]]


def test_shift_fills_the_tail_with_zeros_in_cem_and_the_last_step_in_icem():
    plan = Plan(*(torch.arange(1.0, 9).view(1, 4, 2),) * 2, torch.ones(1, 3, 4, 2), torch.zeros(1))
    cem, icem = CEM(SPEC, CEMConfig()).shift(plan, 3), ICEM(SPEC, ICEMConfig()).shift(plan, 3)
    assert cem.mean[0, :, 0].tolist() == [7, 0, 0, 0]
    assert icem.mean[0, :, 0].tolist() == [7, 7, 7, 7]
    assert icem.elites[0, 0, :, 0].isnan().tolist() == [False, True, True, True]
    unmoved = ICEM(SPEC, ICEMConfig()).shift(plan, 0)
    assert all(torch.equal(a, b) for a, b in zip(plan, unmoved, strict=True))
