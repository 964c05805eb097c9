"""SVG's wiring: the agent alone and MVE as limits, a model before its gradient, start states that spread, mistakes named, learning."""

import pytest
import torch
from clocks import ManualClock
from resumption import check_killed, check_resumption, curve, same

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.config.reading import config_root
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.imagination.mve import ValueExpansion
from mbkit.imagination.svg import ModelValue
from mbkit.loops import ModelFits, Updates
from mbkit.testing import random_batch
from mbkit.types import EnvSpec

RUN = ["env=Pendulum-v1", "threads=1", "eval.every=0", "eval.episodes=1", "eval.video=false"]
LOOP = ["loop.warmup_steps=30", "loop.batch_size=16"]
AGENT = ["agent.hidden=[8]"]
MODEL = ["dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2"]
FITS = ["loop.fit_every=10", "dynamics.max_epochs=2"]
SHORT = ["imagination.horizon=2", "imagination.target_horizon=2"]
TINY = [*RUN, *LOOP, *AGENT, *MODEL, *FITS, *SHORT]
SPREAD = ["imagination.spread=4", "imagination.real_ratio=0.25", "imagination.rollouts_per_step=2"]
NO_MODEL = ["imagination.horizon=0", "imagination.target_horizon=0", "imagination.spread=0"]
SPEC = EnvSpec(3, 1, torch.device("cpu"))
PRESETS = sorted(path.stem for path in (config_root() / "svg").glob("*.yaml"))


def built(*options: str):
    experiment = compose("svg", list(options))
    return recipes.build(experiment, make(experiment.env))


