"""Plan with the true model: balance InvertedDoublePendulum-v5, run with HalfCheetah-v5.

    python scripts/true_model.py balance --steps 1000
    python scripts/true_model.py run --steps 1000

`balance` plans 0.2 s ahead, with a terminal value: the cost-to-go of a linear-quadratic regulator, computed from the simulator's
derivatives. Short horizons need one where episodes terminate. `run` is plain iCEM at 97 trajectories per plan.
"""

import argparse
import json
import time

import mujoco
import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from mbkit import accelerate, envs, planning, registry
from mbkit.dynamics.mujoco.dynamics import MujocoDynamics
from mbkit.types import ValueFn


def linearised(env: envs.Environment) -> tuple[np.ndarray, np.ndarray]:
    """One environment step near the upright rest state: ds' = A ds + B da, s = (qpos, qvel), a in [-1, 1]."""
    task = env.envs[0].unwrapped
    model, data = task.model, mujoco.MjData(task.model)
    gear = task.action_space.high.astype(np.float64)

    def step(x: np.ndarray) -> np.ndarray:
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = *np.split(x[: 2 * model.nv], 2), x[2 * model.nv :] * gear
        mujoco.mj_step(model, data, task.frame_skip)
        return np.concatenate([data.qpos, data.qvel])

    h = 1e-5
    jacobian = np.stack([(step(h * e) - step(-h * e)) / (2 * h) for e in np.eye(2 * model.nv + model.nu)], 1)
    return jacobian[:, : 2 * model.nv], jacobian[:, 2 * model.nv :]


def regulator_value(env: envs.Environment) -> ValueFn:
    """V(s) = -s' P s with P the solution of the discrete algebraic Riccati equation; [B, O] -> [B]."""
    a, b = linearised(env)
    cost = np.diag([1.0, 10, 10, 0.1, 0.1, 0.1])  # x, both angles, their rates
    p = torch.tensor(scipy.linalg.solve_discrete_are(a, b, cost, np.eye(1)), dtype=torch.float32)

    def value(obs: Tensor) -> Tensor:
        x, sin, cos, rates = obs[:, :1], obs[:, 1:3], obs[:, 3:5], obs[:, 5:8]
        state = torch.cat([x, torch.atan2(sin, cos), rates], 1)
        return -((state @ p) * state).sum(1)

    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["balance", "run"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--horizon", type=int)
    parser.add_argument("--planner", default="{}", help="JSON, fields of the iCEM configuration")
    args = parser.parse_args()
    accelerate.set_threads(args.threads)
    accelerate.seed_everything(args.seed)
    balance = args.what == "balance"
    env = envs.make("InvertedDoublePendulum-v5" if balance else "HalfCheetah-v5", seed=args.seed)
    usual = {"exponent": 0.0, "initial_std": 0.3, "iterations": 5} if balance else {"exponent": 0.25}
    entry = registry.planners["icem"]
    planner = entry.target(env.spec, entry.config(**(usual | json.loads(args.planner))))
    horizon = args.horizon or (4 if balance else 30)
    model = MujocoDynamics(env)
    guide = planning.Guide(terminal_value=regulator_value(env) if balance else None)
    mpc = planning.MPC(env.spec, planner, model, planning.MPCConfig(horizon, particles=1), guide=guide)
    print(f"{env.name}: {sum(planner.populations)} trajectories of {horizon} steps per plan")
    obs, total, fastest, began = env.reset(), 0.0, 0.0, time.perf_counter()
    mpc.reset(torch.ones(1, dtype=torch.bool))
    for step in range(1, args.steps + 1):
        out = env.step(mpc.act(obs))
        obs, total = out.obs, total + float(out.reward)
        if not balance:
            fastest = max(fastest, abs(float(out.next_obs[0, 8])))
        if step % 100 == 0 or out.terminated or step == args.steps:
            speed = "" if balance else f", fastest {fastest:.1f} m/s"
            print(f"step {step}: return {total:.1f}{speed}, {1000 * (time.perf_counter() - began) / step:.0f} ms a step", flush=True)
        if out.terminated:
            print("fell")
            break


if __name__ == "__main__":
    main()
