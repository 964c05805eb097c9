"""MBPO's wiring: identities, the mix of a batch, gates, presets within their memory, and every mistake as one sentence."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mbkit
from mbkit import recipes
from mbkit.config import compose, config_root
from mbkit.dynamics.ensemble import Ensemble
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.types import Transition

TINY = [
    "env=Pendulum-v1",
    "steps=200",
    "threads=1",
    "eval.episodes=1",
    "eval.video=false",
    "loop.warmup_steps=50",
    "loop.batch_size=32",
    "loop.updates_per_step=1",
    "agent.hidden=[16]",
]
MODEL = [
    "loop.fit_every=50",
    "dynamics.hidden=[16]",
    "dynamics.members=3",
    "dynamics.elites=2",
    "dynamics.max_epochs=2",
    "imagination.rollouts_per_step=2",
    "imagination.horizon=2",
]
PRESETS = sorted(p.stem for p in (config_root() / "mbpo").glob("*-v5*.yaml"))


def built(words: list[str]):
    experiment = compose("mbpo", words)
    return recipes.build(experiment, make(experiment.env))


def parts_of(*words: str):
    return built([*TINY, *MODEL, *words])


def tensors(tree: Any) -> list[Tensor]:
    """All tensors of a nested state, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else []
    return [x for part in parts for x in tensors(part)]


def same(one: Any, other: Any) -> bool:
    """Whether two nested states hold equal tensors, and any at all."""
    left, right = tensors(one), tensors(other)
    return len(left) == len(right) > 0 and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_with_real_rows_only_it_is_the_agent_alone(tmp_path):
    mbpo = mbkit.train("mbpo", *TINY, "imagination.real_ratio=1", "loop.fit_every=1", run_dir=str(tmp_path / "mbpo"))
    settings = {"loop": asdict(mbpo.config.loop), "agent": asdict(mbpo.config.agent.config)}  # whatever the presets of the two say
    sac = mbkit.train("sac", *TINY, **settings, run_dir=str(tmp_path / "sac"))
    assert set(mbpo.parts.stateful) == {"buffer", "agent"}  # no model was built
    assert mbpo.parts.dynamics is None
    assert same(mbpo.parts.stateful["agent"].state_dict(), sac.parts.stateful["agent"].state_dict())
    assert same(mbpo.parts.buffer.all(), sac.parts.buffer.all())
    assert mbpo.scores == sac.scores


@pytest.mark.parametrize(("ratio", "batch", "real"), [(0.05, 256, 13), (0.05, 100, 5), (0.5, 256, 128), (0.0, 256, 0)])
def test_every_batch_has_the_same_mix(ratio, batch, real):
    parts = parts_of(f"imagination.real_ratio={ratio}")
    mixture = parts.hooks[-1].source
    counts = []
    for source in mixture.sources:
        source.sample = lambda n, made=parts.buffer.spec: counts.append(n) or torch_rows(n, made)
    assert len(mixture.sample(batch).reward) == batch
    assert counts == [n for n in (real, batch - real) if n]


def torch_rows(n: int, spec: Any):
    return Transition(
        *(torch.zeros(n, d) for d in (spec.obs_dim, spec.action_dim)), torch.zeros(n), torch.zeros(n, spec.obs_dim), torch.ones(n)
    )


@pytest.mark.parametrize("gate", ["none", "m2ac", "macura"])
def test_runs_resume_bit_for_bit_with_every_gate(tmp_path, gate):
    words = [*TINY, *MODEL, f"imagination.gate={gate}", "imagination.xi=0.9", "steps=120"]
    whole = mbkit.train("mbpo", *words, run_dir=str(tmp_path / "whole"))
    mbkit.train("mbpo", *words, "steps=70", run_dir=str(tmp_path / "half"))
    torch.rand(5)
    half = mbkit.resume(tmp_path / "half", "steps=120")
    for name, part in whole.parts.stateful.items():
        assert same(part.state_dict(), half.parts.stateful[name].state_dict()) or (name, gate) == ("gate", "m2ac"), name
    kept = len(whole.parts.stateful["memory"])
    assert kept > 0
    assert (kept == 400) == (gate == "none")  # 50 steps * 2 starts * k = 2 at steps 50 and 100; gates let less pass


def test_a_model_that_breaks_loses_nothing(tmp_path, monkeypatch):
    words = [*TINY, *MODEL, "steps=160", "checkpoint.every=70"]
    healthy = mbkit.train("mbpo", *words, run_dir=str(tmp_path / "healthy"))
    fit, calls = Ensemble.fit, []

    def breaking(model, data):
        metrics = fit(model, data)
        calls.append(None)
        if len(calls) == 3:
            with torch.no_grad():
                for weight in model.net.weight:
                    weight.mul_(1e30)
            model.refresh()
        return metrics

    monkeypatch.setattr(Ensemble, "fit", breaking)
    with pytest.raises(UserError, match=r"the model diverged: .* at step 150") as caught:
        mbkit.train("mbpo", *words, run_dir=str(tmp_path / "broken"))
    monkeypatch.setattr(Ensemble, "fit", fit)
    assert "\n" not in str(caught.value)
    resumed = mbkit.resume(tmp_path / "broken")  # from step 140, with a model that is well again
    for name, part in healthy.parts.stateful.items():
        assert same(part.state_dict(), resumed.parts.stateful[name].state_dict()), name


