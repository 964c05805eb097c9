"""Train, resume, load, evaluate: what the command line and the Python API both call."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mbkit import accelerate, config, recipes, recording
from mbkit.config import Experiment
from mbkit.diagnostics.model import diagnose_model, headline
from mbkit.dynamics import files
from mbkit.envs import Environment, make
from mbkit.errors import UserError
from mbkit.loops import Evaluation, Every, Online, evaluate_policy
from mbkit.loops.interrupt import Interrupted, interruptible
from mbkit.types import Actor

EVALUATION_SEED = 1_000_000_000  # evaluation episode i of a run starts from 1e9 + 1000 seed + i, far from training's seed + i
SIDE_BY_SIDE = 10  # evaluation episodes run at once


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Whatever happens inside draws its own random numbers and leaves training's untouched: scoring must not change learning."""
    before = accelerate.rng_state()
    try:
        yield
    finally:
        accelerate.set_rng_state(before)


class Run:
    """One experiment, wired: an environment, a recipe's parts, a loop, and the directory it writes to; `restored`: `restore` follows."""

    def __init__(self, experiment: Experiment, restored: bool = False) -> None:
        self.config = experiment
        self.directory: Path | None = None
        self.scores: dict[str, float] = {}  # of the last evaluation
        self.scored_at = -1  # its step
        self.diagnosed: dict[str, Any] = {}  # what its episodes said of the model; empty before the first fit
        self.best: float | None = None
        if experiment.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device=cuda was asked for, but torch finds no CUDA device here; use device=cpu")
        self.threads = accelerate.set_threads(experiment.threads)
        accelerate.seed_everything(experiment.seed)
        self.env = self.make_env(experiment.loop.num_envs, experiment.seed)
        self.parts = recipes.build(experiment, self.env, restored)
        if experiment.loop.buffer_size < experiment.loop.num_envs:
            raise UserError(
                f"loop.buffer_size={experiment.loop.buffer_size} must hold a step of all loop.num_envs={experiment.loop.num_envs}"
            )
        self.loop = Online(self.env, self.parts.actor, self.parts.buffer, experiment.loop.warmup_steps)
        self.notes = [*self.parts.notes]  # for the user, once all is done: why there is no video
        if self.parts.dynamics is not None and experiment.loop.fit and experiment.steps <= experiment.loop.warmup_steps:
            self.notes.append(f"The model was never fitted: all {experiment.steps} steps were warm-up (loop.warmup_steps).")

    @property
    def agent(self) -> Actor:
        """Who acts: `run.agent.act(obs [M, O]) -> [M, A]` in [-1, 1]."""
        return self.parts.actor

    @property
    def path(self) -> Path:
        """The run directory; UserError before there is one."""
        if self.directory is None:
            raise UserError("this run has no directory yet; expected one that was trained or loaded")
        return self.directory

    def make_env(self, num_envs: int, seed: int, render_mode: str | None = None) -> Environment:
        """The experiment's environment, M of it."""
        c = self.config
        return make(c.env, seed=seed, num_envs=num_envs, env_kwargs=c.env_kwargs, render_mode=render_mode)

    # --- training -----------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the run directory and write down what is going to run; nothing is written before all parts could be built."""
        c = self.config
        self.directory = recording.create_run_dir(c.algo, c.env, c.seed, c.run_dir)
        recording.write_text(self.path / "config.yaml", config.to_yaml(c))

    def train(self, checkpoint: Mapping[str, Any] | None = None) -> None:
        """From where the loop stands to `config.steps`; then score, film, diagnose and summarise. `checkpoint`: what was restored."""
        c = self.config
        with (
            recording.Recorder(self.path, c.loop.log_every, c.steps, progress=True, tensorboard=c.tensorboard) as recorder,
            accelerate.matmul_precision(c.precision),
        ):
            self.loop.recorder = recorder
            if checkpoint is None:
                self.checkpoint()  # from here on the run can be resumed, whatever happens to it
            else:
                recorder.load_state_dict(checkpoint["recorder"])
            hooks = [*self.parts.hooks, Every(c.eval.every, self._scored), Every(c.checkpoint.every, lambda _: self.checkpoint())]
            with interruptible() as caught:
                self.loop.run(c.steps, hooks, stop=lambda: bool(caught))
            self.checkpoint()
            if caught:
                here = f"a checkpoint was written at step {self.loop.step}, `mbkit resume {self.path}` goes on from it"
                raise Interrupted(f"stopped by {caught[0]}: {here}")
            self._finish(recorder)

    def _score(self) -> None:
        """Evaluate the present policy, hold the model against what happened, and write the figures down."""
        result = self.evaluate(self.config.eval.episodes, keep_rows=self.parts.dynamics is not None)
        self.scores = {name: float(value) for name, value in result.metrics().items()}
        self.scored_at = self.loop.step
        self.best = max(self.scores["eval/return"], self.best if self.best is not None else -float("inf"))
        self.diagnosed = self._diagnose(result)
        self.loop.recorder.event(self.loop.step, self.scores | headline(self.diagnosed))

    def _scored(self, loop: Online) -> None:
        self._score()

    def _diagnose(self, result: Evaluation) -> dict[str, Any]:
        """The model's diagnostics on an evaluation's episodes, which no fit has seen; empty before the first fit."""
        c, model = self.config, self.parts.dynamics
        if model is None or (c.loop.fit and not getattr(model, "fitted", self.loop.step >= c.loop.warmup_steps)):
            return {}
        with same_random_numbers():
            accelerate.seed_everything(c.seed)
            # a planner's actions cost a search each, so in imagination it repeats those that it took
            policy = self.parts.actor_for(self.env) if c.planner is None else None
            return diagnose_model(model, result.buffer(self.parts.buffer.spec), policy, c.gamma)

    def checkpoint(self) -> None:
        """Everything the rest of the run depends on, on disk in one piece."""
        state = {
            "config": essence(self.config),
            "loop": self.loop.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts.stateful.items()},
            "random": accelerate.rng_state(),
            "recorder": self.loop.recorder.state_dict(),
            "best": self.best,
        }
        score = self.scores["eval/return"] if self.scored_at == self.loop.step else None
        recording.save_checkpoint(self.path / "checkpoint", self.loop.step, state, self.config.checkpoint.keep, score)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up where `checkpoint` was called; UserError where that was another experiment."""
        try:
            check_same(essence(self.config), state["config"], self.path)
            for name, part in self.parts.stateful.items():
                part.load_state_dict(state["parts"][name])
            self.loop.load_state_dict(state["loop"])
            self.best = state["best"]
            accelerate.set_rng_state(state["random"])
        except (KeyError, RuntimeError) as error:
            raise UserError(f"the checkpoint in {self.path} does not fit this version of mbkit: {str(error).splitlines()[0]}") from error
        if self.env.restart_reason:
            self.notes.append(self.env.restart_reason)

    def _finish(self, recorder: recording.Recorder) -> None:
        """The final policy's score, the model and its diagnostics on the evaluation episodes, the film, the summary."""
        c, model = self.config, self.parts.dynamics
        if self.scored_at != self.loop.step:
            self._score()
        self.checkpoint()  # once more: now it knows its score
        if model is not None:
            if hasattr(model, "save"):
                model.save(self.path / "dynamics.pt", env=c.env, steps=self.loop.step)
            recording.write_json(self.path / "diagnostics.json", self.diagnosed)
        if c.eval.video:
            self.film()
        recorder.flush()
        summary = recording.Summary(
            algo=c.algo,
            env=c.env,
            seed=c.seed,
            steps=self.loop.step,
            eval_return_mean=self.scores["eval/return"],
            eval_return_std=self.scores["eval/return_std"],
            eval_episodes=c.eval.episodes,
            best_eval_return=self.best,
            wall_seconds=recorder.seconds,
            device=device_words(c.device),
        )
        recording.write_summary(self.path, summary, threads=self.threads, episodes=self.loop.episodes, notes=self.notes)

    def summary(self) -> dict[str, Any]:
        """What `summary.json` says."""
        summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return summary

    # --- scoring ------------------------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int = 10, keep_rows: bool = False) -> Evaluation:
        """Deterministic returns of `episodes` whole episodes on seeds that training never sees; leaves the run as it was."""
        seed, parts = EVALUATION_SEED + 1000 * self.config.seed, []
        with same_random_numbers():
            accelerate.seed_everything(self.config.seed)  # a score depends on the policy alone, not on when it is taken
            for begin in range(0, episodes, SIDE_BY_SIDE):
                env = self.make_env(min(SIDE_BY_SIDE, episodes - begin), seed + begin)
                parts.append(evaluate_policy(env, self.parts.actor_for(env), seed + begin, keep_rows))
                env.close()
        return Evaluation.join(parts)

    def film(self) -> Path | None:
        """One episode as a video in `videos/`; None, and a note, where there is no renderer."""
        seed = EVALUATION_SEED + 1000 * self.config.seed
        with same_random_numbers():
            try:
                env = self.make_env(1, seed, "rgb_array")
            except UserError as error:
                self.notes.append(f"no video: {error}")
                return None
            actor = self.parts.actor_for(env)
            video = recording.record_video(lambda: env, actor, self.path / "videos" / f"step-{self.loop.step}.mp4", seed)
        if video.reason is not None:
            self.notes.append(video.reason)
        return video.path


