"""MVE's wiring: a fitted model before the first update, the target that was asked for, mistakes named."""

import shlex
from dataclasses import fields

import pytest
import torch
from clocks import ManualClock, StoredMetrics
from resumption import check_resumption, curve

import mbkit
from mbkit import recipes
from mbkit.config import ReplayLoop, compose
from mbkit.config.reading import config_root
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import ModelFits, Online
from mbkit.recipes.mve import MVEConfig, check_agent
from mbkit.testing import random_batch
from mbkit.types import EnvSpec

RUN = ["env=Pendulum-v1", "threads=1", "eval.every=0", "eval.episodes=1", "eval.video=false"]
LOOP = ["loop.warmup_steps=30", "loop.batch_size=16"]
MODEL = ["dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2"]
FITS = ["loop.fit_every=10", "dynamics.max_epochs=2"]
TINY = [*RUN, *LOOP, *MODEL, *FITS]
SAC = ["agent=sac", "agent.hidden=[8]"]
STEVE = ["imagination.weighting=steve"]
SPEC = EnvSpec(3, 1, torch.device("cpu"))


def wired(*options: str):
    return recipes.build(compose("mve", [*TINY, *options]), make("Pendulum-v1"))


@pytest.mark.parametrize("agent", ["ddpg", "td3", "sac"])
def test_mve_trains_any_agent_that_lends_its_target_networks(agent, tmp_path):
    run = mbkit.train(
        "mve", *TINY, f"agent={agent}", "agent.hidden=[8]", "imagination.horizon=2", "steps=60", f"run_dir={tmp_path / 'run'}"
    )
    assert set(run.parts.stateful) == {"buffer", "agent", "dynamics", "target"}
    assert run.parts.dynamics is run.parts.stateful["dynamics"]
    assert (tmp_path / "run/dynamics.pt").is_file()
    rows = curve(tmp_path / "run")
    steps = [row["imagination/steps"] for row in rows if "imagination/steps" in row]
    assert steps
    assert all(step == 2 for step in steps)  # this pendulum never terminates
    assert all(row["imagination/broken"] == 0 for row in rows if "imagination/broken" in row)


def test_mve_fits_the_model_before_the_first_update():
    order = []
    x = wired(*SAC)
    agent, model = x.stateful["agent"], x.dynamics
    update, fit = agent.update, model.fit
    agent.update = lambda batch: order.append("update") or update(batch)
    model.fit = lambda data: order.append(f"fit {len(data.obs)}") or fit(data)
    loop = Online(x.env, x.actor, x.store, 30)
    loop.recorder = StoredMetrics()
    loop.start()
    loop.run(41, x.hooks)
    assert order == ["fit 30", *["update"] * 9, "fit 40", *["update"] * 2]


@pytest.mark.parametrize(
    ("options", "rows"), [([], 4), (["imagination.horizon=1"], 2), (["imagination.start=model"], 1), (["imagination.weighting=steve"], 1)]
)
def test_mve_options_choose_the_target(options, rows):
    agent = wired(*SAC, *options).stateful["agent"]
    y = agent.target(agent, random_batch(SPEC, 8), 0.99)
    assert len(y.target) == 8 * rows
    assert agent.target.particles == (2 if options == STEVE else 1)  # one for each elite


def test_mve_horizon_0_is_the_agent_alone():
    """The same seed, the same environment: horizon 0 builds no model."""
    none = recipes.build(compose("mve", [*RUN, "loop.warmup_steps=0", *SAC, "imagination.horizon=0"]), make("Pendulum-v1"))
    assert none.dynamics is None
    assert set(none.stateful) == {"buffer", "agent"}
    assert len(none.hooks) == 1
    learned = []
    for algo, options in (("sac", ["agent.hidden=[8]"]), ("mve", [*SAC, "imagination.horizon=0"])):
        torch.manual_seed(0)
        agent = recipes.build(compose(algo, ["env=Pendulum-v1", *options]), make("Pendulum-v1")).actor
        torch.manual_seed(1)
        for seed in range(5):
            agent.update(random_batch(SPEC, 8, seed))
        learned.append([p.detach().clone() for p in agent.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*learned, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["agent=ddpg", *STEVE], r"agent 'ddpg' has 1; expected agent\.critics >= 2"),
        (["agent=sac", "agent.critics=1", *STEVE], r"agent 'sac' has 1"),
        (["agent=sac", *STEVE, "imagination.particles=3"], r"expected a multiple of dynamics\.elites=2"),
        (["agent=sac", "imagination.particles=3"], r"imagination\.particles counts only where imagination\.weighting=steve"),
        (
            ["agent=sac", "imagination.start=model", "imagination.horizon=0"],
            r"start counts only where imagination\.horizon!=0",
        ),
        (["agent=sac", *STEVE, "imagination.horizon=0"], r"imagination\.weighting counts only where imagination\.horizon!=0"),
        (["agent=sac", "imagination.start=model", "loop.n_step=2"], r"loop\.n_step=2: imagination\.start=model uses no real reward"),
        (["agent=sac", "loop.warmup_steps=0"], r"loop\.warmup_steps=0: mve would use a model that learned nothing"),
        (["agent=sac", "loop.warmup_steps=1"], r"loop\.warmup_steps=1: mve would use a model that learned nothing"),
    ],
)
def test_mve_mistakes_are_named(options, message):
    no_model = ["imagination.horizon=0"] if "imagination.horizon=0" in options else [*MODEL, *FITS]
    with pytest.raises(UserError, match=message):
        recipes.build(compose("mve", [*RUN, *LOOP, *no_model, *options]), make("Pendulum-v1"))


