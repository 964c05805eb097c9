"""The experiment of a run directory."""

from pathlib import Path

from mbkit import config
from mbkit.config import Experiment
from mbkit.errors import UserError
from mbkit.paths import is_file, read_text, short


def read_config(directory: str | Path) -> Experiment:
    """The experiment of a run directory."""
    path = Path(directory) / "config.yaml"
    if not is_file(path):
        raise UserError(f"{short(directory)} is not a run directory: it has no config.yaml")
    return config.from_dict(config.read_yaml(read_text(path), str(path)))
