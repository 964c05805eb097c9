"""Runs as jobs of Slurm, by submitit; the directory of the sweep has to be on a file system that all nodes share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mbkit.config import parse_overrides
from mbkit.errors import UserError
from mbkit.sweep.extras import imported
from mbkit.sweep.following import RunCurve
from mbkit.sweep.worker import Job, Outcome, run_one

AT_ONCE = 100  # jobs that are queued at most, unless --workers says otherwise


class SlurmBackend:
    """Jobs with the parameters of `submitit.AutoExecutor`, such as slurm_partition=gpu and timeout_min=600."""

    def __init__(self, directory: Path, workers: int | None, gpus_per_run: float, parameters: Sequence[str] = ()) -> None:
        submitit, options = imported("submitit"), parse_overrides(parameters)
        self.workers, self.jobs = workers or AT_ONCE, dict[str, tuple[Any, Job, RunCurve]]()
        try:
            self.executor = submitit.AutoExecutor(folder=directory / "slurm", cluster=options.pop("cluster", None))
            gpus = {"gpus_per_node": int(-(-gpus_per_run // 1))} if gpus_per_run else {}
            self.executor.update_parameters(**gpus, **options)
        except Exception as error:  # an unknown parameter, or no Slurm here
            raise UserError(f"--backend slurm: {str(error).splitlines()[0]}") from error

    def slots(self) -> int:
        """Jobs in the queue at once."""
        return self.workers

    def start(self, job: Job) -> None:
        """Submit a job."""
        self.executor.update_parameters(cpus_per_task=job.threads)
        self.jobs[job.name] = (self.executor.submit(run_one, job), job, RunCurve())

    def ended(self) -> Iterator[tuple[str, Outcome]]:
        """Jobs that left the queue."""
        for name, (job, _, _) in list(self.jobs.items()):
            if job.done():
                del self.jobs[name]
                error = job.exception()
                yield name, Outcome("failed", str(error).strip().splitlines()[-1]) if error else Outcome(*job.result())

    def curve(self, name: str) -> RunCurve:
        """What the run has written so far."""
        self.jobs[name][2].follow(self.jobs[name][1].directory)
        return self.jobs[name][2]

    def stop(self, name: str) -> None:
        """Cancel a job: Slurm sends SIGTERM, after which a run stops at a checkpoint."""
        self.jobs[name][0].cancel(check=False)

    def close(self) -> None:
        """Cancel what is left."""
        for name in self.jobs:
            self.stop(name)
