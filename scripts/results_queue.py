"""The long runs of docs/results/frontier.md, one after the other: `python scripts/results_queue.py --hours 3`.

    python scripts/results_queue.py --list                 # rows, core-hours of one seed, what is finished
    python scripts/results_queue.py --hours 3 --seeds 11   # what ends within three hours of one core
    python scripts/results_queue.py --table                # only tabulate the runs under --out
    python scripts/results_queue.py --csv docs/results/frontier.csv

Every run is `mbkit train`; complete ones are not run again, interrupted ones are resumed. A run that would not end within the hours that
are left is left out and named. `--csv` writes the evaluations of all finished runs in the form in which curves are published:
exp_name, env_name, seed, metric, env_step, value.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from results_table import Row, cells, markdown, run

SEEDS = (11, 12, 13)
HOPPER, CHEETAH, WALKER, DOUBLE = "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "InvertedDoublePendulum-v5"
FIXED = ["threads=1", "eval.video=false"]
METRICS = {"return": "eval/return", "optimism": "diagnose/optimism"}


class Queued(NamedTuple):
    """A row, and the core-hours of one seed, from other runs of its kind."""

    row: Row
    hours: float


def mbpo(env: str, steps: int, hours: float, *options: str, name: str = "mbpo") -> Queued:
    """MBPO's preset for so many steps."""
    return Queued(Row(f"{name}-{env}", "mbpo", env, (f"steps={steps}", *options)), hours)


QUEUE = [
    Queued(Row("sac-modern-Hopper-v5", "sac", HOPPER, ("preset=modern",)), 0.5),
    Queued(Row("sac-2018-Hopper-v5", "sac", HOPPER, ("steps=50000", "loop.warmup_steps=5000", "eval.every=5000")), 0.2),
    mbpo(HOPPER, 20_000, 1.1, "preset=modern", name="mbpo-modern"),
    mbpo(DOUBLE, 10_000, 0.2, "preset=modern", name="mbpo-modern"),
    mbpo(CHEETAH, 20_000, 1.1, "preset=modern", name="mbpo-modern"),
    mbpo(HOPPER, 20_000, 0.6),
    mbpo(DOUBLE, 10_000, 0.2),
    mbpo(CHEETAH, 20_000, 0.8),
    mbpo(WALKER, 20_000, 1.1, "preset=modern", name="mbpo-modern"),
    Queued(Row("sac-modern-HalfCheetah-v5", "sac", CHEETAH, ("preset=modern",)), 0.5),
    Queued(Row("sac-2018-HalfCheetah-v5", "sac", CHEETAH, ("steps=50000", "loop.warmup_steps=5000", "eval.every=5000")), 0.2),
    mbpo(WALKER, 20_000, 0.8),
    Queued(Row("svg-Hopper-v5", "svg", HOPPER, ("preset=dhmbpo", "steps=20000")), 2.0),
    Queued(Row("svg-HalfCheetah-v5", "svg", CHEETAH, ("preset=dhmbpo", "steps=20000")), 2.0),
    *[mbpo(HOPPER, 15_000, 0.5, f"imagination.gate={gate}", name=f"mbpo-{gate}") for gate in ("m2ac", "macura", "confidence")],
]


def directory(out: Path, row: Row, seed: int) -> Path:
    """Of one run."""
    return out / "frontier" / row.name / str(seed)


def finished(out: Path, row: Row, seed: int) -> bool:
    """Whether the run is complete."""
    return (directory(out, row, seed) / "summary.json").exists()


def evaluations(out: Path) -> Iterator[tuple[str, str, int, str, int, float]]:
    """Rows of the CSV file, of every finished run."""
    for queued in QUEUE:
        for summary in sorted((out / "frontier" / queued.row.name).glob("*/summary.json")):
            seed = int(summary.parent.name)
            for line in map(json.loads, (summary.parent / "metrics.jsonl").read_text().splitlines()):
                for metric, key in METRICS.items():
                    if key in line:
                        yield queued.row.name, queued.row.env, seed, metric, line["step"], line[key]


def listed(out: Path, seeds: list[int]) -> str:
    """The queue with what is finished."""
    lines = [f"{queued.row.name:28} {queued.hours:4.1f} h   " for queued in QUEUE]
    done = [" ".join(str(seed) if finished(out, queued.row, seed) else "-" for seed in seeds) for queued in QUEUE]
    return "\n".join(line + seeds_done for line, seeds_done in zip(lines, done, strict=True))


def work(out: Path, seeds: list[int], hours: float) -> list[str]:
    """Train what ends within so many hours, a seed of every row before the next seed; what was left out."""
    end, left_out = monotonic() + 3600 * hours, []
    for seed in seeds:
        for queued in QUEUE:
            if finished(out, queued.row, seed):
                continue
            if monotonic() + 3600 * queued.hours > end:
                left_out.append(f"{queued.row.name} {seed}: {queued.hours:g} h")
                continue
            run(queued.row, seed, directory(out, queued.row, seed), FIXED)
    return left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.0, help="of one core")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=Path("runs/results-queue"))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    out = args.out.resolve()
    if args.list:
        print(listed(out, args.seeds))
        return
    if left_out := work(out, args.seeds, args.hours) if args.hours else []:
        print("left out:", *left_out, sep="\n  ")
    if args.csv is not None:
        with args.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("exp_name", "env_name", "seed", "metric", "env_step", "value"), *evaluations(out)])
    print(markdown([line for queued in QUEUE if (line := cells("frontier", queued.row, out, FIXED))]))


if __name__ == "__main__":
    main()
