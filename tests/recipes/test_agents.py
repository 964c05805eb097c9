"""Agents by name; a plug-in that lacks a method is named."""

from dataclasses import dataclass

import pytest
import torch

from mbkit import registry
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.config import Part
from mbkit.errors import UserError
from mbkit.recipes.agents import make_learner, make_trajectory_learner
from mbkit.targets import one_step
from mbkit.types import EnvSpec

SPEC = EnvSpec(3, 1, torch.device("cpu"))


@dataclass(frozen=True)
class PlainConfig:
    """No options."""


class Silent:
    """A plug-in that cannot act."""

    def __init__(self, *arguments):
        self.arguments = arguments


@pytest.fixture
def plug_in(monkeypatch):
    list(registry.agents)  # the built-in ones register
    monkeypatch.setattr(registry.agents, "_entries", dict(registry.agents._entries))
    registry.agents.register("silent", PlainConfig)(Silent)
    return Part("silent", PlainConfig())


def test_make_learner_passes_the_target_on():
    def target(agent, batch, gamma):
        return one_step(agent, batch, gamma)

    agent = make_learner(Part("sac", SACConfig(hidden=(8,))), SPEC, 0.9, target)
    assert isinstance(agent, SAC)
    assert (agent.target, agent.gamma) == (target, 0.9)


def test_make_learner_names_a_plug_in_that_lacks_a_method(plug_in):
    with pytest.raises(UserError, match=r"agent 'silent' does not learn from batches of transitions: it lacks a method of mbkit"):
        make_learner(plug_in, SPEC, 0.9)


def test_make_trajectory_learner_makes_the_agent_of_its_name():
    agent = make_trajectory_learner(Part("ppo", PPOConfig(hidden=(8,))), SPEC, 0.9)
    assert isinstance(agent, PPO)
    assert agent.gamma == 0.9


def test_make_trajectory_learner_names_a_plug_in_that_lacks_a_method(plug_in):
    with pytest.raises(UserError, match=r"agent 'silent' does not learn from trajectories: it lacks a method of mbkit"):
        make_trajectory_learner(plug_in, SPEC, 0.9)
