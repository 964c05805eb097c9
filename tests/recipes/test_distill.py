"""A policy distilled from plans: it recovers a known gain, leaves the plans as they are, resumes bit for bit, and can be scored."""

import json

import gym_toys  # noqa: F401  # registers its tasks
import pytest
import torch
from line_model import Line
from pets_runs import TINY, train_pets
from resumption import check_killed, check_resumption, curve
from typer.testing import CliRunner

import mbkit
from mbkit import cli
from mbkit.agents.distilled import DistilledPolicy, cross_entropy, mean_loss
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.export import export
from mbkit.networks.distributions import Categorical
from mbkit.planning import MPC, MPCConfig
from mbkit.planning.cem import CEM, CEMConfig
from mbkit.types import EnvSpec

SPEC = EnvSpec(1, 1, torch.device("cpu"))
DISTILL = ("imagination.distill=true", "imagination.distill_hidden=[16]", "imagination.distill_batch_size=16")
DISCRETE = (
    "env=Steering-v0", "threads=1", "eval.video=false", "eval.episodes=1", "planner=discrete_cem", "planner.candidates=12",
    "planner.elites=3", "planner.iterations=2", "agent.horizon=3", "agent.particles=2", "agent.replan_every=2", "dynamics.hidden=[8]",
    "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=1", "dynamics.reward=gym_toys:steering_reward",
    "loop.fit_every=100", "loop.warmup_steps=20", "loop.log_every=10",
)  # fmt: skip
LOOP = (
    "env=Pendulum-v1", "threads=1", "eval.episodes=1", "eval.video=false", "loop.warmup_steps=30", "loop.fit_every=20",
    "loop.batch_size=16", "agent.hidden=[8]", "dynamics.hidden=[8]", "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=2",
    "planner.candidates=8", "planner.elites=4", "planner.iterations=1", "imagination.particles=2", "imagination.proposals=2",
)  # fmt: skip


# --- the regression -----------------------------------------------------------------------------------------------------------------


def test_policy_recovers_the_gain_of_a_linear_quadratic_plan():
    """x' = x + 0.1 u, reward -x'^2: the best first action from |x| <= 0.08 is u = -10 x, which the policy learns from executed means."""
    mpc = MPC(SPEC, CEM(SPEC, CEMConfig(candidates=200, elites=20)), Line(target=0.0), MPCConfig(horizon=1, particles=1))
    torch.manual_seed(0)
    obs = torch.rand(256, 1) * 0.16 - 0.08
    assert mpc.act(obs, explore=False).shape == (256, 1)
    assert mpc.executed is None  # nothing is stored unless it is asked for
    mpc.tells = True
    mpc.reset(torch.ones(256, dtype=torch.bool))
    mpc.act(obs)
    assert torch.equal(mpc.executed.obs, obs)
    policy = DistilledPolicy(SPEC, (32,), 1e-2)
    policy.normalizer.update(obs)
    losses = [float(policy.update(*mpc.executed)["distill/loss"]) for _ in range(500)]
    assert losses[-1] < 1e-3 < losses[0]
    grid = torch.linspace(-0.07, 0.07, 15)[:, None]
    torch.testing.assert_close(policy.act(grid), -10 * grid, atol=0.06, rtol=0)


def test_the_executed_step_of_a_plan_is_what_is_told():
    mpc = MPC(SPEC, CEM(SPEC, CEMConfig(candidates=50, elites=5)), Line(), MPCConfig(horizon=4, particles=1, replan_every=3))
    mpc.tells = True
    for step in (0, 1, 2, 0):
        mpc.act(torch.zeros(2, 1))
        assert torch.equal(mpc.executed.mean, mpc.plan.mean[:, step])


def test_losses_are_their_closed_forms():
    assert mean_loss(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [0.5]])) == (1 + 0.25) / 2
    p = torch.tensor([[0.2, 0.8]])
    q = Categorical(torch.tensor([[0.3, 0.7]]).log())
    torch.testing.assert_close(cross_entropy(q, p), -(p * torch.tensor([0.3, 0.7]).log()).sum())


@pytest.mark.parametrize("parts", [(), (3, 2)])
def test_policy_of_discrete_actions_learns_the_probabilities_of_plans(parts):
    spec = EnvSpec(1, sum(parts) or 3, torch.device("cpu"), discrete=True, parts=parts)
    torch.manual_seed(0)
    obs = torch.tensor([[-1.0], [1.0]]).repeat(32, 1)
    table = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.9, 0.0]])
    target = table.repeat(32, 1)[:, None].expand(-1, 2, -1) if parts else table.repeat(32, 1)
    policy = DistilledPolicy(spec, (16,), 1e-2)
    for _ in range(300):
        policy.update(obs, target)
    torch.testing.assert_close(policy.policy(obs).log_probs().exp(), target, atol=0.02, rtol=0)
    assert policy.act(obs[:2]).tolist() == ([[0, 0], [1, 1]] if parts else [0, 1])


# --- runs ---------------------------------------------------------------------------------------------------------------------------


def test_plans_are_the_same_with_and_without_a_policy_distilled_from_them(tmp_path):
    train_pets(tmp_path / "plain", 60)
    train_pets(tmp_path / "distilled", 60, *DISTILL)
    lines = [{k: v for k, v in row.items() if not k.startswith("distill/")} for row in curve(tmp_path / "distilled")]
    assert lines == curve(tmp_path / "plain")
    assert any("distill/loss" in row for row in curve(tmp_path / "distilled"))


