"""Every task that MuJoCo's threads simulate, read out to the last digit as its environment's step would."""

import gymnasium
import pytest
from live_mujoco import compare

import mbkit.envs.benchmarks  # registers the tasks
from mbkit.dynamics.mujoco.readouts import readout_of
from mbkit.dynamics.mujoco.simulators import Vectorised

BENCHMARKS = [f"mbkit/{name}-v0" for name in mbkit.envs.benchmarks.TASKS]
WITH_X = {"exclude_current_positions_from_observation": False}
FAST = [(name, {}) for name in BENCHMARKS] + [
    ("InvertedPendulum-v5", {}),
    ("InvertedDoublePendulum-v5", {}),
    ("Hopper-v5", {}),
    ("Hopper-v5", WITH_X | {"terminate_when_unhealthy": False, "healthy_reward": 2.0, "ctrl_cost_weight": 0.1}),
    ("Walker2d-v5", {}),
    ("HalfCheetah-v5", {}),
    ("HalfCheetah-v5", WITH_X | {"forward_reward_weight": 2.0}),
    ("Swimmer-v5", {}),
    ("Reacher-v5", {}),
    ("Pusher-v5", {}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}),
]


@pytest.mark.parametrize(("name", "kwargs"), FAST)
def test_readout_equals_env_step(name, kwargs):
    compare(name, kwargs, 25, Vectorised)


@pytest.mark.parametrize(("name", "kwargs"), FAST)
def test_readout_of_a_known_task_exists(name, kwargs):
    assert readout_of(gymnasium.make(name, disable_env_checker=True, **kwargs).unwrapped) is not None


@pytest.mark.parametrize("name", ["Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"])
def test_readout_of_contact_forces_and_unknown_tasks_is_none(name):
    assert readout_of(gymnasium.make(name, disable_env_checker=True).unwrapped) is None


def test_readout_of_a_subclass_is_none():
    class Careful(gymnasium.envs.mujoco.half_cheetah_v5.HalfCheetahEnv):
        pass

    assert readout_of(Careful()) is None
