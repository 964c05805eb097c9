"""mbkit: model-based reinforcement learning on PyTorch and MuJoCo.

run = mbkit.train("pets", env="InvertedPendulum-v5", steps=2000)
mbkit.evaluate(run)["return_mean"]
run.agent.act(obs)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbkit.run import Run, evaluate, finetune, load, resume, train

__version__ = "0.2.0"
__all__ = ["Run", "evaluate", "finetune", "load", "resume", "train"]


def __getattr__(name: str) -> Any:
    """`mbkit.train` and friends are imported when they are first used, so that `import mbkit` is quick."""
    if name in __all__:
        return getattr(import_module("mbkit.run"), name)
    raise AttributeError(f"module 'mbkit' has no attribute {name!r}")
