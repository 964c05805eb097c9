"""Penalties against true errors: of models whose error is known, by brute force, and in limits."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from systems import small_ensemble
from torch import Tensor

from mbkit.diagnostics import penalties as module
from mbkit.diagnostics.coverage import action_coverage
from mbkit.diagnostics.penalties import auroc, by_tenth, change_scale, dimension_shares, penalty_quality, ranked, spearman, worst
from mbkit.diagnostics.verdict import penalty_verdict
from mbkit.dynamics.uncertainty import disagreement, distance_from_mean, ensemble_std, max_aleatoric
from mbkit.errors import UserError
from mbkit.imagination.gate import one_vs_rest
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec, Prediction, Step, Transition

SPEC = EnvSpec(2, 1, torch.device("cpu"))
MEASURES = {f.__name__: f for f in (max_aleatoric, disagreement, distance_from_mean, ensemble_std, one_vs_rest)}
SIGN = torch.tensor([-1.0, 0.0, 1.0])[:, None]  # of the members


class Biased:
    """x_0' = x_0 + a in truth. The model errs by |x_1| / 4, and three members spread by as much about it; their variance is constant."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2), predicts: bool = True) -> None:
        self.order, self.predicts = list(order), predicts

    def init(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
        bias = carry[:, 1].abs() / 4
        obs = carry + torch.stack([action[:, 0] + bias, 0 * bias], 1)
        mean = obs + torch.stack([SIGN * bias, 0 * SIGN * bias], -1)
        prediction = Prediction(mean, torch.full_like(mean, 0.01))
        whole = Prediction(*(x[self.order] for x in prediction)) if predict and self.predicts else None
        return Step(obs, obs, torch.zeros(len(obs)), torch.zeros(len(obs), dtype=torch.bool), whole)


def recorded(lengths: list[int], seed: int = 0) -> ReplayBuffer:
    """Episodes of x_0' = x_0 + a from random states; x_1 stays what it is."""
    draw, buffer = torch.Generator().manual_seed(seed), ReplayBuffer(10_000, SPEC)
    for i, n in enumerate(lengths):
        action = torch.rand(n, 1, generator=draw) - 0.5
        path = torch.cat([torch.zeros(1, 1), action.cumsum(0)]) * torch.tensor([[1.0, 0.0]]) + torch.randn(2, generator=draw)
        ended = torch.arange(n) == n - 1
        rows = Experience(path[:-1], action, torch.zeros(n), path[1:], torch.zeros(n, dtype=torch.bool), ended)
        buffer.extend(rows, column=i)
    return buffer


def test_a_penalty_that_is_the_error_ranks_it_and_the_verdict_names_it() -> None:
    held_out = recorded([12] * 60)
    rollouts, penalties = penalty_quality(Biased(), held_out, MEASURES)
    assert rollouts["depths"] == [1, 2, 5, 10]
    assert rollouts["left_out"] == []
    for name in ("disagreement", "distance_from_mean", "ensemble_std", "one_vs_rest"):
        for depth in rollouts["depths"]:
            assert penalties[name][str(depth)]["spearman"] > 0.99
            assert penalties[name][str(depth)]["auroc"] > 0.99
    constant = penalties["max_aleatoric"]["5"]
    assert math.isnan(constant["spearman"])
    assert constant["auroc"] == 0.5
    verdict = penalty_verdict(penalties, rollouts["depths"])
    assert verdict.startswith("disagreement ranks errors at depth 5 with rho 1.00; ")
    assert verdict.endswith("max_aleatoric constant: prefer disagreement or distance_from_mean or ensemble_std or one_vs_rest")


def test_the_error_is_that_of_the_last_step_in_changes_of_the_data() -> None:
    """After L steps x_0 is off by L |x_1| / 4; x_1 never changes, so that its unit is a ten thousandth of its spread."""
    held_out = recorded([6] * 40)
    rows = held_out.all()
    scale = change_scale(rows)
    assert scale[0] == pytest.approx(float((rows.next_obs - rows.obs)[:, 0].std(correction=0)))
    assert scale[1] == pytest.approx(1e-4 * float(rows.next_obs[:, 1].std(correction=0)))
    rollouts, _ = penalty_quality(Biased(), held_out, {}, depths=(1, 3, 6))
    assert rollouts["windows"] == [240, 160, 40]
    for depth, median in zip(rollouts["depths"], rollouts["median"], strict=True):
        expected = depth * rows.obs[:, 1].abs() / 4 / scale[0]
        assert median == pytest.approx(float(np.median(expected.view(40, 6)[:, : 7 - depth])), rel=1e-3)


def test_the_penalty_is_that_of_the_last_step() -> None:
    class Counting(Biased):
        """Members that agree but in the third step, where they disagree by the error."""

        def init(self, obs: Tensor) -> Tensor:
            return torch.cat([obs, torch.ones(len(obs), 1)], 1)

        def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
            step = super().step(carry[:, :2], action, predict)
            if step.prediction is not None:
                disagrees = (carry[:, 2] == 3)[:, None]
                step = step._replace(prediction=step.prediction._replace(mean=torch.where(disagrees, step.prediction.mean, step.obs)))
            return step._replace(state=torch.cat([step.obs, carry[:, 2:] + 1], 1))

    _, penalties = penalty_quality(Counting(), recorded([6] * 40), {"disagreement": disagreement}, depths=(1, 2, 3, 4))
    rho = {depth: quality["spearman"] for depth, quality in penalties["disagreement"].items()}
    assert rho["3"] > 0.99
    assert all(math.isnan(rho[depth]) for depth in "124")


def test_depths_with_too_few_windows_are_left_out() -> None:
    rollouts, penalties = penalty_quality(Biased(), recorded([3] * 30 + [10]), MEASURES)
    assert rollouts["depths"] == [1, 2]
    assert rollouts["left_out"] == [5, 10]
    assert penalties["disagreement"].keys() == {"1", "2"}


def test_windows_are_rolled_out_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = recorded([12] * 40)
    whole = penalty_quality(Biased(), held_out, MEASURES)
    monkeypatch.setattr(module, "CHUNK", 37)
    rollouts, penalties = penalty_quality(Biased(), held_out, MEASURES)
    assert all(rollouts[key] == pytest.approx(whole[0][key]) for key in ("depths", "windows", "median", "worst"))
    assert_close(penalties, whole[1])


def test_sampled_noise_seems_to_be_an_error_that_a_variance_ranks() -> None:
    class Noisy(Biased):
        """The truth, of whose noise every member believes that it grows with |x_1|."""

        def __init__(self, samples: bool) -> None:
            super().__init__()
            self.samples = samples

        def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
            mean, std = carry + action * torch.tensor([1.0, 0.0]), carry[:, 1:].abs().expand(-1, 2)
            obs = mean + self.samples * std * torch.randn_like(mean) * torch.tensor([1.0, 0.0])
            nothing = torch.zeros(len(obs))
            return Step(obs, obs, nothing, nothing > 0, Prediction(mean.expand(2, -1, -1), std.square().expand(2, -1, -1)))

    held_out, rho = recorded([12] * 60), {}
    for name, samples, particles in (("one sample", True, 1), ("mean of ten", True, 10), ("mean", False, 1)):
        torch.manual_seed(0)
        rollouts, penalties = penalty_quality(Noisy(samples), held_out, {"max_aleatoric": max_aleatoric}, (1,), particles)
        rho[name] = penalties["max_aleatoric"]["1"]["spearman"]
    assert rho["one sample"] > 0.5
    assert rho["mean of ten"] > 0.5
    assert rollouts["worst"][0] < 1e-5  # without samples there is no error


def test_a_model_without_predictions_is_refused() -> None:
    with pytest.raises(UserError, match=r"Biased returns none; expected an ensemble"):
        penalty_quality(Biased(predicts=False), recorded([12] * 4), MEASURES)


def test_the_order_of_members_changes_nothing() -> None:
    held_out = recorded([8] * 40)
    (_, one), (_, two) = (penalty_quality(Biased(order), held_out, MEASURES) for order in ((0, 1, 2), (2, 0, 1)))
    assert_close(one, two)


def test_the_order_of_members_of_an_ensemble_changes_nothing() -> None:
    model, other, order = small_ensemble(fit=False), small_ensemble(fit=False), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for parameter in (*other.network.net.weight, *other.network.net.bias):
            parameter.copy_(parameter[order])
        other.network.elites.copy_(order.argsort()[other.network.elites])
    other.refresh()
    buffer = ReplayBuffer(1000, model.spec)
    rows = torch.randn(200, 3)
    buffer.extend(Experience(rows, torch.rand(200, 2), torch.zeros(200), 0.9 * rows, *(torch.zeros(2, 200, dtype=torch.bool))), column=0)
    results = []
    for m in (model, other):
        torch.manual_seed(0)
        results.append(penalty_quality(m, buffer, MEASURES, depths=(1, 5))[1])
    assert_close(*results)
    assert all(sum(quality["share_by_dimension"]) == pytest.approx(1) for by_depth in results[0].values() for quality in by_depth.values())
    assert len(results[0]["disagreement"]["5"]["share_by_dimension"]) == 4  # the reward is predicted too


def assert_close(one: dict, two: dict) -> None:
    for name, by_depth in one.items():
        for depth, quality in by_depth.items():
            for key, value in quality.items():
                assert value == pytest.approx(two[name][depth][key], abs=2e-3, nan_ok=True), (name, depth, key)


# --- ranks --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_and_auroc_agree_with_scipy_and_with_all_pairs(ties: bool) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 60))
    if ties:
        x, y = x.round(), y.round()
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    bad = worst(y)
    pairs = [float(a > b) + 0.5 * float(a == b) for a in x[bad] for b in x[~bad]]
    assert auroc(x, bad) == pytest.approx(np.mean(pairs))
    assert bad.sum() >= 6
    assert y[bad].min() > y[~bad].max()


def test_ranks_of_constant_columns_are_not_numbers() -> None:
    x, same = np.arange(30.0), np.ones(30)
    assert math.isnan(spearman(same, x))
    assert math.isnan(spearman(x, same))
    assert math.isnan(auroc(x, worst(same)))  # all errors are among the worst
    assert auroc(same, worst(x)) == 0.5
    assert spearman(x, -x) == pytest.approx(-1)


def test_what_is_not_a_number_is_the_largest_of_all() -> None:
    x = ranked(torch.tensor([1.0, torch.nan, 3.0, torch.inf]))
    assert x.tolist() == [1.0, math.inf, 3.0, math.inf]
    assert spearman(x, np.array([1.0, 9.0, 2.0, 9.0])) == pytest.approx(1)
    assert len(set(ranked(torch.full((9,), 0.3) + 1e-8 * torch.rand(9)))) == 1


def test_by_tenth_are_medians_of_ordered_parts() -> None:
    penalty = np.random.default_rng(0).permutation(100)
    assert by_tenth(penalty.astype(float), penalty * 2.0) == [2 * (10 * n + 4.5) for n in range(10)]


def test_change_scale_of_constant_columns() -> None:
    obs = torch.stack([torch.full((50,), 5e6), torch.arange(50.0), torch.randn(50)], 1)
    change = torch.stack([torch.zeros(50), torch.ones(50), torch.randn(50)], 1)
    data = Transition(obs, torch.zeros(50, 1), torch.zeros(50), obs + change, torch.ones(50))
    scale = change_scale(data)
    assert scale[0] == 1
    assert scale[1] == pytest.approx(1e-4 * float((obs + change)[:, 1].std(correction=0)))
    assert scale[2] == pytest.approx(float(change[:, 2].std(correction=0)), rel=1e-4)


# --- dimensions and actions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURES)
def test_shares_sum_to_one_and_name_the_dimension(name: str) -> None:
    torch.manual_seed(0)
    mean, var = torch.randn(4, 50, 3) * torch.tensor([0.1, 10.0, 0.1]), torch.rand(4, 50, 3) * torch.tensor([0.1, 100.0, 0.1])
    if name == "one_vs_rest":
        var = torch.full_like(var, 0.01)
    share = dimension_shares(MEASURES[name], Prediction(mean, var))
    assert share.sum() == pytest.approx(1)
    assert share.argmax() == 1
    assert share[1] > 0.8
    even = dimension_shares(MEASURES[name], Prediction(*(x[..., :1].expand(-1, -1, 4) for x in (mean, var))))
    assert even.tolist() == pytest.approx([0.25] * 4, abs=1e-6)


def test_shares_of_a_sum_over_dimensions_are_its_parts() -> None:
    torch.manual_seed(0)
    p = Prediction(torch.randn(3, 40, 4, dtype=torch.float64), torch.rand(3, 40, 4, dtype=torch.float64))
    parts = torch.stack([one_vs_rest(Prediction(p.mean[..., d : d + 1], p.var[..., d : d + 1])).mean() for d in range(4)])
    torch.testing.assert_close(dimension_shares(one_vs_rest, p), parts / parts.sum())


def test_shares_of_a_length_are_about_those_of_its_square() -> None:
    """Where no dimension is large: sqrt(S) - sqrt(S - s_d) = s_d / (2 sqrt(S)) + O(s_d^2)."""
    torch.manual_seed(0)
    width = torch.linspace(1, 2, 40)
    p = Prediction(torch.zeros(2, 5, 40), (width**2).expand(2, 5, 40))
    expected = width**2 / (width**2).sum()
    torch.testing.assert_close(dimension_shares(ensemble_std, p).float(), expected, rtol=0.02, atol=0)


def test_shares_of_a_single_dimension_and_of_agreement() -> None:
    p = Prediction(torch.randn(2, 5, 1), torch.ones(2, 5, 1))
    assert dimension_shares(disagreement, p).tolist() == [1.0]
    agreed = Prediction(torch.zeros(2, 5, 3), torch.ones(2, 5, 3))
    assert dimension_shares(disagreement, agreed).isnan().all()


def test_action_coverage_counts_tenths_of_the_box() -> None:
    action = torch.stack([torch.linspace(-1, 1, 1001), torch.linspace(-1, -0.81, 1001)], 1)
    held = action_coverage(action)
    assert held["shares"][0] == pytest.approx([0.1] * 10, abs=0.002)
    assert held["shares"][1] == [1.0] + [0.0] * 9
    assert held["empty"] == pytest.approx([0.0, 0.9])
    assert held["quantiles"][0] == pytest.approx([-1, -0.9, -0.5, 0, 0.5, 0.9, 1], abs=1e-6)
    assert held["at_bounds"] == pytest.approx([2 / 1001, 1 / 1001])


def test_action_coverage_of_discrete_actions_are_frequencies() -> None:
    held = action_coverage(torch.tensor([0, 2, 2, 0, 2]), 4)
    assert held["frequencies"] == pytest.approx([0.4, 0, 0.6, 0])
    assert held["never"] == [1, 3]


# --- the verdict --------------------------------------------------------------------------------------------------------------------------


def measured(**rho: list[float]) -> dict[str, dict[str, dict[str, float]]]:
    """Penalties with these correlations at depths 1, 5, 10, and an AUROC of as much above one half."""
    depths = ("1", "5", "10")
    return {
        name: {depth: {"spearman": value, "auroc": 0.5 + max(value, 0) / 2} for depth, value in zip(depths, values, strict=False)}
        for name, values in rho.items()
    }


NAN = math.nan
VERDICTS = [
    (measured(a=[0, 0.71, 0], b=[0.9, 0.18, 0]), "a ranks errors at depth 5 with rho 0.71; b 0.18: prefer a"),
    (measured(a=[0.70], b=[0.71]), "b ranks errors at depth 1 with rho 0.71; a 0.70: prefer b or a"),
    (measured(a=[0, 0.3]), "a ranks errors at depth 5 with rho 0.30: prefer a"),
    (measured(a=[0, 0.3], b=[0, NAN]), "a ranks errors at depth 5 with rho 0.30; b constant: prefer a"),
    (measured(a=[0, 0.1949]), "no penalty ranks errors at depth 5 (largest: a, 0.19), none can be trusted there"),
    (measured(a=[0, -0.4]), "no penalty ranks errors at depth 5 (largest: a, -0.40), none can be trusted there"),
    (measured(a=[0, NAN]), "no penalty ranks errors at depth 5 (all are constant), none can be trusted there"),
    (
        measured(a=[0.5, 0.1, 0.1], b=[-0.9, NAN, 0.3]),
        "no penalty ranks errors at depth 5 (largest: a, 0.10), none can be trusted there; "
        "errors are ranked by a at depth 1 (0.50), b at depth 10 (0.30)",
    ),
    ({}, "no penalty: a single deterministic member states no uncertainty; only error and calibration are measured"),
]


@pytest.mark.parametrize(("penalties", "verdict"), VERDICTS)
def test_penalty_verdict(penalties: dict, verdict: str) -> None:
    depths = [int(depth) for depth in next(iter(penalties.values()), {"5": {}})]
    assert penalty_verdict(penalties, depths) == verdict


def test_penalty_verdict_tells_what_detects_the_worst_tenth() -> None:
    penalties = {"a": {"2": {"spearman": 0.1, "auroc": 0.75}}, "b": {"2": {"spearman": 0.05, "auroc": NAN}}}
    assert penalty_verdict(penalties, [2]).endswith("none can be trusted there; a detects the worst tenth (AUROC 0.75)")
    penalties["a"]["2"]["auroc"] = 0.6
    assert penalty_verdict(penalties, [2]).endswith("none can be trusted there")
