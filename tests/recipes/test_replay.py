"""An agent alone on replayed transitions."""

import pytest

from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import Updates


def test_replay_updates_the_agent_on_its_stored_steps():
    x = recipes.build(compose("sac", ["env=Pendulum-v1", "agent.hidden=[8]", "loop.updates_per_step=3"]), make("Pendulum-v1"))
    (updates,) = x.hooks
    assert isinstance(updates, Updates)
    assert updates.source is x.store is x.replay
    assert updates.agent is x.actor
    assert (updates.name, updates.cadence.rate) == ("sac", 3)
    assert x.dynamics is None


def test_replay_network_larger_than_the_memory_is_named():
    experiment = compose("sac", ["env=Pendulum-v1", "agent.hidden=[100000,1000000]"])
    sentence = r"agent 'sac' \(agent.hidden=\[100000, 1000000\]\) needs more memory than the device has; expected less"
    with pytest.raises(UserError, match=sentence):
        recipes.build(experiment, make("Pendulum-v1"))
