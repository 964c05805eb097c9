"""A learned dynamics model as one file for other programs, from a `dynamics.pt`.

Its inputs are `obs` [batch, O] float32 and `action`, in the units of the task where the model's file knows them. Its outputs are `next_obs`
[batch, O], and where they were learned `reward` [batch] and `termination` [batch], a probability: the mean over the elites, without noise.
Letters: B batch, O observation, A action, P discrete actions taken at once, D outcome, K elites.
"""

import json
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mbkit.config.compose import filled
from mbkit.dynamics import files
from mbkit.dynamics.network import EnsembleConfig, EnsembleNetwork, encode_action
from mbkit.envs.known import preprocess
from mbkit.envs.rewards import never
from mbkit.errors import UserError
from mbkit.export.formats import ROWS, TOLERANCE, Exported, Graph, Outputs, format_of, write
from mbkit.networks.plain import member
from mbkit.storage import plain as plain_json
from mbkit.types import EnvSpec, State, TaskKnowledge

FORMAT = "mbkit dynamics 1"
ANYWHERE = 10.0  # standard deviations within which the half of the observations lies that is not like the data
CPU = torch.device("cpu")


def export_dynamics(file: str | Path, out: str | Path) -> Exported:
    """Write the model of a `dynamics.pt`; see `mbkit.export.export`."""
    file, out = Path(file), Path(out)
    format_of(out)
    network, meta = opened(file)
    return export_network(network, out, meta, str(file))


def export_network(network: EnsembleNetwork, out: str | Path, meta: State | None = None, name: str = "the model") -> Exported:
    """Write an ensemble's network, such as `Ensemble.network`; `meta`: what a `dynamics.pt` says of it, `name`: what messages call it.

    Raises:
        UserError: another suffix, observation processing that cannot be traced, or a file that differs from the network.
    """
    out, meta = Path(out), meta or {}
    network = deepcopy(network).cpu()
    units = Units.of(network.spec, meta, name)
    model, (obs, action) = ElitesMean(network, units), check_rows(network, units)
    part = "model" if network.task.preprocess is None else "observation processing"
    about = json.dumps(plain_json(description(network, units, meta)))
    graph = Graph(model, (obs[:2], action[:2]), ("obs", "action"), model.outputs, about, name, part)
    difference, replaced = write(graph, out, lambda outputs: compared(network, units, outputs, obs, action, out))
    return Exported(out, None, difference, replaced, tuple(notes(network, units)))


# --- the file that is read ----------------------------------------------------------------------------------------------------------


def opened(file: Path) -> tuple[EnsembleNetwork, State]:
    """The network in a `dynamics.pt`, on the CPU, and the file's `meta`. Of the task's formulas only its observation processing is needed.

    Raises:
        UserError: no such file, another one, or observation processing that no known task has.
    """
    content = files.read(file)
    stated, known = content["fits"], {f.name for f in fields(EnsembleConfig)} - {"load", "reward"}
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in content["cfg"].items() if key in known}
    termination = {"termination": "learned" if stated.get("termination") == "learned" else "never"}
    cfg = filled(EnsembleConfig, {**options, **termination}, "dynamics.")
    network = EnsembleNetwork(spec_of(stated, file), cfg, knowledge_of(stated, content["meta"]))
    if stated.get("observation processing") != files.probe(network):
        env = content["meta"].get("env")
        raise UserError(
            f"{file} cannot be exported: its model sees observations processed by a function that is not in the file and is not that of "
            f"env={env}; export_network(ensemble.network, out) in Python exports an ensemble that has it"
        )
    meta = files.load(network, file)[1]
    return network, meta


def spec_of(stated: State, file: Path) -> EnvSpec:
    """The dimensions that a file states; UserError where they are none."""
    obs, action, discrete = (stated.get(key) for key in ("observation dimensions", "action dimensions", "discrete actions"))
    parts = tuple(discrete) if isinstance(discrete, list) else ()
    if not isinstance(discrete, bool | list) or not all(type(size) is int and size > 0 for size in (obs, action, *parts)):
        raise UserError(f"{file} cannot be exported: expected numbers of dimensions, the file has {obs!r}, {action!r} and {discrete!r:.60}")
    return EnvSpec(int(obs), int(action), CPU, bool(discrete), parts)  # type: ignore[arg-type]


def knowledge_of(stated: State, meta: State) -> TaskKnowledge:
    """What the model of a file did not learn, with formulas that are not evaluated in place of those of its task."""
    absolute, env = stated.get("absolute dimensions"), meta.get("env")
    return TaskKnowledge(
        reward=unknown_reward if stated.get("reward") == "known" else None,
        termination=None if stated.get("termination") == "learned" else never,
        preprocess=preprocess(env) if isinstance(env, str) else None,
        absolute=tuple(absolute) if isinstance(absolute, list) else (),
        reward_part=unknown_reward if stated.get("reward") == "learned in part" else None,
    )


