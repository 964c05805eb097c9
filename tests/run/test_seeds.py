"""Several seeds in one process: each run is what it would have been alone, and goes on bit for bit."""

import random
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from resumption import check_same_end, curve, final_state, same

import mbkit
from mbkit import registry
from mbkit.errors import UserError
from mbkit.loops.seeds import STACKABLE
from mbkit.recording import load_checkpoint
from mbkit.run import Run
from mbkit.run.training import how_to_go_on

SMALL = ["threads=1", "agent.hidden=[8,8]", "loop.warmup_steps=20", "loop.batch_size=16", "eval.episodes=1", "eval.video=false"]
SMALL += ["eval.max_steps=20", "loop.log_every=25", "checkpoint.every=40"]
MODEL = ["dynamics.hidden=[8]", "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=2", "loop.fit_every=40"]
MODEL += ["loop.updates_per_step=1"]
ALGORITHMS = {
    "sac": ["env=Pendulum-v1", "loop.n_step=2"],
    "td3": ["env=Pendulum-v1", "loop.num_envs=2"],
    "dqn": ["env=CartPole-v1", "agent.loss=huber", "eval.every=30"],
    "mbpo": ["env=Pendulum-v1", *MODEL, "imagination.rollouts_per_step=4"],
    "dyna": ["env=Pendulum-v1", "agent=td3", *MODEL, "imagination.updates=2"],  # two kinds of updates of one agent
}


