"""The files of a run: its directory, metrics, checkpoints and videos."""

from mbkit.recording.checkpoint import load_checkpoint, save_checkpoint
from mbkit.recording.choice import named_checkpoint
from mbkit.recording.lock import run_lock
from mbkit.recording.recorder import Recorder, read_metrics
from mbkit.recording.rundir import Summary, check_new, create_run_dir, shown, versions, write_summary
from mbkit.recording.video import record_video
from mbkit.storage import write_json, write_text

__all__ = [
    "Recorder",
    "Summary",
    "check_new",
    "create_run_dir",
    "load_checkpoint",
    "named_checkpoint",
    "read_metrics",
    "record_video",
    "run_lock",
    "save_checkpoint",
    "shown",
    "versions",
    "write_json",
    "write_summary",
    "write_text",
]
