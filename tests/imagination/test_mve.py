"""Value expansion against sums written out by hand, an exact decision process, and the limits that it must have."""

import math

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.imagination.mve import ROUNDING, ValueExpansion, steve
from mbkit.networks.values import regression_loss
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Rollout, Step, Targets, Transition

SPEC = EnvSpec(2, 1, torch.device("cpu"))
GAMMA = 0.9
F64 = torch.float64


class Line:
    """s' = s + a, reward 2 s + 3 a, terminates above `wall`; the successor of states above `nan_above` is NaN."""

    def __init__(self, wall: float = math.inf, nan_above: float = math.inf):
        self.wall, self.nan_above = wall, nan_above
        self.asked: list[int] = []  # rows of each step

    def init(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
        self.asked.append(len(carry))
        after = torch.where(carry > self.nan_above, math.nan, carry + action)
        return Step(after, after, (2 * carry + 3 * action)[:, 0], (after > self.wall)[:, 0])

    def rollout(self, carry: Tensor, actions: Tensor) -> Rollout:
        raise NotImplementedError


class Toy:
    """a = s / 2 with bonus s / 10; critics s + 5 a, and that plus `offset` for each further one."""

    def __init__(self, critics: int = 2, offset: float = 1.0, bonus: float = 0.1):
        self.critics, self.offset, self.bonus = critics, offset, bonus

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * obs, self.bonus * obs[:, 0]

    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.stack([(obs + 5 * action)[:, 0] + k * self.offset for k in range(self.critics)])


def batch_of(next_obs: list[float], discount: list[float]) -> Transition:
    """Rows with s_-1 = 10, 11, .., a_-1 = 0.25, 1.25, .. and r_-1 = 100, 101, .."""
    count = torch.arange(len(next_obs), dtype=F64)
    return Transition(
        (10 + count)[:, None],
        (0.25 + count)[:, None],
        100 + count,
        torch.tensor(next_obs, dtype=F64)[:, None],
        torch.tensor(discount, dtype=F64),
    )


def by_hand(agent: Toy, s: float, steps: int, wall: float) -> float:
    """V(s): the bonus here, then reward by reward, one state at a time, until the bootstrap or the wall."""
    a, bonus = 0.5 * s, agent.bonus * s
    if steps == 0:
        return bonus + s + 5 * a
    after = s + a
    return bonus + 2 * s + 3 * a + (0.0 if after > wall else GAMMA * by_hand(agent, after, steps - 1, wall))


def states_from(s: float, steps: int) -> list[float]:
    """s_0 .. s_steps under the toy's policy."""
    return [s * 1.5**t for t in range(steps + 1)]


def assert_same(a: Targets, b: Targets) -> None:
    weights = (torch.ones_like(y.target) if y.weight is None else y.weight for y in (a, b))
    for x, y in zip((*a[:3], next(weights)), (*b[:3], next(weights)), strict=True):
        assert torch.equal(x, y)


# ------------------------------------------------------------------------------------------------------------------- limits


def real_batch(rows: int = 32, discount: float = 1.0) -> Transition:
    ended = torch.rand(rows) < 0.2
    weight = torch.where(ended, 0.0, discount)
    return Transition(torch.randn(rows, 2), torch.rand(rows, 1) * 2 - 1, torch.randn(rows), torch.randn(rows, 2), weight)


@pytest.mark.parametrize("cfg", [SACConfig(hidden=(16,)), SACConfig(hidden=(16,), critics=5, target_subset=2)], ids=["sac", "redq"])
def test_value_expansion_horizon_0_is_one_step_bit_for_bit(cfg):
    torch.manual_seed(0)
    agent, batch = SAC(SPEC, cfg), real_batch()
    results = []
    for target in (one_step, ValueExpansion(Line(), 0)):
        torch.manual_seed(1)
        results.append(target(agent, batch, GAMMA))
        results.append(torch.rand(3))  # and drew the same random numbers
    assert_same(results[0], results[2])
    assert torch.equal(results[1], results[3])


def test_value_expansion_horizon_0_on_n_step_rows_is_one_step():
    batch = batch_of([1.0, 2.0, 3.0], [GAMMA**2, 0.0, GAMMA])
    assert_same(ValueExpansion(Line(), 0)(Toy(), batch, GAMMA), one_step(Toy(), batch, GAMMA))


def test_value_expansion_steve_horizon_0_is_the_mean_of_the_critics():
    batch = batch_of([1.0, 2.0], [1.0, 0.0])
    y = ValueExpansion(Line(), 0, weighting="steve", particles=3)(Toy(offset=4.0), batch, GAMMA)
    torch.testing.assert_close(y.target, one_step(Toy(offset=4.0), batch, GAMMA).target + torch.tensor([GAMMA * 2.0, 0.0], dtype=F64))


# ------------------------------------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize("horizon", [1, 2, 4])
@pytest.mark.parametrize("bonus", [0.0, 0.1])
def test_value_expansion_start_data_rows_equal_sums_by_hand(horizon, bonus):
    wall = 8.0  # from 2 the fourth state lies beyond it, from 4 the second, from -1 none
    agent, starts, discounts = Toy(bonus=bonus), [2.0, 4.0, -1.0, 3.0], [1.0, GAMMA**2, 1.0, 0.0]
    batch = batch_of(starts, discounts)
    y = ValueExpansion(Line(wall), horizon)(agent, batch, GAMMA)
    rows = len(starts)
    assert [len(field) for field in y[:4]] == [(horizon + 1) * rows] * 4
    assert torch.equal(y.obs[:rows], batch.obs)
    assert torch.equal(y.action[:rows], batch.action)
    for i, (s, discount) in enumerate(zip(starts, discounts, strict=True)):
        expected = 100 + i + GAMMA * discount * by_hand(agent, s, horizon, wall)
        assert y.target[i].item() == pytest.approx(expected, abs=1e-12)
        assert y.weight[i] == 1
        states = states_from(s, horizon)
        for t in range(horizon):
            row = (t + 1) * rows + i
            reached = discount != 0 and all(state <= wall for state in states[1 : t + 1])
            assert y.weight[row] == float(reached)
            assert y.obs[row].item() == pytest.approx(states[t])
            assert y.action[row].item() == pytest.approx(states[t] / 2)
            expected = by_hand(agent, states[t], horizon - t, wall) - bonus * states[t]  # a state-action value has no bonus of its own
            assert y.target[row].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_value_expansion_start_model_rows_equal_sums_by_hand(horizon):
    wall, agent, batch = 14.0, Toy(), batch_of([-99.0, -99.0], [1.0, 1.0])  # the real successors do not matter
    y = ValueExpansion(Line(wall), horizon, start="model")(agent, batch, GAMMA)
    assert torch.equal(y.obs, batch.obs)
    assert torch.equal(y.action, batch.action)
    assert torch.equal(y.weight, torch.ones(2, dtype=F64))
    for i in range(2):
        s, a = 10.0 + i, 0.25 + i
        follows = 0.0 if s + a > wall else GAMMA * by_hand(agent, s + a, horizon - 1, wall)
        assert y.target[i].item() == pytest.approx(2 * s + 3 * a + follows, abs=1e-12)


@pytest.mark.parametrize("horizon", [1, 3])
def test_value_expansion_steve_rows_equal_weighted_sums_by_hand(horizon):
    wall, agent, starts, discounts = 8.0, Toy(critics=3, offset=0.7), [2.0, 4.0, -1.0, 3.0], [1.0, GAMMA, 1.0, 0.0]
    batch = batch_of(starts, discounts)
    y = ValueExpansion(Line(wall), horizon, weighting="steve", particles=2)(agent, batch, GAMMA)
    assert len(y.target) == len(starts)
    for i, (s, discount) in enumerate(zip(starts, discounts, strict=True)):
        means, variances = [], []
        for h in range(horizon + 1):
            scale = discount * GAMMA ** (h + 1) * all(state <= wall for state in states_from(s, h))  # of the bootstrap
            means.append(100 + i + GAMMA * discount * by_hand(agent, s, h, wall) + scale * 0.7)  # mean of offsets 0, 0.7, 1.4
            variances.append(scale**2 * 0.7**2 * 2 / 3)
        weights = [1 / max(variance, (ROUNDING * max(map(abs, means))) ** 2) for variance in variances]
        expected = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
        assert y.target[i].item() == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------------------------------------ a model without error


class Chain:
    """A deterministic decision process of 7 states, observed as one-hot vectors, 3 actions; exact values by a linear solve."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.next = torch.randint(7, (7, 3), generator=generator)
        self.rewards = torch.rand(7, 3, generator=generator, dtype=F64)
        self.final = torch.rand(7, 3, generator=generator) < 0.1
        self.policy = torch.randint(3, (7,), generator=generator)
        pairs = torch.arange(7), self.policy
        kernel = torch.zeros(7, 7, dtype=F64)
        kernel[torch.arange(7), self.next[pairs]] = (~self.final[pairs]).double()
        value = torch.linalg.solve(torch.eye(7, dtype=F64) - GAMMA * kernel, self.rewards[pairs])
        self.q = self.rewards + GAMMA * (~self.final).double() * value[self.next]
        self.critics = self.q + torch.randn(2, 7, 3, generator=generator, dtype=F64)

    def init(self, obs: Tensor) -> Tensor:
        return obs.argmax(-1)

    def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
        after = self.next[carry, action]
        return Step(after, torch.eye(7, dtype=F64)[after], self.rewards[carry, action], self.final[carry, action])

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy[obs.argmax(-1)], torch.zeros(len(obs), dtype=F64)

    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.critics[:, obs.argmax(-1), action]

    def all_transitions(self) -> Transition:
        state, action = (x.flatten() for x in torch.meshgrid(torch.arange(7), torch.arange(3), indexing="ij"))
        eye = torch.eye(7, dtype=F64)
        discount = (~self.final[state, action]).double()
        return Transition(eye[state], action, self.rewards[state, action], eye[self.next[state, action]], discount)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_value_expansion_perfect_model_shrinks_the_error_by_gamma_to_the_h(horizon):
    """|target - Q^pi| <= gamma^k ||min_k Q - Q^pi||, k steps before the bootstrap, for each row; some row comes close."""
    world = Chain()
    wrong = (world.critics.amin(0) - world.q).abs().max()
    model_form = ValueExpansion(world, horizon, start="model")(world, world.all_transitions(), GAMMA)
    data_form = ValueExpansion(world, horizon)(world, world.all_transitions(), GAMMA)
    for y, steps in ((model_form, [horizon]), (data_form, range(horizon + 1, 0, -1))):
        error = (y.target - world.q[y.obs.argmax(-1), y.action]).abs() * y.weight
        for part, k in zip(error.view(len(steps), -1), steps, strict=True):
            assert part.max() <= GAMMA**k * wrong + 1e-12
            assert part.max() > 0.1 * GAMMA**k * wrong


# -------------------------------------------------------------------------------------------------------------------- STEVE


def test_steve_equal_variances_have_equal_weights():
    noise = torch.tensor([-1.0, 0.0, 1.0])[:, None]
    y, weight = steve(torch.stack([noise + 10.0, noise + 20.0, noise + 60.0]))
    torch.testing.assert_close(weight, torch.full((3, 1), 1 / 3))
    torch.testing.assert_close(y, torch.tensor([30.0]))


def test_steve_weights_are_inverse_variances():
    noise = torch.tensor([-1.0, 1.0])[:, None]
    y, weight = steve(torch.stack([noise + 1.0, 2 * noise + 6.0]))
    torch.testing.assert_close(weight, torch.tensor([[0.8], [0.2]]))
    torch.testing.assert_close(y, torch.tensor([2.0]))


def test_steve_horizon_without_noise_dominates():
    candidates = 5 * torch.randn(4, 6, 100, generator=torch.Generator().manual_seed(0))
    candidates[2] = 3.0
    y, weight = steve(candidates)
    assert (weight[2] > 1 - 1e-6).all()
    torch.testing.assert_close(y, torch.full((100,), 3.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12])
def test_steve_tiny_variances_have_finite_weights(scale):
    y, weight = steve(7.0 + scale * torch.randn(3, 4, 5))
    torch.testing.assert_close(weight, torch.full((3, 5), 1 / 3))
    torch.testing.assert_close(y, torch.full((5,), 7.0))


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_steve_weights_are_the_same_in_any_units_of_the_reward(unit):
    candidates = torch.randn(3, 4, 5) * torch.tensor([0.01, 0.1, 1.0])[:, None, None]
    torch.testing.assert_close(steve(candidates * unit)[1], steve(candidates)[1])
    torch.testing.assert_close(steve(candidates * unit)[0] / unit, steve(candidates)[0])


def test_steve_horizon_that_is_not_finite_has_weight_0():
    candidates = torch.ones(3, 2, 2)
    candidates[2, 1, 0] = math.nan
    candidates[:, 0, 1] = math.inf
    y, weight = steve(candidates)
    assert weight.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]
    assert y.tolist() == [1.0, 0.0]


def test_value_expansion_steve_single_critic_is_refused():
    target = ValueExpansion(Line(), 2, weighting="steve", particles=2)
    with pytest.raises(UserError, match=r"has 1; expected agent\.critics >= 2"):
        target(Toy(critics=1), batch_of([1.0], [1.0]), GAMMA)


def test_value_expansion_steve_ts_inf_particles_stay_with_their_member():
    """With ts_inf every particle of a row meets another elite: five constant members give five different rewards."""
    torch.manual_seed(0)
    cfg = EnsembleConfig(members=5, elites=5, hidden=(4,), probabilistic=False, propagation="ts_inf")
    model = Ensemble(SPEC, cfg)
    with torch.no_grad():
        net = model.network.net
        for parameter in (*net.weight, *net.bias):
            parameter.zero_()
        net.bias[-1][:, 0, 2] = torch.arange(5.0)  # the reward
    model.refresh()
    agent = SAC(SPEC, SACConfig(hidden=(4,), temperature=0.0))
    for parameter in agent.target_critics.parameters():
        torch.nn.init.zeros_(parameter)
    rewards = []
    target = ValueExpansion(model, 1, weighting="steve", particles=5)
    step = model.step
    model.step = lambda carry, action: rewards.append(step(carry, action).reward) or step(carry, action)
    y = target(agent, real_batch(3)._replace(reward=torch.zeros(3), discount=torch.ones(3)), 1.0)
    torch.testing.assert_close(rewards[0].view(5, 3), torch.arange(5.0)[:, None].expand(5, 3))
    torch.testing.assert_close(y.target, torch.zeros(3), atol=1e-6, rtol=0)  # both critics agree on 0, the members do not


# ------------------------------------------------------------------------------------------------- numbers that are not


@pytest.mark.parametrize(
    "target",
    [
        lambda model: ValueExpansion(model, 3),
        lambda model: ValueExpansion(model, 3, start="model"),
        lambda model: ValueExpansion(model, 3, weighting="steve", particles=2),
    ],
    ids=["data", "model", "steve"],
)
def test_value_expansion_model_with_nan_never_reaches_the_loss(target):
    made = target(Line(nan_above=3.0))
    batch = batch_of([-1.0, 2.5, 50.0], [1.0, 1.0, 1.0])
    batch = batch._replace(obs=torch.tensor([[-1.0], [2.5], [50.0]], dtype=F64))
    y = made(Toy(), batch, GAMMA)
    assert all(field.isfinite().all() for field in y[:4])
    q = (0.3 * y.obs + 0.1 * y.action)[:, 0].expand(2, -1).clone().requires_grad_()
    regression_loss(q, y).backward()
    assert q.grad.isfinite().all()
    assert q.grad[0, 0] != 0
    assert (q.grad[:, y.weight == 0] == 0).all()
    counts = made.counters.take()
    assert counts["broken"] < counts["asked"]


def test_value_expansion_steve_nan_at_long_horizons_uses_shorter_ones():
    batch = batch_of([2.5], [1.0])  # s_0 = 2.5, s_1 = 3.75, s_2 is not a number
    short = ValueExpansion(Line(), 1, weighting="steve", particles=2)(Toy(), batch, GAMMA)
    long = ValueExpansion(Line(nan_above=3.0), 3, weighting="steve", particles=2)(Toy(), batch, GAMMA)
    torch.testing.assert_close(long.target, short.target)
    assert long.weight.tolist() == [1.0]


@pytest.mark.parametrize("weighting", ["uniform", "steve"])
def test_value_expansion_terminal_state_is_worth_its_real_reward(weighting):
    """A model that is NaN after a terminal state does not change the target of the real row."""
    y = ValueExpansion(Line(nan_above=-1.0), 2, weighting=weighting)(Toy(), batch_of([50.0], [0.0]), GAMMA)
    assert y.target[0].item() == pytest.approx(100, abs=1e-12)
    assert y.weight.tolist() == [1.0] + [0.0] * (len(y.weight) - 1)


def test_value_expansion_counters_count_rows_steps_and_broken_targets():
    target = ValueExpansion(Line(wall=8.0, nan_above=100.0), 2)
    target(Toy(), batch_of([1.0, 6.0, 50.0, 200.0], [1.0, 1.0, 0.0, 1.0]), GAMMA)
    # reached: two, one (6 -> 9 ends), none, and of 200 both states, since a state that is not a number lies beyond no wall
    expected = {"rows": 4.0, "steps": 2 + 1 + 0 + 2, "asked": 4 + 5, "broken": 3.0}
    other = ValueExpansion(Line(), 2)
    other.load_state_dict(target.state_dict())
    assert target.counters.take() == other.counters.take() == expected


# ---------------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("weighting", ["uniform", "steve"])
def test_value_expansion_call_does_not_synchronise_with_the_host(weighting):
    torch.manual_seed(0)
    cfg = EnsembleConfig(members=2, elites=2, hidden=(8,), termination="learned")
    agent, model = SAC(SPEC, SACConfig(hidden=(8,))), Ensemble(SPEC, cfg)
    target = ValueExpansion(model, 3, weighting=weighting, particles=2 if weighting == "steve" else 1)
    batch = real_batch()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        target(agent, batch, GAMMA)
    names = {event.key for event in trace.key_averages()}
    assert "aten::addmm" in names or "aten::baddbmm" in names
    assert not names & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}


def test_value_expansion_targets_have_no_gradient():
    torch.manual_seed(0)
    agent = SAC(SPEC, SACConfig(hidden=(8,)))
    y = ValueExpansion(Ensemble(SPEC, EnsembleConfig(members=2, elites=2, hidden=(8,))), 2)(agent, real_batch(), GAMMA)
    assert not any(field.requires_grad for field in y[:4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": -1}, r"imagination\.horizon=-1: expected at least 0"),
        ({"horizon": 0, "start": "model"}, r"imagination\.horizon=0: expected at least 1"),
        ({"horizon": 2, "start": "model", "weighting": "steve"}, r"expected imagination\.start=data, got model"),
        ({"horizon": 2, "particles": 3}, r"imagination\.particles=3: expected 1"),
    ],
)
def test_value_expansion_contradicting_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ValueExpansion(Line(), **options)


def test_value_expansion_model_of_other_shapes_is_refused():
    class Wide(Line):
        def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
            return super().step(carry, action)._replace(obs=carry.expand(-1, 4))

    with pytest.raises(UserError, match=r"shapes \[1, 4\] and \[1\], the agent expects \[1, 1\] and \[1\]"):
        ValueExpansion(Wide(), 2)(Toy(), batch_of([1.0], [1.0]), GAMMA)


@pytest.mark.parametrize("form", [{"start": "data"}, {"start": "model"}, {"weighting": "steve"}])
def test_value_expansion_weighs_every_row_of_a_transition(form):
    batch = batch_of([1.0, 2.0, 3.0], [1.0, 0.0, 1.0])
    plain = ValueExpansion(Line(wall=3.5), 2, **form)(Toy(), batch, GAMMA)
    weight = torch.tensor([0.5, 2.0, 0.0], dtype=F64)
    weighted = ValueExpansion(Line(wall=3.5), 2, **form)(Toy(), batch._replace(weight=weight), GAMMA)
    assert torch.equal(weighted.target, plain.target)
    assert torch.equal(weighted.weight, plain.weight * weight.repeat(len(plain.weight) // 3))
