"""Between mbrl-lib's results directories and mbkit: weights, normaliser, elites and replay, both ways, without mbrl-lib itself.

Letters: E members, M rows, O observation, A action, D prediction, I input. mbrl-lib sees actions in the environment's units, mbkit in
[-1, 1]: `action_bounds` (lowest, highest; [A] each) are those of the environment's units; None: they are [-1, 1], too.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.mbrl.dynamics import check_sizes, model_sizes
from mbkit.dynamics.mbrl.files import (
    Network,
    Stats,
    read_columns,
    read_network,
    read_stats,
    write_columns,
    write_network,
    write_settings,
    write_stats,
)
from mbkit.dynamics.mbrl.settings import ACTIVATION, Settings, named_process, read_settings
from mbkit.dynamics.network import EnsembleNetwork
from mbkit.errors import UserError
from mbkit.paths import make_folder
from mbkit.replay.buffer import Experience
from mbkit.types import EnvSpec, TaskKnowledge

Bounds = tuple[Sequence[float], Sequence[float]]


def centre_and_half(bounds: Bounds | None, dim: int) -> tuple[Tensor, Tensor]:
    """Environment's units = centre + half * action, float64 [A] each."""
    if bounds is None:
        return torch.zeros(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64)
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in bounds)
    if low.shape != (dim,) or high.shape != (dim,) or not (low < high).all():
        raise UserError(f"action bounds must be {dim} numbers each, the lowest below the highest; came: {bounds}")
    return (low + high) / 2, (high - low) / 2


# --- the model -----------------------------------------------------------------------------------------------------------------------


def import_ensemble(
    directory: str | Path,
    spec: EnvSpec,
    task: TaskKnowledge = TaskKnowledge(),
    cfg: EnsembleConfig | None = None,
    action_bounds: Bounds | None = None,
) -> Ensemble:
    """The GaussianMLP that mbrl-lib saved, as an `Ensemble` with the same means and variances.

    Sizes, elites and log-variance bounds come from the files, training and propagation from `cfg`; without `.hydra/config.yaml`, the
    activation is taken to be SiLU, and which outputs are differences from `cfg.delta` and `task.absolute`.

    Raises:
        UserError: a file is missing, damaged or foreign; its dimensions are not the environment's; its activation is not SiLU; it learned
            rewards where one is known, or the other way round.
    """
    network, cfg = read_network(directory), cfg or EnsembleConfig()
    task = task._replace(reward_part=None)  # mbrl-lib learns whole rewards
    first, outputs = network.layers[0][0], network.layers[-1][0].shape[2] // (1 if network.bounds is None else 2)
    default = Settings(target_is_delta=cfg.delta, no_delta=task.absolute, learned_rewards=task.reward is None)
    settings = read_settings(directory) or default
    if settings.activation != ACTIVATION["silu"]:
        raise UserError(
            f"{directory}: the saved model's activation is {settings.activation}; expected {ACTIVATION['silu']}, the Ensemble's"
        )
    if settings.learned_rewards != (task.reward is None):
        raise UserError(
            f"{directory}: the saved model {'learned' if task.reward else 'did not learn'} rewards; expected the same of the Ensemble"
        )
    process = task.preprocess or named_process(settings.obs_process)
    check_sizes(Path(directory), (first.shape[1], outputs), model_sizes(spec, process, settings))
    members = first.shape[0]
    elites = tuple(range(members)) if network.elites is None else network.elites
    structure = replace(
        cfg,
        members=members,
        elites=len(elites),
        hidden=tuple(weight.shape[2] for weight, _ in network.layers[:-1]),
        probabilistic=network.bounds is not None,
        delta=settings.target_is_delta,
        scale_targets=False,
        load=None,
    )
    ensemble = Ensemble(spec, structure, task._replace(preprocess=process, absolute=settings.no_delta))
    fill(ensemble.network, network, elites, scaled(read_stats(directory, first.shape[1]), spec.action_dim, first.shape[1], action_bounds))
    ensemble.refresh()
    return ensemble


def scaled(stats: Stats | None, action_dim: int, inputs: int, bounds: Bounds | None) -> Stats:
    """`stats` for inputs whose actions are in [-1, 1] rather than in the environment's units."""
    mean, std = (torch.zeros(inputs), torch.ones(inputs)) if stats is None else stats
    mean, std = mean.double().clone(), std.double().clone()
    centre, half = centre_and_half(bounds, action_dim)
    mean[-action_dim:] = (mean[-action_dim:] - centre) / half
    std[-action_dim:] /= half
    return Stats(mean, std)


@torch.no_grad()
def fill(target: EnsembleNetwork, source: Network, elites: tuple[int, ...], stats: Stats) -> None:
    """Write weights, elites, bounds and normaliser into a network of the same sizes."""
    for weight, bias, (new_weight, new_bias) in zip(target.net.weight, target.net.bias, source.layers, strict=True):
        weight.copy_(new_weight)
        bias.copy_(new_bias)
    if source.bounds is not None:
        target.logvar_bounds.copy_(torch.stack(source.bounds))
    target.elites.copy_(torch.tensor(elites))
    target.inputs.mean.copy_(stats.mean)
    target.inputs.std.copy_(stats.std)


