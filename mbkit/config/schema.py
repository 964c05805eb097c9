"""What an experiment consists of: the options that hold for every algorithm, and the parts that stand in its groups."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, NamedTuple

from mbkit.fields import at_least, between, fraction


@dataclass(frozen=True)
class EvalConfig:
    """When and how the policy is scored: deterministic actions on seeds that training never sees."""

    every: int = at_least(0, 0)  # environment steps between evaluations; 0: only when training ends
    episodes: int = at_least(10, 1)  # episodes per evaluation, all run at once
    video: bool = True  # film one episode when training ends


@dataclass(frozen=True)
class CheckpointConfig:
    """What a killed run can come back to."""

    every: int = at_least(1000, 0)  # environment steps between checkpoints; 0: only when training ends
    keep: Literal["last", "best", "all"] = "last"  # best: the highest evaluation, beside the newest


@dataclass(frozen=True)
class LoopConfig:
    """The online loop: act, store, learn."""

    warmup_steps: int = at_least(200, 0)  # environment steps of uniformly random actions first. PETS: one trial
    fit: bool = True  # train the model; False keeps what dynamics.load brought
    fit_every: int = at_least(0, 0)  # environment steps between model fits; 0: whenever an episode ends, as in PETS
    updates_per_step: float = between(1.0, 0, 10_000)  # an agent's gradient updates per environment step; 0.1: one every ten steps
    batch_size: int = at_least(256, 1)  # transitions per gradient update of an agent
    n_step: int = between(1, 1, 1000)  # steps of real reward in an agent's targets
    mode: Literal["eager", "cudagraph"] = "eager"  # "cudagraph": all updates of a step are one CUDA graph, sampling included
    num_envs: int = at_least(1, 1)  # environments stepped side by side
    buffer_size: int = at_least(1_000_000, 1)  # transitions remembered
    rollout_steps: int = at_least(128, 1)  # of each environment between two updates of an agent that learns from trajectories
    rollouts_kept: int = at_least(0, 0)  # trajectories remembered for `replays`
    replays: int = at_least(0, 0)  # updates on remembered trajectories after each fresh one, for agents that correct for their age
    log_every: int = at_least(100, 1)  # environment steps between lines of training metrics


class Part(NamedTuple):
    """What stands in a group of the experiment, e.g. the planner "icem" with its configuration."""

    name: str
    config: Any


GROUPS = ("agent", "dynamics", "planner", "imagination")


@dataclass(frozen=True)
class Options:
    """The options that hold for every algorithm."""

    algo: str
    env: str  # a Gymnasium name, dm_control/TASK-v0, or cartpole, reacher, pusher, halfcheetah of PETS
    steps: int = at_least(1000, 1)  # environment steps, warm-up included
    seed: int = between(0, 0, 2**32 - 1)  # of weights, planner, warm-up and environments; evaluation has seeds of its own
    gamma: float = fraction(0.99)  # discount, also of loop's plans; those of pets have their own, agent.gamma
    device: Literal["cpu", "cuda"] = "cpu"  # where models live and plans are made; environments are on the CPU
    threads: int = at_least(0, 0)  # CPU threads; 0: all cores
    precision: Literal["highest", "high", "medium"] = "highest"  # float32 matmul: high allows TF32 on CUDA
    run_dir: str | None = None  # default runs/ALGO/ENV/SEED-TIME
    preset: str | None = None  # configs/ALGO/ENV.PRESET.yaml instead of configs/ALGO/ENV.yaml
    tensorboard: bool = False  # also write TensorBoard files
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # handed to the environment's constructor


@dataclass(frozen=True)
class Experiment(Options):
    """Everything a run depends on."""

    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    agent: Part | None = None
    dynamics: Part | None = None
    planner: Part | None = None
    imagination: Part | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary; `from_dict` takes it back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in GROUPS}
        plain = {key: asdict(value) if is_dataclass(value) else value for key, value in plain.items()}  # type: ignore[arg-type]
        for group in GROUPS:
            part = getattr(self, group)
            if part is not None:
                plain[group] = {"name": part.name, **asdict(part.config)}
        return _plain(plain)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
