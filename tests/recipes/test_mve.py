"""MVE's wiring: a fitted model before the first update, the target that was asked for, mistakes named."""

import json
import shlex
from dataclasses import replace

import pytest
import torch

import mbkit
from mbkit import recipes
from mbkit.config import compose, config_root
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import Watch
from mbkit.recipes import parts
from mbkit.recipes.mve import MVEConfig, check_agent
from mbkit.recording import read_metrics
from mbkit.types import EnvSpec, Transition

TINY = [
    "env=Pendulum-v1",
    "steps=60",
    "threads=1",
    "eval.every=0",
    "eval.episodes=1",
    "eval.video=false",
    "loop.warmup_steps=30",
    "loop.fit_every=10",
    "loop.batch_size=16",
    "dynamics.hidden=[8]",
    "dynamics.members=3",
    "dynamics.elites=2",
    "dynamics.max_epochs=2",
]


def parts_of(*words: str):
    env = make("Pendulum-v1")
    return recipes.build(compose("mve", [*TINY, *words]), env), env


@pytest.mark.parametrize("agent", ["ddpg", "td3", "sac"])
def test_any_agent_that_lends_its_networks(agent, tmp_path):
    words = [f"agent={agent}", "agent.hidden=[8]", "imagination.horizon=2", f"run_dir={tmp_path / 'run'}"]
    run = mbkit.train("mve", *TINY, *words)
    assert set(run.parts.stateful) == {"buffer", "agent", "dynamics", "target"}
    assert run.parts.dynamics is run.parts.stateful["dynamics"]
    assert (tmp_path / "run/dynamics.pt").is_file()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [row["imagination/steps"] for row in rows if "imagination/steps" in row]
    assert steps
    assert all(step == 2 for step in steps)  # this pendulum never terminates
    assert all(row["imagination/broken"] == 0 for row in rows if "imagination/broken" in row)


def test_no_update_before_the_first_fit():
    """Neither do targets come from a model that has seen nothing."""
    order = []
    parts, env = parts_of("agent=sac", "agent.hidden=[8]")
    agent, model = parts.stateful["agent"], parts.dynamics
    update, fit = agent.update, model.fit
    agent.update = lambda batch: order.append("update") or update(batch)
    model.fit = lambda data: order.append(f"fit {len(data.obs)}") or fit(data)
    loop = mbkit.loops.Online(env, parts.actor, parts.buffer, 30)
    loop.recorder = type("Recorder", (), {"log": lambda *_: None, "event": lambda *_: None})()
    loop.start()
    loop.run(41, parts.hooks)
    assert order == ["fit 30", *["update"] * 9, "fit 40", *["update"] * 2]


@pytest.mark.parametrize(
    ("words", "rows"),
    [([], 4), (["imagination.horizon=1"], 2), (["imagination.start=model"], 1), (["imagination.weighting=steve"], 1)],
)
def test_words_choose_the_target(words, rows):
    parts, _ = parts_of("agent=sac", "agent.hidden=[8]", *words)
    agent = parts.stateful["agent"]
    batch = Transition(torch.randn(8, 3), torch.rand(8, 1), torch.randn(8), torch.randn(8, 3), torch.ones(8))
    y = agent.target(agent, batch, 0.99)
    assert len(y.target) == 8 * rows
    assert agent.target.particles == (2 if "imagination.weighting=steve" in words else 1)  # one for each elite


