"""A trained policy as one file for other programs.

Its input is `obs` [batch, O] float32, its output `action` in the units of the task, without exploration; normaliser, networks and the box
of the actions are inside, and nothing of mbkit is needed to run it. It is compared with `run.act` before it gets its name.
Letters: B batch, O observation, A dimensions of an action, P discrete actions taken at once.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mbkit.config import Experiment
from mbkit.envs.spaces import ActionMap, component_names
from mbkit.errors import UserError
from mbkit.export.formats import ROWS, TOLERANCE, Exported, Graph, Outputs, format_of, write
from mbkit.loops.interrupt import interrupted
from mbkit.networks.normalizer import Normalizer
from mbkit.networks.plain import of_mode, plain
from mbkit.replay.buffer import ReplayBuffer
from mbkit.run import Run, load
from mbkit.run.policies import distilled_policy, distils
from mbkit.run.reading import read_config
from mbkit.storage import plain as plain_json
from mbkit.types import Actor

FORMAT = "mbkit policy 1"
ANYWHERE = 10.0  # largest |number| of the half of the observations that lies anywhere
NEARBY = 64  # observations beside one where the choices differ: is it a tie?


def export_policy(run: Run | str | Path, out: str | Path, checkpoint: str | int | None = None) -> Exported:
    """Write the policy of a run, or of the directory of one; see `mbkit.export.export`."""
    out = Path(out)
    format_of(out)
    check_policy(run.config if isinstance(run, Run) else read_config(run))
    if not isinstance(run, Run):
        chosen = "last" if checkpoint is None else checkpoint
        with interrupted(lambda: f"{out} was not written; the same command exports again"), load(run, chosen, "cpu") as loaded:
            return export_policy(loaded, out)
    if checkpoint is not None:
        raise UserError(f"checkpoint={checkpoint!r} applies to the directory of a run; expected none for a run that is loaded already")
    policy, rows = policy_module(run), check_rows(run)
    graph = Graph(policy, (rows[:2],), ("obs",), ("action",), metadata(run), f"a run of {run.config.algo}", "policy")
    difference, replaced = write(graph, out, lambda outputs: compared(run, policy, outputs, rows, out))
    return Exported(out, run.loop.step, difference, replaced)


# --- what can be exported -----------------------------------------------------------------------------------------------------------


def check_policy(experiment: Experiment) -> None:
    """UserError where a run acts by something else than an agent's networks, and distilled no policy from its plans."""
    if distils(experiment):
        return
    if experiment.dynamics is not None and experiment.dynamics.name == "mujoco":
        reason = f"{experiment.algo} plans each action in the simulator itself (dynamics=mujoco)"
    elif experiment.planner is not None:
        reason = f"{experiment.algo} plans each action with its model"
    elif experiment.algo == "random":
        reason = "random draws each action, whatever the observation"
    else:
        return
    distilled = ", or a run with imagination.distill=true, which trains one on its plans" * (experiment.planner is not None)
    raise UserError(f"a run of {experiment.algo} cannot be exported: {reason}; expected an agent, whose policy is a network{distilled}")


def greedy_module(agent: object) -> nn.Module:
    """The agent's rule without exploration, obs [B, O] -> actions as `act` returns them: its `greedy_module`, or the mode of its policy.

    Without a `policy`, it is the first of its networks that has a `mode`, such as the action values of DQN. UserError where it has none.
    """
    own_rule = getattr(agent, "greedy_module", None)
    if own_rule is not None:
        module: nn.Module = own_rule()
        return module
    networks = dict(agent.named_children()) if isinstance(agent, nn.Module) else {}
    for network in (networks.get("policy"), *networks.values()):
        if hasattr(network, "mode"):
            return of_mode(network)  # type: ignore[arg-type]
    name = type(agent).__name__
    raise UserError(f"a run of {name} cannot be exported: expected a policy or action values with a mode, or {name}.greedy_module()")


class NativePolicy(nn.Module):
    """obs [B, O] -> actions [B, *shape] in the units of the task, float32 within its box or int64, from a policy of actions in [-1, 1]."""

    start: Tensor  # of each discrete action
    middle: Tensor  # of the box, as are half its width and its bounds
    half_width: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, policy: nn.Module, action: ActionMap) -> None:
        super().__init__()
        self.policy, self.shape, self.discrete = policy, tuple(action.shape or ()), action.discrete
        if action.discrete:
            self.register_buffer("start", torch.from_numpy(np.array(action.start)).long())
            return
        for name, value in (("middle", action.middle), ("half_width", action.half), ("low", action.low), ("high", action.high)):
            self.register_buffer(name, torch.from_numpy(value).float())

    def forward(self, obs: Tensor) -> Tensor:
        """The action."""
        action: Tensor = self.policy(obs)
        action = action.reshape(action.shape[0], *self.shape)
        return action + self.start if self.discrete else (self.middle + self.half_width * action).clamp(self.low, self.high)


