"""What was learned as one file for other programs: the policy of a run, or a dynamics model, as `.onnx`, or `.pt2` of torch.export.

Nothing of mbkit is needed to run such a file. It is compared with its origin before it gets its name.
"""

from pathlib import Path

from mbkit.errors import UserError
from mbkit.export.dynamics import export_dynamics, export_network
from mbkit.export.formats import ROWS, Exported
from mbkit.export.policy import export_policy, greedy_module, policy_module
from mbkit.paths import exists, is_file
from mbkit.run import Run

__all__ = ["ROWS", "Exported", "export", "export_network", "greedy_module", "is_model", "policy_module"]


def export(source: Run | str | Path, out: str | Path, checkpoint: str | int | None = None) -> Exported:
    """Write a policy, acting without exploration, or a dynamics model; a file that is there is replaced, after an error it is unchanged.

    Args:
        source: a run, the directory of one, or a trained model, a `dynamics.pt`.
        out: a path that ends in .onnx, which takes the packages of `mbkit[onnx]`, or in .pt2.
        checkpoint: of a directory: "last" (the default), "best" or a stored step.

    Raises:
        UserError: another suffix, nothing that can be exported at `source`, or a file that differs from what it was made of.
    """
    if isinstance(source, Run) or not is_model(source):
        return export_policy(source, out, checkpoint)
    if checkpoint is not None:
        raise UserError(f"checkpoint={checkpoint!r} applies to the directory of a run; {source} is a file, expected none")
    return export_dynamics(source, out)


def is_model(source: str | Path) -> bool:
    """Whether a path is that of a file, not of a directory."""
    return is_file(source) or (Path(source).suffix == ".pt" and not exists(source))
