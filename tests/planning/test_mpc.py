"""The receding-horizon actor: what is carried from plan to plan, what a reset drops, and when it plans."""

import io

import pytest
import torch
from line_model import Line

from mbkit.errors import UserError
from mbkit.planning import MPC, Guide, MPCConfig
from mbkit.planning.cem import CEM, CEMConfig
from mbkit.planning.discrete import DiscreteCEM, DiscreteCEMConfig
from mbkit.planning.icem import ICEM, ICEMConfig
from mbkit.planning.mppi import MPPI, MPPIConfig
from mbkit.planning.shooting import Shooting, ShootingConfig
from mbkit.types import Actor, EnvSpec, Plan, Stateful

CPU = torch.device("cpu")
SPEC = EnvSpec(1, 1, CPU)
SMALL = {"horizon": 6, "particles": 2}
PLANNERS = {
    "shooting": lambda: Shooting(SPEC, ShootingConfig(candidates=50, iterations=2)),
    "cem": lambda: CEM(SPEC, CEMConfig(candidates=60, elites=10)),
    "icem": lambda: ICEM(SPEC, ICEMConfig()),
    "mppi": lambda: MPPI(SPEC, MPPIConfig(candidates=60, iterations=3, temperature=0.01)),
}


class Recording(CEM):
    """CEM whose actions show their plan and step: action = 0.1 plan + 0.01 step."""

    def __init__(self):
        super().__init__(SPEC, CEMConfig())
        self.starts = []

    def __call__(self, objective, start, proposals=None):
        self.starts.append(start)
        objective(start.mean[:, None])
        actions = (0.1 * len(self.starts) + 0.01 * torch.arange(start.mean.shape[1])).view(1, -1, 1).expand_as(start.mean)
        return Plan(actions, actions, start.elites, start.score)


def actor(**cfg):
    planner = Recording()
    return planner, MPC(SPEC, planner, Line(), MPCConfig(**{**SMALL, **cfg}))


def test_mpc_is_an_actor_with_state():
    mpc = actor()[1]
    assert isinstance(mpc, Actor)
    assert isinstance(mpc, Stateful)


@pytest.mark.parametrize("name", PLANNERS)
def test_act_drives_every_environment_to_the_target(name):
    torch.manual_seed(0)
    model = Line(target=0.5)
    mpc = MPC(SPEC, PLANNERS[name](), model, MPCConfig(**SMALL))
    obs = torch.tensor([[-1.0], [0.0], [2.0]])
    for _ in range(25):
        action = mpc.act(obs)
        assert action.shape == (3, 1)
        assert action.dtype == torch.float32
        obs = model.step(obs, action).obs
    assert (obs - 0.5).abs().max() < 0.08


def test_act_discrete_actions_drives_to_the_target():
    class Switch(Line):
        def step(self, carry, action, predict=False):
            return super().step(carry, 2.0 * action[:, None] - 1)

    torch.manual_seed(0)
    spec = EnvSpec(1, 2, CPU, discrete=True)
    mpc = MPC(spec, DiscreteCEM(spec, DiscreteCEMConfig()), Switch(), MPCConfig(**SMALL))
    obs = torch.tensor([[-0.5], [1.0]])
    for _ in range(20):
        action = mpc.act(obs)
        assert action.dtype == torch.int64
        assert action.shape == (2,)
        obs = Switch().step(obs, action).obs
    assert (obs - 0.5).abs().max() < 0.11


def test_act_next_plan_starts_from_the_last_one_shifted():
    planner, mpc = actor()
    mpc.act(torch.zeros(2, 1))
    mpc.act(torch.zeros(2, 1))
    assert (planner.starts[0].mean == 0).all()
    torch.testing.assert_close(planner.starts[1].mean[1, :, 0], torch.tensor([0.11, 0.12, 0.13, 0.14, 0.15, 0.0]))


def test_replan_every_3_executes_three_actions_and_shifts_by_three():
    planner, mpc = actor(replan_every=3)
    actions = [mpc.act(torch.zeros(1, 1)).item() for _ in range(7)]
    assert actions == pytest.approx([0.10, 0.11, 0.12, 0.20, 0.21, 0.22, 0.30])
    torch.testing.assert_close(planner.starts[1].mean[0, :, 0], torch.tensor([0.13, 0.14, 0.15, 0.0, 0.0, 0.0]))


