"""Random shooting against all its candidates."""

import torch
from searches import LIKE, SPEC, quadratic

from mbkit.planning.shooting import Shooting, ShootingConfig


def test_shooting_plan_is_the_best_of_all_its_uniform_candidates():
    torch.manual_seed(0)
    planner, populations = Shooting(SPEC, ShootingConfig(candidates=500, iterations=3)), []
    optimum = torch.tensor([0.3, -0.6]).view(2, 1, 1).expand(2, 4, 2)

    def objective(actions):
        populations.append(actions)
        return quadratic(optimum)(actions)

    plan = planner(objective, planner.start(LIKE, 2, 4))
    candidates = torch.cat(populations, 1)
    assert candidates.shape == (2, 1500, 4, 2)
    best = quadratic(optimum)(candidates).argmax(1)
    assert torch.equal(plan.actions, candidates[torch.arange(2), best])
    assert abs(candidates.mean()) < 0.02
    torch.testing.assert_close(candidates.var(), torch.tensor(1 / 3), atol=0.01, rtol=0)
