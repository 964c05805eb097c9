"""Discrete CEM against every sequence there is."""

import itertools

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
