"""Train PETS on several tasks and seeds, one after the other, and write the table of docs/results/pets.md as Markdown.

    python scripts/results_pets.py cartpole --seeds 0 1 2 --ceilings
    python scripts/results_pets.py reacher pusher --seeds 0 1 2
    python scripts/results_pets.py --table              # only tabulate the runs under --out

Every row is a run of its command. Scores are raw returns of the final policy on fresh evaluation seeds, never a running
maximum. Complete runs are not run again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

GENEROUS = ["dynamics=mujoco", "planner=cem", "planner.candidates=500", "planner.elites=50", "planner.iterations=5", "eval.episodes=2"]


class Row(NamedTuple):
    """One line of the table: a command without its seed, run for several seeds."""

    env: str
    what: str  # PETS, same planner with the true model, ...
    algo: str
    options: list[str]

    def folder(self, out: Path, seed: int) -> Path:
        """Directory of the run."""
        return out / self.env / self.what.replace(" ", "-") / str(seed)

    def command(self, seed: int | str) -> list[str]:
        """Arguments of `mbkit`."""
        return ["train", self.algo, f"env={self.env}", *self.options, f"seed={seed}"]


def rows_of(env: str, ceilings: bool, options: list[str]) -> list[Row]:
    """PETS, random actions, and, as upper references, the true model with the same and with a generous planner."""
    rows = [Row(env, "PETS", "pets", options), Row(env, "random", "random", ["steps=1", "eval.video=false"])]
    if ceilings:  # nothing is learned with the true model, so one training step is enough before the evaluation
        once = ["steps=1", "loop.warmup_steps=1", "eval.video=false"]
        rows.append(Row(env, "true model, same planner", "pets", ["dynamics=mujoco", *once]))
        rows.append(Row(env, "true model, generous CEM", "pets", [*GENEROUS, *once]))
    return rows


def run(row: Row, seed: int, out: Path) -> None:
    """Trains, unless the run is complete."""
    folder = row.folder(out, seed)
    if (folder / "summary.json").exists():
        return
    arguments = [*row.command(seed), f"run_dir={folder}"]
    print("mbkit", *arguments, flush=True)
    unfinished = (folder / "config.yaml").exists()
    subprocess.run([sys.executable, "-m", "mbkit", *(["resume", str(folder)] if unfinished else arguments)], check=True)


def cells(row: Row, out: Path) -> list[str] | None:
    """One line of the table from the seeds that were run; None where there is none."""
    summaries = sorted(out.glob(str(row.folder(Path(), 0).parent / "*" / "summary.json")))
    if not summaries:
        return None
    runs = [json.loads(path.read_text()) for path in summaries]
    scores = [r["eval_return_mean"] for r in runs]
    seconds = statistics.median(r["wall_seconds"] for r in runs)
    each = " · ".join(f"{score:.1f}" for score in scores)
    seeds = ", ".join(str(r["seed"]) for r in runs)
    command = " ".join(["mbkit", *row.command("S")])
    return [row.env, row.what, f"**{statistics.median(scores):.1f}**", each, seeds, str(runs[0]["steps"]), f"{seconds:.0f}", f"`{command}`"]


def table(rows: list[Row], out: Path) -> str:
    """The rows as a table of Markdown."""
    head = ["task", "what", "median", "each seed (mean of 10 episodes)", "seeds", "steps", "wall-clock, s", "command"]
    lines = [head, ["---"] * len(head), *filter(None, (cells(row, out) for row in rows))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ceilings", action="store_true", help="also score the true model with the same planner and with a generous CEM")
    parser.add_argument("--options", nargs="*", default=[], help="options of the runs of PETS, e.g. steps=3000")
    parser.add_argument("--out", type=Path, default=Path("runs/results-pets"))
    parser.add_argument("--table", action="store_true", help="train nothing, only tabulate")
    args = parser.parse_args()
    envs = args.envs or sorted(p.name for p in args.out.glob("*") if p.is_dir())
    rows = [row for env in envs for row in rows_of(env, args.ceilings or args.table, args.options)]
    for row in rows if not args.table else []:
        for seed in args.seeds:
            run(row, seed, args.out)
    print(table(rows, args.out))


if __name__ == "__main__":
    main()
