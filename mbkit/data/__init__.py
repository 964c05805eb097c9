"""Data sets: files of recorded transitions in and out, checked row by row, and the scores by which results on them are told.

data = mbkit.data.read("hopper.h5")
replay = data.buffer(data.spec())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbkit.data.dataset import CHUNK, Columns, Dataset
    from mbkit.data.formats import read, write

__all__ = ["CHUNK", "Columns", "Dataset", "read", "write"]
PLACES = {"read": "formats", "write": "formats"}  # all others: dataset


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used, so that `import mbkit.data` needs neither torch nor h5py."""
    if name in __all__:
        return getattr(import_module(f"mbkit.data.{PLACES.get(name, 'dataset')}"), name)
    raise AttributeError(f"module 'mbkit.data' has no attribute {name!r}")
