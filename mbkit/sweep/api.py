"""`sweep`: what the command line and Python both call."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from mbkit.errors import UserError
from mbkit.paths import make_folder
from mbkit.recording.lock import run_lock
from mbkit.sweep.backends import Backend
from mbkit.sweep.driver import Driver, GridSource, RunSource, View
from mbkit.sweep.extras import imported
from mbkit.sweep.lists import checked_seeds
from mbkit.sweep.local import LocalBackend, cores
from mbkit.sweep.planning import FILE, SweepPlan, default_directory, opened, planned
from mbkit.sweep.results import Returns, rows_of
from mbkit.sweep.tables import LiveView

if TYPE_CHECKING:
    from mbkit.sweep.search import BestTrial

BackendName = Literal["local", "ray", "slurm"]
BACKENDS = ("local", "ray", "slurm")
LOCK = ".sweep.lock"
TRIALS = 20


class Execution(NamedTuple):
    """How the runs of a sweep are executed, which may differ from one call to the next."""

    backend: str = "local"
    workers: int | None = None  # runs at once; None: as many as there are cores, or as a cluster has resources for
    retries: int = 1
    address: str | None = None  # of a running Ray cluster
    gpus_per_run: float = 0.0
    slurm: tuple[str, ...] = ()  # parameters of submitit, slurm_partition=gpu


class Result(NamedTuple):
    """A sweep that has ended."""

    directory: Path
    rows: list[Returns]  # a group each; of a search, a trial each
    failed: dict[str, str]  # reason by name of the run
    best: "Mapping[str, BestTrial]" = MappingProxyType({})  # of a search: the best trial by group
    trials: Mapping[str, int] = MappingProxyType({})  # of a search: how many trials are "complete", "pruned" and "fail"


def sweep(
    algorithms: str | Sequence[str],
    *options: str,
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    trials: int | None = None,
    backend: BackendName = "local",
    workers: int | None = None,
    retries: int = 1,
    address: str | None = None,
    gpus_per_run: float = 0.0,
    quiet: bool = False,
) -> Result:
    """Train algorithms x options x seeds: `sweep("mbpo,sac", "env=Hopper-v5,Walker2d-v5", "agent.lr=1e-4,3e-4", seeds=range(5))`.

    Options are those of the command, `key=A,B` and `ALGO:key=A,B`; `key=log(1e-5..1e-3)`, `uniform(..)`, `int(..)` and `choice(a,b)` are
    drawn by a search of `trials` trials. Runs that are finished are not repeated, others go on: the same call goes on with its sweep.

    Raises:
        UserError: an option, a value or a combination that `train` would refuse, before anything starts; a directory of another sweep.
        Interrupted: the user stopped it.
    """
    plan = planned(algorithms, options, checked_seeds(list(seeds), list(seeds)))
    execution = Execution(backend, workers, retries, address, gpus_per_run)
    trials = checked_execution(plan, trials, execution)
    from mbkit.sweep.assembling import check_assembly

    check_assembly(plan)
    with LiveView(quiet) as view:
        return execute(plan, Path(out) if out else default_directory(plan), trials, execution, view)


def checked_execution(plan: SweepPlan, trials: int | None, execution: Execution) -> int | None:
    """The number of trials, None for a grid; UserError for execution that contradict the plan or one another."""
    if execution.backend not in BACKENDS:
        raise UserError(f"--backend {execution.backend}: expected one of {', '.join(BACKENDS)}")
    if execution.workers is not None and execution.workers < 1:
        raise UserError(f"--workers {execution.workers}: expected at least 1")
    if execution.retries < 0:
        raise UserError(f"--retries {execution.retries}: expected at least 0")
    if execution.backend != "ray" and execution.address is not None:
        raise UserError(f"--address {execution.address} is that of a Ray cluster; expected --backend ray beside it")
    if execution.backend == "local" and execution.gpus_per_run:
        raise UserError("--gpus-per-run is a cluster's; on this machine --workers says how many runs share its GPU")
    if execution.backend == "ray" and not execution.gpus_per_run and any("device=cuda" in group.arguments for group in plan.groups):
        raise UserError("device=cuda: a run sees no GPU of a Ray cluster that it does not reserve; expected --gpus-per-run, such as 0.25")
    if execution.gpus_per_run < 0:
        raise UserError(f"--gpus-per-run {execution.gpus_per_run}: expected at least 0")
    if execution.backend != "slurm" and execution.slurm:
        raise UserError(f"--slurm {execution.slurm[0]} is a parameter of Slurm; expected --backend slurm beside it")
    if not plan.searched and trials is not None:
        raise UserError(f"--trials {trials} counts where an option is drawn, such as agent.lr=log(1e-5..1e-3); all options here are listed")
    if trials is not None and trials < 1:
        raise UserError(f"--trials {trials}: expected at least 1")
    packages = {"optuna": plan.searched, "ray": execution.backend == "ray", "submitit": execution.backend == "slurm"}
    for package in (name for name, needed in packages.items() if needed):
        imported(package)
    return (trials or TRIALS) if plan.searched else None


def share(plan: SweepPlan, execution: Execution) -> tuple[int, int]:
    """Workers of this machine, and the threads of each that sets none: cores / workers."""
    on_gpu = any("device=cuda" in group.arguments for group in plan.groups)
    runs = len(plan.groups) * len(plan.seeds)
    workers = execution.workers or (1 if on_gpu else cores() if plan.searched else min(cores(), runs))
    return workers, max(1, cores() // workers)


def backend_of(plan: SweepPlan, directory: Path, execution: Execution) -> Backend:
    """The backend of that name; UserError where its package is missing."""
    if execution.backend == "ray":
        from mbkit.sweep.ray_backend import RayBackend

        return RayBackend(directory, execution.workers, execution.address, execution.gpus_per_run)
    if execution.backend == "slurm":
        from mbkit.sweep.slurm import SlurmBackend

        return SlurmBackend(directory, execution.workers, execution.gpus_per_run, execution.slurm)
    return LocalBackend(share(plan, execution)[0])


def execute(
    plan: SweepPlan, directory: Path, trials: int | None, execution: Execution, view: View, made: Callable[..., Backend] = backend_of
) -> Result:
    """All runs of the plan that are not finished, and what the sweep came to; the plan is checked already."""
    threads = share(plan, execution)[1] if execution.backend == "local" else 1
    make_folder(directory)
    with run_lock(directory, LOCK):
        content = opened(directory, plan, threads, trials)
        search = None
        if content["trials"] is not None:
            from mbkit.sweep.search import Search

            search = Search(plan, directory, int(content["trials"]))
        source: RunSource = search or GridSource(plan.runs)
        driver = Driver(directory, source, made(plan, directory, execution), view, content["threads"], execution.retries)
        driver.run()
        if search is None:
            return Result(directory, rows_of(directory, plan.groups, plan.seeds), driver.failed)
        return Result(directory, search.rows(), driver.failed, search.best(), search.counts())


__all__ = ["FILE", "Execution", "Result", "checked_execution", "execute", "sweep"]
