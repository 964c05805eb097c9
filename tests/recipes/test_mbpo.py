"""MBPO's wiring: identities, the mix of a batch, gates, presets within their memory, and every mistake as one sentence."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from resumption import check_resumption, check_same_end, same

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.config.reading import config_root
from mbkit.dynamics.ensemble import Ensemble
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import ModelFits, Updates
from mbkit.types import EnvSpec, Transition

RUN = ["env=Pendulum-v1", "threads=1", "eval.episodes=1", "eval.video=false"]
LOOP = ["loop.warmup_steps=50", "loop.batch_size=32", "loop.updates_per_step=1", "agent.hidden=[16]"]
FITS = ["loop.fit_every=50", "dynamics.hidden=[16]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=2"]
ROLLOUTS = ["imagination.rollouts_per_step=2", "imagination.horizon=2"]
TINY, MODEL = [*RUN, *LOOP], [*FITS, *ROLLOUTS]
PRESETS = sorted(p.stem for p in (config_root() / "mbpo").glob("*-v5*.yaml"))


def built(options: list[str]):
    experiment = compose("mbpo", options)
    return recipes.build(experiment, make(experiment.env))


def wired(*options: str):
    return built([*TINY, *MODEL, *options])


def test_mbpo_real_ratio_1_is_the_agent_alone(tmp_path):
    mbpo = mbkit.train("mbpo", *TINY, "steps=200", "imagination.real_ratio=1", run_dir=str(tmp_path / "mbpo"))
    loop, agent = asdict(mbpo.config.loop), asdict(mbpo.config.agent.config)  # whatever the presets of the two say
    loop = {key: value for key, value in loop.items() if key not in ("fit", "fit_every")}
    agent = {key: value for key, value in agent.items() if key != "initial_temperature" or agent["temperature"] is None}
    agent.pop("dropout")  # counts only beside layer normalisation
    sac = mbkit.train("sac", *TINY, "steps=200", loop=loop, agent=agent, run_dir=str(tmp_path / "sac"))
    assert set(mbpo.parts.stateful) == {"buffer", "agent"}  # no model was built
    assert mbpo.parts.dynamics is None
    assert same(mbpo.parts.stateful["agent"].state_dict(), sac.parts.stateful["agent"].state_dict())
    assert same(mbpo.parts.replay.all(), sac.parts.replay.all())
    assert mbpo.scores == sac.scores


@pytest.mark.parametrize(("ratio", "batch", "real"), [(0.05, 256, 13), (0.05, 100, 5), (0.5, 256, 128), (0.0, 256, 0)])
def test_mbpo_every_batch_has_the_same_mix(ratio, batch, real):
    x = wired(f"imagination.real_ratio={ratio}")
    mixture = x.hooks[-1].source
    counts = []
    for source in mixture.sources:
        source.sample = lambda n: counts.append(n) or zeros(n, x.spec)
    assert len(mixture.sample(batch).reward) == batch
    assert counts == [n for n in (real, batch - real) if n]


def zeros(n: int, spec: EnvSpec) -> Transition:
    """n transitions [n] of zeros."""
    obs = torch.zeros(n, spec.obs_dim)
    return Transition(obs, torch.zeros(n, spec.action_dim), torch.zeros(n), obs, torch.ones(n))


GATES = {"none": [], "m2ac": ["imagination.gate=m2ac"], "macura": ["imagination.gate=macura", "imagination.xi=0.9"]}
GATES["confidence"] = ["imagination.gate=confidence"]


@pytest.mark.parametrize("gate", GATES)
def test_mbpo_resumes_bit_for_bit_with_every_gate(tmp_path, gate):
    whole, *_ = check_resumption(tmp_path, "mbpo", *TINY, *MODEL, *GATES[gate], steps=120, pause=70)
    assert ("gate" in whole.parts.stateful) == (gate != "none")
    stored = len(whole.parts.stateful["model_buffer"])
    assert stored > 0
    assert (stored == 400) == (gate in ("none", "confidence"))  # 50 steps * 2 starts * k = 2 at steps 50 and 100; gates let less pass


def test_mbpo_model_that_breaks_loses_nothing(tmp_path, monkeypatch):
    options = [*TINY, *MODEL, "steps=160", "checkpoint.every=70"]
    mbkit.train("mbpo", *options, run_dir=str(tmp_path / "healthy"))
    fit, calls = Ensemble.fit, []

    def breaking(model, data):
        metrics = fit(model, data)
        calls.append(None)
        if len(calls) == 3:
            with torch.no_grad():
                for weight in model.network.net.weight:
                    weight.mul_(1e30)
            model.refresh()
        return metrics

    monkeypatch.setattr(Ensemble, "fit", breaking)
    with pytest.raises(UserError, match=r"the model diverged: .* at step 150") as caught:
        mbkit.train("mbpo", *options, run_dir=str(tmp_path / "broken"))
    monkeypatch.setattr(Ensemble, "fit", fit)
    assert "\n" not in str(caught.value)
    mbkit.resume(tmp_path / "broken")  # from step 140, with a model that is well again
    check_same_end(tmp_path / "healthy", tmp_path / "broken")


def test_mbpo_hooks_are_fits_with_rollouts_then_updates():
    x = wired()
    fits, updates = x.hooks
    assert isinstance(fits, ModelFits)
    assert isinstance(updates, Updates)
    (rollouts,) = fits.then
    assert rollouts.gate is None
    assert rollouts.data is updates.source.sources[0] is x.replay
    assert rollouts.buffer is updates.source.sources[1] is x.stateful["model_buffer"]


def test_mbpo_gates_are_made_from_their_options():
    x = wired("imagination.gate=m2ac", "imagination.keep_ratio=0.3", "imagination.penalty=0.01", "imagination.hard_stop=true")
    gate = x.stateful["gate"]
    assert x.hooks[0].then[0].gate is gate
    assert (gate.keep_ratio, gate.penalty, gate.hard_stop) == (0.3, 0.01, True)
    gate = wired("imagination.gate=macura", "imagination.xi=7", "imagination.zeta=90").stateful["gate"]
    assert (gate.xi, gate.zeta) == (7, 90)
    x = wired("imagination.gate=confidence")
    assert x.stateful["gate"].scale is x.dynamics.network.targets.std
    assert x.stateful["model_buffer"].weighted


@pytest.mark.parametrize("stem", PRESETS)
def test_mbpo_presets_store_all_rows_they_ask_for(stem):
    env, _, preset = stem.partition(".")
    small = ["loop.buffer_size=1000", "dynamics.hidden=[8]", "agent.hidden=[8]"]
    experiment = compose("mbpo", [f"env={env}", *small, *([f"preset={preset}"] if preset else [])])
    x = recipes.build(experiment, make(env, env_kwargs=experiment.env_kwargs))
    buffer, cfg = x.stateful["model_buffer"], experiment.imagination.config
    last = cfg.final_horizon or cfg.horizon
    assert buffer.capacity == cfg.retain_epochs * last * cfg.rollouts_per_step * cfg.epoch_length
    assert buffer.gigabytes <= cfg.memory_gb
    assert any("model buffer holds at most" in note and "checkpoint" in note for note in x.notes)


@pytest.mark.parametrize(("env", "dims"), [("Ant-v5", 27), ("Humanoid-v5", 45)])
@pytest.mark.parametrize("options", [[], ["preset=paper"]])
def test_mbpo_presets_truncate_observations(env, dims, options):
    experiment = compose("mbpo", [f"env={env}", *options])
    assert make(env, env_kwargs=experiment.env_kwargs).spec.obs_dim == dims


def test_mbpo_humanoid_with_all_its_observations_is_limited_by_the_memory_and_says_so():
    kinds = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    options = [f"env_kwargs.include_{kind}_in_observation=true" for kind in kinds]
    small = ["loop.buffer_size=1000", "dynamics.hidden=[8]", "agent.hidden=[8]"]
    experiment = compose("mbpo", ["env=Humanoid-v5", "preset=paper", *small, *options])
    env = make("Humanoid-v5", env_kwargs=experiment.env_kwargs)
    x = recipes.build(experiment, env)
    assert env.spec.obs_dim == 348
    assert x.stateful["model_buffer"].gigabytes <= 6
    assert any("imagination.memory_gb keeps it from the 12500000 rows" in note for note in x.notes)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["loop.fit_every=0"], "loop.fit_every=0"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0"),
        (["loop.warmup_steps=1"], "loop.warmup_steps=1: mbpo would use a model that learned nothing"),
        (["dynamics=ensemble", "loop.fit=false"], "loop.fit=false .*expected loop.fit=true and loop.warmup_steps >= 2, or dynamics.load"),
        (["dynamics=local_linear", "loop.fit=false"], "loop.fit=false .*expected loop.fit=true and loop.warmup_steps >= 2$"),
        (["imagination.rollouts_per_step=1e9"], "imagination.rollouts_per_step and loop.fit_every=50 ask for 50000000000 start states"),
        (["agent.hidden=[100000,1000000]"], r"agent 'sac' \(agent.hidden=\[100000, 1000000\]\) needs more memory than the device has"),
        (["dynamics.hidden=[1000000,1000000]"], r"dynamics 'ensemble' \(dynamics.hidden=\(1000000, 1000000\)\) needs more memory"),
        (["imagination.real_ratio=1.5"], "imagination.real_ratio=1.5"),
        (["imagination.real_ratio=-0.1"], "imagination.real_ratio=-0.1"),
        (["imagination.horizon=5", "imagination.final_horizon=4"], "imagination.final_horizon=4"),
        (["imagination.final_horizon=4", "imagination.grow_epochs=[20,10]"], "imagination.grow_epochs=.20, 10."),
        (["imagination.grow_epochs=[20,10]"], "imagination.grow_epochs counts only where imagination.final_horizon!=null"),
        (["imagination.memory_gb=1e-9"], "imagination.memory_gb=1e-09"),
        (["dynamics=mujoco"], "dynamics=mujoco"),
        (["dynamics=local_linear", "imagination.gate=m2ac"], "imagination.gate=m2ac"),
        (["imagination.gate=macura", "dynamics.members=1", "dynamics.elites=1"], "imagination.gate=macura"),
        (["imagination.gate=macura", "dynamics.probabilistic=false"], "dynamics.probabilistic=true"),
        (["imagination.gate=sometimes"], "unknown gate 'sometimes'"),
        (["env=CartPole-v1"], "sac"),
        (["agent=mpc"], "agent"),
        (["agent=dpg"], "agent 'dpg' learns from its newest transitions, but mbpo offers replayed transitions"),
        (["agent=ppo"], "agent 'ppo' learns from trajectories of its policy, but mbpo offers replayed transitions"),
    ],
)
def test_mbpo_every_mistake_is_one_sentence(options, culprit):
    habits = [w for w in [*TINY, *MODEL] if not w.startswith(tuple(f"{g}." for g in ("dynamics", "agent") if f"{g}=" in options[0]))]
    habits = [w for w in habits if "loop.fit=false" not in options or not w.startswith("loop.fit")]
    with pytest.raises(UserError, match=culprit) as caught:
        built([*habits, *options])
    assert "\n" not in str(caught.value)


def test_mbpo_loads_a_dynamics_file_and_refuses_one_of_another_task(tmp_path: Path):
    wired().dynamics.save(tmp_path / "dynamics.pt")
    options = [*TINY, "loop.fit_every=50", *ROLLOUTS, f"dynamics.load={tmp_path / 'dynamics.pt'}"]
    assert len(built(options).hooks) == 2
    x = built([*options, "loop.fit=false"])  # its rollouts are those of the loaded model
    assert len(x.hooks) == 2
    assert same(x.dynamics.network.state_dict(), built(options).dynamics.network.state_dict())
    with pytest.raises(UserError, match="observation dimensions must be 2, the file has 3"):
        built([*options, "env=MountainCarContinuous-v0"])


def test_mbpo_real_ratio_1_needs_no_model():
    assert built([*TINY, "imagination.real_ratio=1", "loop.warmup_steps=0"]).dynamics is None