def device_words(device: str) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


# --- the Python API -----------------------------------------------------------------------------------------------------------------


def words_of(words: tuple[str, ...], options: Mapping[str, Any]) -> list[str]:
    """train("pets", "planner=cem", env="cartpole", planner={"elites": 5}) as one list of key=value words."""
    found = list(words)
    for key, value in options.items():
        if isinstance(value, Mapping):
            found += [f"{key}.{word}" for word in words_of((), value)]
        else:
            found.append(f"{key}={json.dumps(value, default=str)}")
    return found


def train(algo: str, *words: str, **options: Any) -> Run:
    """Train an algorithm: `train("pets", env="InvertedPendulum-v5", steps=2000, planner={"iterations": 5})`.

    Options are those of `mbkit config ALGO`, as keywords or as "key=value" words. Returns the finished run; `run.agent` acts.
    """
    run = Run(resolved(config.compose(algo, words_of(words, options))))
    run.loop.start()
    run.open()
    run.train()
    return run


def resolved(experiment: Experiment) -> Experiment:
    """The experiment with what `dynamics.load` decides (widths, members, ...) written into it, so that a run needs that file only once."""
    part = experiment.dynamics
    if part is None or part.name != "ensemble" or part.config.load is None:
        return experiment
    return replace(experiment, dynamics=part._replace(config=files.config(part.config.load, part.config)))