class Noisy(gymnasium.Env[Any, Any]):
    """A walk whose steps are drawn from the global random numbers of Python and NumPy."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = np.zeros(1, np.float32)
        return self.x, {}

    def step(self, action: Any) -> Any:
        self.x = (self.x + action + random.random() + np.random.rand()).astype(np.float32)
        return self.x, float(-abs(self.x[0])), False, False, {}


def train(algo: str, folder: Path, *more: str, **options: Any) -> Any:
    return mbkit.train(algo, *SMALL, *ALGORITHMS.get(algo, []), *more, run_dir=folder, **options)


def close(a: Any, b: Any) -> bool:
    """Whether the numbers of two nested states agree but for rounding."""
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-3)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    return bool(a == pytest.approx(b, rel=1e-3, abs=1e-3)) if isinstance(a, float) else bool(a == b)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_seeds_together_are_the_runs_of_each_alone(tmp_path: Path, algo: str) -> None:
    runs = train(algo, tmp_path / "both", "steps=60", seeds=[3, 4])
    assert [run.path.name for run in runs] == ["seed-3", "seed-4"]
    assert [run.config.seed for run in runs] == [3, 4]
    for run in runs:
        alone = train(algo, tmp_path / f"alone-{run.config.seed}", "steps=60", f"seed={run.config.seed}")
        one, other = final_state(run.path), final_state(alone.path)
        for state in (one, other):
            state["loop"].pop("env")  # bytes, whose last digits differ
        for key in ("loop", "parts", "random"):
            assert close(one[key], other[key]), key
        assert [row.keys() for row in curve(run.path)] == [row.keys() for row in curve(alone.path)]
        assert close(curve(run.path), curve(alone.path))
        for key, value in alone.summary().items():
            assert key in ("wall_seconds", "notes") or close(run.summary()[key], value), key
    a, b = (final_state(run.path)["parts"] for run in runs)
    assert not close(a["agent"], b["agent"])


@pytest.mark.parametrize("algo", ["sac", "mbpo"])
def test_seeds_resumed_together_end_as_uninterrupted_bit_for_bit(tmp_path: Path, algo: str) -> None:
    whole = train(algo, tmp_path / "whole", "steps=70", seeds=[3, 4, 5])
    train(algo, tmp_path / "halves", "steps=45", seeds=[3, 4, 5])
    torch.rand(17)
    folders = [tmp_path / "halves" / f"seed-{seed}" for seed in (3, 4, 5)]
    resumed = mbkit.resume(folders, steps=70)
    for run, other in zip(whole, resumed, strict=True):
        assert isinstance(other, Run)
        check_same_end(run.path, other.path)


def test_seeds_one_of_them_goes_on_alone(tmp_path: Path) -> None:
    train("sac", tmp_path / "both", "steps=40", seeds=[3, 4])
    train("sac", tmp_path / "one", "steps=40", "seed=4")
    a, b = (mbkit.resume(folder, steps=60).path for folder in (tmp_path / "both" / "seed-4", tmp_path / "one"))
    assert close(final_state(a)["parts"], final_state(b)["parts"])


def test_seeds_draw_from_random_states_of_their_own(tmp_path: Path) -> None:
    runs = train("td3", tmp_path / "both", "steps=60", env=Noisy, seeds=[3, 4])
    for run in runs:
        alone = train("td3", tmp_path / f"alone-{run.config.seed}", "steps=60", env=Noisy, seed=run.config.seed)
        one, other = (load_checkpoint(each.path / "checkpoint")[1]["random"] for each in (run, alone))
        assert same(one, other)
        assert run.loop.returns[0] == pytest.approx(float(alone.loop.returns[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("algo", "options", "sentence"),
    [
        ("ppo", ["env=CartPole-v1", "seeds=[1,2]"], "ppo learns one seed at a time, seed=N; several at once have ddpg, td3, sac, dqn"),
        ("naf", ["env=Pendulum-v1", "seeds=[1,2]"], "agent 'naf' learns one seed at a time"),
        ("mve", ["env=Pendulum-v1", "seeds=[1,2]"], "targets of a model belong to one seed"),
        ("sac", ["env=Pendulum-v1", "seeds=1,1"], r"seeds=\[1, 1\]: expected a list of different whole numbers"),
        ("sac", ["env=Pendulum-v1", "seeds=3"], "seeds=3: expected a list"),
        ("sac", ["env=Pendulum-v1", "seeds=1,x"], r"seeds=\[1, 'x'\]: expected a list"),
        ("sac", ["env=Pendulum-v1", "seeds=[]"], r"seeds=\[\]: expected a list"),
        ("sac", ["env=Pendulum-v1", "seeds=[-1,2]"], r"seeds=\[-1, 2\]: expected a list"),
        ("sac", ["env=Pendulum-v1", "seeds=[1,2]", "seed=3"], "seed= and seeds= contradict one another"),
        (
            "sac",
            ["env=Pendulum-v1", "seeds=[1,2]", "agent.critic=layer_norm", "agent.dropout=0.1"],
            "agent.dropout=0.1 is not there for several seeds at once",
        ),
        ("td3", ["env=Pendulum-v1", "seeds=[1,2]", "agent.critic=simba"], "agent.critic=simba, agent.loss=mse is not there for several"),
        ("sac", ["env=Pendulum-v1", "seeds=[1,2]", "agent.normalize_obs=true"], "agent.normalize_obs=True is not there"),
    ],
)
def test_seeds_that_cannot_learn_together_are_refused(tmp_path: Path, algo: str, options: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        mbkit.train(algo, *options, "steps=10", run_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_resume_side_by_side_refuses_runs_that_are_not_alike(tmp_path: Path) -> None:
    first = train("sac", tmp_path / "a", "steps=30", seed=1).path
    other = train("sac", tmp_path / "b", "steps=30", "agent.lr=0.1", seed=2).path
    later = train("sac", tmp_path / "c", "steps=50", seed=2).path
    with pytest.raises(UserError, match=r"where only their seeds differ: .* has agent.lr=0.001, .* 0.1"):
        mbkit.resume([first, other], steps=60)
    with pytest.raises(UserError, match=r"these stand at different ones: .*a at 30, .*c at 50"):
        mbkit.resume([first, later], steps=60)
    with pytest.raises(UserError, match="where their seeds differ; these have seeds 1, 1"):
        mbkit.resume([first, first], steps=60)


def test_resume_side_by_side_writes_nothing_where_it_is_refused(tmp_path: Path) -> None:
    """Neither because of the step at which the runs stand, nor of options of the process, nor of a missing checkpoint."""
    first, second = (run.path for run in train("sac", tmp_path / "both", "steps=30", seeds=[1, 2]))
    later = train("sac", tmp_path / "later", "steps=50", seed=2).path
    before = {path: (path / "config.yaml").read_text() for path in (first, second, later)}
    with pytest.raises(UserError, match="stand at different ones"):
        mbkit.resume([first, later], steps=60)
    (second / "checkpoint").rename(second / "hidden")
    with pytest.raises(UserError, match="seed-2/checkpoint"):
        mbkit.resume([first, second], steps=60)
    (second / "hidden").rename(second / "checkpoint")
    assert before == {path: (path / "config.yaml").read_text() for path in (first, second, later)}
    (first / "config.yaml").write_text(before[first].replace("steps: 30", "steps: 40"))
    (second / "config.yaml").write_text(before[second].replace("steps: 30", "steps: 60"))
    with pytest.raises(UserError, match=r"where only their seeds differ: .*seed-1 has steps=40, .*seed-2 60"):
        mbkit.resume([first, second])
    assert [run.loop.step for run in mbkit.resume([first, second], steps=60)] == [60, 60]
    with pytest.raises(UserError, match="came an empty list"):
        mbkit.resume([])


def test_seeds_begin_nothing_where_one_of_their_directories_holds_a_run(tmp_path: Path) -> None:
    train("sac", tmp_path / "both" / "seed-4", "steps=10", seed=4)
    with pytest.raises(UserError, match="seed-4 already contains a run"):
        train("sac", tmp_path / "both", "steps=10", seeds=[3, 4])
    assert not (tmp_path / "both" / "seed-3").exists()
    with pytest.raises(UserError, match="run_dir must name a directory, got ''"):
        mbkit.train("sac", "env=Pendulum-v1", "steps=10", "run_dir=''", seeds=[3, 4])


class Breaking(Noisy):
    """A walk that raises at the fifteenth step where it is the third one that began an episode: seed 4, with two environments each."""

    begun: ClassVar[list[Any]] = []
    steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self not in self.begun:
            self.begun.append(self)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 15 and self.begun.index(self) == 2:
            raise RuntimeError("the cable is off")
        return super().step(action)


def test_an_error_of_one_seed_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaking, "begun", [])
    with pytest.raises(UserError, match=r"^seed 4: step of .* raised RuntimeError: the cable is off"):
        train("td3", tmp_path / "env", "steps=60", env=Breaking, seeds=[3, 4, 5])
    divergent = lambda *arguments: {"critic/loss": torch.tensor([1.0, 2.0, torch.inf])}  # noqa: E731
    monkeypatch.setattr(registry.agents["td3"].target, "update", divergent)
    with pytest.raises(UserError, match=r"^seed 5: td3 diverged: critic/loss is inf at step"):
        train("td3", tmp_path / "loss", "env=Pendulum-v1", "steps=60", seeds=[3, 4, 5])


def test_advice_on_stopped_seeds_hands_objects_over_again(tmp_path: Path) -> None:
    runs = train("td3", tmp_path / "env", "steps=10", env=lambda: Noisy(), seeds=[3, 4])
    a, b = (run.path for run in runs)
    assert how_to_go_on(runs) == f'`mbkit.resume(["{a}", "{b}"], env=...)` goes on'


def test_messages_name_exactly_the_agents_that_can_be_stacked() -> None:
    names = STACKABLE.partition(", and ")[0].split(", ")
    assert sorted(names) == sorted(entry.name for entry in registry.agents if getattr(entry.target, "stackable", False))


@pytest.mark.gpu
@pytest.mark.parametrize("algo", ["sac", "mbpo", "dyna"])
def test_seeds_on_a_gpu_learn_the_same_by_graphs_and_go_on(tmp_path: Path, algo: str) -> None:
    short = ["device=cuda", "steps=39"]  # before a fit reads the counters
    eager = train(algo, tmp_path / "eager", *short, seeds=[3, 4])
    graphs = train(algo, tmp_path / "graphs", *short, "loop.mode=cudagraph", seeds=[3, 4])
    for one, other in zip(eager, graphs, strict=True):
        a, b = (final_state(run.path)["parts"] for run in (one, other))
        assert close(a, b)  # counters, too, which warming up a graph may not change
    a, b = (final_state(run.path)["parts"]["agent"] for run in graphs)
    assert not close(a, b)
    train(algo, tmp_path / "halves", *short, "steps=30", "loop.mode=cudagraph", seeds=[3, 4])
    resumed = mbkit.resume([tmp_path / "halves" / "seed-3", tmp_path / "halves" / "seed-4"], steps=39)
    for run, other in zip(graphs, resumed, strict=True):
        check_same_end(run.path, other.path)
