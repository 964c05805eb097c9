"""Policies judged by a data set: what they would earn, estimated without stepping an environment, and how runs rank by it.

Letters: N rows, E first states, K members or model paths.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbkit.accelerate import same_random_numbers, seed_everything
from mbkit.diagnostics.fqe import FittedQ, FQEConfig
from mbkit.diagnostics.intervals import resampled
from mbkit.diagnostics.model_value import first_states, model_value
from mbkit.envs.spaces import ActionMap
from mbkit.errors import UserError
from mbkit.recording.progress import Progress
from mbkit.registry import nearest
from mbkit.replay.windows import episodes as episodes_in
from mbkit.run.evaluation import whole_number
from mbkit.run.run import Run
from mbkit.run.stored_model import model_for
from mbkit.types import PolicyFn, Transition

if TYPE_CHECKING:
    from mbkit.data import Dataset

METHODS = ("fqe", "model", "environment")
Load = Callable[[str | Path], Run]  # a run directory, as RUN, RUN@best or RUN@STEP -> the run


class PolicyValue(NamedTuple):
    """The discounted return of a run's policy by one method, with a 95 % interval whose limits are NaN for a single value."""

    run: str
    method: str
    value: float
    low: float
    high: float


class Judging(NamedTuple):
    """What to estimate, and how."""

    methods: tuple[str, ...] = ("fqe",)
    horizon: int | None = None  # model steps; None: the data set's longest episode
    dynamics: str | Path | None = None  # file of the model; None: the run's
    gamma: float | None = None  # discount; None: the run's
    seed: int = 0  # of critics, batches, model paths and intervals, the same for every run
    episodes: int = 10  # of the method environment
    fqe: FQEConfig = FQEConfig()


def judging(method: str | Sequence[str], updates: int | None = None, **options: Any) -> Judging:
    """Checked options; UserError for an unknown method, or a value that is none."""
    methods = tuple(name.strip() for name in method.split(",")) if isinstance(method, str) else tuple(method)
    for name in methods:
        if name not in METHODS:
            raise UserError(f"method={name}: unknown method {name!r}; {nearest(name, METHODS)}")
    if not methods or len(set(methods)) < len(methods):
        raise UserError(f"method={method}: expected some of {', '.join(METHODS)}, each once")
    owners = {"horizon": "model", "dynamics": "model"}
    for option, owner in owners.items():
        if options.get(option) is not None and owner not in methods:
            raise UserError(f"{option}={options[option]} counts only for the method {owner}; came method={','.join(methods)}")
    if options.get("horizon") is not None:
        options["horizon"] = whole_number("horizon", options["horizon"], low=1)
    gamma = options.get("gamma")
    if gamma is not None and not 0 <= gamma < 1:
        raise UserError(f"gamma={gamma} is out of range: expected in [0, 1)")
    options = {key: value for key, value in options.items() if value is not None}
    fqe = FQEConfig() if updates is None else FQEConfig(updates=whole_number("updates", updates, low=1))
    return Judging(methods, fqe=fqe, **options)


def judge(runs: Sequence[Run | str | Path], dataset: "Dataset", options: Judging, load: Load) -> list[PolicyValue]:
    """Estimates of every run by every method, run by run; `load` opens directories, as RUN, RUN@best or RUN@STEP.

    Raises:
        UserError: a data set of other dimensions or another action box, a run that plans its actions, a method that lacks what it needs.
    """
    estimates = []
    gammas: dict[float, str] = {}
    rows: dict[torch.device, Transition] = {}  # of the data set, where a run's policy is
    for run in runs:
        opened = run if isinstance(run, Run) else load(run)
        try:
            name = str(opened.path) if isinstance(run, Run) else str(run)
            check(opened, name, dataset)
            gammas.setdefault(opened.config.gamma, name)
            if options.gamma is None and len(gammas) > 1:
                (first, one), (second, other) = gammas.items()
                raise UserError(f"{one} has gamma={first:g} and {other} gamma={second:g}: expected one discount, gamma=G, to compare them")
            spec = opened.parts.spec
            if spec.device not in rows:
                rows[spec.device] = dataset.buffer(spec).all()
            estimates += estimated(opened, name, dataset, rows[spec.device], options)
        finally:
            if not isinstance(run, Run):
                opened.close()
    return estimates


