"""Train the actor-critic and model-based rows of docs/results/actor_critic.md, and print their table as Markdown.

    python scripts/results_actor_critic.py learning mbpo         # sections, one run after the other
    python scripts/results_actor_critic.py expansion --only steve --seeds 0
    python scripts/results_actor_critic.py --table               # only tabulate the runs under --out

Every row is a run of its command. Scores are mean undiscounted returns of the final policy on fresh evaluation seeds,
never a running maximum. Complete runs are not run again; interrupted ones are resumed.
"""

from pathlib import Path

from results_table import Row, main

THREE = (0, 1, 2)
PENDULUM, BALANCE, HOPPER = "Pendulum-v1", "InvertedPendulum-v5", "Hopper-v5"
WALKER, SWINGUP = "dm_control/walker-stand-v0", "dm_control/cartpole-swingup-v0"
SMALL = ("steps=10000", "agent.hidden=[128,128]", "loop.batch_size=128")  # as the presets of mbpo
SECTIONS = {
    "learning": [
        *[Row(algo, algo, PENDULUM, seeds=THREE) for algo in ("sac", "td3", "ddpg")],
        Row("naf", "naf", PENDULUM, seeds=(1, 2, 3)),  # its preset was tuned on seed 0
        *[Row(f"{algo}-balance", algo, BALANCE, ("eval.episodes=10",), seeds=THREE) for algo in ("sac", "td3")],
        Row("dpg", "dpg", BALANCE),
    ],
    "mbpo": [
        Row("mbpo", "mbpo", BALANCE, ("eval.episodes=10",), seeds=THREE),
        Row("sac", "sac", BALANCE, ("steps=5000", "eval.episodes=10"), seeds=THREE),
    ],
    "expansion": [
        Row("sac-pendulum", "sac", PENDULUM, ("steps=6000", "eval.every=500", "eval.episodes=20")),
        Row("mve-pendulum", "mve", PENDULUM),
        Row("steve-pendulum", "mve", PENDULUM, ("preset=steve",)),
        Row("sac-balance", "sac", BALANCE, ("steps=10000", "eval.every=500", "eval.episodes=10")),
        Row("mve-balance", "mve", BALANCE),
        Row("steve-balance", "mve", BALANCE, ("preset=steve",)),
    ],
    "model-transitions": [
        Row("naf", "naf", PENDULUM, ("steps=4000", "eval.every=500", "eval.episodes=20")),
        Row("naf-5", "naf", PENDULUM, ("steps=4000", "eval.every=500", "eval.episodes=20", "loop.updates_per_step=5")),
        Row("mba-ensemble", "mba", PENDULUM),
        Row("mba-linear", "mba", PENDULUM, ("preset=linear",)),
        Row("dyna", "dyna", PENDULUM),
    ],
    "loop": [
        Row("loop", "loop", HOPPER),
        Row("mpc-3", "loop", HOPPER, ("imagination.terminal_value=false", "imagination.proposals=0", "loop.updates_per_step=0")),
        Row("mpc", "pets", HOPPER),
    ],
    "hopper": [Row("mbpo", "mbpo", HOPPER, seeds=(1,)), Row("sac", "sac", HOPPER, ("steps=15000", "eval.every=1000"))],
    "control-suite": [  # needs the dmc extra
        Row("walker", "mbpo", WALKER, seeds=(1,)),
        Row("walker-raw", "mbpo", WALKER, ("preset=raw",), seeds=(1,)),
        Row("walker-sac", "sac", WALKER, (*SMALL, "eval.every=1000", "eval.episodes=3"), seeds=(1,)),
        Row("swingup", "mbpo", SWINGUP, seeds=(1,)),
        Row("swingup-raw", "mbpo", SWINGUP, ("preset=raw",), seeds=(1,)),
    ],
}

if __name__ == "__main__":
    main(__doc__, SECTIONS, Path("runs/results-actor-critic"))
