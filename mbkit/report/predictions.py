"""One episode of a trained policy, and what the run's model predicts along it: the numbers behind the pictures of a report.

Letters: T steps of the episode, O observation, A action, S starts, H horizon, P particles, Q positions, V velocities of the simulator.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbkit.accelerate import same_random_numbers, seed_everything
from mbkit.diagnostics.measures import model_path, spread
from mbkit.dynamics.uncertainty import aleatoric, epistemic
from mbkit.errors import UserError
from mbkit.paths import is_file
from mbkit.planning.mpc import MPC
from mbkit.report.collect import Floats
from mbkit.run.closing import acting
from mbkit.run.evaluation import evaluation_seed
from mbkit.storage import replacing
from mbkit.types import Actor, Dynamics, Predictive

if TYPE_CHECKING:
    from mbkit.envs import Environment
    from mbkit.run import Run

STEPS = 100  # steps of the episode, at most
PARTICLES = 40  # model rollouts from each start
AHEAD = 30  # steps that are predicted, at most; of a planner, its horizon
STARTS = 5  # times at which the plan, or the policy's rollouts in the model, are shown
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RESTART = 25  # steps after which the film's model starts again from the real state


class Predictions(NamedTuple):
    """An episode and its predictions; arrays of floats, NaN where there is nothing."""

    names: list[str]  # of the O dimensions
    obs: Floats  # [T + 1, O]
    fan_start: int  # step from which `fan` predicts
    fan: Floats  # [P, H + 1, O] model rollouts under the actions that were taken
    plan_starts: Floats  # [S] steps
    plans: Floats  # [S, 5, H + 1, O] quantiles over particles of what was planned, or of the policy's rollouts in the model
    planned: bool  # by a planner; else the policy acts in the model
    epistemic: Floats  # [T] standard deviation over members, one step ahead, in standard deviations of the change
    aleatoric: Floats  # [T] the same of the members' noise
    error: Floats  # [T] of the members' mean, the same
    replayed: Floats  # [T + 1, O] a rollout that starts again from the real state every RESTART steps
    qpos: Floats  # [T + 1, Q] of the simulator; Q = 0 where the task is not one of MuJoCo
    qvel: Floats  # [T + 1, V]


class _Episode(NamedTuple):
    obs: Tensor  # [T + 1, O]
    action: Tensor  # [T, A] or [T]
    plans: list[Tensor]  # T of [1, H, A], what is left of the plan whose first action was executed
    states: list[tuple[Floats, Floats]]  # T + 1 of (qpos, qvel), or none


def predictions(run: "Run", steps: int = STEPS) -> Predictions:
    """Act for one evaluation episode, of at most so many steps, and let the model predict along it; leaves the run as it was.

    Raises:
        UserError: the run has no environment, no learned model, or a model that was never fitted.
    """
    model = run.parts.dynamics
    if run.config.env == "none":
        raise UserError("the run has no environment (env=none), in which an episode could be shown")
    if model is None or not isinstance(model, Dynamics) or not isinstance(model, Predictive):
        raise UserError(f"the run of {run.config.algo} has no learned model whose predictions could be shown")
    with same_random_numbers(), torch.no_grad():
        seed_everything(run.config.seed)
        first = evaluation_seed(run.config.seed)
        with acting(run.variant(None)(1, first), run.parts.actor_for) as (env, actor):
            episode = _acted(env, actor, first, steps)
            names = env.dimension_names
            return _predicted(model, actor, episode, names, run.parts.spec.device)


def _acted(env: "Environment", actor: Actor, seed: int, steps: int) -> _Episode:
    """One episode, or its first steps."""
    obs = env.reset(seed)
    actor.reset(torch.ones(1, dtype=torch.bool))
    path, actions, plans, states = [obs[0].clone()], [], [], _simulator(env)
    for _ in range(steps):
        action = actor.act(obs, explore=False).cpu()
        if isinstance(actor, MPC):
            state = actor.state_dict()
            plans.append(state["plan"]["actions"][:, state["executed"] - 1 :])
        out = env.step(action)
        path.append(out.next_obs[0].clone())
        actions.append(action[0])
        obs = out.obs
        if bool(out.terminated[0] | out.truncated[0]):
            break
        states += _simulator(env)
    return _Episode(torch.stack(path), torch.stack(actions), plans, states)


def _simulator(env: "Environment") -> list[tuple[Floats, Floats]]:
    """Positions and velocities of MuJoCo; empty where the task is none of its."""
    data: Any = getattr(getattr(env.envs[0], "unwrapped", None), "data", None) if env.envs else None
    return [(data.qpos.copy(), data.qvel.copy())] if hasattr(data, "qpos") and hasattr(data, "qvel") else []


def _predicted(model: Any, actor: Actor, episode: _Episode, names: list[str], device: torch.device) -> Predictions:
    obs, action = episode.obs.to(device), episode.action.to(device)
    length = len(action)
    horizon = min(AHEAD, length)
    start = (length - horizon) // 2
    rollouts = _open_loop(model, obs[start : start + 1], action[None, start : start + horizon])
    gap = max(1, length // STARTS)
    starts = list(range(0, length, gap))[:STARTS]
    planned = [_planned(model, actor, obs[t : t + 1], episode.plans[t].to(device) if episode.plans else None) for t in starts]
    one_step = model.predict(obs[:-1], action)
    dims = obs.shape[-1]
    scale = spread(obs[1:] - obs[:-1])
    missed = (one_step.mean.mean(0)[:, :dims] - obs[1:]) / scale
    replayed = obs.clone()
    for begin in range(0, length, RESTART):
        segment = action[None, begin : begin + RESTART]
        replayed[begin + 1 : begin + 1 + segment.shape[1]] = _open_loop(model, obs[begin : begin + 1], segment, 1)[0, 1:]
        if begin + RESTART < length:
            replayed[begin + RESTART] = obs[begin + RESTART]
    states = episode.states
    return Predictions(
        names=names,
        obs=_floats(obs),
        fan_start=start,
        fan=_floats(rollouts),
        plan_starts=np.array(starts, dtype=np.float64),
        plans=_floats(torch.stack([path.quantile(path.new_tensor(QUANTILES), 0) for path in planned])),
        planned=bool(episode.plans),
        epistemic=_floats((epistemic(one_step)[:, :dims] / scale.square()).mean(-1).sqrt()),
        aleatoric=_floats((aleatoric(one_step)[:, :dims] / scale.square()).mean(-1).sqrt()),
        error=_floats(missed.square().mean(-1).sqrt()),
        replayed=_floats(replayed),
        qpos=np.array([qpos for qpos, _ in states]) if states else np.empty((0, 0)),
        qvel=np.array([qvel for _, qvel in states]) if states else np.empty((0, 0)),
    )


def _open_loop(model: Any, obs: Tensor, actions: Tensor, particles: int = PARTICLES) -> Tensor:
    """Rollouts [P, H + 1, O] from obs [1, O] under actions [1, H, A], with the first observation."""
    out = model.rollout(model.init(obs.repeat(particles, 1)), actions.repeat(particles, *(1 for _ in actions.shape[1:])))
    return torch.cat([obs.expand(particles, 1, -1), out.obs], 1)


def _planned(model: Any, actor: Actor, obs: Tensor, plan: Tensor | None) -> Tensor:
    """Rollouts [P, AHEAD + 1, O] of a plan [1, H, A], NaN beyond its end, or of the policy itself."""
    if plan is None:
        path = model_path(
            model, obs.repeat(PARTICLES, 1), lambda _, predicted: actor.act(predicted, explore=False).to(obs.device), AHEAD + 1
        )
        return path.obs.transpose(0, 1)
    rollout = _open_loop(model, obs, plan[:, :AHEAD])
    beyond = rollout.new_full((PARTICLES, AHEAD + 1 - rollout.shape[1], rollout.shape[2]), torch.nan)
    return torch.cat([rollout, beyond], 1)


def _floats(x: Tensor) -> Floats:
    values: Floats = x.double().numpy(force=True)
    return values


def fingerprint(directory: Path, step: int) -> str:
    """What predictions were made of: the step, and the model's file."""
    model = directory / "dynamics.pt"
    return f"{step} {hashlib.sha256(model.read_bytes()).hexdigest() if is_file(model) else ''}"


def save_predictions(file: Path, made_of: str, table: Predictions) -> None:
    """Write them as arrays, without pickle."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in table._asdict().items() if name != "names"}
    with replacing(file) as stream:
        np.savez_compressed(stream, about=np.array(json.dumps({"made_of": made_of, "names": table.names})), **arrays)


def load_predictions(file: Path, made_of: str) -> Predictions | None:
    """Stored predictions; None where there are none, or they are of another model or another version."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            about = json.loads(str(archive["about"]))
            if about["made_of"] != made_of:
                return None
            arrays = {name: archive[name] for name in Predictions._fields if name != "names"}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    arrays |= {"fan_start": int(arrays["fan_start"]), "planned": bool(arrays["planned"])}
    return Predictions(names=list(map(str, about["names"])), **arrays)
