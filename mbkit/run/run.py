"""A run: one experiment, wired, with the directory it writes to."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from mbkit import accelerate, config, recipes, recording
from mbkit.config import Experiment, OfflineLoop
from mbkit.config.identity import check_same, run_identity
from mbkit.diagnostics.summary import headline
from mbkit.diagnostics.values import Critic
from mbkit.diagnostics.verdict import verdicts
from mbkit.envs import Environment, make
from mbkit.envs.spaces import ActionMap, ObservationMap
from mbkit.errors import UserError
from mbkit.loops import Evaluation, Offline, Online, updates_at_once
from mbkit.recipes.assembly import Greedy
from mbkit.recording.notes import noted, sentence
from mbkit.run.acting import CheckedActor, TaskPolicy
from mbkit.run.closing import close, closed_on_failure
from mbkit.run.data import RunData, Space, recorded_spec
from mbkit.run.evaluation import check_same_task, diagnose_run, diagnose_values, score
from mbkit.run.film import film
from mbkit.run.finishing import how_to_go_on, read_summary, too_short, write_summary
from mbkit.run.objects import object_note
from mbkit.run.policies import actor_by, distilled_policy, distilled_scores
from mbkit.run.restoring import check_data, check_recorder, checked_score, refusal, restore_loop, restore_parts
from mbkit.run.sizes import check_buffer, checked_environments
from mbkit.run.training import train
from mbkit.storage import write_json, write_text
from mbkit.types import Actor, State


class Run:
    """One experiment with its environment, its parts, its loop and its directory; `restored`: a checkpoint will fill them."""

    def __init__(self, experiment: Experiment, restored: bool = False, data: RunData | None = None) -> None:
        self.config, self.data = experiment, data
        self.directory: Path | None = None
        self.scores: dict[str, float] = {}  # of the last evaluation
        self.scored_at = -1  # its step
        self.diagnosed: dict[str, Any] = {}  # the model's diagnostics on its episodes; empty before the first fit
        self.best: float | None = None
        self.saved_at: int | None = None  # step of the last checkpoint
        self.notes: list[str] = []  # told when the run ends
        self.film_note = ""  # why the last film is not there, or ends early
        self.opened = ExitStack()  # environments, simulators and the directory's lock
        if experiment.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device=cuda was asked for, but torch finds no CUDA device here; use device=cpu")
        accelerate.reuse_memory()
        self.threads = accelerate.set_threads(experiment.threads)
        accelerate.seed_everything(experiment.seed)
        with closed_on_failure(self):
            self._assemble(restored)

    def _assemble(self, restored: bool) -> None:
        """The environment, the parts round it, and their loop."""
        experiment = self.config
        offline = isinstance(experiment.loop, OfflineLoop)
        self.env = None if offline else self.opened.enter_context(checked_environments(experiment, self.make_env))
        if self.env is not None and self.data is not None and self.data.present:
            self.data.check_env(self.env)
        spec = recorded_spec(experiment, self.data, self.make_env) if self.env is None else self.env.spec
        self.actions = spec.actions
        config.check_actions(experiment, self.actions)
        self.parts = recipes.build(experiment, self.env, restored, self.data)
        self.opened.callback(close, self.parts.actor)
        self.loop: Online | Offline
        if self.env is None:
            self.loop = Offline(experiment.steps, updates_at_once(experiment.loop, self.parts.actor, self.parts.spec.device))
            if self.parts.has_rows:
                self.loop.watch.see(self.parts.recorded.largest_reward.numpy(force=True))
        else:
            check_buffer(experiment)
            self.loop = self.parts.online()
        self.notes = noted(self.notes, *object_note(experiment), *self.parts.notes, *too_short(experiment, self.parts.dynamics))

    def close(self) -> None:
        """Close the environments and simulators, and let others train in the directory; the agent still acts, and can be evaluated."""
        self.opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @cached_property
    def agent(self) -> CheckedActor:
        """The actor: `run.agent.act(obs [M, O]) -> [M, A]` in [-1, 1]; it takes tensors and NumPy arrays, and single observations [O]."""
        return CheckedActor(self.parts.actor, self.parts.spec, self.config.env)

    @cached_property
    def act(self) -> TaskPolicy:
        """`run.act(obs)`: an observation of the task, as its `reset` and `step` return it -> the action for its `step`, in its units.

        Without exploration unless `explore=True`. `new_episode=True` drops a planner's plan. M observations give M actions.
        """
        if self.config.dynamics is not None and self.config.dynamics.name == "mujoco":
            raise UserError(
                "run.act plans from observations, which do not hold the simulator's state; expected another dynamics than mujoco"
            )
        return self.task_policy(Greedy(self.parts.actor) if self.env is None else self.parts.actor_for(self.env))

    @cached_property
    def distilled(self) -> TaskPolicy:
        """`run.distilled(obs)`: as `act`, by the policy that was trained on the run's plans; UserError where there is none."""
        return self.task_policy(distilled_policy(self))

    def task_policy(self, actor: Actor) -> TaskPolicy:
        """An actor in the task's own terms."""
        (observation, action), name = self.spaces, self.config.env
        return TaskPolicy(actor, self.parts.spec, ObservationMap(observation, name), ActionMap(action, name))

    @cached_property
    def spaces(self) -> tuple[Space, Space]:
        """The task's spaces of observations and actions: the environment's, or what the data set says of them where there is none."""
        if self.env is not None:
            return self.env.envs[0].observation_space, self.env.envs[0].action_space
        if self.config.env == "none" and self.data is not None:
            return self.data.spaces()
        with self.make_env(1, self.config.seed) as env:
            return env.envs[0].observation_space, env.envs[0].action_space

    @property
    def unit(self) -> str:
        """What one step of the run is: of an environment, or an update on a data set."""
        return "update" if isinstance(self.loop, Offline) else "step"

    @property
    def path(self) -> Path:
        """The run directory; UserError before there is one."""
        if self.directory is None:
            raise UserError("this run has no directory yet; expected one that was trained or loaded")
        return self.directory

    def make_env(
        self, num_envs: int, seed: int, render_mode: str | None = None, *, env_kwargs: Mapping[str, Any] | None = None
    ) -> Environment:
        """M of the experiment's environment; `env_kwargs` change its own."""
        c = self.config
        arguments = {**c.env_kwargs, **(env_kwargs or {})}
        return make(c.env, seed=seed, num_envs=num_envs, env_kwargs=arguments, render_mode=render_mode, task=c.objects.get("env"))

    # --- training -----------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """What precedes the first step of a new run, such as fitting a model to a data set; UserError where that fails."""
        for call in self.parts.starts:
            call()
        self.notes = noted(self.notes, *self.parts.notes)
        self.loop.start()

    def open(self) -> None:
        """Make the run directory and write down what is going to run; nothing is written before all parts could be built."""
        c = self.config
        directory = recording.create_run_dir(c.algo, c.env, c.seed, c.run_dir)
        self.opened.enter_context(recording.run_lock(directory))
        self.directory = directory
        self.write_config(c)
        if self.data is not None:
            self.data.write(self.path)

    def write_config(self, experiment: Experiment) -> None:
        """Write down what is going to run from here on."""
        write_text(self.path / "config.yaml", config.to_yaml(experiment, self.actions))

    def __repr__(self) -> str:
        """The algorithm, the environment, the step and the directory."""
        where = "without a directory" if self.directory is None else f"in {recording.shown(self.directory)}"
        return f"<Run: {self.config.algo} on {self.config.env}, step {self.loop.step} of {self.config.steps}, {where}>"

    def train(self, checkpoint: Mapping[str, Any] | None = None) -> None:
        """From where the loop stands to `config.steps`; then score, film, diagnose and summarise. `checkpoint`: the restored state."""
        train(self, checkpoint)

    def score(self) -> None:
        """Evaluate the present policy, diagnose model and critics on the evaluation's episodes, and record the figures."""
        keep_rows = self.parts.dynamics is not None or isinstance(self.parts.actor, Critic)
        with self.loop.recorder.progress.stage("evaluation"):
            result = self.evaluate(self.config.eval.episodes, keep_rows=keep_rows)
        self.scores = {name: float(value) for name, value in result.metrics().items()}
        self.scores |= distilled_scores(self)
        self.scored_at = self.loop.step
        self.best = max(self.scores["eval/return"], self.best if self.best is not None else -float("inf"))
        if note := result.note():
            self.notes = noted(self.notes, note)
        values = diagnose_values(self.parts.actor, result, self.parts.spec, self.config.seed, self.config.gamma)
        self.diagnosed = diagnose_run(self, result) | values
        self.loop.recorder.event(self.loop.step, self.scores | headline(self.diagnosed))

    def checkpoint(self, loop: State | None = None) -> None:
        """Everything the rest of the run depends on, on disk in one piece; `loop`: the state of the loop, the present one by default."""
        state = {
            "config": run_identity(self.config.to_dict()),
            "loop": self.loop.state_dict() if loop is None else loop,
            "parts": {name: part.state_dict() for name, part in self.parts.stateful.items()},
            "random": accelerate.rng_state(),
            "recorder": self.loop.recorder.state_dict(),
            "best": self.best,
            "data": None if self.data is None else self.data.about["sha256"],
        }
        last = self.scores.get("eval/return") if self.scored_at == self.loop.step else None
        recording.save_checkpoint(self.path / "checkpoint", self.loop.step, state, self.config.checkpoint.keep, last)
        self.saved_at = self.loop.step

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Take up where `checkpoint` was called, at `step`; UserError where that was another experiment, or the state is none."""
        try:
            check_same(run_identity(self.config.to_dict()), state["config"], self.path)
            check_recorder(state["recorder"])
            restore_parts(self.parts.stateful, state["parts"])
            restore_loop(self.loop, state["loop"], step)
            self.best = checked_score(state["best"])
            check_data(state.get("data"), self.data)
            accelerate.set_rng_state(state["random"])
        except Exception as error:  # whatever a crafted or foreign state makes a part raise
            raise refusal(self.path, error) from error
        if self.env is not None and self.env.restart_reason:
            self.notes = noted(self.notes, self.env.restart_reason)

    def finish(self, recorder: recording.Recorder) -> None:
        """The final policy's score, the model and its diagnostics, the film, the summary."""
        recorder.progress.advance(self.loop.step)
        c, model = self.config, self.parts.dynamics
        self.notes = noted(self.notes, *self.loop.watch.warnings.values(), *recorder.notes)
        loop = self.loop.state_dict()  # of before the score, whose copies of a task share its class attributes and global variables
        scored = c.env != "none"
        if scored and self.scored_at != self.loop.step:
            self.score()
        self.checkpoint(loop)  # once more: now it knows its score
        if model is not None:
            if hasattr(model, "save"):
                model.save(self.path / "dynamics.pt", env=c.env, steps=self.loop.step, **ActionMap(self.spaces[1], c.env).facts)
            write_json(self.path / "diagnostics.json", self.diagnosed)
            self.notes = noted(self.notes, *verdicts(self.diagnosed))
        if c.eval.video and scored:
            with recorder.progress.stage("film"):
                self.film()
        recorder.flush()
        write_summary(self, recorder.seconds)

    def how_to_go_on(self) -> str:
        """What a user who stopped the run can do."""
        return how_to_go_on(self)

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return read_summary(self.path)

    # --- scoring ------------------------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        episodes: int = 10,
        keep_rows: bool = False,
        seed: int | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        policy: str | None = None,
    ) -> Evaluation:
        """Deterministic returns of `episodes` whole episodes on seeds that training never uses; leaves the run as it was.

        `seed` replaces the run's, `env_kwargs` change the arguments of its environment. `policy` "distilled": the one trained on plans.
        """
        if self.config.env == "none":
            raise UserError("this run has no environment (env=none), in which its policy could be scored")
        first = self.config.seed if seed is None else seed
        return score(self.variant(env_kwargs), actor_by(self, policy), first, episodes, keep_rows, self.config.eval.max_steps)

    def film(self, seed: int | None = None, env_kwargs: Mapping[str, Any] | None = None, policy: str | None = None) -> Path | None:
        """One episode as a video in `videos/`; None, and a note, where there is no renderer. Arguments as in `evaluate`."""
        path = self.path / "videos" / f"step-{self.loop.step}{'-distilled' if policy == 'distilled' else ''}.mp4"
        video, reason = film(self.variant(env_kwargs), actor_by(self, policy), path, self.config.seed if seed is None else seed)
        self.film_note = sentence(reason or "")
        self.notes = noted(self.notes, self.film_note)
        return video

    def variant(self, env_kwargs: Mapping[str, Any] | None) -> Callable[..., Environment]:
        """`make_env` with changed arguments, and with the running statistics of the wrappers in training, which are updated no more.

        Raises:
            UserError: the arguments change the dimensions of observations or actions, or the wrappers.
        """
        if env_kwargs:
            check_same_task(self.parts.spec, self.make_env(1, self.config.seed, env_kwargs=env_kwargs), env_kwargs)

        def copies(num_envs: int, seed: int, render_mode: str | None = None) -> Environment:
            env = self.make_env(num_envs, seed, render_mode, env_kwargs=env_kwargs)
            with closed_on_failure(env):
                if self.env is not None:
                    env.set_statistics(self.env.statistics())
            return env

        return copies
