"""Agents that go on online: what they take along, runs that are complete in themselves, and everything that is refused."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pendulum_data import pendulum
from pets_runs import TINY
from resumption import check_same_end, same
from typer.testing import CliRunner

import mbkit
from mbkit import cli, registry
from mbkit.data import read
from mbkit.errors import UserError
from mbkit.export import export
from mbkit.recording import load_checkpoint
from mbkit.replay.mixture import Mixture
from mbkit.report import write_report
from mbkit.run import Run
from mbkit.types import EnvSpec

NETWORKS = ("agent.hidden=[8]", "loop.batch_size=16", "loop.log_every=10", "threads=1")
SCORED = ("eval.video=false", "eval.episodes=1", "eval.every=0")
PENDULUM = EnvSpec(3, 1, torch.device("cpu"))


def goes_on(entry: registry.Entry) -> bool:
    """Whether an agent for data sets takes continuous actions, and single transitions."""
    if entry.learns_from != ("dataset",) or getattr(entry.target, "recorded_only", False):
        return False
    try:
        entry.target(PENDULUM, entry.config())
    except UserError:
        return False
    return True


GOING_ON = [entry.name for entry in registry.agents if goes_on(entry)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pendulum(tmp_path_factory.mktemp("data") / "pendulum.h5")


def offline(algo: str, file: Path, folder: Path, *options: str) -> Path:
    mbkit.train(algo, f"data={file}", "env=none", f"run_dir={folder}", *NETWORKS, "steps=20", *options)
    return folder


def agent_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = load_checkpoint(folder / "checkpoint")[1]["parts"]["agent"]
    return state


def test_values_stand_for_the_same_returns_where_a_run_goes_on(file: Path, tmp_path: Path) -> None:
    """The return scale of the data, in units of the rewards as the agent scales them, is the least of the run that goes on."""
    before = offline("iql", file, tmp_path / "before", "agent.loss=hl_gauss", "agent.reward_scale=return_range")
    after = mbkit.finetune(before, f"run_dir={tmp_path / 'after'}", "env=Pendulum-v1", "steps=3", *SCORED)
    states = agent_of(before), agent_of(Path(after.path))
    scales = [float(state["critics.outputs.scale"]) for state in states]
    assert scales[1] >= scales[0] > 5 * float(states[0]["reward_factor"])
    assert float(states[0]["reward_factor"]) != 1


@pytest.mark.parametrize("algo", [*GOING_ON, "sac"])
def test_killed_and_resumed_is_uninterrupted(algo: str, file: Path, tmp_path: Path) -> None:
    before = offline(algo, file, tmp_path / "before")
    options = ("env=Pendulum-v1", "steps=50", "checkpoint.every=10", *SCORED, "loop.log_every=10")
    mbkit.finetune(before, f"run_dir={tmp_path / 'whole'}", *options)
    child = os.fork()
    if child == 0:  # dies without a word right after the checkpoint of step 20
        checkpoint = Run.checkpoint

        def deadly(self: Run, loop: object = None) -> None:
            checkpoint(self, loop)  # type: ignore[arg-type]
            if self.loop.step >= 20:
                os.kill(os.getpid(), signal.SIGKILL)

        Run.checkpoint = deadly  # type: ignore[method-assign]
        mbkit.finetune(before, f"run_dir={tmp_path / 'killed'}", *options)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    shutil.rmtree(before)  # the new run needs it no more
    mbkit.resume(tmp_path / "killed")
    check_same_end(tmp_path / "whole", tmp_path / "killed")


def test_the_run_is_complete_in_itself(file: Path, tmp_path: Path) -> None:
    before = offline("iql", file, tmp_path / "before", "agent.reward_scale=return_range")
    run = mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", "env=Pendulum-v1", "steps=30", *SCORED)
    factor = agent_of(before)["reward_factor"]
    assert factor != 1
    assert torch.equal(agent_of(tmp_path / "run")["reward_factor"], factor)
    shutil.rmtree(before)
    assert (run.unit, run.loop.step, len(run.parts.replay), len(run.parts.recorded.buffer)) == ("step", 30, 30, 100)
    summary = run.summary()
    assert (summary["data"]["rows"], summary["eval_episodes"]) == (100, 1)
    assert mbkit.evaluate(tmp_path / "run", episodes=1)["return_mean"] == summary["eval_return_mean"]
    assert mbkit.load(tmp_path / "run").act([0.1, 0.2, 0.3]).shape == (1,)
    assert mbkit.evaluate(tmp_path / "run", data=file, updates=2)[0]["value"] < 0
    assert export(tmp_path / "run", tmp_path / "policy.pt2").difference < 1e-4
    assert "mbkit finetune" in write_report([tmp_path / "run"]).read_text()
    assert read(tmp_path / "run").rows == 30


@pytest.mark.parametrize("algo", ["td3_bc", "iql", "sac"])
def test_the_agent_begins_as_the_run_left_it_but_for_its_learning_rates(algo: str, file: Path, tmp_path: Path) -> None:
    before = offline(algo, file, tmp_path / "before")
    saved = agent_of(before)
    run = mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", "env=Pendulum-v1", "steps=5", "loop.updates_per_step=0", *SCORED)
    rates = {name: float(o.param_groups[0]["lr"]) for name, o in run.parts.actor.optimizers.items()}
    fresh = registry.agents[algo].target(run.parts.spec, run.config.agent.config)
    assert rates == {name: float(o.param_groups[0]["lr"]) for name, o in fresh.optimizers.items()}

    def without_rates(state: dict[str, Any]) -> Any:
        if not isinstance(state, dict):
            return state
        return {key: without_rates(value) for key, value in state.items() if key != "param_groups"}

    assert same(without_rates(agent_of(tmp_path / "run")), without_rates(saved))


def test_learning_rates_begin_at_the_users_and_stay(file: Path, tmp_path: Path) -> None:
    before = offline("iql", file, tmp_path / "before")
    run = mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", "env=Pendulum-v1", "steps=20", "agent.lr=1e-5", *SCORED)
    assert {float(o.param_groups[0]["lr"]) for o in run.parts.actor.optimizers.values()} == {1e-5}


@pytest.mark.parametrize(("ratio", "recorded"), [(0.5, 8), (0.25, 4), (1, 16)])
def test_batches_hold_the_share_of_the_data_set(ratio: float, recorded: int, file: Path, tmp_path: Path) -> None:
    before = offline("td3_bc", file, tmp_path / "before")
    options = ("env=Pendulum-v1", "steps=20", f"loop.offline_ratio={ratio}", *SCORED)
    run = mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", *options)
    source = run.parts.hooks[0].source
    assert isinstance(source, Mixture)
    batch = source.sample(16)
    rewards = {float(reward) for reward in run.parts.recorded.all().reward}
    assert [float(reward) in rewards for reward in batch.reward] == [True] * recorded + [False] * (16 - recorded)
    assert batch.real is not None
    assert batch.real.all()


def test_without_the_data_set_it_learns_from_the_replay_alone(file: Path, tmp_path: Path) -> None:
    before = offline("td3_bc", file, tmp_path / "before")
    run = mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", "env=Pendulum-v1", "steps=10", "loop.offline_ratio=0", *SCORED)
    assert run.parts.hooks[0].source is run.parts.replay


def test_a_run_trained_online_goes_on_too(tmp_path: Path) -> None:
    options = ("env=Pendulum-v1", *NETWORKS, *SCORED, "loop.warmup_steps=10", "agent.normalize_obs=true")
    mbkit.train("sac", *options, "steps=30", f"run_dir={tmp_path / 'before'}")
    run = mbkit.finetune(tmp_path / "before", f"run_dir={tmp_path / 'run'}", "steps=20", *SCORED)
    assert (run.config.data, run.config.loop.batch_size, run.config.loop.warmup_steps) == (None, 16, 0)
    was, now = agent_of(tmp_path / "before"), agent_of(tmp_path / "run")
    assert torch.equal(was["normalizer.mean"], now["normalizer.mean"])
    assert not torch.equal(was["log_alpha"], now["log_alpha"])


def test_from_a_checkpoint_by_its_step(file: Path, tmp_path: Path) -> None:
    before = offline("td3_bc", file, tmp_path / "before", "checkpoint.every=10", "checkpoint.keep=all")
    options = ("env=Pendulum-v1", "steps=2", "loop.updates_per_step=0", *SCORED)
    first, last = (mbkit.finetune(f"{before}{at}", f"run_dir={tmp_path / f'run{at}'}", *options) for at in ("@10", ""))
    weights = [next(iter(run.parts.actor.policy.parameters())) for run in (first, last)]
    assert not torch.equal(*weights)
    assert torch.equal(weights[1], next(v for k, v in agent_of(before).items() if k.startswith("policy")))


REFUSED = {
    "no environment": ([], "env=NAME is missing: .*before learned without an environment"),
    "other dimensions": (["env=InvertedPendulum-v5"], "has 4 observations and 1 actions, but data="),
    "offline option": (["env=Pendulum-v1", "loop.updates_at_once=2"], "loop.updates_at_once has no meaning for td3_bc, which goes on in"),
    "ratio": (["env=Pendulum-v1", "loop.offline_ratio=2"], "loop.offline_ratio=2.* is out of range"),
    "another agent": (["env=Pendulum-v1", "agent=sac"], "agent= is not an option of finetune: the agent is td3_bc"),
    "other networks": (["env=Pendulum-v1", "agent.hidden=[9]"], "cannot go on: its networks were made for other dimensions"),
    "other options": (["env=Pendulum-v1", "agent.normalize_obs=false"], "cannot go on: its agent was made with other options"),
    "unknown option": (["env=Pendulum-v1", "loop.offline_ration=1"], "did you mean 'loop.offline_ratio'"),
    "another file": (["env=Pendulum-v1", "data={other}"], "other.h5 is not the data set of this run: expected sha256"),
    "share": (["env=Pendulum-v1", "data_top=0.5"], "data_top= is not an option of finetune"),
}


@pytest.fixture(scope="module")
def before(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return offline("td3_bc", file, tmp_path_factory.mktemp("runs") / "before")


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_and_nothing_written(case: str, before: Path, tmp_path: Path) -> None:
    options, sentence = REFUSED[case]
    other = pendulum(tmp_path / "other.h5", episodes=5)
    with pytest.raises(UserError, match=sentence):
        mbkit.finetune(before, f"run_dir={tmp_path / 'run'}", "steps=5", *(text.format(other=other) for text in options))
    assert not (tmp_path / "run").exists()


def test_what_cannot_go_on(before: Path, file: Path, tmp_path: Path) -> None:
    conditioned = offline("bc", file, tmp_path / "bc", "agent.condition=return")
    with pytest.raises(UserError, match="bc cannot be fine-tuned: it learns from what follows each row of a data set"):
        mbkit.finetune(conditioned, "env=Pendulum-v1", "steps=5")
    with pytest.raises(UserError, match="nowhere is not a run directory"):
        mbkit.finetune("nowhere")
    with pytest.raises(UserError, match=r"checkpoint=7: .* holds no checkpoint of that step"):
        mbkit.finetune(f"{before}@7", "env=Pendulum-v1", "steps=5")
    mbkit.train("pets", *TINY, "steps=60", f"run_dir={tmp_path / 'pets'}")
    with pytest.raises(UserError, match="pets cannot be fine-tuned: it is a recipe round a model"):
        mbkit.finetune(tmp_path / "pets", "steps=5")
    short = ("agent.hidden=[8]", "loop.rollout_steps=16", "agent.minibatch=16", "threads=1")
    mbkit.train("ppo", "env=Pendulum-v1", *short, *SCORED, "steps=32", f"run_dir={tmp_path / 'ppo'}")
    with pytest.raises(UserError, match="ppo cannot be fine-tuned: it learns from trajectories"):
        mbkit.finetune(tmp_path / "ppo", "steps=5")
    mbkit.train("sac", "env=Pendulum-v1", *NETWORKS, *SCORED, "steps=20", f"run_dir={tmp_path / 'sac'}")
    with pytest.raises(UserError, match=r"data=.* has no meaning here: .* learned without a data set"):
        mbkit.finetune(tmp_path / "sac", f"data={file}")
    with pytest.raises(UserError, match=r"loop\.offline_ratio counts only where data!=null"):
        mbkit.finetune(tmp_path / "sac", "loop.offline_ratio=0.5")
    with pytest.raises(UserError, match="continues= is not an option of train: `mbkit finetune"):
        mbkit.train("sac", "env=Pendulum-v1", f"continues={tmp_path / 'sac'}")


def test_the_command(before: Path, tmp_path: Path) -> None:
    arguments = [str(before), "env=Pendulum-v1", "steps=10", *SCORED, f"run_dir={tmp_path / 'run'}"]
    result = CliRunner().invoke(cli.app, ["finetune", *arguments])
    assert result.exit_code == 0, result.output
    assert "after 10 steps" in result.output
    assert f"td3_bc on Pendulum-v1, from {before}: 10 steps" in result.output
