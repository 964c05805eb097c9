"""What can be said of a stored model and of its penalties on a data set, before a policy is trained: `mbkit dynamics report`."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mbkit.accelerate import same_random_numbers, seed_everything
from mbkit.data import Dataset, read
from mbkit.diagnostics.coverage import action_coverage
from mbkit.diagnostics.penalties import DEPTHS, LEAST, penalty_quality
from mbkit.diagnostics.summary import diagnose_model
from mbkit.diagnostics.verdict import judged_depth, penalty_verdict, verdicts
from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.terminals import explained, true_successors
from mbkit.envs import task_knowledge
from mbkit.envs.dimensions import dimension_names
from mbkit.errors import UserError
from mbkit.recipes.measures import MEASURES, possible
from mbkit.recording import shown
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.recorded import RecordedRows
from mbkit.run.data import RunData
from mbkit.run.fitting import no_reward
from mbkit.run.stored_model import stored_config
from mbkit.types import Recorded, TaskKnowledge, TerminationFn, Transition

SEED = 0  # of the model rollouts
MOST_OF_IT = 0.5  # share of the reward in a penalty from which on it is told


def report_on(file: str | Path, data: str | Path | Dataset) -> dict[str, Any]:
    """Everything that `mbkit dynamics report` shows, as values that JSON can hold once NaN is replaced.

    Args:
        file: a `dynamics.pt`.
        data: a data set, or the path of one.

    Returns:
        `model` and `data`: which they are; `one_step`, `calibration`, `horizon`, `epistemic`, and `return_gap` where rewards are compared:
        see `diagnose_model`; `rollouts` and `penalties`: see `penalty_quality`; `coverage`: see `action_coverage`, with `names`, `low` and
        `high` of the actions; `dimensions`: names of the predicted ones; `verdict`: one line on the penalties; `notes`: further sentences.

    Raises:
        UserError: a file that is missing, damaged or not of this kind, a model of other dimensions or of another task than the data, or too
            few rows.
    """
    path = Path(file)
    content = files.read(path)
    dataset = data if isinstance(data, Dataset) else read(data)
    check_same_task(path, content, dataset)
    with same_random_numbers():
        model, mean = stored_for(path, content, dataset), stored_for(path, content, dataset, propagation="expectation")
    source = RunData.of(dataset)
    buffer = source.buffer(model.spec)
    rows = RecordedRows(buffer).all()
    true = true_successors(rows)
    if (count := int(true.sum())) < LEAST:
        raise UserError(f"{dataset.name} has {count} rows with a true successor; a report on a model needs at least {LEAST}")
    held_out = buffer if bool(true.all()) else with_true(buffer, true)
    measures = {name: MEASURES[name] for name in possible(model.members, model.cfg.probabilistic)}
    with same_random_numbers():
        seed_everything(SEED)
        facts = diagnose_model(model, held_out, least=LEAST)
        rollouts, penalties = penalty_quality(mean, held_out, measures)
    if not rewards_compare(content, dataset, model):
        facts.pop("return_gap", None)
    of = {"in_sample": fitted_to(content, source.about["sha256"], rows), "env": dataset.env}
    of |= {key: source.about[key] for key in ("path", "sha256", "rows", "episodes")}
    described = {"model": about(path, content, model), "data": of, **facts, "rollouts": rollouts, "penalties": penalties}
    described |= {"coverage": coverage_of(dataset, rows.action), "dimensions": dimensions(source, dataset, model)}
    described["notes"] = notes(described, dataset, true, rows, model.task.termination)
    told = penalty_verdict(penalties, rollouts["depths"])
    return {**described, "verdict": f"{told}; in-sample, since {path.name} was fitted to these rows" if of["in_sample"] else told}


def check_same_task(path: Path, content: dict[str, Any], dataset: Dataset) -> None:
    """UserError where the model has other dimensions than the data set, or is of another task."""
    spec, fits = dataset.spec(), content["fits"]
    stored = tuple(fits.get(key) for key in ("observation dimensions", "action dimensions", "discrete actions"))
    if stored != (spec.obs_dim, spec.action_dim, spec.discrete):
        has, came = (
            f"{obs} observation{'s' * (obs != 1)} and {actions} {'discrete ' * bool(discrete)}action{'s' * (actions != 1)}"
            for obs, actions, discrete in (stored, (spec.obs_dim, spec.action_dim, spec.discrete))
        )
        raise UserError(f"{shown(path)} is a model of {has}, but {dataset.name} has {came}")
    env = content["meta"].get("env")
    if isinstance(env, str) and dataset.env is not None and env != "none" and files.family(env) != files.family(dataset.env):
        raise UserError(f"{shown(path)} is a model of {env}, but {dataset.name} was recorded on {dataset.env}")


def stored_for(path: Path, content: dict[str, Any], dataset: Dataset, **options: str) -> Ensemble:
    """The ensemble in the file as learners from data load it by default, with other `dynamics.*` options where they are named.

    Functions of a user's that the file names are not imported. The model predicts the reward where it learned it and the task's is not
    known; of data without rewards it predicts observations alone.
    """
    fits, meta = content["fits"], content["meta"]
    learned = {key: str(fits.get(key)).startswith("learned") for key in ("reward", "termination")}
    termination = "learned" if learned["termination"] else "never" if content["cfg"].get("termination") == "never" else "auto"
    env = dataset.env if dataset.env is not None else meta.get("env", "none")
    if env == "none":
        task = TaskKnowledge()
    else:
        kwargs = dataset.env_kwargs if dataset.env is not None else dict(meta.get("env_kwargs") or {})
        task = task_knowledge(str(env), dataset.spec(), kwargs, "auto", termination)
    if not dataset.has_reward or (task.reward is None and not learned["reward"]):
        task = task._replace(reward=no_reward, reward_part=None)
    return Ensemble(dataset.spec(), stored_config(path, content, reward="auto", termination=termination, **options), task)


def rewards_compare(content: dict[str, Any], dataset: Dataset, model: Ensemble) -> bool:
    """Whether returns in the model are those of the data: rewards are recorded, and its functions are not a user's that is not at hand."""
    user = any(":" in str(content["cfg"].get(key, "")) for key in ("reward", "termination"))
    return dataset.has_reward and model.task.reward is not no_reward and not user


