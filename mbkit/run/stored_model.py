"""A learned model with which a run's policy is judged: of the run itself, or of a file."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from mbkit.config.compose import filled
from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.envs import task_knowledge
from mbkit.errors import UserError
from mbkit.paths import is_file
from mbkit.run.run import Run
from mbkit.types import Dynamics


def model_for(run: Run, file: str | Path | None = None) -> Dynamics:
    """The ensemble in `file`; without one the run's own model, or the `dynamics.pt` in its directory.

    Raises:
        UserError: there is no model, or it has other dimensions than the run.
    """
    if file is not None:
        return stored_ensemble(run, Path(file))
    model = run.parts.dynamics
    if isinstance(model, Dynamics) and getattr(model, "fitted", True):
        return model
    file = run.path / "dynamics.pt"
    if not is_file(file):
        raise UserError(f"method=model rolls a learned model, and {run.path} has none; expected dynamics=FILE, the dynamics.pt of another")
    return stored_ensemble(run, file)


def stored_ensemble(run: Run, path: Path) -> Ensemble:
    """The ensemble in a file, over the observations and actions of a run."""
    content = files.read(path)
    cfg = stored_config(path, content)
    env, kwargs = task_of(run, content["meta"])
    reward = "learned" if content["fits"].get("reward") == "learned" else cfg.reward
    task = task_knowledge(env, run.parts.spec, kwargs, reward, cfg.termination)
    return Ensemble(run.parts.spec, cfg, task)


def stored_config(path: Path, content: dict[str, Any], **options: Any) -> EnsembleConfig:
    """The configuration in a file, whose content is at hand, with other values for some options; its weights are to be loaded."""
    known = {f.name for f in fields(EnsembleConfig)}
    stored = {key: list(value) if isinstance(value, tuple) else value for key, value in content["cfg"].items() if key in known}
    return filled(EnsembleConfig, {**stored, **options, "load": str(path)}, "dynamics.")  # type: ignore[no-any-return]


def task_of(run: Run, meta: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the environment whose reward and termination the model need not learn: the file's, or the run's."""
    if "env" in meta and meta["env"] != run.config.env:
        return str(meta["env"]), dict(meta.get("env_kwargs") or {})
    return run.config.env, dict(run.config.env_kwargs)
