"""A grid, or a search, of experiments: many runs in one directory, by processes of this machine, by Ray, or by Slurm.

sweep(["mbpo", "sac"], "env=Hopper-v5,Walker2d-v5", "agent.lr=1e-4,3e-4", seeds=range(1, 6))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbkit.sweep.api import Result, sweep

__all__ = ["Result", "sweep"]


def __getattr__(name: str) -> Any:
    """A worker imports this package too, and nothing of what plans and shows a sweep."""
    if name in __all__:
        return getattr(import_module("mbkit.sweep.api"), name)
    raise AttributeError(f"module 'mbkit.sweep' has no attribute {name!r}")