def test_without_a_step_it_learns_as_the_agent_alone_would():
    """The same seed, the same environment: horizon 0 builds no model."""
    none = parts_of("agent=sac", "agent.hidden=[8]", "imagination.horizon=0", "loop.fit=false", "loop.warmup_steps=0")[0]
    assert none.dynamics is None
    assert set(none.stateful) == {"buffer", "agent"}
    assert len(none.hooks) == 1
    learned = []
    for horizon in (0, None):
        if horizon is None:
            env = make("Pendulum-v1")
            torch.manual_seed(0)
            agent = recipes.build(compose("sac", ["env=Pendulum-v1", "agent.hidden=[8]"]), env).actor
        else:
            torch.manual_seed(0)
            agent = parts_of("agent=sac", "agent.hidden=[8]", "imagination.horizon=0")[0].actor
        torch.manual_seed(1)
        for _ in range(5):
            agent.update(Transition(torch.randn(8, 3), torch.rand(8, 1), torch.randn(8), torch.randn(8, 3), torch.ones(8)))
        learned.append([p.detach().clone() for p in agent.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*learned, strict=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["agent=ddpg", "imagination.weighting=steve"], r"agent 'ddpg' has 1; expected agent\.critics >= 2"),
        (["agent=sac", "agent.critics=1", "imagination.weighting=steve"], r"agent 'sac' has 1"),
        (["agent=sac", "imagination.weighting=steve", "imagination.particles=3"], r"expected a multiple of dynamics\.elites=2"),
        (["agent=sac", "imagination.particles=3"], r"imagination\.particles=3: expected 1, or more with imagination\.weighting=steve"),
        (["agent=sac", "imagination.start=model", "imagination.horizon=0"], r"imagination\.horizon=0: expected at least 1"),
        (["agent=sac", "imagination.weighting=steve", "imagination.horizon=0"], r"imagination\.horizon=0: expected at least 1"),
        (["agent=sac", "imagination.start=model", "loop.n_step=2"], r"loop\.n_step=2: imagination\.start=model uses no real reward"),
        (["agent=sac", "loop.warmup_steps=0"], r"loop\.warmup_steps=0: mve would ask a model that learned nothing"),
        (["agent=sac", "loop.warmup_steps=1"], r"loop\.warmup_steps=1: mve would ask a model that learned nothing"),
        (["agent=sac", "loop.fit=false"], r"loop\.fit=false .* learned nothing"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        parts_of(*words)


def test_the_simulator_cannot_imagine():
    with pytest.raises(UserError, match="mve imagines with a model that can start from any state; dynamics=mujoco only plans"):
        recipes.build(compose("mve", ["env=Pendulum-v1", "agent=sac", "dynamics=mujoco"]), make("Pendulum-v1"))


def test_steve_with_two_critics_of_ddpg_and_ts1():
    parts, *_ = parts_of(
        "agent=ddpg", "agent.critics=2", "imagination.weighting=steve", "dynamics.propagation=ts1", "imagination.particles=3"
    )
    assert parts.actor.target.particles == 3


class Stubborn:
    """Lends its networks, but has targets of its own."""

    target = None

    def backup_action(self, obs):
        raise NotImplementedError

    def backup_q(self, obs, action):
        raise NotImplementedError


@pytest.mark.parametrize(("agent", "message"), [(object(), "lends no backup_action"), (Stubborn(), "ignores the one")])
def test_agents_that_do_not_fit_are_named(agent, message):
    parts, env = parts_of("agent=sac", "agent.hidden=[8]")
    with pytest.raises(UserError, match=f"agent 'mine' .*{message}"):
        check_agent(agent, parts.actor.target, "mine", env.spec, False)


@pytest.mark.parametrize("algo", ["mve", "mbpo", "mba", "dyna", "loop"])
def test_a_model_of_another_environment_is_named(monkeypatch, algo):
    other = type("Model", (), {"spec": EnvSpec(7, 2, torch.device("cpu"))})()
    monkeypatch.setattr(parts, "make_dynamics", lambda config, env: lambda environment: other)
    with pytest.raises(
        UserError, match=r"dynamics 'ensemble' has 7 observations and 2 actions; the agent expects 3 observations and 1 action"
    ):
        recipes.build(compose(algo, ["env=Pendulum-v1"]), make("Pendulum-v1"))


def test_a_model_that_diverged_ends_the_run():
    parts, env = parts_of("agent=sac", "agent.hidden=[8]")
    agent, model = parts.actor, parts.dynamics
    with torch.no_grad():
        model.net.bias[0].fill_(torch.nan)
    model.refresh()
    batch = Transition(torch.randn(8, 3), torch.rand(8, 1), torch.randn(8), torch.randn(8, 3), torch.ones(8))
    assert all(value.isfinite() for value in agent.update(batch).values())
    watch = next(hook for hook in parts.hooks if isinstance(hook, Watch))
    loop = mbkit.loops.Online(env, agent, parts.buffer, 30)
    loop.step = 30
    with pytest.raises(UserError, match="the model diverged: 32 of 32 targets are not finite at step 30"):
        watch(loop)


def test_resume_equals_uninterrupted(tmp_path):
    words = [*TINY, "agent=sac", "agent.hidden=[8]", "imagination.weighting=steve", "checkpoint.every=20"]
    whole = mbkit.train("mve", *words, f"run_dir={tmp_path / 'whole'}")
    mbkit.train("mve", *words, "steps=45", f"run_dir={tmp_path / 'halves'}")
    halves = mbkit.resume(tmp_path / "halves", "steps=60")
    for name, part in whole.parts.stateful["agent"].named_parameters():
        assert torch.equal(part, halves.parts.stateful["agent"].get_parameter(name))
    counted = [[row.get("imagination/steps") for row in read_metrics(tmp_path / name)] for name in ("whole", "halves")]
    steps = [[x for x in column if x is not None] for column in counted]
    assert steps[0] == steps[1]  # what was counted before the interruption is not lost
    assert len(steps[0]) == 3


def test_a_run_with_a_loaded_model_can_be_resumed(tmp_path):
    """Its weights are in the checkpoint; the file may be gone by then."""
    words = [*TINY, "agent=sac", "agent.hidden=[8]"]
    file = tmp_path / "dynamics.pt"
    parts_of(*words)[0].dynamics.save(file)
    mbkit.train("mve", *words, f"dynamics.load={file}", "loop.fit=false", "steps=31", f"run_dir={tmp_path / 'run'}")
    file.unlink()
    assert mbkit.resume(tmp_path / "run", "steps=32").loop.step == 32


@pytest.mark.parametrize("path", sorted((config_root() / "mve").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_name_their_base(path):
    """The command in a preset's second line is the same agent on as many steps, without a model."""
    env, _, preset = path.stem.partition(".")
    mine = compose("mve", [f"env={env}", *([f"preset={preset}"] if preset else [])])
    _, _, algo, *words = shlex.split(path.read_text().splitlines()[1].removeprefix("# "))
    base = compose(algo, words)
    assert (algo, base.agent.config) == (mine.agent.name, mine.agent.config)
    assert replace(mine.loop, fit_every=0) == base.loop
    assert (mine.env, mine.steps, mine.gamma, mine.eval, mine.threads) == (base.env, base.steps, base.gamma, base.eval, base.threads)
    assert mine.imagination.config == MVEConfig(horizon=3, weighting="steve" if preset else "uniform")
