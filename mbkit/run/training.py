"""Training of runs that are wired: one alone, or several seeds side by side in one process."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mbkit import accelerate, recording
from mbkit.errors import UserError
from mbkit.loops import Every, Hook
from mbkit.loops.interrupt import Interrupted, interruptible
from mbkit.loops.seeds import STACKABLE, SideBySide, naming
from mbkit.recording.lock import failure_noted
from mbkit.recording.notes import noted
from mbkit.recording.progress import announce
from mbkit.recording.trackers import Tracker
from mbkit.run.objects import object_note, resumption
from mbkit.streams import Stream

if TYPE_CHECKING:
    from mbkit.run.run import Run

Checkpoint = Mapping[str, Any] | None  # the restored state of a run; None: a new one


def hooks_of(run: "Run") -> list[Hook]:
    """What happens after every stride: the recipe's hooks, evaluations and checkpoints."""
    c = run.config
    scores = [Every(c.eval.every, run.score)] if c.env != "none" else []
    return [*run.parts.hooks, *scores, Every(c.checkpoint.every, run.checkpoint)]


def recorder_of(run: "Run", opened: ExitStack, told: bool = True) -> recording.Recorder:
    """A recorder for the loop from here on, until `opened` is closed; `told`: it says how the run goes on."""
    c = run.config
    announce(c, run.threads, run.path, run.loop.step, object_note(c))
    recorder = opened.enter_context(recording.Recorder(run.path, c.loop.log_every, c.steps, told, c.tensorboard, run.unit))
    if c.tracker is not None:
        recorder.tracker = Tracker(c.tracker, run.path, c.to_dict(), recorder.notes)
    run.loop.recorder = recorder
    return recorder


def begin(run: "Run", checkpoint: Checkpoint) -> None:
    """A first checkpoint, so that the run can be resumed whatever happens to it, or what the recorder held when it was interrupted."""
    if checkpoint is None:
        run.checkpoint()
        return
    run.loop.recorder.load_state_dict(checkpoint["recorder"])
    run.notes = noted(run.notes, *run.loop.recorder.notes)


def train(run: "Run", checkpoint: Checkpoint = None) -> None:
    """From where the run's loop stands to its last step; then its score, its film, its diagnostics and its summary."""
    with ExitStack() as opened:
        opened.enter_context(failure_noted(run.path))
        recorder = recorder_of(run, opened)
        opened.enter_context(accelerate.matmul_precision(run.config.precision))
        with interruptible() as caught:
            begin(run, checkpoint)
            run.loop.stop = lambda: bool(caught)
            run.loop.run(run.config.steps, hooks_of(run))
        run.checkpoint()
        if caught:
            raise Interrupted(f"stopped by {caught[0]}: {run.how_to_go_on()}")
        run.finish(recorder)


def side_by_side(runs: Sequence["Run"], streams: Sequence[Stream]) -> SideBySide:
    """The loop of several runs; UserError where their agents cannot be updated together."""
    loop = SideBySide([run.loop for run in runs], [hooks_of(run) for run in runs], streams, [run.config.seed for run in runs])
    if not loop.joint:
        raise UserError(f"{runs[0].config.algo} learns one seed at a time, seed=N; several at once have {STACKABLE}")
    return loop


def train_together(runs: Sequence["Run"], streams: Sequence[Stream], loop: SideBySide, checkpoints: Sequence[Checkpoint]) -> None:
    """`train` of several runs at once, each under its own random numbers; `loop` is theirs."""
    with ExitStack() as opened:
        opened.enter_context(failure_noted(*(run.path for run in runs)))
        recorders = [recorder_of(run, opened, told=run is runs[0]) for run in runs]
        opened.enter_context(accelerate.matmul_precision(runs[0].config.precision))
        with interruptible() as caught:
            for run, stream, checkpoint in zip(runs, streams, checkpoints, strict=True):
                with naming(run.config.seed), stream.active():
                    begin(run, checkpoint)
            runs[0].loop.stop = lambda: bool(caught)
            loop.run(runs[0].config.steps)
        for run, stream in zip(runs, streams, strict=True):
            with naming(run.config.seed), stream.active():
                run.checkpoint()
        if caught:
            raise Interrupted(f"stopped by {caught[0]}: {how_to_go_on(runs)}")
        for run, stream, recorder in zip(runs, streams, recorders, strict=True):
            with naming(run.config.seed), stream.active():
                run.finish(recorder)


def how_to_go_on(runs: Sequence["Run"]) -> str:
    """What a user who stopped these runs can do."""
    if any(run.saved_at is None for run in runs):
        return "; ".join(dict.fromkeys(run.how_to_go_on() for run in runs))
    return f"{resumption(runs[0].config, *(run.path for run in runs))} goes on"