def test_reset_one_environment_drops_its_plan_and_replans_all():
    planner, mpc = actor(replan_every=4)
    mpc.reset(torch.ones(2, dtype=torch.bool))
    mpc.act(torch.zeros(2, 1))
    mpc.act(torch.zeros(2, 1))
    mpc.reset(torch.tensor([False, True]))
    assert mpc.act(torch.zeros(2, 1)).flatten().tolist() == pytest.approx([0.2, 0.2])  # a new plan, not step 2 of the old
    torch.testing.assert_close(planner.starts[1].mean[0, :, 0], torch.tensor([0.12, 0.13, 0.14, 0.15, 0.0, 0.0]))
    assert (planner.starts[1].mean[1] == 0).all()


def test_reset_empty_mask_changes_nothing():
    planner, mpc = actor(replan_every=4)
    mpc.act(torch.zeros(2, 1))
    mpc.reset(torch.tensor([False, False]))
    mpc.act(torch.zeros(2, 1))
    assert len(planner.starts) == 1


def test_reset_drops_the_reused_elites_of_icem():
    planner = ICEM(SPEC, ICEMConfig())
    mpc = MPC(SPEC, planner, Line(), MPCConfig(**SMALL))
    mpc.act(torch.zeros(2, 1))
    mpc.reset(torch.tensor([True, False]))
    assert mpc.plan.elites[0].isnan().all()
    assert mpc.plan.elites[1].isfinite().all()
    assert mpc.plan.mean[0].abs().max() == 0


def test_act_other_number_of_environments_needs_a_reset():
    mpc = actor()[1]
    mpc.act(torch.zeros(2, 1))
    with pytest.raises(UserError, match="2 environments and was shown 3"):
        mpc.act(torch.zeros(3, 1))
    mpc.reset(torch.ones(3, dtype=torch.bool))
    assert mpc.act(torch.zeros(3, 1)).shape == (3, 1)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("replan_every", [1, 3])
def test_state_dict_round_trip_continues_identically(name, replan_every):
    model = Line(noise=0.05)
    make = lambda: MPC(SPEC, PLANNERS[name](), model, MPCConfig(**SMALL, replan_every=replan_every))  # noqa: E731
    torch.manual_seed(0)
    mpc, obs = make(), torch.zeros(2, 1)
    for _ in range(4):
        obs = model.step(obs, mpc.act(obs)).obs
    file = io.BytesIO()
    torch.save({"mpc": mpc.state_dict(), "rng": torch.get_rng_state(), "obs": obs}, file)

    def go_on(mpc, obs):
        actions = []
        for t in range(6):
            if t == 4:
                mpc.reset(torch.tensor([False, True]))
            actions.append(mpc.act(obs))
            obs = model.step(obs, actions[-1]).obs
        return torch.stack(actions)

    uninterrupted = go_on(mpc, obs)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh = make()
    fresh.load_state_dict(saved["mpc"])
    torch.set_rng_state(saved["rng"])
    assert torch.equal(go_on(fresh, saved["obs"]), uninterrupted)


def test_state_dict_before_the_first_plan_round_trips():
    mpc = actor()[1]
    state = actor()[1].state_dict()
    mpc.act(torch.zeros(2, 1))
    mpc.load_state_dict(state)
    assert mpc.plan is None


def test_load_state_dict_other_horizon_is_refused():
    long, short = actor(horizon=9)[1], actor()[1]
    long.act(torch.zeros(1, 1))
    with pytest.raises(UserError, match="actions"):
        short.load_state_dict(long.state_dict())


def test_guide_terminal_value_counts_beyond_the_horizon():
    torch.manual_seed(0)
    flat = Line(target=0.0)
    cfg = MPCConfig(horizon=1, particles=1)
    planner = CEM(SPEC, CEMConfig())
    drawn_right = MPC(SPEC, planner, flat, cfg, guide=Guide(terminal_value=lambda obs: 10 * obs[:, 0]))
    assert drawn_right.act(torch.zeros(1, 1)).item() > 0.9
    assert abs(MPC(SPEC, planner, flat, cfg).act(torch.zeros(1, 1)).item()) < 0.2


