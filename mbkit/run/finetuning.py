"""A run that goes on from another one's agent, in an environment: `mbkit finetune`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mbkit import config
from mbkit.config import imports
from mbkit.data.run_replay import split
from mbkit.errors import UserError
from mbkit.loops.interrupt import interrupted
from mbkit.run.data import RunData, open_data
from mbkit.run.objects import call, listed, named, pathless, with_objects
from mbkit.run.placement import placed
from mbkit.run.reading import read_config
from mbkit.run.run import Run


def finetune(directory: str | Path, *arguments: str, **options: Any) -> Run:
    """The agent of a run goes on learning in an environment: `finetune("runs/iql", steps=20_000, loop={"offline_ratio": 0.25})`.

    Weights, optimizers, normaliser and temperature are those of the run, as RUN, RUN@best or RUN@STEP; learning rates begin anew and stay.
    Batches are drawn from the run's data set, which is read again, and from what the agent meets now, in the shares of
    `loop.offline_ratio`. Options are those of `train`. Returns the finished run, which needs the first one no more.

    Raises:
        UserError: no such run or checkpoint, an agent that cannot go on online, no environment, another data set, or an option without a
            meaning.
    """
    run = Path(directory)
    folder, _ = split(run)
    before, _ = placed(read_config(folder))
    with ExitStack() as opened:
        opened.enter_context(interrupted(lambda: "nothing was written yet; the same command starts again"))
        came = named(options)
        experiment = with_objects(config.continuing(before, str(run), arguments, came.values), came)
        if missing := [key for key in pathless(experiment) if key not in experiment.objects]:
            what = listed(experiment, missing)
            raise UserError(f"{run} was trained with {what}, without an import path; expected {call(missing, 'finetune', run)}")
        imports.import_typed(experiment)
        imports.announce(experiment, folder)
        data = open_data(experiment)
        if data is not None:
            data.check_same(RunData.stored(folder))
        learner = opened.enter_context(Run(experiment, data=data))
        opened.enter_context(interrupted(learner.how_to_go_on))
        learner.start()
        learner.open()
        learner.train()
    return learner
