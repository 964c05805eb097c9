"""Discrete CEM against every sequence there is."""

import itertools
import math

import pytest
import torch

from mbkit.errors import UserError
from mbkit.planning.discrete import DiscreteCEM, DiscreteCEMConfig, refit, sample
from mbkit.types import EnvSpec

SPEC = EnvSpec(4, 3, torch.device("cpu"), discrete=True)
LIKE = torch.empty(())


def tree(m, horizon, n):
    """A return for each of n^H sequences, one table per problem: any sequence may be the best."""
    values = torch.randn(m, n**horizon, dtype=torch.float64).cumsum(1).float()
    place = n ** torch.arange(horizon - 1, -1, -1)
    return values, lambda actions: values.gather(1, (actions * place).sum(-1))


@pytest.mark.parametrize("returns", ["best", "mode"])
def test_discrete_cem_small_tree_finds_the_best_of_all_sequences(returns):
    torch.manual_seed(0)
    values, objective = tree(3, 4, 3)
    planner = DiscreteCEM(SPEC, DiscreteCEMConfig(candidates=400, iterations=10, returns=returns))
    plan = planner(objective, planner.start(LIKE, 3, 4))
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    assert torch.equal(plan.score, values.amax(1))
    assert plan.actions.dtype == torch.int64
    assert torch.equal(plan.actions, every[values.argmax(1)])
    torch.testing.assert_close(plan.mean.sum(-1), torch.ones(3, 4))


def test_sample_frequencies_are_the_probabilities():
    torch.manual_seed(0)
    probabilities = torch.tensor([[[0.7, 0.3, 0.0], [0.1, 0.2, 0.7]]])
    draws = sample(probabilities, 40_000)
    frequency = torch.nn.functional.one_hot(draws, 3).float().mean(1)
    torch.testing.assert_close(frequency, probabilities, atol=0.01, rtol=0)
    assert (draws[..., 0] != 2).all()


def test_refit_is_the_smoothed_frequency_of_finite_elites_and_else_unchanged():
    elites = torch.tensor([[[0], [0], [1], [2]], [[0], [0], [0], [0]]])
    score = torch.tensor([[3.0, 2.0, 1.0, -torch.inf], [-torch.inf] * 4])
    old = torch.tensor([[[0.2, 0.3, 0.5]], [[0.2, 0.3, 0.5]]])
    torch.testing.assert_close(refit(elites, score, old, 0.0, 0.0)[0, 0], torch.tensor([2 / 3, 1 / 3, 0]))
    floored = 0.9 * torch.tensor([2 / 3, 1 / 3, 0]) + 0.1 / 3
    torch.testing.assert_close(refit(elites, score, old, 0.4, 0.1)[0, 0], 0.4 * old[0, 0] + 0.6 * floored)
    assert torch.equal(refit(elites, score, old, 0.4, 0.1)[1], old[1])


def test_discrete_cem_proposal_wins_and_nan_never_does():
    planner = DiscreteCEM(SPEC, DiscreteCEMConfig(candidates=20, elites=5, iterations=2))
    secret = torch.randint(3, (1, 1, 30))

    def objective(actions):
        hits = (actions == secret).sum(-1).float()
        return torch.where(actions[..., 0] == (secret[..., 0] + 1) % 3, torch.nan, hits)

    assert planner(objective, planner.start(LIKE, 1, 30), secret).score.item() == 30
    assert planner(lambda a: torch.full(a.shape[:2], torch.nan), planner.start(LIKE, 1, 30)).score.item() == -torch.inf


def test_shift_appends_uniform_probabilities():
    planner = DiscreteCEM(SPEC, DiscreteCEMConfig())
    plan = planner.start(LIKE, 1, 3)._replace(mean=torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]]), actions=torch.tensor([[0, 1, 2]]))
    shifted = planner.shift(plan, 2)
    torch.testing.assert_close(shifted.mean, torch.tensor([[[0, 0, 1.0], [1 / 3] * 3, [1 / 3] * 3]]))
    assert shifted.actions.dtype == torch.int64


def test_discrete_cem_continuous_actions_is_refused():
    with pytest.raises(UserError, match="needs discrete actions"):
        DiscreteCEM(SPEC._replace(discrete=False), DiscreteCEMConfig())


@pytest.mark.parametrize("returns", ["best", "mode"])
@pytest.mark.parametrize("parts", [(3, 2), (2, 2, 2), (4, 1)])
def test_discrete_cem_several_actions_find_the_best_of_all_sequences(parts, returns):
    """Any of the sequences may be the best: a table of returns by the number of the combination at each step."""
    torch.manual_seed(0)
    combinations = torch.cartesian_prod(*map(torch.arange, parts))
    values, of_numbers = tree(3, 2, len(combinations))
    place = torch.tensor([len(combinations) // math.prod(parts[: i + 1]) for i in range(len(parts))])
    planner = DiscreteCEM(several(parts), DiscreteCEMConfig(candidates=400, iterations=12, returns=returns))
    plan = planner(lambda actions: of_numbers((actions * place).sum(-1)), planner.start(LIKE, 3, 2))
    every = torch.stack([torch.stack(pair) for pair in itertools.product(combinations, repeat=2)])
    assert torch.equal(plan.score, values.amax(1))
    assert plan.actions.dtype == torch.int64
    assert torch.equal(plan.actions, every[values.argmax(1)])
    torch.testing.assert_close(plan.mean.sum(-1), torch.ones(3, 2, len(parts)))


def several(parts):
    return EnvSpec(4, sum(parts), torch.device("cpu"), discrete=True, parts=parts)


def test_discrete_cem_several_actions_start_and_stay_possible():
    planner = DiscreteCEM(several((3, 2)), DiscreteCEMConfig(candidates=50, elites=5, iterations=3, floor=0.5))
    start = planner.start(LIKE, 2, 4)
    assert start.mean[1, 3].tolist() == torch.tensor([[1 / 3] * 3, [0.5, 0.5, 0]]).tolist()
    asked = []

    def objective(actions):
        asked.append(actions)
        return actions.float().sum((-1, -2))

    plan = planner(objective, start)
    assert all(actions.shape == (2, 50, 4, 2) and (actions[..., 1] < 2).all() for actions in asked)
    assert (plan.mean[..., 1, 2] == 0).all()
    assert (plan.mean[..., 0, 0] > 0.9 * 0.5 / 3).all()
    shifted = planner.shift(plan, 3)
    torch.testing.assert_close(shifted.mean[:, 1:], start.mean[:, 1:])
    assert torch.equal(shifted.mean[:, 0], plan.mean[:, 3])
    assert torch.equal(shifted.actions, plan.actions[:, 3:].expand(2, 4, 2))


def test_discrete_cem_of_one_part_draws_the_plan_of_a_single_action():
    _, objective = tree(2, 4, 3)
    plans = []
    for spec in (SPEC, several((3,))):
        torch.manual_seed(1)
        planner = DiscreteCEM(spec, DiscreteCEMConfig(candidates=30, elites=5))
        plans.append(planner(lambda a: objective(a.view(2, -1, 4)), planner.start(LIKE, 2, 4)))
    torch.testing.assert_close(plans[0].mean, plans[1].mean[:, :, 0])
    assert torch.equal(plans[0].actions, plans[1].actions[..., 0])
