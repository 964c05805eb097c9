"""The contract of planners passes mbkit's own, and is violated by one broken planner for each clause."""

import pytest
import torch

from mbkit.planning.cem import CEM, CEMConfig
from mbkit.planning.discrete import DiscreteCEM, DiscreteCEMConfig
from mbkit.planning.sampling import join
from mbkit.planning.shooting import Shooting, ShootingConfig
from mbkit.registry import planners
from mbkit.testing import check_planner
from mbkit.types import Plan


class Sound(CEM):
    """Small, so that the tests are quick."""

    def __init__(self, spec):
        super().__init__(spec, CEMConfig(candidates=100, elites=10))


class NoStart(Sound):
    start = None


class ScoreOfZero(Sound):
    def start(self, like, problems, horizon):
        return super().start(like, problems, horizon)._replace(score=like.new_zeros(problems))


class SingleStart(Sound):
    def start(self, like, problems, horizon):
        return super().start(like.float(), problems, horizon)


class OutsideTheBox(Sound):
    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(actions=plan.actions * 2)


class CandidatesOutside(Sound):
    def __call__(self, objective, start, proposals=None):
        return super().__call__(lambda actions: objective(actions * 3), start, proposals)


class FlatCandidates(Sound):
    def __call__(self, objective, start, proposals=None):
        return super().__call__(lambda actions: objective(actions.flatten(0, 1)).view(actions.shape[:2]), start, proposals)


class GrowingPlan(Sound):
    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(elites=plan.actions[:, None])


class GrowingPopulation(Sound):
    calls = 0

    def __call__(self, objective, start, proposals=None):
        self.calls += 1
        plan = super().__call__(objective, start, proposals)
        if self.calls % 2 == 0:
            objective(plan.actions[:, None])
        return plan


class ScoreOfTheMean(Sound):
    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(score=plan.score - 1)


class ChangesStart(Sound):
    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        start.mean.copy_(plan.mean)
        return plan


class PrivateGenerator(Sound):
    def __init__(self, spec):
        super().__init__(spec)
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(actions=(plan.actions + 0.01 * torch.rand(plan.actions.shape, generator=self.generator)).clamp(-1, 1))


class Minimises(Sound):
    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(actions=-plan.actions, mean=-plan.mean)


class SlowSecondSearch(Sound):
    """Starts a search from the reverse of the plan before, and looks nowhere else."""

    def __call__(self, objective, start, proposals=None):
        if bool((start.score == -torch.inf).all()):
            return super().__call__(objective, start, proposals)
        actions = -start.actions
        score = torch.full_like(start.score, -torch.inf)
        for _ in range(self.cfg.iterations):
            score = objective(actions[:, None].expand(-1, self.cfg.candidates, -1, -1)).amax(1).maximum(score)
        return Plan(actions, actions, start.elites, score)


class ShiftKeepsAll(Sound):
    def shift(self, plan, steps):
        return plan


class ShiftShortens(Sound):
    def shift(self, plan, steps):
        return plan._replace(mean=plan.mean[:, steps:])


class MixesProblems(Sound):
    """Refits to elites of all problems, a little."""

    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(mean=0.9 * plan.mean + 0.1 * plan.mean.mean(0))


class ScaledByProblems(Sound):
    """Problems do not mix, but their number counts."""

    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(mean=plan.mean * (1 - 0.05 * len(plan.mean)))


class NoProposals(Sound):
    def __call__(self, objective, start, proposals=None):
        return super().__call__(objective, start)


class NaNIsBest(Shooting):
    """Takes the best score, whatever it is."""

    def __init__(self, spec):
        super().__init__(spec, ShootingConfig(iterations=1))

    def __call__(self, objective, start, proposals=None):
        m, *rest = start.mean.shape
        population = join(start.mean.new_empty(m, self.cfg.candidates, *rest).uniform_(-1, 1), proposals)
        score, index = objective(population).max(1)
        return Plan(*[population[torch.arange(m), index]] * 2, start.elites, score)


class NaNInTheMean(Sound):
    def __call__(self, objective, start, proposals=None):
        scores = []

        def spied(actions):
            scores.append(objective(actions))
            return scores[-1]

        plan = super().__call__(spied, start, proposals)
        return plan._replace(mean=plan.mean + 0 * scores[-1].nan_to_num(posinf=0, neginf=0, nan=torch.nan).mean(1)[:, None, None])


class Synchronises(Sound):
    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        if plan.score.max() > 1e9:
            raise ValueError
        return plan


class Unnormalised(DiscreteCEM):
    def __init__(self, spec):
        super().__init__(spec, DiscreteCEMConfig(candidates=50, elites=5))

    def __call__(self, objective, start, proposals=None):
        plan = super().__call__(objective, start, proposals)
        return plan._replace(mean=plan.mean * 0.5)


class BeyondTheLast(Unnormalised):
    def __call__(self, objective, start, proposals=None):
        plan = DiscreteCEM.__call__(self, objective, start, proposals)
        return plan._replace(actions=plan.actions + 1)


@pytest.mark.parametrize("name", [entry.name for entry in planners])
def test_registered_planners_pass(name):
    check_planner(name)


def test_a_sound_planner_passes():
    check_planner(Sound)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NoStart, "lacks the method start"),
        (ScoreOfZero, "start: expected scores of -inf before any search"),
        (SingleStart, "start: expected a mean of torch.float64 as asked for, came torch.float32"),
        (OutsideTheBox, r"a search: expected actions in \[-1, 1\]"),
        (CandidatesOutside, r"the objective: expected candidates in \[-1, 1\]"),
        (FlatCandidates, r"the objective: expected candidates of the shape \(M, N, H, ...\)"),
        (GrowingPlan, "a search: expected elites in the form of `start`"),
        (GrowingPopulation, "expected as many candidates as in the first search"),
        (ScoreOfTheMean, "a search: expected the best score of any candidate"),
        (ChangesStart, "expected the plan that it starts from to stay as it is"),
        (PrivateGenerator, "expected the same plan from the same seed"),
        (Minimises, "a search: expected actions that score at least"),
        (SlowSecondSearch, "a search from the plan of another: expected actions that score at least"),
        (ShiftKeepsAll, "shift: expected the mean of step 2 as that of step 1"),
        (ShiftShortens, r"shift: expected mean of the shape \(3, 2, 2\), came \(3, 1, 2\)"),
        (MixesProblems, "expected problem 0 to be solved whatever problem 1 is"),
        (ScaledByProblems, "expected problem 0 among 3 to be solved as alone"),
        (NoProposals, "a search with proposals: expected the score of the best, 3"),
        (NaNIsBest, "a search without any finite score: expected the score -inf, came nan"),
        (NaNInTheMean, r"came nan|finite mean|in \[-1, 1\]"),
        (Synchronises, "expected no operator that synchronises with the device"),
        (Unnormalised, "expected probabilities that sum to 1"),
        (BeyondTheLast, "a search: expected actions from 0 to"),
    ],
)
def test_check_planner_names_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message) as raised:
        check_planner(broken)
    assert "\n" not in str(raised.value)