def test_mve_fit_false_without_a_file_is_refused():
    with pytest.raises(UserError, match=r"loop\.fit=false .* learned nothing"):
        recipes.build(compose("mve", [*RUN, *LOOP, *MODEL, "agent=sac", "loop.fit=false"]), make("Pendulum-v1"))


def test_mve_refuses_the_simulator_as_its_model():
    with pytest.raises(UserError, match="mve needs a model that can start from any state; dynamics=mujoco only plans"):
        recipes.build(compose("mve", ["env=Pendulum-v1", "agent=sac", "dynamics=mujoco"]), make("Pendulum-v1"))


def test_mve_steve_with_two_critics_of_ddpg_and_ts1():
    x = wired("agent=ddpg", "agent.critics=2", *STEVE, "dynamics.propagation=ts1", "imagination.particles=3")
    assert x.actor.target.particles == 3


class OwnTargets:
    """Lends its networks, but makes targets of its own."""

    target = None

    def backup_action(self, obs):
        raise NotImplementedError

    def backup_q(self, obs, action):
        raise NotImplementedError


@pytest.mark.parametrize(("agent", "message"), [(object(), "lends no backup_action"), (OwnTargets(), "ignores the target function")])
def test_check_agent_names_agents_that_do_not_fit(agent, message):
    x = wired(*SAC)
    with pytest.raises(UserError, match=f"agent 'sac' .*{message}"):
        check_agent(x, agent, x.actor.target, steve=False)


def test_mve_model_that_diverged_ends_the_run():
    x = wired(*SAC)
    with torch.no_grad():
        x.dynamics.network.net.bias[0].fill_(torch.nan)
    x.dynamics.refresh()
    assert all(value.isfinite() for value in x.actor.update(random_batch(SPEC, 8)).values())
    fits = next(hook for hook in x.hooks if isinstance(hook, ModelFits))
    with pytest.raises(UserError, match="the model diverged: 32 of 32 targets are not finite at step 30"):
        fits(ManualClock(step=30))


def test_mve_resumes_bit_for_bit(tmp_path):
    check_resumption(tmp_path, "mve", *TINY, *SAC, *STEVE, "checkpoint.every=20", steps=60, pause=45)
    steps = [row["imagination/steps"] for row in curve(tmp_path / "halves") if "imagination/steps" in row]
    assert len(steps) == 3  # what was counted before the interruption is not lost


def test_mve_with_a_loaded_model_resumes_without_its_file(tmp_path):
    """Its weights are in the checkpoint; the file may be gone by then."""
    file = tmp_path / "dynamics.pt"
    wired(*SAC).dynamics.save(file)
    options = [*RUN, *LOOP, *SAC, f"dynamics.load={file}", "loop.fit=false"]
    run = mbkit.train("mve", *options, "steps=31", f"run_dir={tmp_path / 'run'}")
    assert run.config.dynamics.config.hidden == (8,)
    file.unlink()
    assert mbkit.resume(tmp_path / "run", "steps=32").loop.step == 32


@pytest.mark.parametrize("path", sorted((config_root() / "mve").glob("*.yaml")), ids=lambda path: path.stem)
def test_mve_presets_name_their_baseline(path):
    """The command in a preset's second line is the same agent on as many steps, without a model."""
    env, _, preset = path.stem.partition(".")
    mine = compose("mve", [f"env={env}", *([f"preset={preset}"] if preset else [])])
    _, _, algo, *options = shlex.split(path.read_text().splitlines()[1].removeprefix("# "))
    base = compose(algo, options)
    assert (algo, base.agent.config) == (mine.agent.name, mine.agent.config)
    assert all(getattr(mine.loop, f.name) == getattr(base.loop, f.name) for f in fields(ReplayLoop))
    assert (mine.env, mine.steps, mine.gamma, mine.eval, mine.threads) == (base.env, base.steps, base.gamma, base.eval, base.threads)
    assert mine.imagination.config == MVEConfig(horizon=3, weighting="steve" if preset else "uniform")