def learned(algo: str, *options: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Parameters of the agent after five updates, and random numbers drawn behind them."""
    experiment = compose(algo, [*RUN, "loop.warmup_steps=30", *([] if algo == "sac" else ["agent=sac"]), *AGENT, *options])
    torch.manual_seed(0)
    agent = recipes.build(experiment, make("Pendulum-v1")).actor
    torch.manual_seed(1)
    for seed in range(5):
        agent.update(random_batch(SPEC, 16, seed))
    return [p.detach().clone() for p in agent.parameters()], torch.rand(3)


@pytest.mark.parametrize("agent", ["sac", "td3", "ddpg"])
@pytest.mark.parametrize("spread", [[], SPREAD])
def test_svg_trains_agents_whose_policy_takes_an_objective(agent, spread, tmp_path):
    run = mbkit.train("svg", *TINY, *spread, f"agent={agent}", "steps=60", f"run_dir={tmp_path / 'run'}")
    assert set(run.parts.stateful) == {"buffer", "agent", "dynamics", "target", "objective"} | ({"model_buffer"} if spread else set())
    rows = curve(tmp_path / "run")
    for name in ("imagination/steps", "policy/steps"):
        steps = [row[name] for row in rows if name in row]
        assert steps
        assert all(step == 2 for step in steps)  # this pendulum never terminates
    assert all(row[name] == 0 for row in rows for name in ("imagination/broken", "policy/broken") if name in row)
    assert (tmp_path / "run/dynamics.pt").is_file()


def test_svg_without_a_horizon_is_the_agent_alone():
    x = built(*RUN, *LOOP, *AGENT, *NO_MODEL)
    assert x.dynamics is None
    assert set(x.stateful) == {"buffer", "agent"}
    assert len(x.hooks) == 1
    assert same(learned("svg", *NO_MODEL), learned("sac"))


def test_svg_with_horizon_0_is_mve():
    model = [*MODEL, "loop.fit_every=10"]
    svg = learned("svg", *model, "imagination.horizon=0", "imagination.target_horizon=2")
    assert same(svg, learned("mve", *model, "imagination.horizon=2"))
    assert not same(svg, learned("svg", *model, "imagination.horizon=1", "imagination.target_horizon=2"))


def test_svg_options_reach_their_parts():
    x = built(*TINY, *SPREAD, "imagination.max_grad_norm=3", "imagination.target_horizon=1")
    objective, target = x.actor.objective, x.actor.target
    assert isinstance(objective, ModelValue)
    assert isinstance(target, ValueExpansion)
    assert (objective.horizon, objective.max_grad_norm, target.horizon) == (2, 3, 1)
    fits, updates = x.hooks
    assert isinstance(fits, ModelFits)
    assert isinstance(updates, Updates)
    (rollouts,) = fits.then
    assert (rollouts.schedule.starts, rollouts.schedule.length(0)) == (20, 4)
    assert rollouts.buffer is updates.source.sources[1]
    assert updates.source.fractions == (0.25, 0.75)
    assert rollouts.buffer.capacity == 20 * 4


def test_svg_with_targets_of_one_step_alone():
    x = built(*TINY, "imagination.target_horizon=0")
    assert "target" not in x.stateful
    assert x.actor.objective.horizon == 2


@pytest.mark.parametrize("spread", [[], SPREAD])
def test_svg_resumes_bit_for_bit(spread, tmp_path):
    check_resumption(tmp_path, "svg", *TINY, *spread, "checkpoint.every=20", steps=60, pause=45)


def test_svg_that_is_killed_goes_on_bit_for_bit(tmp_path):
    options = [*TINY, *SPREAD, "checkpoint.every=10", "steps=60"]
    check_killed(tmp_path, lambda folder: mbkit.train("svg", *options, f"run_dir={folder}"), at=40)


def test_svg_model_that_diverged_ends_the_run():
    x = built(*TINY)
    with torch.no_grad():
        x.dynamics.network.net.bias[0].fill_(torch.nan)
    x.dynamics.refresh()
    before = [p.clone() for p in x.actor.policy.parameters()]
    assert all(value.isfinite() for value in x.actor.update(random_batch(SPEC, 8)).values())
    assert all(p.isfinite().all() for p in x.actor.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, x.actor.policy.parameters(), strict=True))  # all rows are left out
    fits = next(hook for hook in x.hooks if isinstance(hook, ModelFits))
    fits.first[0].counters.take()
    with pytest.raises(UserError, match="the model diverged: 8 of 8 values of the policy are not finite at step 30"):
        fits(ManualClock(step=30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["agent=kl_sac"], r"agent 'kl_sac' takes no objective for its policy; expected one of ddpg, sac, td3"),
        (["agent=naf"], r"agent 'naf' takes no objective for its policy; expected one of ddpg, sac, td3"),
        (["dynamics=mujoco"], r"dynamics=mujoco has no gradient, and a policy objective is differentiated through its model"),
        (["dynamics=mbrl"], r"dynamics=mbrl has no gradient, and a policy objective is differentiated through its model"),
        (["dynamics.propagation=expectation"], r"dynamics\.propagation=expectation: svg differentiates one member per row"),
        (["imagination.real_ratio=0.5"], r"imagination\.real_ratio counts only where imagination\.spread!=0"),
        (["imagination.horizon=0", "imagination.max_grad_norm=1"], r"imagination\.max_grad_norm counts only where imagination\.horizon!=0"),
        (["imagination.horizon=-1"], r"imagination\.horizon=-1"),
        (["imagination.spread=4", "loop.fit_every=0"], r"loop\.fit_every=0: model rollouts begin when the warm-up ends"),
        (["loop.warmup_steps=1"], r"loop\.warmup_steps=1: svg would use a model that learned nothing"),
        (["env=CartPole-v1"], r"sac needs continuous actions"),
    ],
)
def test_svg_every_mistake_is_one_sentence(options, message):
    habits = [o for o in [*RUN, *LOOP, *AGENT, *MODEL, *FITS] if not o.startswith("dynamics.") or not options[0].startswith("dynamics=")]
    with pytest.raises(UserError, match=message) as caught:
        built(*habits, *options)
    assert "\n" not in str(caught.value)


def test_svg_of_several_seeds_at_once_is_refused(tmp_path):
    options = [*TINY, "imagination.target_horizon=0", "seeds=[1,2]", "steps=40", f"run_dir={tmp_path}"]
    with pytest.raises(UserError, match="belong to one seed"):
        mbkit.train("svg", *options)


@pytest.mark.parametrize("stem", PRESETS)
def test_svg_presets_are_built(stem):
    env, _, preset = stem.partition(".")
    options = [f"env={env}", "loop.buffer_size=1000", "dynamics.hidden=[8]", *AGENT, *([f"preset={preset}"] if preset else [])]
    x = built(*options)
    assert (x.experiment.imagination.config.spread > 0) == (preset == "dhmbpo")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [[], ["preset=dhmbpo"]])
def test_svg_swings_the_pendulum_up(preset, tmp_path):
    run = mbkit.train("svg", "env=Pendulum-v1", "seed=1", "threads=1", "eval.video=false", *preset, f"run_dir={tmp_path / 'run'}")
    assert run.summary()["eval_return_mean"] > -220
