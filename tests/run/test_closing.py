"""Every environment and simulator that a run opens is closed, also after a failure."""

import threading
from types import SimpleNamespace

import gymnasium
import pytest
from episodes import Counting, Still

import mbkit
from mbkit import envs
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.run import Run
from mbkit.run.closing import acting, close
from mbkit.run.film import film

OPTIONS = ("env=tests/Closing-v0", "steps=20", "threads=1", "eval.episodes=2", "eval.every=10", "eval.video=false")
OPEN: list["Closing"] = []


class Closing(Counting):
    """Lists itself while it is open; fails in its constructor, its reset or at its third step."""

    made = 0

    def __init__(self, fails: str = "", at: int = 0):
        Closing.made += 1
        if fails == "make" and Closing.made > at:
            raise ValueError("no more of these")
        self.fails = fails
        OPEN.append(self)

    def reset(self, **options):
        if self.fails == "reset":
            raise UserError("no beginning")
        return super().reset(**options)

    def step(self, action):
        obs, *rest = super().step(action)
        return (obs * float("nan") if self.fails == "step" and self.t == 3 else obs, *rest)

    def close(self):
        OPEN.remove(self)


gymnasium.register("tests/Closing-v0", Closing)


@pytest.fixture(autouse=True)
def nothing_is_open():
    OPEN.clear()
    Closing.made = 0
    yield
    assert OPEN == []


@pytest.mark.parametrize("options", [["loop.num_envs=3"], [], ["eval.episodes=13"]])
def test_train_closes_its_environments(tmp_path, options):
    run = mbkit.train("random", *OPTIONS, *options, f"run_dir={tmp_path / 'run'}")
    assert OPEN == []
    mbkit.evaluate(run, episodes=2)
    mbkit.evaluate(run.path, episodes=2, video=True)
    mbkit.resume(run.path, steps=40)


@pytest.mark.parametrize(
    "options",
    [
        ["env_kwargs.fails=step"],
        ["env_kwargs.fails=reset"],
        ["env_kwargs.fails=make", "env_kwargs.at=2", "loop.num_envs=3"],
        ["env_kwargs.fails=make", "env_kwargs.at=1"],  # the evaluation's
        ["loop.buffer_size=1", "loop.num_envs=2"],
        ["run_dir=/proc/nowhere"],
    ],
)
def test_train_that_fails_closes_its_environments(tmp_path, options):
    with pytest.raises(UserError):
        mbkit.train("random", *OPTIONS, f"run_dir={tmp_path / 'run'}", *options)


def test_load_that_fails_closes_its_environments(tmp_path):
    run = mbkit.train("random", *OPTIONS, f"run_dir={tmp_path / 'run'}")
    next(run.path.glob("checkpoint/*.pt")).write_bytes(b"")
    for attempt in (mbkit.load, mbkit.evaluate, lambda path: mbkit.resume(path, steps=40)):
        with pytest.raises(UserError, match="damaged or foreign"):
            attempt(run.path)


def test_run_as_a_context_is_closed_and_may_be_closed_again(tmp_path):
    with Run(compose("random", [*OPTIONS, "loop.num_envs=2"])) as run:
        assert len(OPEN) == 2
    run.close()
    run.env.close()


def test_run_that_stops_in_an_evaluation_closes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mbkit.run.evaluation.evaluate_policy", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        mbkit.train("random", *OPTIONS, f"run_dir={tmp_path / 'run'}")


def test_film_closes_its_environment_where_there_is_no_actor(tmp_path):
    def no_actor(env):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        film(lambda num_envs, seed, mode: envs.make("tests/Closing-v0"), no_actor, tmp_path / "step-1.mp4", 0)


def test_acting_closes_the_actor_before_its_environment():
    closed = []
    env = envs.make("tests/Closing-v0")
    actor = SimpleNamespace(close=lambda: closed.append(len(OPEN)))
    with acting(env, lambda _: actor):
        assert len(OPEN) == 1
    assert closed == [1]
    close(Still())  # nothing to close


@pytest.mark.parametrize("env", ["InvertedPendulum-v5", "Ant-v5"])
def test_train_with_true_dynamics_ends_their_threads(tmp_path, env):
    options = [
        "dynamics=mujoco",
        "dynamics.threads=2",
        "agent.horizon=2",
        "planner.candidates=6",
        "planner.elites=2",
        "planner.iterations=1",
    ]
    options += [f"env={env}", "env_kwargs.max_episode_steps=4", "loop.warmup_steps=2", "env_kwargs.include_cfrc_ext_in_observation=true"][
        : 4 if env == "Ant-v5" else 3
    ]
    before = threads()
    run = mbkit.train("pets", *options, "steps=6", "threads=1", "eval.episodes=1", "eval.video=false", f"run_dir={tmp_path / 'run'}")
    assert run.parts.actor.dynamics.simulator.pool is None
    assert threads() <= before
    assert mbkit.evaluate(run, episodes=1)["length_mean"] > 0
    assert threads() <= before


def threads() -> int:
    """Python's threads; MuJoCo's own are seen in the pool that holds them."""
    return threading.active_count()
