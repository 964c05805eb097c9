"""Offline agents on the whole replay of a short SAC run on Pendulum-v1: `python scripts/results_offline.py --seeds 11 12 13`.

For each seed: SAC learns for 10 000 steps, its replay becomes a data set ("medium-replay"), every agent learns from it for 5 000 updates
and is scored on 30 fresh episodes. Runs that are finished are not repeated; the table is printed at the end, medians over seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from side_by_side import table

TASK, STEPS, UPDATES, EPISODES = "Pendulum-v1", 10_000, 5_000, 30


def mbkit(*arguments: str) -> None:
    """One command, in a process of its own."""
    subprocess.run([sys.executable, "-m", "mbkit", *arguments], check=True)


def dataset(folder: Path, seed: int) -> Path:
    """The replay of SAC with this seed, made once."""
    run, out = folder / f"sac-{seed}", folder / f"medium-replay-{seed}.h5"
    if not (run / "summary.json").exists():
        mbkit("train", "sac", f"env={TASK}", f"seed={seed}", f"steps={STEPS}", "threads=1", f"run_dir={run}", "eval.video=false", "-q")
    if not out.exists():
        mbkit("data", "collect", str(run), "--replay", "--out", str(out))
    return out


def score(folder: Path, algo: str, seed: int, data: Path, options: list[str]) -> dict[str, float]:
    """The summary of one agent on one data set."""
    run = folder / f"{algo}-{seed}"
    if not (run / "summary.json").exists():
        fixed = [f"data={data}", f"env={TASK}", f"seed={seed}", f"steps={UPDATES}", "threads=1", f"eval.episodes={EPISODES}"]
        mbkit("train", algo, *fixed, "eval.every=0", "eval.video=false", f"run_dir={run}", "-q", *options)
    summary: dict[str, float] = json.loads((run / "summary.json").read_text())
    return summary


def mean_return(data: Path) -> float:
    """The mean return of the recorded episodes."""
    out = subprocess.run([sys.executable, "-m", "mbkit", "data", "inspect", str(data), "--json"], check=True, capture_output=True)
    return float(json.loads(out.stdout)["return_mean"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--agents", nargs="+", default=["bc", "td3_bc", "iql"])
    parser.add_argument("--out", type=Path, default=Path("runs/results_offline"))
    parser.add_argument("options", nargs="*", help="KEY=VALUE for every agent")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    returns: dict[str, list[float]] = {"the data's own": []}
    seconds: dict[str, list[float]] = {"the data's own": []}
    for seed in args.seeds:
        data = dataset(args.out, seed)
        returns["the data's own"].append(mean_return(data))
        for algo in args.agents:
            summary = score(args.out, algo, seed, data, args.options)
            returns.setdefault(algo, []).append(summary["eval_return_mean"])
            seconds.setdefault(algo, []).append(summary["wall_seconds"])
    columns = ("", "median", *(f"seed {seed}" for seed in args.seeds), "seconds")
    rows = []
    for name, values in returns.items():
        took = seconds[name]
        rows.append((name, statistics.median(values), *values, statistics.median(took) if took else ""))
    print(table(columns, rows))


if __name__ == "__main__":
    main()
