"""Train the rows of docs/results/model_free.md, and print their table as Markdown.

    python scripts/results_model_free.py values gradients        # sections, one run after the other
    python scripts/results_model_free.py values --only fqi --seeds 1
    python scripts/results_model_free.py --table                 # only tabulate the runs under --out

Every row is a run of its command, with the preset of its task.
"""

from pathlib import Path

from results_table import Row, main

THREE = (1, 2, 3)
CARTPOLE, ACROBOT, PENDULUM, CHEETAH = "CartPole-v1", "Acrobot-v1", "Pendulum-v1", "HalfCheetah-v5"

CURVE = ("steps=5000", "eval.every=500", "eval.episodes=20")


def rows(env: str, names: str, steps: int, seeds: tuple[int, ...] = THREE) -> list[Row]:
    """Rows of several algorithms on one task, with the same number of steps."""
    return [Row(name, name, env, (f"steps={steps}",), seeds) for name in names.split()]


SECTIONS = {
    "values": [
        *rows(CARTPOLE, "dqn double_dqn fqi", 50_000),
        *rows(CARTPOLE, "soft_q munchausen_dqn", 100_000),
        *rows(CARTPOLE, "sac_discrete", 200_000),
    ],
    "gradients": [
        *rows(CARTPOLE, "ppo trpo", 100_000),
        *rows(CARTPOLE, "a2c npg soft_pg reinforce vtrace retrace", 300_000),
    ],
    "acrobot": [*rows(ACROBOT, "dqn double_dqn", 50_000), *rows(ACROBOT, "ppo", 200_000)],
    "pendulum": rows(PENDULUM, "ppo trpo", 200_000),
    "priors": [
        Row("sac", "sac", PENDULUM, (*CURVE, "loop.warmup_steps=200"), THREE),
        Row("kl_sac-uniform", "kl_sac", PENDULUM, CURVE, THREE),
        Row("kl_sac-swing-up", "kl_sac", PENDULUM, (*CURVE, "agent.prior=scripts.priors:swing_up", "agent.target_kl=1"), THREE),
    ],
    "cheetah": rows(CHEETAH, "ppo", 500_000, seeds=(1,)),
}

if __name__ == "__main__":
    main(__doc__, SECTIONS, Path("runs/results-model-free"))
