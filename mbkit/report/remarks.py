"""Notes on the runs of a page: unfinished, unreadable lines, and what the runs had to tell. What several runs say stands there once."""

from collections.abc import Sequence

from mbkit.recording.notes import sentence
from mbkit.report.collect import RunRecord


def remarks(runs: Sequence[RunRecord]) -> list[str]:
    """A sentence each; with several runs, those of a part of them begin with their names."""
    told: dict[str, list[str]] = {}
    for run in runs:
        for note in (*shortcomings(run), *notes_of(run)):
            told.setdefault(note, []).append(f"{run.algo}, seed {run.seed} ({run.path.name})")
    return [note if len(names) == len(runs) else f"{'; '.join(names)}: {note}" for note, names in told.items()]


def shortcomings(run: RunRecord) -> list[str]:
    """What is missing of a run."""
    planned = f" of {run.planned}" if run.planned else ""
    lines = f"{run.unreadable} unreadable line{'s' * (run.unreadable > 1)}"
    return [
        *([] if run.finished else [f"This run has not finished: this page shows it up to step {run.steps}{planned}."]),
        *([f"{lines} of metrics.jsonl left out."] if run.unreadable else []),
    ]


def notes_of(run: RunRecord) -> list[str]:
    """The notes of its summary, each once."""
    notes = run.summary.get("notes")
    return list(dict.fromkeys(sentence(str(note)) for note in notes)) if isinstance(notes, list) else []
