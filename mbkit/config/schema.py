"""What an experiment consists of: options that hold for every algorithm, the loop's options by regime, and the parts in its groups."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, NamedTuple

from mbkit.fields import at_least, between, option

LoopMode = Literal["auto", "eager", "cudagraph"]


@dataclass(frozen=True)
class EvalConfig:
    """When and how the policy is scored: deterministic actions on seeds that training never uses."""

    every: int = at_least(0, 0, when="env!=none")  # environment steps, offline updates, between evaluations; 0: only at the end
    episodes: int = at_least(10, 1, when="env!=none")  # episodes per evaluation, run side by side
    max_steps: int = at_least(0, 0, when="env!=none")  # steps after which an evaluation episode is cut; 0: its time limit, or 10 000
    video: bool = option(True, when="env!=none")  # one filmed episode when training ends


@dataclass(frozen=True)
class CheckpointConfig:
    """What a killed run can come back to."""

    every: int = at_least(1000, 0)  # environment steps, offline updates, between checkpoints; 0: only at the end
    keep: Literal["last", "best", "all"] = "last"  # stored checkpoints; best: the highest evaluation, beside the newest


# --- loops: a class of options for each way of learning ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnlineLoop:
    """Environments stepped side by side."""

    num_envs: int = at_least(1, 1)  # environments stepped side by side
    log_every: int = at_least(100, 1)  # environment steps between lines of training metrics


@dataclass(frozen=True)
class StoringLoop(OnlineLoop):
    """The same, with a replay buffer."""

    buffer_size: int = at_least(1_000_000, 1)  # replay capacity, transitions


@dataclass(frozen=True)
class ReplayLoop(StoringLoop):
    """An agent's updates on batches of replayed transitions."""

    warmup_steps: int = at_least(200, 0)  # environment steps of uniformly random actions at the beginning
    updates_per_step: float = between(1.0, 0, 10_000)  # replay ratio, gradient updates per environment step; 0.1: one every ten steps
    batch_size: int = at_least(256, 1)  # transitions per gradient update
    n_step: int = between(1, 1, 1000)  # real rewards summed in an agent's targets
    mode: LoopMode = "auto"  # execution mode; cudagraph, auto on CUDA: all updates of a step are one CUDA graph, sampling included


@dataclass(frozen=True)
class FinetuneLoop(ReplayLoop):
    """The same, by an agent that has learned already: it acts from the first step on, and goes on with its data set."""

    warmup_steps: int = at_least(0, 0)  # environment steps of uniformly random actions at the beginning
    offline_ratio: float = between(0.5, 0, 1, when="data!=null")  # share of each batch drawn from the data set, the rest from the replay


@dataclass(frozen=True)
class FreshLoop(OnlineLoop):
    """On-policy updates on the newest transitions, each of them used once."""

    updates_per_step: float = between(1.0, 0, 10_000)  # gradient updates per environment step; 0.125: one every eight steps
    batch_size: int = at_least(256, 1)  # newest transitions per gradient update
    mode: LoopMode = "auto"  # execution mode; cudagraph, auto on CUDA: all updates of a step are one CUDA graph, sampling included


@dataclass(frozen=True)
class TrajectoryLoop(OnlineLoop):
    """One update on the consecutive steps since the last one."""

    rollout_steps: int = at_least(128, 1)  # environment steps of each environment between two updates
    mode: LoopMode = "auto"  # execution mode; cudagraph, auto on CUDA: an update, all its epochs included, is one CUDA graph


@dataclass(frozen=True)
class OldTrajectoryLoop(TrajectoryLoop):
    """The same, with off-policy updates on trajectories of earlier policies."""

    stored_rollouts: int = at_least(0, 0)  # trajectories stored for off-policy updates
    off_policy_updates: int = at_least(0, 0)  # updates on stored trajectories after each on-policy update


@dataclass(frozen=True)
class PlanLoop(StoringLoop):
    """Planning with a model that is fitted as data arrives."""

    warmup_steps: int = at_least(200, 0)  # environment steps of uniformly random actions at the beginning. PETS: one trial
    fit: bool = option(True, when="dynamics!=mujoco")  # training of the model; false uses what dynamics.load brought
    fit_every: int = at_least(
        0, 0, when="dynamics!=mujoco, fit=true"
    )  # environment steps between fits; 0: when an episode ends, as in PETS


@dataclass(frozen=True)
class ModelLoop(ReplayLoop):
    """An agent's updates, and a model that is fitted to the replay."""

    fit: bool = True  # training of the model; false uses what dynamics.load brought
    fit_every: int = at_least(0, 0)  # environment steps between fits of the model; 0: whenever an episode ends