def export_ensemble(ensemble: Ensemble, directory: str | Path, action_bounds: Bounds | None = None) -> None:
    """Write `model.pth`, `env_stats.pickle` and `.hydra/config.yaml`: mbrl-lib's `create_one_dim_tr_model` builds the same model from them.

    Target scaling y -> t y + u is folded into the last layer; log-variances and their bounds move by 2 log t, as the soft bounds allow.
    `preprocess` goes along by its import path; to train on, mbrl-lib also hands it arrays.

    Raises:
        UserError: the ensemble has parts that mbrl-lib cannot express; nothing is written then.
    """
    refuse_inexpressible(ensemble)
    path = Path(directory)
    make_folder(path)
    cfg, task, trained = ensemble.cfg, ensemble.task, ensemble.network
    stats = Stats(trained.inputs.mean.double().cpu(), trained.inputs.std.double().cpu())
    centre, half = centre_and_half(action_bounds, ensemble.spec.action_dim)
    stats.mean[-len(half) :] = centre + half * stats.mean[-len(half) :]
    stats.std[-len(half) :] *= half
    elites = None if cfg.elites == cfg.members else tuple(trained.elites.tolist())
    network = Network(unscaled_layers(trained), unscaled_bounds(trained), elites)
    absolute = task.absolute if cfg.delta else ()
    settings = Settings(ACTIVATION["silu"], cfg.delta, absolute, import_path(task.preprocess), task.reward is None)
    write_network(path, network)
    write_stats(path, stats)
    write_settings(path, settings, network, normalize=True)


def refuse_inexpressible(ensemble: Ensemble) -> None:
    """UserError for the first part of the ensemble that a GaussianMLP in a OneDTransitionRewardModel cannot express."""
    cfg, process = ensemble.cfg, ensemble.task.preprocess
    if ensemble.network.learns_termination:
        raise UserError("mbrl-lib cannot express a learned termination; expected a known one or none (dynamics.termination)")
    if ensemble.reward_part is not None:
        raise UserError("mbrl-lib's models learn whole rewards; came: an ensemble that learned a part and knows the rest")
    if len(set(cfg.hidden)) != 1:
        raise UserError(f"mbrl-lib's GaussianMLP has one or more hidden layers of one width; came: dynamics.hidden={cfg.hidden}")
    if ensemble.spec.discrete:
        raise UserError("mbrl-lib's models take vectors as actions; came: an ensemble for discrete actions")
    if process is not None and import_path(process) is None:
        raise UserError(f"mbrl-lib names observation processing by its import path; expected a function of a module, came: {process!r}")


def import_path(function: Any) -> str | None:
    """`package.module.name` under which the function can be imported again; None for none, lambdas, closures and partial functions."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<>")
    if module in (None, "__main__") or "<" in name:
        return None
    part: Any = import_module(module)
    for attribute in name.split("."):
        part = getattr(part, attribute, None)
    return f"{module}.{name}" if part is function else None


def target_scale(network: EnsembleNetwork) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of the targets, float64 [D]; 1 and 0 where they are not scaled."""
    return network.targets.std.double(), network.targets.mean.double()


@torch.no_grad()
def unscaled_layers(network: EnsembleNetwork) -> list[tuple[Tensor, Tensor]]:
    """Weights [E, in, out] and biases [E, 1, out] that predict raw targets."""
    pairs = zip(network.net.weight, network.net.bias, strict=True)
    layers = [(weight.detach().double(), bias.detach().double()) for weight, bias in pairs]
    (t, u), (weight, bias) = target_scale(network), layers[-1]
    if network.cfg.probabilistic:  # the second half of the outputs are raw log-variances
        ones = torch.ones_like(t)
        layers[-1] = weight * torch.cat([t, ones]), bias * torch.cat([t, ones]) + torch.cat([u, network.log_scale()])
    else:
        layers[-1] = weight * t, bias * t + u
    return [(weight.float(), bias.float()) for weight, bias in layers]


def unscaled_bounds(network: EnsembleNetwork) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest log-variance [D] of the raw targets; None for deterministic members."""
    if not network.cfg.probabilistic:
        return None
    low, high = (network.logvar_bounds.detach().double() + network.log_scale()).float()
    return low, high


# --- replay --------------------------------------------------------------------------------------------------------------------------


def read_replay(directory: str | Path, action_bounds: Bounds | None = None) -> Experience:
    """`replay_buffer.npz` as consecutive rows [M] of one environment, for `ReplayBuffer.extend(rows, column=0)`.

    mbrl-lib stores neither where its ring was cut nor every end of an episode, so a row also counts as ended where the next one does not
    go on from its `next_obs`.
    """
    columns = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in read_columns(directory).items()}
    obs, next_obs = columns["obs"], columns["next_obs"]
    if obs.ndim != 2 or columns["action"].ndim != 2:
        shapes = f"{tuple(obs.shape)} and {tuple(columns['action'].shape)}"
        raise UserError(f"{directory}: expected vectors as observations and actions; came: columns of shape {shapes}")
    centre, half = centre_and_half(action_bounds, columns["action"].shape[1])
    ended = columns["terminated"] | columns["truncated"]
    ended[:-1] |= (next_obs[:-1] != obs[1:]).any(1)
    action = (columns["action"].double() - centre) / half
    return Experience(obs.float(), action.float(), columns["reward"].float(), next_obs.float(), columns["terminated"], ended)


def write_replay(directory: str | Path, rows: Experience, action_bounds: Bounds | None = None) -> None:
    """Rows [M] (`buffer.rows_at(buffer.order())`) as `replay_buffer.npz`; where an episode ended without terminating it is truncated."""
    if rows.action.ndim != 2:
        raise UserError("mbrl-lib's replay takes vectors as actions; came: discrete actions")
    centre, half = centre_and_half(action_bounds, rows.action.shape[1])
    path = Path(directory)
    make_folder(path)
    action = (centre + half * rows.action.cpu().double()).float()
    columns = rows._replace(action=action)._asdict() | {"truncated": rows.ended & ~rows.terminated}
    del columns["ended"]
    write_columns(path, {name: value.cpu().numpy() for name, value in columns.items()})
