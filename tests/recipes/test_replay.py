"""An agent alone on replayed transitions."""

import pytest
from resumption import final_state, same

import mbkit
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


SHORT = [
    "agent.hidden=[8]",
    "loop.num_envs=1",
    "loop.warmup_steps=20",
    "loop.batch_size=8",
    "eval.episodes=1",
    "checkpoint.every=40",
    "steps=80",
    "threads=1",
    "eval.video=false",
]
TASKS = {
    "dqn": ["env=CartPole-v1", "agent.lr=1e-3", "loop.n_step=3"],
    "td3": ["env=Pendulum-v1", "agent.lr=1e-3"],
    "sac": ["env=Pendulum-v1", "agent.lr=1e-3"],
    "ddpg": ["env=Pendulum-v1", "agent.lr=1e-3"],
}


@pytest.mark.parametrize("name", TASKS)
def test_replay_learning_rates_go_on_falling_where_they_were(name, tmp_path):
    """They fall to the end of the same run: one whose last checkpoint is lost ends alike, bit for bit."""
    folder = tmp_path / "run"
    mbkit.train(name, *SHORT, *TASKS[name], "agent.final_lr=1e-4", "checkpoint.keep=all", f"run_dir={folder}")
    whole = final_state(folder)
    for path in (folder / "checkpoint").iterdir():
        if "40" not in path.name:
            path.unlink()
    assert final_state(folder)["loop"]["step"] == 40
    mbkit.resume(folder)
    assert same(whole, final_state(folder))
    state = whole["parts"]["agent"]["_extra_state"]
    rates = [value["param_groups"][0]["lr"] for value in state.values() if isinstance(value, dict) and "param_groups" in value]
    assert rates == [pytest.approx(1e-4 + 9e-4 / 80)] * len(rates)  # of the step before the last
    assert rates


def test_replay_learning_rates_stay_where_none_is_final():
    x = recipes.build(compose("td3", ["env=Pendulum-v1"]), make("Pendulum-v1"))
    assert x.hooks[0].anneal is None