def check(run: Run, name: str, dataset: "Dataset") -> None:
    """UserError where a run's policy cannot be judged by this data set."""
    c = run.config
    if c.planner is not None:
        raise UserError(
            f"{name}: {c.algo} has no policy but plans each action by a search, of which every row of the data set would need one; "
            f"`mbkit evaluate {name}` scores it in its environment"
        )
    has, wants = dataset.spec(), run.parts.spec._replace(device=torch.device("cpu"))
    if has != wants:
        here, there = (f"{s.obs_dim} observations and {s.action_dim} {'discrete ' * s.discrete}actions" for s in (has, wants))
        raise UserError(f"data={dataset.name} has {here}; the policy of {name} expects {there}")
    if not wants.discrete:
        box = ActionMap(run.spaces[1], c.env)
        if not (np.allclose(box.low.reshape(-1), dataset.box[0]) and np.allclose(box.high.reshape(-1), dataset.box[1])):
            here, there = (
                f"{np.reshape(low, -1).tolist()} to {np.reshape(high, -1).tolist()}" for low, high in (dataset.box, (box.low, box.high))
            )
            raise UserError(f"data={dataset.name} has actions in {here}; the policy of {name} acts in {there}")


def estimated(run: Run, name: str, dataset: "Dataset", rows: Transition, options: Judging) -> list[PolicyValue]:
    """The estimates of one run, in the order of the methods; `rows`: all of the data set."""
    gamma = run.config.gamma if options.gamma is None else options.gamma
    if gamma >= 1:
        raise UserError(
            f"{name} has gamma={gamma:g}: expected a discount below 1, gamma=G, since values of an endless future are estimated"
        )
    actor = run.parts.actor
    policy: PolicyFn = lambda obs: actor.act(obs, explore=False)  # noqa: E731
    spec = run.parts.spec
    starts = first_states(rows.obs[torch.from_numpy(dataset.lengths.cumsum() - dataset.lengths).to(spec.device)])
    values: dict[str, Tensor] = {}
    beyond = None
    with same_random_numbers(), torch.no_grad():
        seed_everything(options.seed)
        if "fqe" in options.methods:
            fitted = fitted_q(run, name, dataset, rows, policy, gamma, options)
            values["fqe"], beyond = fitted.value(starts), lambda obs: fitted.value(obs).mean(0)
        if "model" in options.methods:
            seed_everything(options.seed)
            horizon = int(dataset.lengths.max()) if options.horizon is None else options.horizon
            values["model"] = model_value(model_for(run, options.dynamics), policy, starts, horizon, gamma, beyond)
        if "environment" in options.methods:
            values["environment"] = measured(run, options, gamma)
    return [PolicyValue(name, method, *resampled(values[method], options.seed)) for method in options.methods]


def fitted_q(run: Run, name: str, dataset: "Dataset", rows: Transition, policy: PolicyFn, gamma: float, options: Judging) -> FittedQ:
    """Critics of the run's policy, fitted."""
    if not dataset.has_reward:
        raise UserError(f"data={dataset.name} has no rewards, from which the method fqe estimates the value of {name}")
    with torch.enable_grad():
        fitted = FittedQ(rows, policy, run.parts.spec, gamma, options.fqe)
        progress = Progress(options.fqe.updates, unit="update")
        try:
            fitted.fit(progress.advance)
        finally:
            progress.close()
    return fitted


def measured(run: Run, options: Judging, gamma: float) -> Tensor:
    """Discounted returns of whole episodes in the run's environment, from its own first states, [1, E]."""
    result = run.evaluate(options.episodes, keep_rows=True)
    whole = episodes_in(result.buffer(run.parts.spec))
    return torch.stack([(gamma ** torch.arange(len(e.reward), dtype=torch.float64) * e.reward.double().cpu()).sum() for e in whole])[None]


def as_row(estimate: PolicyValue) -> dict[str, Any]:
    """An estimate as JSON holds it: limits that are not known are null."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in estimate._asdict().items()}
