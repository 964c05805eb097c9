"""The four benchmark tasks of PETS (Chua et al. 2018, arXiv:1805.12114, appendix), re-created on MuJoCo.

Importing this package registers `mbkit/cartpole-v0`, `mbkit/reacher-v0`, `mbkit/pusher-v0` and `mbkit/halfcheetah-v0` with Gymnasium;
`TASKS` has their constants, rewards and model inputs by short name. None of them ever terminates.
"""

import gymnasium

from mbkit.envs.benchmarks import cartpole, halfcheetah, pusher, reacher
from mbkit.envs.benchmarks.base import BenchmarkEnv, Task

TASKS: dict[str, Task] = {"cartpole": cartpole.TASK, "reacher": reacher.TASK, "pusher": pusher.TASK, "halfcheetah": halfcheetah.TASK}

for _name, _task in TASKS.items():
    gymnasium.register(f"mbkit/{_name}-v0", entry_point=_task.env, max_episode_steps=_task.horizon)

__all__ = ["TASKS", "BenchmarkEnv", "Task"]
