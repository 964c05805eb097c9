"""MOReL: a policy learned in a model whose episodes end where its members disagree (Kidambi et al. 2020, arXiv:2005.05951)."""

from dataclasses import dataclass

import torch

from mbkit import registry
from mbkit.config import OfflineLoop
from mbkit.dynamics.ensemble import Ensemble
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.pessimism import Halting
from mbkit.loops import Until
from mbkit.loops.rounds import EpisodeUpdates
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.measures import measure
from mbkit.recipes.pessimistic import MODEL, RolloutConfig, cloning, learn, offline_ensemble
from mbkit.registry import recipes
from mbkit.types import Measure, MeasureName, Recorded

CHUNK = 8192  # recorded rows whose disagreement is measured at once


@dataclass(frozen=True)
class MOReLConfig(RolloutConfig):
    """Episodes in the model, and where they are halted."""

    real_ratio: float = between(0.05, 0.0, 0.99, when="agent!=npg")  # share of recorded transitions in every batch
    horizon: int = at_least(100, 1)  # length of the episodes, or of the rollouts from recorded states, model steps
    every: int = at_least(1000, 1, when="agent!=npg")  # updates between two rounds of rollouts
    starts: int = at_least(10_000, 1, when="agent!=npg")  # start states of a round
    retain_rounds: int = at_least(5, 1, when="agent!=npg")  # number of rounds whose model transitions are stored
    memory_gb: float = positive(4.0, when="agent!=npg")  # memory limit of the model buffer, gigabytes (1e9 bytes)
    episodes: int = at_least(50, 1, when="agent=npg")  # episodes of each update, side by side, from first observations of the data set
    measure: MeasureName = "disagreement"  # uncertainty measure that halts
    coefficient: float = positive(1 / 3)  # halting threshold, in the largest uncertainty of the recorded rows
    kappa: float = at_least(1.0, 0)  # halting penalty kappa, below the smallest recorded reward, at each step of the absorbing state
    bc_updates: int = at_least(1000, 0)  # first updates, in which the policy is cloned
    bc_lr: float = positive(1e-3, when="bc_updates!=0")  # Adam learning rate of the cloned policy


@recipes.register(
    "morel",
    MOReLConfig,
    learns_from=("dataset", "trajectories"),
    loop=OfflineLoop,
    defaults={
        "steps": 1500,
        "eval": {"every": 250},
        "checkpoint": {"every": 250},
        "loop": {"log_every": 10},
        "agent": {"name": "npg"},
        "dynamics": MODEL,
    },
)
def build(x: Assembly[OfflineLoop], cfg: MOReLConfig) -> None:
    """MOReL: a policy learned in a model whose episodes end where its members disagree."""
    name = x.part("agent").name
    if name == "npg":
        return on_episodes(x, cfg)
    if not {"replay", "dataset"} & set(kinds := registry.agents[name].learns_from):
        raise UserError(f"agent {name!r} learns from {registry.experience(kinds)}; of such agents morel takes npg alone, else e.g. sac")
    agent = x.agent()
    halting = halting_model(x, cfg)
    cloning(x, agent, cfg.bc_updates, cfg.bc_lr)
    learn(x, cfg, agent, halting, begin=cfg.bc_updates)


def on_episodes(x: Assembly[OfflineLoop], cfg: MOReLConfig) -> None:
    """The paper's form: natural policy gradients on whole episodes in the model."""
    agent = x.trajectory_agent()
    halting = halting_model(x, cfg)
    cloning(x, agent, cfg.bc_updates, cfg.bc_lr)
    if offline.taken(agent, x):
        shape = cfg.horizon, cfg.episodes
        updates = EpisodeUpdates("npg", agent, halting, x.recorded.first_obs(), shape, x.experiment.steps, x.loop.log_every)
        x.every_step(Until(cfg.bc_updates, [], [updates]))


def halting_model(x: Assembly[OfflineLoop], cfg: MOReLConfig) -> Halting:
    """The fitted ensemble, whose episodes end where it is more uncertain than the data allow."""
    model, u = offline_ensemble(x), measure(cfg.measure, "imagination.measure", x.part("dynamics"))
    halting = Halting(model, u)
    x.keep(halting=halting)
    x.at_start(lambda: halt_beyond_data(halting, model, u, cfg, x.recorded.all(), x.experiment.gamma))
    return halting


@torch.no_grad()
def halt_beyond_data(halting: Halting, model: Ensemble, u: Measure, cfg: MOReLConfig, rows: Recorded, gamma: float) -> None:
    """Set the threshold to a share of the largest uncertainty of the recorded rows, and the reward to the absorbing state's return.

    Raises:
        UserError: every recorded row would be halted, so that no rollout would make a step.
    """
    parts = zip(torch.split(rows.obs, CHUNK), torch.split(rows.action, CHUNK), strict=True)
    recorded = torch.cat([u(model.network.predict_targets(obs, action)) for obs, action in parts])
    threshold = cfg.coefficient * float(recorded.amax())
    if float(recorded.amin()) > threshold:
        raise UserError(
            f"imagination.coefficient={cfg.coefficient:g} halts every rollout at its first step: the threshold is {threshold:.3g}, and the "
            f"smallest {cfg.measure} of a recorded row {float(recorded.amin()):.3g}; a larger coefficient lets some go on"
        )
    halting.set(threshold, (float(rows.reward.amin()) - cfg.kappa) / (1 - gamma))