def unknown_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """A formula of the task's, which no file holds."""
    return obs.new_full(obs.shape[:-1], torch.nan)


# --- the model that is written ------------------------------------------------------------------------------------------------------


class Units(NamedTuple):
    """How the actions of a task become those that a model sees."""

    low: list[float] | None = None  # [A] bounds, which are [-1, 1] for the model; None: unknown, or discrete
    high: list[float] | None = None
    start: int | list[int] = 0  # the first discrete action, or that of each of P

    @classmethod
    def of(cls, spec: EnvSpec, meta: State, name: str) -> "Units":
        """The units that a file's `meta` states; UserError where they do not fit the model's actions."""
        if spec.discrete:
            start = meta.get("action_start", 0)
            numbers = start if isinstance(start, list) else [start] * max(1, len(spec.parts))
            if len(numbers) != max(1, len(spec.parts)) or not all(type(number) is int for number in numbers):
                raise UserError(f"{name} cannot be exported: its first actions are {start!r:.60}; expected a whole number for each part")
            return cls(start=start)
        low, high = meta.get("action_low"), meta.get("action_high")
        if low is None and high is None:
            return cls()
        for bound in (low, high):
            if not (isinstance(bound, list) and len(bound) == spec.action_dim and all(isinstance(x, int | float) for x in bound)):
                raise UserError(f"{name} cannot be exported: bounds of its actions are {bound!r:.60}; expected {spec.action_dim} numbers")
        return cls(low, high)

    @property
    def known(self) -> bool:
        """Whether bounds of the actions are known."""
        return self.low is not None

    def box(self, actions: int) -> tuple[Tensor, Tensor]:
        """Middle and half the width of a box of A actions, float64 [A]; a half is 1 where a side has no width."""
        low, high = (torch.tensor(bound or [end] * actions).double() for bound, end in ((self.low, -1.0), (self.high, 1.0)))
        return (low + high) / 2, torch.where(high > low, (high - low) / 2, 1.0)

    def scaled(self, spec: EnvSpec, action: Tensor) -> Tensor:
        """Actions of the task as the model sees them, computed as data sets do: what lies outside the box counts as its bounds."""
        if spec.discrete:
            return action - torch.tensor(self.start)
        middle, half = self.box(spec.action_dim)
        return ((action.double() - middle) / half).clamp(-1, 1).float()


def output_names(network: EnsembleNetwork) -> tuple[str, ...]:
    """What the file puts out: the reward where the whole of it was learned, termination where that was learned."""
    learned = network.task.reward is None and network.task.reward_part is None
    return ("next_obs", *["reward"] * learned, *["termination"] * network.learns_termination)


class ElitesMean(nn.Module):
    """obs [B, O], action [B, A] or int64 [B] or [B, P] in the units of the task -> a tensor or a tuple, by the names in `outputs`."""

    relative: Tensor
    middle: Tensor
    half_width: Tensor

    def __init__(self, network: EnsembleNetwork, units: Units) -> None:
        super().__init__()
        self.spec, self.dim = network.spec._replace(device=CPU), network.output_dim
        self.outputs, self.preprocess = output_names(network), network.task.preprocess
        self.layers = nn.ModuleList(member(network.net, e) for e in network.elites.tolist())
        self.inputs, self.targets = deepcopy(network.inputs), deepcopy(network.targets)
        box = (torch.tensor(units.start), torch.ones(())) if self.spec.discrete else units.box(self.spec.action_dim)
        for name, value in (("relative", network.relative.clone()), ("middle", box[0]), ("half_width", box[1])):
            self.register_buffer(name, value if self.spec.discrete else value.float())
        self.cpu().eval().requires_grad_(False)

    def forward(self, obs: Tensor, action: Tensor) -> Any:
        """The outputs."""
        action = action - self.middle if self.spec.discrete else ((action - self.middle) / self.half_width).clamp(-1, 1)
        encoded = obs if self.preprocess is None else self.preprocess(obs)
        x = self.inputs(torch.cat((encoded, encode_action(self.spec, action)), -1))
        out = torch.stack([layers(x) for layers in self.layers])  # [K, B, mean D | log-variance D | logit]
        outcome = self.targets.inverse(out[..., : self.dim].mean(0))
        results = [outcome[:, : self.spec.obs_dim] + obs * self.relative]
        results += [outcome[:, self.spec.obs_dim]] if "reward" in self.outputs else []
        results += [out[..., -1].sigmoid().mean(0)] if "termination" in self.outputs else []
        return results[0] if len(results) == 1 else tuple(results)


