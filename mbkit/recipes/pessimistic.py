"""What the model-based learners from a data set share: a model fitted once or loaded, and updates on its rollouts and on recorded rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mbkit.config import OfflineLoop
from mbkit.dynamics.ensemble import Ensemble
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.schedule import Constant
from mbkit.loops import Hook, ModelRollouts, Until
from mbkit.loops.rounds import Cloning, ModelFacts, Rounds
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.models import model_notes
from mbkit.recipes.recorded_models import check_rewards, checked_terminals, fit_recorded
from mbkit.replay.mixture import Mixture, counts
from mbkit.types import Dynamics, LearnedDynamics, Learner, TaskKnowledge

AGENT, MODEL = {"name": "sac"}, {"name": "ensemble", "propagation": "ts1"}


@dataclass(frozen=True)
class RolloutConfig:
    """Rollouts of the model from recorded states, and their share in the agent's batches."""

    real_ratio: float = between(0.05, 0.0, 1.0)  # share of recorded transitions in every batch; 1: no model
    horizon: int = at_least(5, 1, when="real_ratio!=1")  # rollout length, model steps
    every: int = at_least(1000, 1, when="real_ratio!=1")  # updates between two rounds of rollouts
    starts: int = at_least(10_000, 1, when="real_ratio!=1")  # start states of a round. Published code: 50 000
    retain_rounds: int = at_least(5, 1, when="real_ratio!=1")  # number of rounds whose model transitions are stored
    memory_gb: float = positive(4.0, when="real_ratio!=1")  # memory limit of the model buffer, gigabytes (1e9 bytes)


def offline_model(x: Assembly[OfflineLoop]) -> LearnedDynamics:
    """The experiment's model, fitted to the data set when a new run starts, unless it was loaded; it is part of the run.

    Raises:
        UserError: when the run starts, terminations or rewards that the known functions do not explain.
    """
    part, facts, model = x.part("dynamics"), ModelFacts(), x.model()
    x.dynamics = model
    x.keep(dynamics=model)
    x.notes += model_notes(x.experiment, part)
    task: TaskKnowledge = getattr(model, "task", TaskKnowledge())

    def fit() -> None:
        rows, where = x.recorded.all(), f"data={Path(str(x.experiment.data)).name}"
        true, notes = checked_terminals(rows, task.termination, getattr(part.config, "termination", "auto"), where)
        x.notes += notes
        if task.reward is not None and getattr(part.config, "reward", "auto") == "auto" and x.has_reward:
            check_rewards(rows, task.reward, true, where)
        if getattr(part.config, "load", None) is None:
            facts.metrics = fit_recorded(model, rows, true)

    x.at_start(fit)
    x.every_step(facts)
    return model


def offline_ensemble(x: Assembly[OfflineLoop]) -> Ensemble:
    """The same of a recipe that needs an ensemble; UserError where the dynamics is another."""
    if not isinstance(model := offline_model(x), Ensemble):
        raise UserError(f"{x.experiment.algo} learns in an ensemble; expected dynamics=ensemble, came dynamics={x.part('dynamics').name}")
    return model


def learn(
    x: Assembly[OfflineLoop], cfg: RolloutConfig, agent: Learner, dynamics: Dynamics, first: Sequence[Hook] = (), begin: int = 0
) -> None:
    """Update the agent on recorded rows and on rollouts of `dynamics`, of which a round precedes the first of every `cfg.every` updates.

    `first` is called before each update, ahead of the rollouts; `begin`: updates that were of another kind.
    """
    sizes = Constant(cfg.horizon, cfg.starts, cfg.retain_rounds)
    buffer = x.model_buffer(sizes.capacity(), cfg.memory_gb, "imagination.retain_rounds")
    if not offline.taken(agent, x):
        return
    check_batches(x, cfg, agent)
    rollouts = ModelRollouts(dynamics, agent.sample, x.recorded, buffer, sizes)
    mixed = Mixture([x.recorded, buffer], [cfg.real_ratio, 1 - cfg.real_ratio], real=[True, False])
    updates = x.updates(agent, mixed)
    updates.pessimistic = True  # penalised rewards and targets have no lower bound
    hooks = [*first, Rounds(cfg.every, [rollouts], begin), updates, *offline.shift(agent, x)]
    x.every_step(*([Until(begin, [], hooks)] if begin else hooks))


def check_batches(x: Assembly[OfflineLoop], cfg: RolloutConfig, agent: Learner) -> None:
    """UserError where the agent needs more of a row than a model tells, or a batch lacks the rows of a source that it needs."""
    name, batch = x.part("agent").name, x.loop.batch_size
    if getattr(agent, "recorded_only", False):
        raise UserError(f"agent={name} learns from what follows each recorded row, which rollouts of a model do not have")
    recorded, drawn = counts(batch, [cfg.real_ratio, 1 - cfg.real_ratio])
    shares = f"imagination.real_ratio={cfg.real_ratio:g} of loop.batch_size={batch} rows leaves"
    if not drawn:
        raise UserError(f"{shares} none to the model; expected a smaller share")
    if not recorded and getattr(agent, "contrasts", False):
        raise UserError(f"{shares} no recorded one, but agent={name} pushes the values of recorded rows up; expected a larger share")


def cloning(x: Assembly[OfflineLoop], agent: object, updates: int, lr: float) -> None:
    """The first `updates` of the run are the policy's alone, which imitates the recorded actions."""
    if updates == 0:
        return
    if updates >= x.experiment.steps:
        x.notes.append(f"The policy was only cloned: all {x.experiment.steps} updates were those of imagination.bc_updates.")
    hook = Cloning(agent, x.recorded if x.has_rows else None, x.loop.batch_size, lr)
    x.keep(cloning=hook)
    x.every_step(Until(updates, [hook], []))