def action_map(run: Run) -> ActionMap:
    """The actions of the run's task."""
    return ActionMap(run.spaces[1], run.config.env)


def exported_actor(run: Run) -> Actor:
    """Whose policy is written: the agent, or where actions are planned the policy that was distilled from the plans."""
    return distilled_policy(run) if distils(run.config) else run.parts.actor


def policy_module(run: Run) -> nn.Module:
    """The run's policy without exploration in torch's own layers, on the CPU: obs [B, O] float32 -> actions in the units of the task."""
    check_policy(run.config)
    return plain(NativePolicy(greedy_module(exported_actor(run)), action_map(run)))


def metadata(run: Run) -> str:
    """What a program should know of the policy, as JSON: task, algorithm, step, the names of the observation's numbers, the actions."""
    c, action, space = run.config, action_map(run), run.spaces[0]
    kind: dict[str, Any] = {"shape": list(action.shape or ())}
    if action.discrete:
        kind |= {"kind": "discrete", "start": action.start.tolist(), "numbers": list(action.parts or (action.dim,))}
    else:
        kind |= {"kind": "continuous", "low": action.low.tolist(), "high": action.high.tolist()}
    content = {"format": FORMAT, "env": c.env, "env_kwargs": c.env_kwargs, "algo": c.algo, "seed": c.seed, "step": run.loop.step}
    content |= {"policy": "distilled"} if distils(c) else {}
    content |= {"agent": getattr(c.agent, "name", c.algo), "obs_names": component_names(space), "action": kind}
    return json.dumps(plain_json(content), default=str)


# --- comparison ---------------------------------------------------------------------------------------------------------------------


def check_rows(run: Run) -> Tensor:
    """Observations [ROWS, O]: replayed ones, or some like them by the statistics of a normaliser; the second half anywhere."""
    draw, n, o = torch.Generator().manual_seed(0), ROWS // 2, run.parts.spec.obs_dim
    anywhere = (torch.rand(ROWS - n, o, generator=draw) * 2 - 1) * ANYWHERE
    store, noise = run.parts.store if run.data is None else None, torch.randn(n, o, generator=draw)
    if isinstance(store, ReplayBuffer) and len(store):
        rows = store.rows_at(torch.randint(len(store), (n,), generator=draw).to(store.data.device)).obs.cpu()
        return torch.cat((rows, anywhere))
    actor = exported_actor(run)
    modules = actor.modules() if isinstance(actor, nn.Module) else ()
    for module in modules:
        if isinstance(module, Normalizer) and len(module.mean) == o and o > 1:
            return torch.cat((module.inverse(noise.to(module.mean.device)).cpu(), anywhere))
    obs = None if run.env is None else run.env.obs
    centre = noise if obs is None else obs[torch.randint(len(obs), (n,), generator=draw)]
    return torch.cat((centre + noise, anywhere))


def compared(run: Run, policy: nn.Module, outputs: Outputs, rows: Tensor, out: Path) -> float:
    """The largest difference of the file's actions at `rows` [N, O] from those of `run.act`; UserError where it is too large."""
    act = run.distilled if distils(run.config) else run.act
    expected, action = torch.from_numpy(np.asarray(act(rows))), outputs(rows)
    size = rows.abs().amax(1).clamp(min=1)
    if action_map(run).discrete:
        others = (action != expected.long()).reshape(len(rows), -1).any(1).nonzero()[:, 0].tolist()
        wrong = [i for i in others if not is_tie(policy, rows[i], expected[i].long())]
        if wrong:
            raise UserError(f"{out} was not written: {len(wrong)} of {len(rows)} choices differ from those of the run, ties apart")
        return 0.0
    half = torch.from_numpy(action_map(run).half).abs().amax().clamp(min=1)
    difference = (action.double() - expected.double()).abs().reshape(len(rows), -1).amax(1)
    worst = int((difference / size).argmax())
    limit = float(TOLERANCE * size[worst] * half)
    if not difference[worst] <= limit:
        raise UserError(
            f"{out} was not written: its action differs from that of run.act by {float(difference[worst]):.2g} at an observation of "
            f"numbers up to {float(rows[worst].abs().max()):.3g}; expected at most {limit:.2g}"
        )
    return float(difference.max())


def is_tie(policy: nn.Module, obs: Tensor, choice: Tensor) -> bool:
    """Whether rounding decides at obs [O]: the policy makes the choice, in each of its parts, at some observation right beside it."""
    reach = TOLERANCE * float(obs.abs().max().clamp(min=1))
    beside = obs + reach * (torch.rand(NEARBY, len(obs), generator=torch.Generator().manual_seed(0)) * 2 - 1)
    return bool((policy(beside) == choice).any(0).all())
