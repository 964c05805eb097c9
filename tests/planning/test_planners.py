"""What every planner promises: it finds optima inside and at the face of the box, for M problems at once, whatever the scores."""

import itertools
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mbkit.errors import UserError
from mbkit.planning.cem import CEM, CEMConfig, candidates_around
from mbkit.planning.icem import ICEM, ICEMConfig, populations
from mbkit.planning.mppi import MPPI, MPPIConfig, path_integral
from mbkit.planning.mppi import candidates_around as mppi_candidates
from mbkit.planning.shooting import Shooting, ShootingConfig
from mbkit.registry import planners
from mbkit.types import EnvSpec, Plan

CPU = torch.device("cpu")
SPEC = EnvSpec(4, 2, CPU)
LIKE = torch.empty(())
SEARCHES = {  # CEM creeps up to a face: two sigmas of it must stay inside the box, hence its many iterations
    "shooting": (lambda: Shooting(SPEC, ShootingConfig(candidates=4000)), 0.25),
    "cem": (lambda: CEM(SPEC, CEMConfig(iterations=20)), 0.02),
    "cem-best": (lambda: CEM(SPEC, CEMConfig(iterations=20, returns="best")), 0.05),
    "cem-sample": (lambda: CEM(SPEC, CEMConfig(iterations=20, returns="sample")), 0.05),
    "icem": (lambda: ICEM(SPEC, ICEMConfig(candidates=100, iterations=12, exponent=0.5)), 0.08),
    "icem-mean": (lambda: ICEM(SPEC, ICEMConfig(candidates=100, iterations=12, exponent=0.5, returns="mean")), 0.08),
    "mppi": (lambda: MPPI(SPEC, MPPIConfig(iterations=20, sigma=0.3, temperature=0.02)), 0.1),
}
every_search = pytest.mark.parametrize("name", SEARCHES)


def quadratic(optimum):
    """Objective with its maximum 0 at optimum [M, H, A]."""
    return lambda actions: -(actions - optimum[:, None]).square().sum((2, 3))


def plan_for(planner, optimum, proposals=None):
    m, h, _ = optimum.shape
    return planner(quadratic(optimum), planner.start(LIKE, m, h), proposals)


@every_search
@pytest.mark.parametrize("face", [False, True])
def test_finds_the_optimum_of_every_problem(name, face):
    make, tolerance = SEARCHES[name]
    torch.manual_seed(0)
    optimum = torch.tensor([[[0.5, -0.3]], [[-0.6, 0.7]], [[0.0, 0.1]]]).repeat(1, 3, 1)
    optimum = torch.where(optimum > 0.4, 1.5, optimum) if face else optimum  # outside: the maximum lies on the face
    plan = plan_for(make(), optimum)
    assert plan.actions.abs().max() <= 1
    error = (plan.actions - optimum.clamp(-1, 1)).square().mean((1, 2)).sqrt()
    assert (error < tolerance).all(), error


@every_search
def test_problems_do_not_see_one_another(name):
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
def test_score_is_the_best_any_candidate_reached_and_all_are_inside_the_box(name):
    planner, seen = SEARCHES[name][0](), []
    optimum = torch.full((2, 3, 2), 0.9)

    def objective(actions):
        assert actions.abs().max() <= 1
        seen.append(quadratic(optimum)(actions))
        return seen[-1]

    plan = planner(objective, planner.start(LIKE, 2, 3))
    assert torch.equal(plan.score, torch.cat(seen, 1).amax(1))


@every_search
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_without_a_finite_score_the_mean_stays(name, bad):
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
def test_bad_scores_never_win(name, seed, bad, share):
    torch.manual_seed(seed)
    planner, good = SEARCHES[name][0](), []

    def objective(actions):
        score = quadratic(torch.full((1, 2, 2), 0.5))(actions)
        score = torch.where(torch.rand_like(score) < share, bad, score)
        good.append(score)
        return score

    plan = planner(objective, planner.start(LIKE, 1, 2))
    finite = torch.cat(good, 1)
    finite = finite[finite.isfinite()]
    assert plan.actions.isfinite().all()
    assert plan.mean.isfinite().all()
    assert plan.score.item() == (finite.max().item() if len(finite) else -torch.inf)


