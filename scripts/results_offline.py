"""Offline agents side by side: `python scripts/results_offline.py --seeds 11 12 13`.

For every seed the data set is made (`make_datasets.py`; with `--data-seed` one for all), every agent learns from it, and its last policy is
scored on fresh episodes. Cells that are finished are not run again, and the table, medians over seeds, is printed at the end, with the
data's own return as a row. `--markdown` prints it for a page.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from make_datasets import TASKS, dataset, mbkit, mean_return
from side_by_side import table

MODEL_FREE = ("bc", "td3_bc", "sac_bc", "rebrac", "iql", "xql", "awac", "awr", "one_step", "kl_constrained", "cql")
MODEL_BASED = ("mopo", "morel", "combo", "rambo", "mobile")
OWN_STEPS = ("morel",)  # whose steps are policy gradients on whole episodes, not updates of 256 rows


def score(folder: Path, algo: str, seed: int, data: Path, task: str, fixed: list[str], options: list[str]) -> dict[str, Any] | None:
    """The summary of one agent on one data set; None where the run ended with an error."""
    run = folder / f"{algo}-{seed}"
    if not (run / "summary.json").exists():
        if algo in OWN_STEPS:
            fixed = [option for option in fixed if not option.startswith("steps=")]
        given = [f"data={data}", f"env={task}", f"seed={seed}", "threads=1", *fixed, "eval.every=0", "eval.video=false", "-q"]
        try:
            if (run / "checkpoint").exists():  # cut short before
                mbkit("resume", str(run), "-q")
            else:
                mbkit("train", algo, *given, f"run_dir={run}", *options)
        except Exception as error:
            print(f"{algo} {seed}: {error}")
            return None
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def text(value: Any) -> str:
    """A cell of a page."""
    return "not run" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="Pendulum-v1")
    parser.add_argument("--kind", default="medium-replay", help="a set of make_datasets.py, such as medium-expert or random-2000")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--data-seed", type=int, help="one data set for all seeds; without it each seed has a data set of its own")
    parser.add_argument("--agents", nargs="+", default=["bc", "td3_bc", "iql"])
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--episodes", type=int, default=30, help="episodes of a score")
    parser.add_argument("--out", type=Path, default=Path("runs/results_offline"))
    parser.add_argument("--name", default="", help="of a variant, which has runs of its own")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("options", nargs="*", help="KEY=VALUE for every agent")
    args = parser.parse_args()
    folder = args.out / args.task / f"{args.kind}{args.name}"
    folder.mkdir(parents=True, exist_ok=True)
    fixed = [f"steps={args.updates}", f"eval.episodes={args.episodes}"]
    returns: dict[str, list[float | None]] = {"the data's own": []}
    seconds: dict[str, list[float]] = {"the data's own": []}
    for seed in args.seeds:
        data = dataset(args.task, args.kind, seed if args.data_seed is None else args.data_seed, args.out / "data")
        returns["the data's own"].append(mean_return(data))
        for algo in args.agents:
            summary = score(folder, algo, seed, data, args.task, fixed, args.options)
            returns.setdefault(algo, []).append(None if summary is None else summary["eval_return_mean"])
            seconds.setdefault(algo, []).extend([] if summary is None else [summary["wall_seconds"]])
    columns = ("", "median", *(f"seed {seed}" for seed in args.seeds), "seconds")
    rows: list[tuple[Any, ...]] = []
    for name, values in returns.items():
        known, took = [value for value in values if value is not None], seconds[name]
        rows.append((name, statistics.median(known) if known else None, *values, statistics.median(took) if took else ""))
    if args.markdown:
        print("\n".join("| " + " | ".join(map(text, row)) + " |" for row in [columns, ["---"] * len(columns), *rows]))
    else:
        print(table(columns, [tuple("not run" if value is None else value for value in row) for row in rows]))


if __name__ == "__main__":
    main()
