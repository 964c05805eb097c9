"""Options without a meaning are refused, whoever sets them: of another regime, or beside the option that leaves them none."""

from dataclasses import fields, is_dataclass, replace
from functools import cache

import pytest
import yaml

from mbkit import registry
from mbkit.config import GROUPS, Part, check_actions, compose, from_dict, to_yaml
from mbkit.config.compose import REGISTRIES, algorithm, loop_class, own_group
from mbkit.config.conditions import OPERATORS, comparisons, failing, meaningless, text_of
from mbkit.config.describe import describe
from mbkit.config.identity import flatten
from mbkit.config.reading import config_root, read_yaml
from mbkit.config.regimes import offered, only_offline
from mbkit.config.schema import LOOPS, OfflineLoop
from mbkit.errors import UserError

ALGORITHMS = [entry.name for kind in (registry.recipes, registry.agents) for entry in kind]
PRESETS = sorted(config_root().glob("*/*.yaml"))
ENV = {"random": ["env=Pendulum-v1"]}


@cache
def composed(algo, *options):
    return compose(algo, [*ENV.get(algo, []), *options])


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_compose_refuses_every_option_of_every_other_regime(algo):
    mine = {f.name for f in fields(loop_class(algorithm(algo)))}
    others = {f.name: f for cls in LOOPS for f in fields(cls) if f.name not in mine}
    assert others
    for name, f in others.items():
        with pytest.raises(UserError, match=rf"loop.{name} has no meaning for {algo}, which .*; of loop.\* these have one: "):
            composed(algo, f"loop.{name}={text_of(f.default)}")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_compose_refuses_groups_that_an_algorithm_lacks(algo):
    entry = algorithm(algo)
    for group in GROUPS:
        if group not in entry.defaults and group != own_group(entry) and not (group == "imagination" and entry.imagination):
            with pytest.raises(UserError, match=f"{algo} has no {group}"):
                composed(algo, f"{group}.lr=1")


def conditional():
    """Every conditional option, in every algorithm that has it: algorithm, parts to choose, group, field.

    A condition on the option's own class alone is the same everywhere, so that the first algorithm with that class stands for all; with
    `loop.fit` too it is the same wherever the loop is.
    """
    alone = set()
    for algo in ALGORITHMS:
        entry = algorithm(algo)
        imagination = Part(algo, entry.config)
        for group in ("", "loop", *GROUPS):
            parts = [e for e in REGISTRIES[group] if suits(entry, group, e)] if group in REGISTRIES and group in entry.defaults else []
            classes = [([f"{group}={e.name}"], e.config) for e in parts]
            if not classes and group == own_group(entry):
                classes = [([], imagination.config)]
            if group == "loop":
                classes = [([], loop_class(entry))]
            for choice, cls in classes:
                for f in fields(cls) if is_dataclass(cls) else ():
                    if "when" in f.metadata and "actions" not in f.metadata["when"]:
                        on = {left for left, _, _ in comparisons(f.metadata["when"])}
                        key = cls, f.name, loop_class(entry) if "loop.fit" in on else None
                        if key in alone:
                            continue
                        if on - {"loop.fit"} <= {sibling.name for sibling in fields(cls)}:
                            alone.add(key)
                        yield pytest.param(algo, choice, group, f, id=f"{algo}-{'-'.join(choice)}-{group}.{f.name}")


def suits(entry, group, part):
    """Whether a part may stand in the group of the algorithm: an agent must learn from what the recipe offers."""
    return group != "agent" or bool(set(offered(entry, only_offline(entry))) & set(part.learns_from))


