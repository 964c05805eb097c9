"""Data sets of one SAC run, from random to expert: `python scripts/make_datasets.py --task Pendulum-v1 --seed 11 --out data`.

SAC learns once for each task and seed, scored and stored at regular steps. From its checkpoints come the sets named as in D4RL:
`random` (uniform actions), `medium` (the first checkpoint above a third of the way from random to the best one), `expert` (the best),
`medium-expert` (half of each) and `medium-replay` (all that was stored by the medium checkpoint; of Pendulum-v1, where that is little, by
the last one). `random-N` has N random rows. What exists is not made again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

KINDS = ("random", "medium", "medium-replay", "expert", "medium-expert")


class Task(NamedTuple):
    """How long SAC learns, how often it is scored, and the rows of a set."""

    steps: int
    every: int
    rows: int
    whole_replay: bool = False  # medium-replay holds all of it


TASKS = {
    "Pendulum-v1": Task(10_000, 500, 20_000, whole_replay=True),
    "Hopper-v5": Task(150_000, 5000, 50_000),
    "HalfCheetah-v5": Task(100_000, 5000, 50_000),
}


def mbkit(*arguments: str) -> None:
    """One command, in a process of its own."""
    subprocess.run([sys.executable, "-m", "mbkit", *arguments], check=True)


def sac(task: str, seed: int, folder: Path) -> Path:
    """The directory of the finished SAC run; an interrupted one goes on."""
    run, size = folder / f"sac-{seed}", TASKS[task]
    if (run / "summary.json").exists():
        return run
    if (run / "checkpoint").exists():
        mbkit("resume", str(run), "-q")
        return run
    cadence = [f"eval.every={size.every}", "eval.video=false", f"checkpoint.every={size.every}", "checkpoint.keep=all"]
    mbkit("train", "sac", f"env={task}", f"seed={seed}", f"steps={size.steps}", "threads=1", f"run_dir={run}", "-q", *cadence)
    return run


def scores(run: Path) -> dict[int, float]:
    """Evaluation returns of a run by step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["eval/return"] for line in lines if "eval/return" in line}


def mean_return(data: Path) -> float:
    """The mean return of the recorded episodes."""
    out = subprocess.run([sys.executable, "-m", "mbkit", "data", "inspect", str(data), "--json"], check=True, capture_output=True)
    return float(json.loads(out.stdout)["return_mean"])


def levels(run: Path, random_return: float) -> tuple[int, int]:
    """Steps of the medium and of the expert checkpoint."""
    by_step = scores(run)
    expert = max(by_step, key=lambda step: by_step[step])
    third = random_return + (by_step[expert] - random_return) / 3
    return min(step for step, score in by_step.items() if score > third), expert


def dataset(task: str, kind: str, seed: int, out: Path) -> Path:
    """The file of one set, made unless it exists."""
    folder, size = out / task, TASKS[task]
    path = folder / f"{kind}-{seed}.h5"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("random"):
        rows = int(kind.partition("-")[2] or size.rows)
        mbkit("data", "collect", "random", "--env", task, "--steps", str(rows), "--seed", str(seed), "--out", str(path))
        return path
    run = sac(task, seed, folder)
    if kind == "medium-replay" and size.whole_replay:
        mbkit("data", "collect", str(run), "--replay", "--out", str(path))
        return path
    medium, expert = levels(run, mean_return(dataset(task, "random", seed, out)))
    sources = {"medium": [medium], "expert": [expert], "medium-expert": [medium, expert], "medium-replay": [medium]}[kind]
    how = ["--replay"] if kind == "medium-replay" else ["--steps", str(size.rows), "--seed", str(seed)]
    mbkit("data", "collect", *[f"{run}@{step}" for step in sources], *how, "--out", str(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("runs/datasets"))
    args = parser.parse_args()
    for kind in args.kinds:
        path = dataset(args.task, kind, args.seed, args.out)
        print(f"{path}: mean return {mean_return(path):.1f}")


if __name__ == "__main__":
    main()
