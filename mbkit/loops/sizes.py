"""How many bytes the parts of a run need at least, from its configuration alone: what is certainly in memory at one time, in float32.

These are lower bounds, so that nothing is refused which fits: networks without their temporary copies, a replay buffer as far as the run
fills it, one layer of a plan's model steps. Parts of a user's own have the options that are named like ours, or count nothing.
Letters: M environments, N candidates, H horizon, P particles, B rows, E members, O observation, A action.
"""

from itertools import pairwise
from typing import Any, NamedTuple

from mbkit.config import Experiment
from mbkit.types import EnvSpec

FLOAT, INDEX = 4, 8  # bytes
BACKWARD = 3  # numbers per hidden unit and row while a model is fitted: before and after the activation, and a gradient (measured)
TRAINED = 4  # copies of a trained weight: itself, its gradient and Adam's two moments
EVALUATED = 10  # environments of an evaluation that are planned for side by side


class Demand(NamedTuple):
    """Memory that one part of a run needs, and the options that it is a product of."""

    name: str
    bytes: float
    factors: dict[str, Any]
    host: bool = False  # in the host's memory, whatever the run's device
    passing: bool = False  # only for a while: of such parts there is one at a time


def parts(x: Experiment, spec: EnvSpec, env_bytes: float) -> list[Demand]:
    """Every part that the experiment has."""
    return [*stored(x, spec, env_bytes), *learned(x, spec), *modelled(x, spec), *planned(x, spec)]


def row(spec: EnvSpec) -> int:
    """Bytes of a stored transition: two observations, action, reward, discount, end."""
    return FLOAT * (2 * spec.obs_dim + (1 if spec.discrete else spec.action_dim) + 3)


def setting(x: Experiment, group: str, name: str, default: Any = 0) -> Any:
    """An option of a group, `default` where the experiment has no such group, option or value."""
    value = getattr(x.group(group), name, None)
    return default if value is None else value


class Hidden(NamedTuple):
    """Hidden layers of a network, none for a part without networks."""

    widths: tuple[int, ...]
    again: int = 0  # further layers of the last width

    @property
    def widest(self) -> int:
        """Units of the widest layer."""
        return max(self.widths, default=0)

    @property
    def units(self) -> int:
        """Units of all layers together."""
        return sum(self.widths) + self.again * (self.widths[-1] if self.widths else 0)

    def weights(self, inputs: int, outputs: int) -> int:
        """Weights and biases between so many inputs and outputs."""
        if not self.widths:
            return 0
        last = self.widths[-1]
        return sum((a + 1) * b for a, b in pairwise((inputs, *self.widths, outputs))) + self.again * (last + 1) * last


def hidden_layers(x: Experiment, group: str) -> Hidden:
    """The hidden layers of agent or model; mbrl-lib's models have `layers` of one width."""
    widths = setting(x, group, "hidden", ())
    return Hidden((widths,), setting(x, group, "layers", 1) - 1) if isinstance(widths, int) else Hidden(tuple(widths))


def stored(x: Experiment, spec: EnvSpec, env_bytes: float) -> list[Demand]:
    """Environments, experience, and the episodes of an evaluation."""
    envs, loop = setting(x, "loop", "num_envs"), "loop"
    sizes = [Demand("the environments", envs * (env_bytes + FLOAT * spec.obs_dim), {"loop.num_envs": envs}, host=True)]
    capacity = setting(x, loop, "buffer_size")
    if capacity:
        filled = capacity if x.device == "cuda" else min(capacity, x.steps + envs)  # a host's memory is used as it is filled
        sizes.append(Demand("the replay buffer", filled * (row(spec) + 2 * INDEX) + capacity * INDEX, {"loop.buffer_size": capacity}))
    steps = setting(x, loop, "rollout_steps")
    if steps:
        past = 1 + setting(x, loop, "stored_rollouts")
        rows = min(steps * envs * past, x.steps)
        factors = {"loop.rollout_steps": steps, "loop.num_envs": envs, "loop.stored_rollouts": past - 1}
        sizes.append(Demand("the stored trajectories", rows * row(spec), factors))
    episodes = x.eval.episodes
    scored = episodes * (2 * INDEX + (row(spec) if x.dynamics is not None else 0))
    return [*sizes, Demand("an evaluation", scored, {"eval.episodes": episodes}, host=True, passing=True)]