def without_load(experiment: Experiment) -> Experiment:
    """The experiment as it is rebuilt round a checkpoint, which holds all weights of an ensemble."""
    part = experiment.dynamics
    if part is None or part.name != "ensemble":
        return experiment
    return replace(experiment, dynamics=part._replace(config=replace(part.config, load=None)))


MAY_CHANGE = ("steps", "threads", "run_dir", "device", "eval", "checkpoint", "tensorboard", "preset", "precision")


def essence(experiment: Experiment) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from, as flat key -> value."""
    flat: dict[str, Any] = {}

    def walk(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            elif prefix + key != "dynamics.load":
                flat[prefix + key] = value

    walk({k: v for k, v in experiment.to_dict().items() if k not in MAY_CHANGE}, "")
    return flat


def check_same(mine: Mapping[str, Any], saved: Mapping[str, Any], path: Path) -> None:
    """UserError naming the first option in which a run's config.yaml and its checkpoint differ."""
    for key in [*mine, *(k for k in saved if k not in mine)]:
        if mine.get(key) != saved.get(key):
            ours, theirs = mine.get(key), saved.get(key)
            raise UserError(f"{path}: its config.yaml has {key}={ours!r}, but its checkpoint is of a run with {key}={theirs!r}")


def read_config(directory: str | Path) -> Experiment:
    """The experiment of a run directory."""
    path = Path(directory) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{directory} is not a run directory: it has no config.yaml")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {error}") from error
    return config.from_dict(config.read_yaml(text, str(path)))


def load(directory: str | Path, checkpoint: str = "last") -> Run:
    """A run as it stood at its last (or "best") checkpoint, ready to act and to be evaluated."""
    run = Run(without_load(read_config(directory)), restored=True)
    run.directory = Path(directory)
    _, state = recording.load_checkpoint(run.path / "checkpoint", "best" if checkpoint == "best" else "last")
    run.restore(state)
    return run


def resume(directory: str | Path, *words: str, **options: Any) -> Run:
    """Go on from the last checkpoint, bit for bit on the same number of threads; `steps=M` goes further than planned."""
    experiment, changes = read_config(directory), config.parse_overrides(words_of(words, options))
    unknown = [key for key in changes if key != "steps"]
    if unknown:
        raise UserError(f"resume takes steps=M only, since anything else would be another experiment; came {unknown[0]!r}")
    step, state = recording.load_checkpoint(Path(directory) / "checkpoint")
    experiment = config.from_dict({**experiment.to_dict(), **changes})
    if step > experiment.steps or (step == experiment.steps and (Path(directory) / "summary.json").is_file()):
        raise UserError(f"{directory} has {step} steps already; steps=M with M > {step} goes further")
    run = Run(without_load(experiment), restored=True)
    run.directory = Path(directory)
    run.restore(state)
    recording.write_text(run.path / "config.yaml", config.to_yaml(experiment))
    run.train(state)
    return run


def evaluate(run: Run | str | Path, episodes: int = 10, video: bool = False) -> dict[str, Any]:
    """Deterministic returns on fresh seeds: mean, std over episodes, each return, mean length, and the video's path if asked."""
    run = run if isinstance(run, Run) else load(run)
    result = run.evaluate(episodes)
    answer = {
        "return_mean": float(result.returns.mean()),
        "return_std": float(result.returns.std(correction=0)),
        "returns": result.returns.tolist(),
        "length_mean": float(result.lengths.double().mean()),
        "episodes": episodes,
        "step": run.loop.step,
    }
    if video:
        made = run.film()
        answer["video"] = run.notes[-1] if made is None else str(made)
    return answer


__all__ = ["Interrupted", "Run", "evaluate", "load", "recipes", "replace", "resume", "train"]