def description(network: EnsembleNetwork, units: Units, meta: State) -> State:
    """What a program should know of the model: task, data, the names of the observation's numbers, the units of the actions."""
    spec = network.spec
    if spec.discrete:
        action: State = {"kind": "discrete", "start": units.start, "numbers": list(spec.parts or (spec.action_dim,))}
    else:
        middle, half = units.box(spec.action_dim)
        action = {"kind": "continuous", "low": (middle - half).tolist(), "high": (middle + half).tolist(), "scaled": not units.known}
    facts = {key: meta.get(key) for key in ("env", "steps", "data", "obs_names", "action_names")}
    return {"format": FORMAT, **facts, "action": action, "members": network.cfg.members, "elites": network.elites.tolist()}


def notes(network: EnsembleNetwork, units: Units) -> list[str]:
    """What the user should know: an output or units that the file cannot have."""
    said = []
    if network.task.reward_part is not None:
        said.append("no output `reward`: the model has learned a part of it, and the rest, a formula of the task, is not in the file")
    elif network.task.reward is not None:
        said.append("no output `reward`: the model has learned none")
    if not network.spec.discrete and not units.known:
        said.append("`action` is in [-1, 1], as the model sees it: the file does not say in which units the task has it")
    return said


# --- comparison ---------------------------------------------------------------------------------------------------------------------


def check_rows(network: EnsembleNetwork, units: Units) -> tuple[Tensor, Tensor]:
    """Observations [ROWS, O], the first half like the data by their statistics, and actions, a sixth of them outside the box."""
    draw, spec = torch.Generator().manual_seed(0), network.spec
    anywhere = (torch.rand(ROWS // 2, spec.obs_dim, generator=draw) * 2 - 1) * ANYWHERE
    obs = torch.cat((torch.randn(ROWS - ROWS // 2, spec.obs_dim, generator=draw), anywhere))
    if network.task.preprocess is None:  # else the statistics are those of processed observations
        obs = obs * network.inputs.std[: spec.obs_dim] + network.inputs.mean[: spec.obs_dim]
    if spec.discrete:
        numbers = torch.tensor(spec.parts or spec.action_dim)
        choice = (torch.rand(ROWS, *spec.action_shape, generator=draw) * numbers).long()
        return obs, choice + torch.tensor(units.start)
    middle, half = units.box(spec.action_dim)
    return obs, (middle + half * (torch.rand(ROWS, spec.action_dim, generator=draw) * 2.4 - 1.2)).float()


@torch.no_grad()
def compared(network: EnsembleNetwork, units: Units, outputs: Outputs, obs: Tensor, action: Tensor, out: Path) -> float:
    """The largest difference of a file's outputs from the means of the ensemble's elites; UserError where one is too large.

    The limit grows with the largest number that the networks see, and with the size of what is added and multiplied behind them.
    """
    o, scaled = network.spec.obs_dim, units.scaled(network.spec, action)
    results = outputs(obs, action)
    results = results if isinstance(results, tuple) else (results,)
    x, mean = network.inputs(network.encode(obs, scaled)), network.predict(obs, scaled).mean[network.elites].mean(0)
    size = x.abs().amax(1, keepdim=True).clamp(min=1)
    middle, half = (torch.zeros(1), torch.ones(1)) if network.spec.discrete else units.box(network.spec.action_dim)
    size = size * (middle / half).abs().amax().clamp(min=1).float()  # float32 of a box far from zero
    limit = TOLERANCE * (size * network.targets.std + network.targets.mean.abs())
    limit[:, :o] += TOLERANCE * obs.abs()
    expected = {"next_obs": (mean[:, :o], limit[:, :o]), "reward": (mean[:, -1], limit[:, -1])}
    if network.learns_termination:
        logit = network.split(network.net(x))[2]
        expected["termination"] = (logit[network.elites].sigmoid().mean(0), TOLERANCE * size[:, 0])  # type: ignore[index]
    largest = 0.0
    for name, result in zip(output_names(network), results, strict=True):
        wanted, allowed = expected[name]
        difference = (result.double() - wanted.double()).abs()
        worst = int((difference / allowed).nan_to_num(torch.inf).argmax())
        if not difference.flatten()[worst] <= allowed.flatten()[worst]:
            came, most = float(difference.flatten()[worst]), float(allowed.flatten()[worst])
            raise UserError(
                f"{out} was not written: its {name} differs from that of the ensemble by {came:.2g}; expected at most {most:.2g}"
            )
        largest = max(largest, float(difference.max()))
    return largest
