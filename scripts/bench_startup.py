"""How long the command takes to answer: `python scripts/bench_startup.py [TREE...]`, with one tree per version that is compared.

Rounds are interleaved over commands and trees. On a busy machine the wall-clock says little; CPU seconds are user and system time.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from side_by_side import table

START = "import sys; from mbkit.cli import main; sys.argv = ['mbkit', *sys.argv[1:]]; main()"
LINES = ("--help", "--version", "trian", "list agents", "list envs", "list experiments", "config pets", "train pets planner.elitess=3")
COMMANDS = {f"mbkit {line}": ["-c", START, *line.split()] for line in LINES}
COMMANDS |= {"import torch": ["-c", "import torch"], "import mbkit": ["-c", "import mbkit"]}


def measure(arguments: list[str], tree: Path) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one start."""
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, default=[Path(__file__).parent.parent], help="source trees to compare")
    parser.add_argument("--only", nargs="*", default=[""], help="commands that contain one of these words")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    chosen = [name for name in COMMANDS if any(word in name for word in args.only)]
    times: dict[tuple[str, Path], list[tuple[float, float]]] = {(name, tree): [] for name in chosen for tree in args.trees}
    load = os.getloadavg()[0]
    for _ in range(args.rounds):
        for (name, tree), seconds in times.items():
            seconds.append(measure(COMMANDS[name], tree))
    rows = []
    for (name, tree), seconds in times.items():
        (walls, cpus) = (sorted(column) for column in zip(*seconds, strict=True))
        rows.append((f"{name} ({tree.resolve().name})", statistics.median(walls), walls[0], walls[-1], statistics.median(cpus), cpus[0]))
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores, {args.rounds} rounds")
    print(table(("", "wall s", "min", "max", "CPU s", "min"), rows))


if __name__ == "__main__":
    main()