def with_true(buffer: ReplayBuffer, true: Tensor) -> ReplayBuffer:
    """The rows of a whole data set whose successor is the true one, bool [N]; an episode without its last row ends one row earlier."""
    rows = buffer.rows_at(buffer.order())
    followed = torch.cat((true[1:], true.new_ones(1)))
    rows = rows._replace(ended=rows.ended | ~followed)
    rest = Experience(*(column[true] for column in rows))
    other = ReplayBuffer(len(rest.reward), buffer.spec)
    other.extend(rest, column=0)
    return other


def fitted_to(content: dict[str, Any], sha256: str, rows: Recorded) -> bool:
    """Whether the model was fitted to these very rows: by the data set's fingerprint in the file, or by that of the rows."""
    return bool(sha256 == content["meta"].get("data") or files.fingerprint(Transition(*rows[:5])) == content["fitted"].get("fingerprint"))


def about(path: Path, content: dict[str, Any], model: Ensemble) -> dict[str, Any]:
    """Which model it is."""
    cfg = model.cfg
    facts = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "env": content["meta"].get("env")}
    facts |= {name: getattr(cfg, name) for name in ("members", "elites", "probabilistic", "propagation")}
    learned = str(content["fits"].get("reward")).startswith("learned")
    reward = {"learns_reward": model.task.reward is None, "ignores_reward": learned and model.task.reward is not None}
    return {**facts, "fitted_rows": content["fitted"].get("rows"), **reward}


def dimensions(source: RunData, dataset: Dataset, model: Ensemble) -> list[str]:
    """Names of the predicted dimensions: those of the data set, else of the task, then the reward where it is predicted."""
    names = list(dataset.obs_names) or dimension_names(dataset.env or "none", source.spaces()[0])
    return [*names, "reward"] if model.task.reward is None else names


def coverage_of(dataset: Dataset, action: Tensor) -> dict[str, Any]:
    """`action_coverage`, with names and bounds."""
    spread = action_coverage(action, dataset.choices)
    if dataset.choices:
        return {"names": [str(dataset.start + n) for n in range(dataset.choices)], **spread}
    low, high = (bound.tolist() for bound in dataset.box)
    names = list(dataset.action_names) or [f"action {n}" for n in range(dataset.action_dim)]
    return {"names": names, "low": low, "high": high, **spread}


def notes(facts: dict[str, Any], dataset: Dataset, true: Tensor, rows: Recorded, termination: TerminationFn | None) -> list[str]:
    """What the user should know beside the verdict, a sentence each."""
    told = list(dataset.notes)
    if left := int((~true).sum()):
        told.append(f"{left} rows that end an episode have no true successor and are left out.")
    if short := facts["rollouts"]["left_out"]:
        told.append(
            f"Fewer than {LEAST} windows lie inside an episode for depth {' and '.join(map(str, short))}: "
            f"reported at {', '.join(map(str, facts['rollouts']['depths']))} of {', '.join(map(str, DEPTHS))}."
        )
    if not dataset.has_reward:
        told.append("The data have no rewards: errors and penalties are those of the observations alone.")
    if facts["model"]["ignores_reward"] and dataset.has_reward:
        told.append("The reward of the task is known: what the model learned of it is left out, as by learners with dynamics.reward=auto.")
    told += reward_share(facts)
    if termination is not None and (figures := explained(termination, rows, true)).terminals:
        told.append(f"Termination function on the data: {figures}.")
    return [*told, *(f"{sentence}." for sentence in verdicts(facts, f"of {Path(dataset.name).name}"))]


def reward_share(facts: dict[str, Any]) -> list[str]:
    """A sentence where the learned reward makes up most of a penalty, whose errors are those of observations."""
    depth, reward = str(judged_depth(facts["rollouts"]["depths"])), facts["model"]["learns_reward"]
    share = {name: by_depth[depth]["share_by_dimension"][-1] for name, by_depth in facts["penalties"].items()} if reward else {}
    most = [f"{name} ({value:.0%})" for name, value in share.items() if value > MOST_OF_IT]
    made_up = f"The learned reward makes up most of {', '.join(most)} at depth {depth}, while errors count observations alone."
    return [made_up] if most else []