def test_pets_that_distils_resumes_bit_for_bit_also_after_it_was_killed(tmp_path):
    options = ("env=cartpole", *TINY, *DISTILL, "checkpoint.every=20", "imagination.distill_buffer=25")
    whole, *_ = check_resumption(tmp_path / "paused", "pets", *options, steps=70, pause=45)
    assert {"distilled", "plans"} <= set(whole.parts.stateful)
    assert len(whole.parts.stateful["plans"]) == 25
    check_killed(tmp_path / "sigkill", lambda folder: mbkit.train("pets", *options, "steps=70", f"run_dir={folder}"), at=40)


def test_loop_distils_and_resumes_bit_for_bit(tmp_path):
    whole, *_ = check_resumption(tmp_path, "loop", *LOOP, *DISTILL, "loop.num_envs=2", steps=60, pause=44)
    assert whole.parts.stateful["plans"].total == 30
    assert {"distilled_return_mean", "distilled_return_std"} <= set(whole.summary())


def test_several_discrete_actions_are_distilled_and_resumed(tmp_path):
    run = check_resumption(tmp_path, "pets", *DISCRETE, *DISTILL, steps=40, pause=29).whole
    assert run.parts.distilled.act(torch.zeros(3, run.parts.spec.obs_dim)).shape == (3, 2)


@pytest.mark.parametrize("fixed", [("dynamics=mujoco",), ("loop.fit=false",)])
def test_plans_of_a_model_that_is_not_fitted_are_distilled_too(tmp_path, fixed):
    plain = [option for option in TINY if not option.startswith("dynamics.")]
    options = [*plain, *DISTILL, "env=cartpole", "steps=40", *fixed]
    if fixed == ("loop.fit=false",):
        train_pets(tmp_path / "model", 40)
        options.append(f"dynamics.load={tmp_path / 'model/dynamics.pt'}")
    else:
        options.remove("agent.particles=3")
    run = mbkit.train("pets", *options, f"run_dir={tmp_path / 'run'}")
    assert run.parts.stateful["plans"].total == 10
    assert mbkit.evaluate(run, 1, policy="distilled")["policy"] == "distilled"


def test_both_policies_are_scored_and_the_distilled_one_is_exported(tmp_path):
    directory = tmp_path / "run"
    run = train_pets(directory, 60, *DISTILL)

    def evaluated(*options: str) -> dict:
        result = CliRunner().invoke(cli.app, ["evaluate", str(directory), "--episodes", "2", "--json", *options])
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    summary, plan, distilled = run.summary(), evaluated("--policy", "plan"), evaluated("--policy", "distilled")
    assert plan["returns"] == evaluated()["returns"]
    assert summary["eval_return_mean"] == pytest.approx(plan["return_mean"])
    assert summary["distilled_return_mean"] == pytest.approx(distilled["return_mean"])
    assert plan["returns"] != distilled["returns"]
    assert export(directory, tmp_path / "policy.pt2").difference < 1e-4


def test_the_distilled_policy_acts_in_the_terms_of_the_task(tmp_path):
    run = train_pets(tmp_path / "run", 40, *DISTILL)
    space = run.spaces[0]
    assert run.distilled(space.sample()).shape == run.spaces[1].shape


# --- refusals -----------------------------------------------------------------------------------------------------------------------


def test_options_without_distillation_mean_nothing():
    with pytest.raises(UserError, match=r"imagination\.distill_lr counts only where imagination\.distill=true"):
        compose("pets", ["env=cartpole", "imagination.distill_lr=1e-2"])
    with pytest.raises(UserError, match=r"imagination\.distill_hidden=.* is out of range: expected >= 1"):
        compose("pets", ["env=cartpole", "imagination.distill=true", "imagination.distill_hidden=[0]"])
    with pytest.raises(UserError, match=r"unknown option imagination\.horizon"):
        compose("pets", ["env=cartpole", "imagination.horizon=3"])
    with pytest.raises(UserError, match=r"unknown option imagination\.distill"):
        compose("mbpo", ["env=Hopper-v5", "imagination.distill=true"])


def test_policies_that_a_run_does_not_have_are_refused_in_one_sentence(tmp_path):
    plain = train_pets(tmp_path / "plain", 40)
    with pytest.raises(UserError, match=r"this run of pets trained no policy on its plans; expected imagination\.distill=true"):
        mbkit.evaluate(tmp_path / "plain", policy="distilled")
    with pytest.raises(UserError, match="this run of pets trained no policy on its plans"):
        _ = plain.distilled
    with pytest.raises(UserError, match="policy=best: expected one of plan, distilled"):
        mbkit.evaluate(plain, policy="best")
    run = mbkit.train("random", "env=CartPole-v1", "steps=5", "eval.episodes=1", "eval.video=false", f"run_dir={tmp_path / 'random'}")
    with pytest.raises(UserError, match="policy=plan counts only for a run that plans its actions, of pets or loop; random has one policy"):
        mbkit.evaluate(run, policy="plan")


def test_a_policy_without_a_plan_to_learn_from_is_told_and_refused(tmp_path):
    run = train_pets(tmp_path / "run", 30, *DISTILL)
    assert any("No policy was distilled" in note for note in run.notes)
    assert "distilled_return_mean" not in run.summary()
    with pytest.raises(UserError, match="no policy was trained on plans by step 30"):
        mbkit.evaluate(tmp_path / "run", policy="distilled")
    with pytest.raises(UserError, match="no policy was trained on plans by step 30"):
        export(tmp_path / "run", tmp_path / "policy.pt2")
