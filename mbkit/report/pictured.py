"""The section of a page that shows what a run's model predicts along an episode; what it needs is stored in the run's pictures/."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from mbkit.errors import UserError
from mbkit.paths import is_file, make_folder, read_text
from mbkit.report.chapters import Chapter, Figures
from mbkit.report.clips import Clip, clip
from mbkit.report.collect import Group, RunRecord
from mbkit.report.film_beside import film_beside
from mbkit.report.prediction_plots import pictures
from mbkit.report.predictions import Predictions, fingerprint, load_predictions, predictions, save_predictions

SECTION = "Along an episode"
FOLDER, TABLE, FILM, REASON = "pictures", "predictions.npz", "real-and-predicted.mp4", "no-film.txt"
CAPTION = "Left: the simulator. Right: the model under the same actions; the bar below it grows until it starts again from the real state."


def pictured(chapter: Chapter, folder: Path) -> Chapter:
    """The chapter with a section for the best run of each group whose model was learned; links are relative to `folder`."""
    sections = dict(chapter.sections)
    learned = [group for group in chapter.groups if any(learns_model(run) for run in group.runs)]
    for group in learned:
        name = SECTION if len(chapter.groups) == 1 else f"{SECTION}, {group.label}"
        sections[name] = of_run(best_run(group), folder)
    return chapter._replace(sections=sections)


def learns_model(run: RunRecord) -> bool:
    """Whether a run has a model of its own."""
    return run.part("dynamics") not in (None, "mujoco")


def best_run(group: Group) -> RunRecord:
    """The run with the highest final return; the first where none was scored."""
    return max(group.runs, key=lambda run: score if (score := run.final()[0]) == score else float("-inf"))


def of_run(record: RunRecord, folder: Path) -> Figures:
    """Figures and film of one run; in their place the reason, where it cannot be loaded or has no such model."""
    with ExitStack() as opened:
        writable = os.access(record.path, os.W_OK)
        place = record.path / FOLDER if writable else Path(opened.enter_context(tempfile.TemporaryDirectory()))
        make_folder(place)
        try:
            table, reason = stored(record, place) or computed(record, place)
        except UserError as error:
            return Figures([], [], [f"No predictions are shown: {str(error).removesuffix('.')}."])
        film = place / FILM
        films: tuple[Clip, ...] = (clip(film, folder, f"{record.algo}, seed {record.seed}. {CAPTION}"),) if is_file(film) else ()
        return Figures(pictures(table), [], [reason] if reason else [], films)


def stored(record: RunRecord, place: Path) -> tuple[Predictions, str] | None:
    """What an earlier report computed of the same model, and why it made no film, or ""."""
    table = load_predictions(place / TABLE, fingerprint(record.path, record.steps))
    if table is None:
        return None
    return table, read_text(place / REASON) if is_file(place / REASON) else ""


def computed(record: RunRecord, place: Path) -> tuple[Predictions, str]:
    """Load the run, predict, film and store; UserError where the run cannot be loaded, or has nothing to show."""
    from mbkit.run import load

    for name in (FILM, REASON):
        (place / name).unlink(missing_ok=True)
    with load(record.path, device="cpu") as run:
        table = predictions(run)
        reason = film_beside(run, table, place / FILM)
    save_predictions(place / TABLE, fingerprint(record.path, record.steps), table)
    if reason:
        (place / REASON).write_text(reason)
    return table, reason