def violating(experiment, group, left, sign, right):
    """`key=value` options that make the comparison fail."""
    if left == "loop.fit" and isinstance(experiment.loop, OfflineLoop):
        return ["dynamics.load=model.pt"] if hasattr(experiment.group("dynamics"), "load") else None
    key = left if "." in left or not group or left in (*GROUPS, "algo") else f"{group}.{left}"
    holder, _, name = key.rpartition(".")
    options = experiment.group(holder)
    field = next((f for f in fields(options) if f.name == name), None) if is_dataclass(options) else None
    if key == "agent" and sign == "=":
        return ["agent=sac"]
    if field is None:
        return [f"{key}={text_of(right)}"] if sign == "!=" else None
    sibling = getattr(experiment.group(group), right, None) if isinstance(right, str) else None
    wanted = right if sibling is None else sibling
    for value in (wanted, None, True, False, 0, 1, 0.5, 2, *literals(type(options), name)):
        if not OPERATORS[sign](value, wanted) if value is not None or sign in ("=", "!=") else False:
            try:
                composed(experiment.algo, *chosen(experiment), f"{key}={text_of(value)}")
            except UserError:
                continue
            return [f"{key}={text_of(value)}"]
    return None


def chosen(experiment):
    """The parts that stand in an experiment, as options."""
    return [f"{g}={getattr(experiment, g).name}" for g in REGISTRIES if g in algorithm(experiment.algo).defaults]


def literals(cls, name):
    from typing import get_args, get_type_hints

    return [x for hint in (get_type_hints(cls)[name],) for x in get_args(hint) if isinstance(x, str)]


@pytest.mark.parametrize(("algo", "choice", "group", "field"), conditional())
def test_compose_refuses_every_conditional_option_without_its_condition(algo, choice, group, field):
    experiment = composed(algo, *choice)
    key = f"{group}.{field.name}" if group else field.name
    default = getattr(experiment.group(group), field.name)
    tried = 0
    for left, sign, right in comparisons(field.metadata["when"]):
        options = violating(experiment, group, left, sign, right)
        if options is None:
            tried += left == "algo"  # which no option changes
            continue
        tried += 1
        with pytest.raises(UserError, match=rf"{key}.* ha(s|ve) no meaning here: .*; of {group}.\* these have one: "):
            composed(algo, *choice, *options, f"{key}={text_of(default)}")
        assert key not in {d.key for d in describe(composed(algo, *choice, *options))}
    assert tried or "load" in field.metadata["when"] or failing(experiment, group, field.metadata["when"])


@pytest.mark.parametrize("path", PRESETS, ids=[f"{p.parent.name}/{p.stem}" for p in PRESETS])
def test_presets_hold_no_option_without_a_meaning(path):
    env, _, preset = path.stem.partition(".")
    experiment = compose(path.parent.name, [f"env={env}", *([f"preset={preset}"] if preset else [])])
    entry = algorithm(experiment.algo)
    written = from_dict({**merged(entry, read_yaml(path.read_text(), path.name)), "algo": experiment.algo, "env": env})
    shipped = set(flatten(read_yaml(path.read_text(), path.name) or {})) | set(flatten(entry.defaults))
    assert not shipped & set(meaningless(written, entry))


def merged(entry, preset):
    from mbkit.config.compose import merge

    return merge(entry.defaults, preset or {})


def test_compose_drops_what_a_preset_sets_beside_a_condition_that_is_removed(tmp_path, monkeypatch):
    experiment = compose("mbpo", ["env=Hopper-v5", "preset=macura", "imagination.gate=none"])
    assert experiment.imagination.config.xi == type(experiment.imagination.config)().xi  # not the preset's 30
    assert "xi" not in to_yaml(experiment)
    assert compose("pets", ["env=cartpole", "dynamics=mujoco"]).agent.config.particles == 20  # the preset's is gone with the ensemble


def test_compose_own_file_holds_no_option_without_a_meaning(tmp_path):
    (tmp_path / "mine.yaml").write_text("imagination: {xi: 3}\n")
    with pytest.raises(UserError, match=r"imagination.xi has no meaning here: imagination.xi counts only where imagination.gate=macura"):
        compose("mbpo", [f"preset={tmp_path / 'mine.yaml'}"])


