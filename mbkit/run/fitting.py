"""A dynamics ensemble fitted to a data set alone: `mbkit dynamics fit`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbkit import accelerate
from mbkit.config import parse_overrides
from mbkit.config.compose import filled
from mbkit.data import Dataset, read
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.envs import task_knowledge
from mbkit.errors import UserError
from mbkit.paths import check_file
from mbkit.recipes.recorded_models import checked_terminals, fit_recorded
from mbkit.replay.recorded import RecordedRows
from mbkit.run.data import RunData
from mbkit.types import TaskKnowledge

OPTIONS = ("dynamics", "seed", "threads", "device", "env")


class Fit(NamedTuple):
    """What was fitted, to how many rows, and what the user should know."""

    model: Ensemble
    rows: int
    metrics: dict[str, float]
    notes: list[str]


def fit_dynamics(data: str | Path | Dataset, *arguments: str, out: str | Path | None = None, **options: Any) -> Fit:
    """Fit an ensemble to the transitions of a data set and write it to `out`, a `dynamics.pt` that every consumer of a model loads.

    It always learns the reward, where the data set has one; a consumer that knows the reward ignores what was learned of it.

    Args:
        data: a data set, or the path of one.
        arguments: `dynamics.*`, `seed=`, `threads=`, `device=`, `env=` as `key=value`; `env` is the one that the data set names.
        out: the file to write; None writes none.
        options: the same as keywords.

    Raises:
        UserError: an option that has no meaning here, a data set that cannot be read, or too few rows to fit.
    """
    chosen = settings(arguments, options)
    if out is not None:
        check_file(out)
    dataset = data if isinstance(data, Dataset) else read(data)
    device = torch.device(chosen.get("device", "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda was asked for, but torch finds no CUDA device here; use device=cpu")
    accelerate.set_threads(chosen.get("threads", 1))
    accelerate.seed_everything(chosen.get("seed", 0))
    env, cfg = chosen.get("env", dataset.env), filled(EnsembleConfig, chosen.get("dynamics", {}), "dynamics.")
    spec = dataset.spec(device)
    task = knowledge(dataset, None if env == "none" else env, cfg)
    model, rows = Ensemble(spec, cfg, task), RecordedRows(RunData.of(dataset).buffer(spec)).all()
    true, told = checked_terminals(rows, task.termination, cfg.termination, str(dataset.path or "the data set"))
    metrics = fit_recorded(model, rows, true)
    if out is not None:
        model.save(out, env=env or "none", steps=int(true.sum()), data=dataset.sha256, **units(dataset))
    return Fit(model, int(true.sum()), metrics, [*dataset.notes, *told])


def units(dataset: Dataset) -> dict[str, Any]:
    """What the model's file says of its data's units: bounds of actions, or the first discrete one, and names, where there are any."""
    named = {key: list(names) for key in ("obs_names", "action_names") if (names := getattr(dataset, key))}
    if dataset.choices:
        return {"action_start": dataset.start, **named}
    low, high = dataset.box
    return {"action_low": low.tolist(), "action_high": high.tolist(), **named}


def settings(arguments: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a fit; UserError for one that has no meaning here."""
    chosen = parse_overrides(arguments, options=options, verbatim=lambda key: key in ("env", "dynamics.reward", "dynamics.termination"))
    for key in chosen:
        if key not in OPTIONS:
            raise UserError(f"dynamics fit takes {', '.join(f'{o}.*' if o == 'dynamics' else f'{o}=' for o in OPTIONS)}; came {key!r}")
    dynamics = chosen.get("dynamics", {})
    if isinstance(dynamics, Mapping) and dynamics.get("name", "ensemble") != "ensemble":
        raise UserError(f"dynamics fit fits an ensemble; came dynamics={dynamics['name']}")
    chosen["dynamics"] = {key: value for key, value in dynamics.items() if key != "name"}
    for key, kinds in (("seed", int), ("threads", int), ("device", str), ("env", str)):
        if key in chosen and (not isinstance(chosen[key], kinds) or isinstance(chosen[key], bool)):
            raise UserError(f"{key}={chosen[key]!r} does not fit: expected {kinds.__name__}")
    if chosen.get("device", "cpu") not in ("cpu", "cuda"):
        raise UserError(f"device={chosen['device']!r}: expected cpu or cuda")
    return chosen


def knowledge(dataset: Dataset, env: str | None, cfg: EnsembleConfig) -> TaskKnowledge:
    """What the model need not learn: how its inputs are made and when episodes end; the reward where the data set has none.

    Raises:
        UserError: a function of the user's for a reward that is recorded.
    """
    if cfg.reward not in ("auto", "learned"):
        raise UserError(f"dynamics.reward={cfg.reward}: a fit learns the recorded reward; a run that uses the model takes it")
    if env is None:
        task = TaskKnowledge()
    else:
        task = task_knowledge(env, dataset.spec(), dataset.env_kwargs, "learned", cfg.termination)._replace(reward_part=None)
    return task if dataset.has_reward else task._replace(reward=no_reward)


def no_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Nothing, [B]: of a log without rewards the model learns the observations alone."""
    return torch.zeros(obs.shape[:-1], device=obs.device)