@dataclass(frozen=True)
class FinetuneModelLoop(ModelLoop):
    """The same, by an agent and a model that have learned already; the replay begins with their data set."""

    warmup_steps: int = at_least(1, 1)  # environment steps of uniformly random actions at the beginning
    fit_every: int = at_least(250, 0)  # environment steps between fits of the model; 0: whenever an episode ends


@dataclass(frozen=True)
class OfflineLoop:
    """Updates on a data set; a step of the run is one of them."""

    batch_size: int = at_least(256, 1)  # transitions per gradient update
    log_every: int = at_least(500, 1)  # updates between lines of training metrics
    updates_at_once: int = at_least(1, 1)  # updates between two looks at evaluation, checkpoints and the learning rate's schedule
    mode: LoopMode = "auto"  # execution mode; cudagraph, auto on CUDA: loop.updates_at_once updates, sampling included, are a graph


LOOPS = (
    StoringLoop,
    ReplayLoop,
    FinetuneLoop,
    FreshLoop,
    TrajectoryLoop,
    OldTrajectoryLoop,
    PlanLoop,
    ModelLoop,
    FinetuneModelLoop,
    OfflineLoop,
)

# --- parts and the experiment -----------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What stands in a group of the experiment, e.g. the planner "icem" with its configuration."""

    name: str
    config: Any


GROUPS = ("agent", "dynamics", "planner", "imagination")


@dataclass(frozen=True)
class Options:
    """The options that hold for every algorithm."""

    algo: str
    env: str  # environment name: Gymnasium's, dm_control/TASK-v0, or cartpole, reacher, pusher, halfcheetah of PETS; none beside data=
    data: str | None = None  # data set to learn from, in place of an environment: a file or directory that `mbkit data inspect` reads
    data_top: float = between(1.0, 1e-6, 1, when="data!=null")  # share of the episodes to learn from, those of the highest return
    continues: str | None = option(None, when="continues!=null")  # run whose agent goes on learning, in an environment: `mbkit finetune`
    steps: int = at_least(1000, 0)  # environment steps, warm-up included, 0 scores a loaded model; with data= gradient updates
    seed: int = between(0, 0, 2**32 - 1)  # random seed of weights, planner, warm-up and environments; several at once: seeds=11,12,13
    gamma: float = between(0.99, 0, 1, when="algo!=random")  # discount factor; below 1 wherever values are learned
    device: Literal["cpu", "cuda"] = "cpu"  # device of networks, replay and plans; environments run on the CPU
    threads: int = at_least(0, 0)  # CPU threads of torch and of simulators; 0: 2 where products are large, else 1
    precision: Literal["auto", "highest", "high", "medium"] = option(
        "auto", when="algo!=random"
    )  # float32 products; high allows TF32 on CUDA, auto for those of models
    run_dir: str | None = None  # run directory, by default runs/ALGO/ENV/SEED-TIME
    preset: str | None = None  # preset name, for configs/ALGO/ENV.PRESET.yaml, or a YAML file of your own
    tensorboard: bool = False  # TensorBoard files beside metrics.jsonl
    tracker: Literal["wandb", "trackio", "swanlab"] | None = None  # experiment tracker that receives the lines of metrics too
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the environment's constructor


@dataclass(frozen=True)
class Experiment(Options):
    """Everything a run depends on."""

    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    loop: Any = field(default_factory=OnlineLoop)  # an instance of the class in LOOPS that the algorithm uses
    agent: Part | None = None
    dynamics: Part | None = None
    planner: Part | None = None
    imagination: Part | None = None
    typed: frozenset[str] = field(default=frozenset(), compare=False, repr=False)  # keys that the user set himself, "agent.lr"
    objects: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # Python objects of options that only name them

    def group(self, name: str) -> Any:
        """The options of `loop`, `eval`, `agent`, ..., or those without a group (""); None where the experiment has no such group."""
        options = self if name == "" else getattr(self, name)
        return options.config if isinstance(options, Part) else options

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary; `from_dict` takes it back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*GROUPS, "typed", "objects")}
        plain = {key: asdict(value) if is_dataclass(value) else value for key, value in plain.items()}  # type: ignore[arg-type]
        for name in GROUPS:
            part = getattr(self, name)
            if part is not None:
                plain[name] = {"name": part.name, **asdict(part.config)}
        return {key: value if key == "env_kwargs" else _plain(value) for key, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