@pytest.mark.parametrize(
    ("algo", "options", "sentence"),
    [
        (
            "mbpo",
            ["imagination.xi=3"],
            r"imagination.xi counts only where imagination.gate=macura; of imagination.\* these have one: real_ratio",
        ),
        (
            "sac",
            ["agent.temperature=0.1", "agent.initial_temperature=1"],
            "agent.initial_temperature counts only where agent.temperature=null",
        ),
        ("dqn", ["agent.target_every=100", "agent.tau=0.1"], "agent.tau counts only where agent.target_every=0"),
        ("ppo", ["loop.batch_size=64"], "loop.batch_size has no meaning for ppo, which learns from trajectories"),
        ("sac", ["loop.off_policy_updates=2"], "loop.off_policy_updates has no meaning for sac, which learns from replayed transitions"),
        (
            "ppo",
            ["loop.off_policy_updates=2"],
            "loop.off_policy_updates has no meaning for ppo, which learns from trajectories of its policy;",
        ),
        ("pets", ["agent.gamma=0.9"], "unknown option agent.gamma"),
        ("random", ["gamma=0.9"], "gamma counts only where algo!=random"),
        (
            "pets",
            ["dynamics=mujoco", "loop.fit_every=9", "agent.particles=3"],
            "loop.fit_every, agent.particles|agent.particles, loop.fit_every",
        ),
        (
            "mbpo",
            ["imagination.real_ratio=1", "dynamics.lr=1e-3"],
            "dynamics.lr counts only where a model is used, which imagination.real_ratio=1",
        ),
        ("dyna", ["imagination.updates=0", "loop.fit_every=9"], "loop.fit_every counts only where a model is used"),
        ("mve", ["imagination.horizon=0", "imagination.weighting=steve"], "imagination.weighting counts only where imagination.horizon!=0"),
        ("mbpo", ["loop.fit=false", "dynamics.load=x.pt", "dynamics.lr=1e-3"], "dynamics.lr counts only where loop.fit=true"),
        (
            "mbpo",
            ["agent=ppo"],
            "agent 'ppo' learns from trajectories of its policy, but mbpo offers replayed transitions; expected one of .*sac",
        ),
        ("mbpo", ["agent=dpg"], "agent 'dpg' learns from its newest transitions, but mbpo offers replayed transitions"),
    ],
)
def test_compose_refuses_options_without_a_meaning(algo, options, sentence):
    with pytest.raises(UserError, match=sentence):
        composed(algo, *options)


def test_compose_pets_has_one_discount():
    assert compose("pets").gamma == 1
    assert compose("pets", ["gamma=0.9"]).gamma == 0.9
    assert compose("loop").gamma == 0.99
    for algo in ("sac", "mbpo", "loop", "ppo"):
        with pytest.raises(UserError, match=r"gamma=1 is out of range: expected in \[0, 1\)"):
            compose(algo, ["gamma=1"])


def test_check_actions_refuses_what_the_kind_of_actions_leaves_without_a_meaning():
    experiment = compose("ppo", ["env=CartPole-v1", "agent.log_std=-1"])
    check_actions(experiment, "continuous")
    with pytest.raises(UserError, match=r"agent.log_std has no meaning here: agent.log_std counts only where actions=continuous"):
        check_actions(experiment, "discrete")
    check_actions(compose("ppo", ["env=CartPole-v1"]), "discrete")  # nobody typed it


def test_from_dict_reads_a_config_yaml_without_the_check():
    experiment = compose("mbpo", ["imagination.gate=macura", "imagination.xi=3"])
    tree = yaml.safe_load(to_yaml(experiment))
    tree["imagination"]["gate"] = "none"
    assert from_dict(tree).imagination.config.xi == 3


def test_failing_names_the_first_comparison_that_does_not_hold():
    experiment = compose("mbpo", ["imagination.gate=m2ac"])
    assert failing(experiment, "imagination", "gate=m2ac, loop.fit=true") == ""
    assert failing(experiment, "imagination", "gate=m2ac, loop.fit=false") == "loop.fit=false"
    assert failing(experiment, "imagination", "gate=macura") == "imagination.gate=macura"
    assert failing(experiment, "agent", "dynamics!=ensemble") == "dynamics!=ensemble"
    assert failing(experiment, "agent", "planner=cem, loop.rollout_steps=3") == ""  # what an experiment lacks leaves nothing out
    frozen = replace(experiment, loop=replace(experiment.loop, fit_every=0))
    assert failing(frozen, "loop", "fit_every>=1") == "loop.fit_every>=1"
    with pytest.raises(ValueError, match="expected comparisons such as gate=m2ac"):
        failing(experiment, "agent", "gate is m2ac")
