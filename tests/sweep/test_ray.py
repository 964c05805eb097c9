"""A sweep on a real Ray cluster that the test starts: the same runs, a killed worker included, and their files in one directory."""

from pathlib import Path
from threading import Thread

import pytest
from resumption import check_same_end
from sweeps import OPTIONS, SEEDS, alone, between_checkpoints, kill, plan_of, summaries, summary

from mbkit.errors import UserError
from mbkit.sweep import sweep
from mbkit.sweep.api import Execution, checked_execution, execute
from mbkit.sweep.planning import planned
from mbkit.sweep.ray_backend import Board, RayBackend, pack, unpack
from mbkit.sweep.tables import LiveView
from mbkit.sweep.worker import Job, Outcome, run_one

ALGORITHMS = ("dqn", "double_dqn")
QUICK = ["env=CartPole-v1", "steps=20", "eval.episodes=1", "eval.video=false", "threads=1"]


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason='Ray is not installed; pip install "mbkit[ray]" brings it')
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=80 * 2**20)
    yield ray
    ray.shutdown()


def test_runs_on_ray_are_those_of_this_machine_and_survive_a_killed_worker(cluster, tmp_path):
    expected, out, killed = alone(plan_of(*ALGORITHMS), tmp_path / "alone"), tmp_path / "sweep", []

    def killer() -> None:
        run = between_checkpoints(out)
        kill(run)
        killed.append(run)

    thread = Thread(target=killer)
    thread.start()
    result = sweep(list(ALGORITHMS), *OPTIONS, seeds=SEEDS, out=out, backend="ray", quiet=True)
    thread.join()
    assert result.failed == {}
    assert summaries(out, expected) == {name: summary(path) for name, path in expected.items()}
    for name, path in expected.items():
        check_same_end(path, out / name)
    assert ": steps " in Path(f"{killed[0]}.log").read_text()  # it went on, rather than from the beginning
    assert not list(out.glob(".ray-*"))


def test_a_node_that_does_not_see_the_directory_sends_what_it_has(cluster, tmp_path):
    plan, execution = planned("random", QUICK, [1]), Execution("ray")

    def elsewhere(*arguments: object) -> RayBackend:
        return RayBackend(tmp_path / "sweep", shared=False)

    result = execute(plan, tmp_path / "sweep", None, execution, LiveView(quiet=True), elsewhere)
    assert result.failed == {}
    expected = Job("x", "random", plan.runs[0].arguments(None), str(tmp_path / "alone/seed-1"))
    assert run_one(expected) == Outcome("finished")
    here = tmp_path / "sweep/random/seed-1"
    assert summary(here) == summary(Path(expected.directory))
    assert f"{here.name}" in here.with_name("seed-1.log").read_text()
    check_same_end(Path(expected.directory), here)


# --- without a cluster ----------------------------------------------------------------------------------------------------------------


def test_a_run_is_packed_and_unpacked_whole_and_replaces_an_older_one(tmp_path):
    run = tmp_path / "node/group/seed-1"
    (run / "checkpoint").mkdir(parents=True)
    (run / "checkpoint/step-1.pt").write_bytes(b"new")
    run.with_name("seed-1.log").write_text("log")
    here = tmp_path / "sweep/group/seed-1"
    here.mkdir(parents=True)
    (here / "old").touch()
    unpack(pack(run), here)
    assert [path.relative_to(here).as_posix() for path in sorted(here.rglob("*")) if path.is_file()] == ["checkpoint/step-1.pt"]
    assert here.with_name("seed-1.log").read_text() == "log"
    assert sorted(path.name for path in here.parent.iterdir()) == ["seed-1", "seed-1.log"]


def test_the_board_tells_a_run_to_stop():
    from mbkit.sweep.following import RunCurve

    board = Board()
    assert not board.stop("b")  # it has not begun
    assert not board.beat("a", RunCurve(5))
    assert board.stop("a")
    assert board.beat("a", RunCurve(7))
    assert board.progress()["a"].step == 7
    board.forget("a")
    assert not board.beat("a", RunCurve(8))


def test_settings_that_contradict_one_another():
    plan, on_gpu = planned("random", QUICK, [1]), planned("dqn", ["env=CartPole-v1", "device=cuda"], [1])
    for of, execution, trials, sentence in (
        (plan, Execution("cloud"), None, "expected one of local, ray, slurm"),
        (plan, Execution(address="auto"), None, "expected --backend ray"),
        (plan, Execution(workers=0), None, "--workers 0: expected at least 1"),
        (plan, Execution(retries=-1), None, "--retries -1: expected at least 0"),
        (plan, Execution(gpus_per_run=0.5), None, "--gpus-per-run is a cluster's"),
        (plan, Execution("ray", slurm=("partition=gpu",)), None, "expected --backend slurm"),
        (on_gpu, Execution("ray"), None, "expected --gpus-per-run, such as 0.25"),
        (plan, Execution(), 5, "--trials 5 counts where an option is drawn"),
        (planned("dqn", ["agent.lr=log(1e-5..1e-3)"], [1]), Execution(), 0, "--trials 0: expected at least 1"),
    ):
        with pytest.raises(UserError) as refused:
            checked_execution(of, trials, execution)
        assert sentence in str(refused.value)
