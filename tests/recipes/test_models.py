"""Dynamics by name, and what keeps one from being used: other dimensions, no data, no memory."""

from types import SimpleNamespace

import pytest
import torch

from mbkit import recipes, registry
from mbkit.accelerate import rng_state
from mbkit.config import compose
from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.local_linear import LocalLinear
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.recipes import models
from mbkit.recipes.models import dynamics_for, make_dynamics, make_learned, model_notes
from mbkit.types import EnvSpec

SPEC = EnvSpec(3, 1, torch.device("cpu"))
SMALL = ["dynamics.hidden=[8]", "dynamics.members=2", "dynamics.elites=2"]
RECIPES = ["mve", "mbpo", "mba", "dyna", "loop", "svg"]


def experiment(*options: str, algo: str = "dyna", env: str = "Pendulum-v1"):
    return compose(algo, [f"env={env}", *options])


class Learned:
    """A learned model of other dimensions than Pendulum's."""

    spec = EnvSpec(7, 2, torch.device("cpu"))

    def init(self, obs):
        return obs

    step = rollout = fit = state_dict = load_state_dict = init


@pytest.mark.parametrize(("name", "kind"), [("ensemble", Ensemble), ("local_linear", LocalLinear)])
def test_make_dynamics_makes_the_model_of_a_name(name, kind):
    for reward in ("learned", "auto"):
        e = experiment(f"dynamics={name}", f"dynamics.reward={reward}", *(SMALL if name == "ensemble" else []))
        model = make_dynamics(e, e.dynamics, SPEC)
        assert isinstance(model, kind)
        assert (model.task.reward is None) == (reward == "learned")


def test_make_dynamics_load_takes_widths_and_weights_of_the_file(tmp_path):
    e = experiment(*SMALL)
    saved = make_dynamics(e, e.dynamics, SPEC)
    saved.save(tmp_path / "dynamics.pt")
    e = experiment(f"dynamics.load={tmp_path / 'dynamics.pt'}")
    model = make_dynamics(e, e.dynamics, SPEC)
    assert (model.cfg.hidden, model.cfg.members) == ((8,), 2)
    assert all(torch.equal(x, model.network.state_dict()[k]) for k, x in saved.network.state_dict().items())


def test_make_dynamics_network_larger_than_the_memory_is_named():
    e = experiment("dynamics.hidden=[1000000,1000000]")
    with pytest.raises(UserError, match=r"dynamics 'ensemble' \(dynamics.hidden=\(1000000, 1000000\)\) needs more memory"):
        make_dynamics(e, e.dynamics, SPEC)


def test_dynamics_for_shares_one_learned_model_and_asks_each_environment_for_its_physics():
    e = experiment("dynamics=local_linear")
    make_for = dynamics_for(e, e.dynamics, SPEC)
    assert make_for(make("Pendulum-v1")) is make_for(make("Pendulum-v1"))
    e, one, other = experiment("dynamics=mujoco", algo="pets", env="cartpole"), make("cartpole"), make("cartpole", num_envs=2)
    make_for = dynamics_for(e, e.dynamics, one.spec)
    assert len(make_for(one).envs) == 1
    assert len(make_for(other).envs) == 2


def test_make_learned_spends_no_random_numbers():
    e, before = experiment(*SMALL), rng_state()["torch"]
    make_learned(e, e.dynamics, SPEC)
    assert torch.equal(rng_state()["torch"], before)


@pytest.mark.parametrize("algo", RECIPES)
def test_make_learned_model_of_another_environment_is_named(monkeypatch, algo):
    monkeypatch.setattr(models, "make_dynamics", lambda experiment, part, spec: Learned())
    sentence = r"dynamics 'ensemble' has 7 observations and 2 actions; the agent expects 3 observations and 1 action"
    with pytest.raises(UserError, match=sentence):
        recipes.build(experiment("loop.buffer_size=10", algo=algo), make("Pendulum-v1"))


def test_make_learned_model_of_other_parts_is_named(monkeypatch):
    spec = EnvSpec(3, 5, torch.device("cpu"), True, (3, 2))
    e, other = experiment("loop.buffer_size=10", algo="mbpo"), Learned()
    other.spec = spec._replace(parts=(2, 3))
    monkeypatch.setattr(models, "make_dynamics", lambda experiment, part, spec: other)
    sentence = r"has 3 observations and 5 discrete actions in parts of 2, 3; the agent expects 3 .* in parts of 3, 2"
    with pytest.raises(UserError, match=sentence):
        make_learned(e, e.dynamics, spec)


def test_make_learned_plug_in_that_lacks_a_method_is_named(monkeypatch):
    e = experiment(*SMALL)
    monkeypatch.setattr(models, "make_dynamics", lambda experiment, part, spec: SimpleNamespace(init=lambda obs: obs))
    with pytest.raises(UserError, match=r"dynamics 'ensemble' lacks a method of mbkit.types.LearnedDynamics, which dyna needs"):
        make_learned(e, e.dynamics, SPEC)


@pytest.mark.parametrize("algo", RECIPES)
def test_make_learned_refuses_the_simulator(algo):
    e = experiment("dynamics=mujoco", algo=algo)
    with pytest.raises(UserError, match=f"{algo} needs a model that can start from any state; dynamics=mujoco only plans"):
        make_learned(e, e.dynamics, SPEC)


@pytest.mark.parametrize("algo", ["pets", *RECIPES])
@pytest.mark.parametrize("options", [["loop.fit=false"], ["loop.warmup_steps=1"]])
def test_check_learned_refuses_a_model_without_data(algo, options):
    e = experiment(*options, algo=algo)
    with pytest.raises(UserError, match=rf"{algo} would use a model that learned nothing; .* or dynamics.load"):
        models.check_learned(e, Learned())


def test_check_learned_accepts_a_file_and_the_true_model():
    models.check_learned(experiment("loop.fit=false", "dynamics.load=x.pt"), Learned())
    models.check_learned(experiment("dynamics=mujoco", "loop.warmup_steps=0", algo="pets", env="cartpole"), object())


def test_model_notes_name_a_learned_reward_and_an_unknown_termination():
    e = experiment(algo="pets", env="HalfCheetah-v5")
    assert "is learned" in model_notes(e, e.dynamics)[0]
    e = experiment(algo="pets", env="Acrobot-v1")
    assert "never terminate" in model_notes(e, e.dynamics)[-1]
    assert {entry.name for entry in registry.dynamics} >= {"ensemble", "local_linear", "mbrl", "mujoco"}