def learned(x: Experiment, spec: EnvSpec) -> list[Demand]:
    """The agent's networks, and one update of them."""
    hidden, critics = hidden_layers(x, "agent"), setting(x, "agent", "critics", 1)
    factors = {"agent.hidden": hidden.widths or (0,), "agent.critics": critics}
    sizes = [Demand("the agent's networks", FLOAT * TRAINED * critics * hidden.weights(spec.obs_dim, 1), factors)]
    rows, more = setting(x, "loop", "batch_size"), {}
    factors = {"loop.batch_size": rows} | factors
    if x.imagination is not None and x.algo in ("mve", "svg"):
        more = {f"imagination.{name}": setting(x, "imagination", name) for name in ("horizon", "target_horizon")}
        more["imagination.particles"] = setting(x, "imagination", "particles", 1)
    ahead = max(more.get("imagination.horizon", 0), more.get("imagination.target_horizon", 0))
    expanded = rows * (ahead + 1) * more.get("imagination.particles", 1)
    size = expanded * (row(spec) + FLOAT * critics * hidden.units)
    sizes.append(Demand("an update of the agent", size, factors | more, passing=True))
    samples = 0 if spec.discrete else setting(x, "agent", "samples")
    taken = min(setting(x, "loop", "rollout_steps") * setting(x, "loop", "num_envs"), x.steps)
    size = samples * taken * FLOAT * (spec.action_dim + hidden.widest)
    return [*sizes, Demand("the agent's sampled actions", size, {"agent.samples": samples, "loop.rollout_steps": taken}, passing=True)]


def modelled(x: Experiment, spec: EnvSpec) -> list[Demand]:
    """The model's networks, a fit of them, and the start states of model rollouts."""
    hidden, members = hidden_layers(x, "dynamics"), setting(x, "dynamics", "members", 1)
    fits, rows = setting(x, "loop", "fit"), min(setting(x, "loop", "buffer_size"), x.steps)
    inputs, outputs = spec.obs_dim + spec.action_dim, spec.obs_dim
    size = FLOAT * (TRAINED if fits else 1) * members * hidden.weights(inputs, outputs)
    factors = {"dynamics.members": members, "dynamics.hidden": hidden.widths or (0,), "dynamics.layers": setting(x, "dynamics", "layers")}
    sizes = [Demand("the model", size, factors)]
    centres = setting(x, "dynamics", "centres")
    if centres:
        rows = min(rows, setting(x, "dynamics", "window"))
        size = centres * (FLOAT * inputs * outputs + INDEX * rows)
        return [*sizes, Demand("the local models", size, {"dynamics.centres": centres})]
    batch = min(setting(x, "dynamics", "batch"), rows)
    if fits and x.dynamics is not None:
        size = members * (BACKWARD * batch * FLOAT * hidden.units + rows * INDEX)
        sizes.append(Demand("a fit of the model", size, factors | {"dynamics.batch": batch}, passing=True))
        held_out = min(setting(x, "dynamics", "holdout") * rows, setting(x, "dynamics", "holdout_max"))
        size = members * held_out * FLOAT * 2 * hidden.widest
        sizes.append(Demand("the model's hold-out error", size, factors | {"dynamics.holdout_max": held_out}, passing=True))
    per_step, cadence = setting(x, "imagination", "rollouts_per_step"), setting(x, "loop", "fit_every")
    factors = {"imagination.rollouts_per_step": per_step, "loop.fit_every": cadence}
    starts = per_step * cadence
    if starts == 0:
        starts = setting(x, "imagination", "starts")
        factors = {"imagination.starts": starts}
    rolls = setting(x, "imagination", "real_ratio", 1) < 1 and setting(x, "imagination", "spread", 1) > 0
    size = starts * (row(spec) + FLOAT * at_once(x, hidden)) if rolls else 0
    return [*sizes, Demand("a round of model rollouts", size, factors | {"dynamics.hidden": hidden.widths or (0,)}, passing=True)]


def at_once(x: Experiment, hidden: Hidden) -> int:
    """Hidden units of a model step that are in memory for all rows: on a CPU rows are taken in portions."""
    return hidden.widest if x.device == "cuda" else 0


def planned(x: Experiment, spec: EnvSpec) -> list[Demand]:
    """One plan for every environment, or for those of an evaluation: H model steps of all candidates and particles."""
    if x.planner is None:
        return []
    group = "agent" if setting(x, "agent", "horizon") else "imagination"
    horizon, candidates = setting(x, group, "horizon"), setting(x, "planner", "candidates")
    particles = 1 if x.dynamics is not None and x.dynamics.name == "mujoco" else setting(x, group, "particles", 1)
    proposals = setting(x, group, "proposals")
    envs = max(x.loop.num_envs, min(EVALUATED, x.eval.episodes))
    rows, hidden = envs * particles * (candidates + proposals), hidden_layers(x, "dynamics")
    step = FLOAT * (spec.obs_dim + 1 + (2 if spec.discrete else spec.action_dim))
    models = setting(x, "dynamics", "centres") * spec.obs_dim  # of local models, all are run
    factors = {
        "planner.candidates": candidates,
        f"{group}.particles": particles,
        f"{group}.horizon": horizon,
        f"{group}.proposals": proposals,
    }
    factors |= {
        "loop.num_envs": x.loop.num_envs,
        "dynamics.hidden": hidden.widths or (0,),
        "dynamics.centres": setting(x, "dynamics", "centres"),
    }
    sizes = [Demand("a plan", rows * (horizon * step + FLOAT * (at_once(x, hidden) + models)), factors, passing=True)]
    noise = 2 * INDEX * horizon**2 if setting(x, "planner", "exponent") else 0
    return [*sizes, Demand("the coloured noise of plans", noise, {f"{group}.horizon": horizon}, passing=True)]