@every_search
def test_a_proposal_at_the_optimum_is_evaluated_every_iteration_and_wins(name):
    torch.manual_seed(0)
    planner, widths = SEARCHES[name][0](), []
    optimum = torch.rand(2, 12, 2) * 2 - 1
    proposals = torch.stack([optimum, -optimum], 1)

    def objective(actions):
        widths.append(torch.equal(actions[:, -2:], proposals))
        return quadratic(optimum)(actions)

    plan = planner(objective, planner.start(LIKE, 2, 12), proposals)
    assert all(widths)
    assert plan.score.tolist() == [0, 0]
    if name in ("shooting", "cem-best", "icem"):
        assert torch.equal(plan.actions, optimum)


class NoHostSync(TorchDispatchMode):
    """Fails on any operation that makes the host wait for the device or makes shapes depend on data."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in {"_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero"}, func
        return func(*args, **(kwargs or {}))


@every_search
def test_a_plan_never_waits_for_the_device(name):
    planner = SEARCHES[name][0]()
    start = planner.start(LIKE, 2, 5)
    with NoHostSync():
        planner(quadratic(torch.zeros(2, 5, 2)), planner.shift(start, 1), torch.zeros(2, 1, 5, 2))


def test_the_sync_detector_detects():
    with pytest.raises(AssertionError), NoHostSync():
        torch.ones(()).item()


@every_search
def test_a_tiny_budget_still_runs_one_iteration(name):
    entry = planners[name.split("-")[0]]
    planner, calls = entry.target(SPEC, entry.config(budget_ms=1e-6, iterations=50)), []

    def objective(actions):
        calls.append(1)
        return quadratic(torch.zeros(1, 3, 2))(actions)

    plan = planner(objective, planner.start(LIKE, 1, 3))
    assert len(calls) == 1
    assert plan.score.isfinite().all()


def test_a_budget_is_kept():
    planner, calls = CEM(SPEC, CEMConfig(budget_ms=100, iterations=10_000)), []

    def objective(actions):
        calls.append(time.sleep(0.01))
        return quadratic(torch.zeros(1, 3, 2))(actions)

    begin = time.perf_counter()
    planner(objective, planner.start(LIKE, 1, 3))
    assert 1 < len(calls) < 11
    assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize("name", ["shooting", "cem", "icem", "mppi"])
def test_refuses_discrete_actions(name):
    entry = planners[name]
    with pytest.raises(UserError, match="discrete_cem"):
        entry.target(SPEC._replace(discrete=True), entry.config())


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_refuses_more_elites_than_candidates(name):
    entry = planners[name]
    with pytest.raises(UserError, match="elites=30"):
        entry.target(SPEC, entry.config(elites=30, candidates=20))


# ------------------------------------------------------------------ CEM


def test_cem_variance_is_cut_to_half_the_distance_to_the_bound():
    torch.manual_seed(0)
    mean = torch.tensor([0.0, 0.9, -1.0]).view(3, 1, 1)
    draws = candidates_around(mean, torch.full_like(mean, 0.25), 50_000)[..., 0, 0]
    within = 0.8796  # standard deviation of a normal cut at two sigmas
    torch.testing.assert_close(draws.std(1), torch.tensor([0.5, 0.05, 0.0]) * within, rtol=0.02, atol=1e-6)
    assert draws[1].max() <= 1 + 1e-6
    assert draws[1].max() > 0.999


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_full_momentum_never_moves(name):
    entry = planners[name]
    planner = entry.target(SPEC, entry.config(momentum=1.0))
    plan = plan_for(planner, torch.full((2, 3, 2), 0.7))
    assert torch.equal(plan.mean, torch.zeros(2, 3, 2))


def test_without_momentum_one_iteration_is_the_elite_mean():
    planner, seen = CEM(SPEC, CEMConfig(momentum=0.0, iterations=1, elites=7)), []

    def objective(actions):
        seen.append(actions)
        return actions[..., 0].sum(-1)

    plan = planner(objective, planner.start(LIKE, 1, 3))
    best = objective(seen[0])[0].topk(7).indices
    torch.testing.assert_close(plan.actions, seen[0][:, best].mean(1))


# ------------------------------------------------------------------ iCEM


def test_icem_spends_97_trajectories():
    assert populations(ICEMConfig()) == [40, 32, 25]
    assert populations(ICEMConfig(iterations=6)) == [40, 32, 25, 20, 20, 20]
    evaluated = []
    planner = ICEM(SPEC, ICEMConfig())
    planner(lambda a: evaluated.append(a.shape[1]) or a.sum((2, 3)), planner.start(LIKE, 1, 25))
    assert evaluated == [40, 32, 25]


def test_icem_evaluates_the_elites_it_kept_and_the_mean_last():
    torch.manual_seed(0)
    planner, seen = ICEM(SPEC, ICEMConfig()), []
    optimum = torch.full((2, 6, 2), 0.4)

    def objective(actions):
        seen.append(actions)
        return quadratic(optimum)(actions)

    first = planner(objective, planner.start(LIKE, 2, 6))
    for before, after in itertools.pairwise(seen):
        best = quadratic(optimum)(before).topk(3).indices[:, :, None, None]
        assert torch.equal(after[:, :3], before.take_along_dim(best, 1))
    assert first.elites.shape == (2, 3, 6, 2)
    last = seen[2]
    plan = planner(objective, planner.shift(first, 2))
    assert torch.equal(seen[3][:, :3, :4], first.elites[:, :, 2:])  # shifted, evaluated again
    assert seen[3].isfinite().all()  # the two missing steps were drawn
    assert seen[3][0, :3, 4:].std(0).min() > 0
    assert (last[:, 3] - seen[1][:, 3]).abs().max() > 0
    assert plan.score.min() >= quadratic(optimum)(seen[3][:, :3]).max(1).values.min()


def test_icem_adds_the_mean_in_the_last_iteration_only():
    planner, seen = ICEM(SPEC, ICEMConfig(iterations=2, keep=0.0, momentum=1.0)), []
    start = planner.start(LIKE, 1, 4)._replace(mean=torch.full((1, 4, 2), 0.123))
    planner(lambda a: seen.append(a) or a.sum((2, 3)), start)
    there = [(a == 0.123).all(-1).all(-1).any().item() for a in seen]
    assert there == [False, True]


def test_icem_executes_its_best_sample_and_continues_from_its_mean():
    torch.manual_seed(0)
    optimum = torch.rand(3, 5, 2) - 0.5
    plan = plan_for(ICEM(SPEC, ICEMConfig()), optimum)
    torch.testing.assert_close(quadratic(optimum)(plan.actions[:, None])[:, 0], plan.score)
    assert not torch.equal(plan.actions, plan.mean)


def test_icem_does_not_remember_candidates_without_finite_score():
    planner = ICEM(SPEC, ICEMConfig())
    plan = planner(lambda a: torch.full(a.shape[:2], torch.nan), planner.start(LIKE, 1, 4))
    assert plan.elites.isnan().all()


# ------------------------------------------------------------------ shifting


def test_shift_fills_the_tail_as_each_planner_wants_it():
    plan = Plan(*(torch.arange(1.0, 9).view(1, 4, 2),) * 2, torch.ones(1, 3, 4, 2), torch.zeros(1))
    cem, icem = CEM(SPEC, CEMConfig()).shift(plan, 3), ICEM(SPEC, ICEMConfig()).shift(plan, 3)
    assert cem.mean[0, :, 0].tolist() == [7, 0, 0, 0]
    assert icem.mean[0, :, 0].tolist() == [7, 7, 7, 7]
    assert icem.elites[0, 0, :, 0].isnan().tolist() == [False, True, True, True]
    unmoved = ICEM(SPEC, ICEMConfig()).shift(plan, 0)
    assert all(torch.equal(a, b) for a, b in zip(plan, unmoved, strict=True))


# ------------------------------------------------------------------ MPPI


def test_mppi_sigma_acts():
    torch.manual_seed(0)
    one, two = (mppi_candidates(torch.zeros(1, 20, 2), 20_000, sigma, 0.6).std((0, 1)) for sigma in (0.2, 0.4))
    torch.testing.assert_close(two, 2 * one, rtol=0.03, atol=0)


def test_mppi_noise_is_the_recursion():
    beta, mean = 0.6, torch.zeros(1, 5, 1)
    torch.manual_seed(1)
    noise = mppi_candidates(mean, 3, 0.5, beta)
    torch.manual_seed(1)
    white = torch.randn(1, 3, 5, 1)
    before = torch.zeros(1, 3, 1)
    for t in range(5):
        before = beta * white[:, :, t] + (1 - beta) * before
        torch.testing.assert_close(noise[:, :, t], 0.5 * before)


def test_mppi_temperature_limits():
    population, score = torch.randn(2, 9, 3, 1), torch.randn(2, 9)
    mean = torch.zeros(2, 3, 1)
    torch.testing.assert_close(path_integral(population, score, mean, 1e6), population.mean(1), atol=1e-5, rtol=0)
    cold = population[torch.arange(2), score.argmax(1)]
    torch.testing.assert_close(path_integral(population, score, mean, 1e-5), cold)
    torch.testing.assert_close(
        path_integral(population, score - 1e4, mean, 1.0), path_integral(population, score, mean, 1.0), rtol=0.02, atol=1e-2
    )
