"""Rows of a results page: commands, trained for several seeds, and their table as Markdown from the summaries of the runs.

Scores are mean undiscounted returns of the final policy on fresh evaluation seeds, never a running maximum. Complete runs are not run
again; interrupted ones are resumed.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Sections = Mapping[str, Sequence["Row"]]


class Row(NamedTuple):
    """One line of the table: a command without its seed, run for several seeds."""

    name: str
    algo: str
    env: str
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)

    def command(self, seed: int | str) -> list[str]:
        """Arguments of `mbkit`."""
        return ["train", self.algo, f"env={self.env}", *self.options, f"seed={seed}"]


def run(row: Row, seed: int, folder: Path, extra: list[str]) -> None:
    """Trains, unless the run is complete."""
    if (folder / "summary.json").exists():
        return
    arguments = [*row.command(seed), *extra, f"run_dir={folder}"]
    print("mbkit", *arguments, flush=True)
    unfinished = (folder / "config.yaml").exists()
    subprocess.run([sys.executable, "-m", "mbkit", *(["resume", str(folder)] if unfinished else arguments)], check=True)


def cells(section: str, row: Row, out: Path, extra: list[str]) -> list[str] | None:
    """One line of the table from the seeds that were run; None where there is none."""
    summaries = sorted((out / section / row.name).glob("*/summary.json"), key=lambda path: int(path.parent.name))
    runs = [json.loads(path.read_text()) for path in summaries]
    if not runs:
        return None
    scores = [r["eval_return_mean"] for r in runs]
    each = " · ".join(f"{r['eval_return_mean']:.1f} ± {r['eval_return_std']:.1f}" for r in runs)
    seeds = ", ".join(str(r["seed"]) for r in runs)
    seconds = " · ".join(f"{r['wall_seconds']:.0f}" for r in runs)
    episodes, steps = str(runs[0]["eval_episodes"]), str(runs[0]["steps"])
    command = " ".join(["mbkit", *row.command("S"), *extra])
    return [row.env, row.algo, f"**{statistics.median(scores):.1f}**", each, seeds, steps, episodes, seconds, f"`{command}`"]


def markdown(lines: list[list[str]]) -> str:
    """Lines of `cells` as a table."""
    head = ["task", "algorithm", "median", "each seed (± over episodes)", "seeds", "steps", "episodes", "wall-clock, s", "command"]
    return "\n".join("| " + " | ".join(x) + " |" for x in [head, ["---"] * len(head), *lines])


def table(sections: Sections, out: Path, extra: list[str]) -> str:
    """The sections as tables of Markdown."""
    parts = []
    for section, rows in sections.items():
        lines = [line for row in rows if (line := cells(section, row, out, extra))]
        if lines:
            parts.append(f"### {section}\n\n{markdown(lines)}")
    return "\n\n".join(parts)


def main(doc: str | None, sections: Sections, out: Path) -> None:
    """The command line of a script with such rows."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    # argparse checks the empty list where no section is typed
    parser.add_argument("sections", nargs="*", choices=[[], *sections], default=[], metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--only", help="rows whose name contains this")
    parser.add_argument("--seeds", type=int, nargs="+", help="other seeds than the row's own")
    parser.add_argument("--options", nargs="*", default=["threads=1", "eval.video=false"], help="options of every run")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--table", action="store_true", help="train nothing, only tabulate")
    args = parser.parse_args()
    for section in args.sections if not args.table else []:
        for row in sections[section]:
            for seed in args.seeds or row.seeds:
                if not args.only or args.only in row.name:
                    run(row, seed, args.out.resolve() / section / row.name / str(seed), args.options)
    print(table(sections, args.out, args.options))
