"""iCEM: how many trajectories it evaluates, which candidates it evaluates again, what it executes."""

import itertools

import pytest
import torch
from searches import LIKE, SPEC, plan_for, quadratic

from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.planning.icem import ICEM, ICEMConfig, populations


def test_populations_defaults_evaluate_97_trajectories():
    assert populations(ICEMConfig()) == [40, 32, 25]
    assert populations(ICEMConfig(iterations=6)) == [40, 32, 25, 20, 20, 20]
    sizes = []
    planner = ICEM(SPEC, ICEMConfig())
    planner(lambda a: sizes.append(a.shape[1]) or a.sum((2, 3)), planner.start(LIKE, 1, 25))
    assert sizes == [40, 32, 25]


def test_icem_reused_elites_are_evaluated_again_in_the_next_iteration_and_plan():
    torch.manual_seed(0)
    planner, evaluated = ICEM(SPEC, ICEMConfig()), []
    optimum = torch.full((2, 6, 2), 0.4)

    def objective(actions):
        evaluated.append(actions)
        return quadratic(optimum)(actions)

    first = planner(objective, planner.start(LIKE, 2, 6))
    for before, after in itertools.pairwise(evaluated):
        best = quadratic(optimum)(before).topk(3).indices[:, :, None, None]
        assert torch.equal(after[:, :3], before.take_along_dim(best, 1))
    assert first.elites.shape == (2, 3, 6, 2)
    last = evaluated[2]
    plan = planner(objective, planner.shift(first, 2))
    assert torch.equal(evaluated[3][:, :3, :4], first.elites[:, :, 2:])  # shifted, evaluated again
    assert evaluated[3].isfinite().all()  # the two missing steps were drawn
    assert evaluated[3][0, :3, 4:].std(0).min() > 0
    assert (last[:, 3] - evaluated[1][:, 3]).abs().max() > 0
    assert plan.score.min() >= quadratic(optimum)(evaluated[3][:, :3]).max(1).values.min()


def test_icem_mean_is_a_candidate_of_the_last_iteration_only():
    planner, evaluated = ICEM(SPEC, ICEMConfig(iterations=2, keep=0.0, momentum=1.0)), []
    start = planner.start(LIKE, 1, 4)._replace(mean=torch.full((1, 4, 2), 0.123))
    planner(lambda a: evaluated.append(a) or a.sum((2, 3)), start)
    mean_included = [(a == 0.123).all(-1).all(-1).any().item() for a in evaluated]
    assert mean_included == [False, True]


def test_icem_plan_executes_the_best_candidate_and_continues_from_the_mean():
    torch.manual_seed(0)
    optimum = torch.rand(3, 5, 2) - 0.5
    plan = plan_for(ICEM(SPEC, ICEMConfig()), optimum)
    torch.testing.assert_close(quadratic(optimum)(plan.actions[:, None])[:, 0], plan.score)
    assert not torch.equal(plan.actions, plan.mean)


def test_icem_candidates_without_finite_score_are_not_reused():
    planner = ICEM(SPEC, ICEMConfig())
    plan = planner(lambda a: torch.full(a.shape[:2], torch.nan), planner.start(LIKE, 1, 4))
    assert plan.elites.isnan().all()


def test_iterations_nobody_has_are_refused_before_they_are_listed():
    with pytest.raises(UserError, match=r"planner.iterations=1000000000 is out of range: expected in \[1, 100000\]"):
        compose("pets", ["planner=icem", "planner.iterations=1000000000"])
