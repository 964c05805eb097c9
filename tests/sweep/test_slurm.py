"""The backend of Slurm users, on submitit's own local executor."""

import pytest
from sweeps import summary

from mbkit.errors import UserError
from mbkit.sweep.api import Execution, execute
from mbkit.sweep.planning import planned
from mbkit.sweep.slurm import SlurmBackend
from mbkit.sweep.tables import LiveView
from mbkit.sweep.worker import Job, Outcome, run_one

pytest.importorskip("submitit", reason='submitit is not installed; pip install "mbkit[slurm]" brings it')
QUICK = ["env=CartPole-v1", "steps=20", "eval.episodes=1", "eval.video=false", "threads=1"]


def test_a_job_is_the_run_that_this_process_makes(tmp_path):
    plan = planned("random", QUICK, [1])
    execution = Execution("slurm", slurm=("cluster=local", "timeout_min=5"))
    result = execute(plan, tmp_path / "sweep", None, execution, LiveView(quiet=True))
    assert result.failed == {}
    job = Job("x", "random", plan.runs[0].arguments(None), str(tmp_path / "alone/seed-1"))
    assert run_one(job) == Outcome("finished")
    assert summary(tmp_path / "sweep/random/seed-1") == summary(tmp_path / "alone/seed-1")


def test_an_unknown_parameter_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--backend slurm: .*colour"):
        SlurmBackend(tmp_path, None, 0.0, ["cluster=local", "colour=red"])