def test_guide_proposals_reach_the_planner():
    torch.manual_seed(0)
    cfg = MPCConfig(horizon=6, particles=1)
    guide = Guide(propose=lambda obs: torch.ones(len(obs), 1, 6, 1))
    mpc = MPC(SPEC, Shooting(SPEC, ShootingConfig(candidates=5)), Line(target=9.0), cfg, guide=guide)
    assert mpc.act(torch.zeros(2, 1)).flatten().tolist() == [1, 1]


def test_act_reward_for_survival_avoids_termination():
    class Alive(Line):
        def step(self, carry, action, predict=False):
            return super().step(carry, action)._replace(reward=torch.ones(len(carry)))

    torch.manual_seed(0)
    model = Alive(edge=1.0)
    mpc = MPC(SPEC, CEM(SPEC, CEMConfig(candidates=100, elites=10)), model, MPCConfig(horizon=15, particles=1))
    obs = torch.tensor([[0.95]])
    for _ in range(15):
        step = model.step(obs, mpc.act(obs))
        obs = step.obs
        assert not step.terminated.item()


def test_score_is_that_of_the_last_plan_and_minus_infinity_after_a_reset():
    torch.manual_seed(0)
    mpc = MPC(SPEC, PLANNERS["cem"](), Line(target=0.5), MPCConfig(**SMALL))
    assert mpc.score is None
    mpc.act(torch.tensor([[0.5], [9.0]]))
    assert mpc.score.shape == (2,)
    assert mpc.score[0] == pytest.approx(0, abs=0.01)  # it stays at the target
    assert mpc.score[1] < -6 * 7.5**2
    mpc.reset(torch.tensor([False, True]))
    assert mpc.score[0].isfinite()
    assert mpc.score[1] == -torch.inf


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.0])
def test_gamma_discounts_the_score_of_a_plan(gamma):
    """The proposal is the best candidate: actions of 1 through the states 0.1, 0.2, .., each with reward -(s - 9)^2."""
    planner = Shooting(SPEC, ShootingConfig(candidates=1, iterations=1))
    guide = Guide(propose=lambda obs: torch.ones(len(obs), 1, 6, 1))
    mpc = MPC(SPEC, planner, Line(target=9.0), MPCConfig(horizon=6, particles=1), gamma, guide)
    mpc.act(torch.zeros(1, 1))
    expected = -sum(gamma**t * (0.1 * (t + 1) - 9) ** 2 for t in range(6))
    assert mpc.score.item() == pytest.approx(expected, rel=1e-5)


def test_mpc_plan_encodes_every_observation_once():
    shapes = []

    class Encoder(Line):
        def init(self, obs):
            shapes.append(tuple(obs.shape))
            return super().init(obs)

    mpc = MPC(SPEC, PLANNERS["icem"](), Encoder(), MPCConfig(**SMALL))
    mpc.act(torch.zeros(3, 1))
    assert shapes == [(3, 1)]


@pytest.mark.parametrize(
    ("cfg", "planner", "match"),
    [
        (MPCConfig(horizon=2, replan_every=3), CEMConfig(), "replan_every=3"),
        (MPCConfig(mode="compile"), CEMConfig(budget_ms=5.0), "host clock"),
        (MPCConfig(mode="cudagraph"), CEMConfig(), "needs device=cuda"),
    ],
)
def test_mpc_contradicting_options_are_refused(cfg, planner, match):
    with pytest.raises(UserError, match=match):
        MPC(SPEC, CEM(SPEC, planner), Line(), cfg)


@pytest.mark.gpu
@pytest.mark.parametrize("name", PLANNERS)
def test_mode_cudagraph_equals_eager(name):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    spec = SPEC._replace(device=torch.device("cuda"))
    actions = {}
    for mode in ("eager", "cudagraph"):
        torch.manual_seed(0)
        mpc = MPC(spec, PLANNERS[name](), Line(noise=0.1), MPCConfig(**SMALL, mode=mode))
        obs, trace = torch.tensor([[-1.0], [2.0]], device="cuda"), []
        for t in range(5):
            if t == 3:
                mpc.reset(torch.tensor([False, True]))
            trace.append(mpc.act(obs))
            obs = obs + 0.1 * trace[-1]
        actions[mode] = torch.stack(trace)
    torch.testing.assert_close(actions["cudagraph"], actions["eager"])