def test_gates_ask_the_model_for_its_members_and_nobody_else_does():
    assert not parts_of().dynamics.with_prediction
    parts = parts_of("imagination.gate=m2ac", "imagination.keep=0.3", "imagination.penalty=0.01", "imagination.stop=true")
    gate = parts.stateful["gate"]
    assert parts.dynamics.with_prediction
    assert (gate.keep, gate.penalty, gate.stop) == (0.3, 0.01, True)
    gate = parts_of("imagination.gate=macura", "imagination.xi=7", "imagination.zeta=90").stateful["gate"]
    assert (gate.xi, gate.zeta) == (7, 90)


@pytest.mark.parametrize("stem", PRESETS)
def test_presets_keep_all_rows_they_ask_for(stem):
    env, _, preset = stem.partition(".")
    experiment = compose("mbpo", [f"env={env}", "loop.buffer_size=1000", *([f"preset={preset}"] if preset else [])])
    parts = recipes.build(experiment, make(env, env_kwargs=experiment.env_kwargs))
    memory, cfg = parts.stateful["memory"], experiment.imagination.config
    last = cfg.final_horizon or cfg.horizon
    assert memory.capacity == cfg.retain_epochs * last * cfg.rollouts_per_step * cfg.epoch_length
    assert memory.gigabytes <= cfg.memory_gb
    assert any("model buffer holds at most" in note and "checkpoint" in note for note in parts.notes)


@pytest.mark.parametrize(("env", "dims"), [("Ant-v5", 27), ("Humanoid-v5", 45)])
@pytest.mark.parametrize("words", [[], ["preset=paper"]])
def test_truncated_observations(env, dims, words):
    experiment = compose("mbpo", [f"env={env}", *words])
    assert make(env, env_kwargs=experiment.env_kwargs).spec.obs_dim == dims


def test_humanoid_with_all_its_observations_is_cut_to_the_memory_and_says_so():
    kinds = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    words = [f"env_kwargs.include_{kind}_in_observation=true" for kind in kinds]
    experiment = compose("mbpo", ["env=Humanoid-v5", "preset=paper", "loop.buffer_size=1000", *words])
    env = make("Humanoid-v5", env_kwargs=experiment.env_kwargs)
    parts = recipes.build(experiment, env)
    assert env.spec.obs_dim == 348
    assert parts.stateful["memory"].gigabytes <= 6
    assert any("imagination.memory_gb keeps it from the 12500000 rows" in note for note in parts.notes)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["loop.fit_every=0"], "loop.fit_every=0"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0"),
        (["loop.warmup_steps=1"], "loop.warmup_steps=1: mbpo would ask a model that learned nothing"),
        (["loop.fit=false"], "loop.fit=false .*expected loop.fit=true and loop.warmup_steps >= 2, or dynamics.load"),
        (["dynamics=local_linear", "loop.fit=false"], "loop.fit=false .*expected loop.fit=true and loop.warmup_steps >= 2$"),
        (["imagination.rollouts_per_step=1e9"], "imagination.rollouts_per_step and loop.fit_every=50 ask for 50000000000 start states"),
        (["agent.hidden=[100000,1000000]"], r"agent 'sac' \(agent.hidden=\[100000, 1000000\]\) needs more memory than the device has"),
        (["dynamics.hidden=[1000000,1000000]"], r"dynamics 'ensemble' \(dynamics.hidden=\(1000000, 1000000\)\) needs more memory"),
        (["imagination.real_ratio=1.5"], "imagination.real_ratio=1.5"),
        (["imagination.real_ratio=-0.1"], "imagination.real_ratio=-0.1"),
        (["imagination.horizon=5", "imagination.final_horizon=4"], "imagination.final_horizon=4"),
        (["imagination.grow_epochs=[20,10]"], "imagination.grow_epochs=.20, 10."),
        (["imagination.memory_gb=1e-9"], "imagination.memory_gb=1e-09"),
        (["dynamics=mujoco"], "dynamics=mujoco"),
        (["dynamics=local_linear", "imagination.gate=m2ac"], "imagination.gate=m2ac"),
        (["imagination.gate=macura", "dynamics.members=1", "dynamics.elites=1"], "imagination.gate=macura"),
        (["imagination.gate=macura", "dynamics.probabilistic=false"], "dynamics.probabilistic=true"),
        (["imagination.gate=sometimes"], "imagination.gate='sometimes'"),
        (["env=CartPole-v1"], "sac"),
        (["agent=mpc"], "agent"),
    ],
)
def test_every_mistake_is_one_sentence(words, culprit):
    words = [w for w in [*TINY, *MODEL] if not ("dynamics=" in words[0] and w.startswith("dynamics."))] + words
    with pytest.raises(UserError, match=culprit) as caught:
        built(words)
    assert "\n" not in str(caught.value)


def test_a_dynamics_file_of_another_task_is_refused(tmp_path: Path):
    parts_of().dynamics.save(tmp_path / "dynamics.pt")
    file = f"dynamics.load={tmp_path / 'dynamics.pt'}"
    assert len(parts_of(file).hooks) == 3
    assert len(parts_of(file, "loop.fit=false").hooks) == 2  # it imagines with what was loaded
    with pytest.raises(UserError, match="observation dimensions must be 2, the file has 3"):
        parts_of("env=MountainCarContinuous-v0", file)


def test_with_real_rows_only_no_model_has_to_learn():
    assert parts_of("imagination.real_ratio=1", "loop.fit=false", "loop.warmup_steps=0").dynamics is None
