"""Train the actor-critic and model-based rows of docs/results/actor_critic.md, and print their table as Markdown.

    python scripts/results_actor_critic.py learning mbpo         # sections, one run after the other
    python scripts/results_actor_critic.py expansion --only steve --seeds 0
    python scripts/results_actor_critic.py --table               # only tabulate what lies under --out

Every row is a run of the command that stands in it. Scores are mean undiscounted returns of the final policy on fresh evaluation seeds,
never a running maximum. Runs that are complete already are not run again; ones that were cut are resumed.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table: a command without its seed, run for several seeds."""

    name: str
    algo: str
    env: str
    words: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)

    def command(self, seed: int | str) -> list[str]:
        """What a person would type after `mbkit`."""
        return ["train", self.algo, f"env={self.env}", *self.words, f"seed={seed}"]


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
    "imagined": [
        Row("naf", "naf", PENDULUM, ("steps=4000", "eval.every=500", "eval.episodes=20")),
        Row("naf-5", "naf", PENDULUM, ("steps=4000", "eval.every=500", "eval.episodes=20", "loop.updates_per_step=5")),
        Row("mba-ensemble", "mba", PENDULUM),
        Row("mba-linear", "mba", PENDULUM, ("preset=linear",)),
        Row("dyna", "dyna", PENDULUM),
    ],
    "loop": [
        Row("loop", "loop", HOPPER),
        Row("mpc-3", "loop", HOPPER, ("imagination.value=false", "imagination.proposals=0", "loop.updates_per_step=0")),
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


def run(row: Row, seed: int, folder: Path, extra: list[str]) -> None:
    """Train unless it was done already."""
    if (folder / "summary.json").exists():
        return
    words = [*row.command(seed), *extra, f"run_dir={folder}"]
    print("mbkit", *words, flush=True)
    unfinished = (folder / "config.yaml").exists()
    subprocess.run([sys.executable, "-m", "mbkit.cli", *(["resume", str(folder)] if unfinished else words)], check=True)


def cells(section: str, row: Row, out: Path, extra: list[str]) -> list[str] | None:
    """One line of the table from the seeds that are there."""
    found = sorted((out / section / row.name).glob("*/summary.json"), key=lambda path: int(path.parent.name))
    runs = [json.loads(path.read_text()) for path in found]
    if not runs:
        return None
    scores = [r["eval_return_mean"] for r in runs]
    each = " · ".join(f"{r['eval_return_mean']:.1f} ± {r['eval_return_std']:.1f}" for r in runs)
    seeds = ", ".join(str(r["seed"]) for r in runs)
    seconds = " · ".join(f"{r['wall_seconds']:.0f}" for r in runs)
    episodes, steps = str(runs[0]["eval_episodes"]), str(runs[0]["steps"])
    command = " ".join(["mbkit", *row.command("S"), *extra])
    return [row.env, row.algo, f"**{statistics.median(scores):.1f}**", each, seeds, steps, episodes, seconds, f"`{command}`"]


def table(out: Path, extra: list[str]) -> str:
    """Markdown, section by section."""
    head = ["task", "algorithm", "median", "each seed (± over episodes)", "seeds", "steps", "episodes", "wall-clock, s", "command"]
    parts = []
    for section, rows in SECTIONS.items():
        lines = [line for row in rows if (line := cells(section, row, out, extra))]
        if lines:
            parts.append(f"### {section}\n\n" + "\n".join("| " + " | ".join(x) + " |" for x in [head, ["---"] * len(head), *lines]))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # the empty list is what argparse checks where no section is given
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], default=[], metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--seeds", type=int, nargs="+", help="other seeds than the row's own")
    parser.add_argument("--words", nargs="*", default=["threads=1", "eval.video=false"], help="options of every run")
    parser.add_argument("--out", type=Path, default=Path("runs/results-actor-critic"))
    parser.add_argument("--table", action="store_true", help="train nothing, only tabulate")
    args = parser.parse_args()
    for section in args.sections if not args.table else []:
        for row in SECTIONS[section]:
            for seed in args.seeds or row.seeds:
                if not args.only or args.only in row.name:
                    run(row, seed, args.out.resolve() / section / row.name / str(seed), args.words)
    print(table(args.out, args.words))


if __name__ == "__main__":
    main()
