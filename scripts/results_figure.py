"""Draw docs/images/results.png, the figure of the README, from what docs/results holds: nothing is run, and no number stands here alone.

    python scripts/results_figure.py [--out FILE]

Ranges of published curves are quoted on docs/results/frontier.md, which the script reads them from.
"""

import argparse
import csv
import re
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"
OURS, GREY = "#1f5f99", "#8a8a8a"
AT_50_000 = ("XQC", "SimbaV2", "REDQ")  # published at 50 000 steps


def page(name: str) -> str:
    """The text of a page of results."""
    return (RESULTS / f"{name}.md").read_text()


def row(text: str, first: str) -> list[float]:
    """The numbers of the table row whose first cell is `first`; words and bold marks are left out."""
    line = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", text, re.MULTILINE)
    if line is None:
        raise SystemExit(f"no row {first!r}")
    cells = [cell.strip(" *") for cell in line[1].split("|")]
    return [float(cell) for cell in cells if re.fullmatch(r"-?[\d.]+", cell)]


def section(text: str, start: str, stop: str) -> str:
    """The part of a page between two phrases."""
    return text[text.index(start) : text.index(stop, text.index(start) + len(start))]


def hopper(axis: Axes) -> None:
    """SAC with a modern critic on Hopper-v5, three seeds, beside published scores at 50 000 steps."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with (RESULTS / "frontier.csv").open() as file:
        for line in csv.DictReader(file):
            curves.setdefault(line["seed"], []).append((float(line["env_step"]) / 1000, float(line["value"])))
    for points in curves.values():
        axis.plot(*np.array(points).T, color=OURS, alpha=0.35, linewidth=1)
    steps = np.array(next(iter(curves.values()))).T[0]
    median = np.median([[value for _, value in points] for points in curves.values()], 0)
    axis.plot(steps, median, color=OURS, label="mbkit, median of 3 seeds")
    for i, name in enumerate(AT_50_000):
        quoted = re.search(rf"{name} (\d+) ± (\d+)", page("frontier"))
        assert quoted is not None
        mean, spread = float(quoted[1]), float(quoted[2])
        axis.errorbar(52.5 + 2.2 * i, mean, spread, fmt="o", color=GREY, markersize=4, capsize=2)
        axis.annotate(name, (52.5 + 2.2 * i, mean), (3, 3), textcoords="offset points", fontsize=7, color="#444444", rotation=60)
    axis.set(title="Hopper-v5: SAC, preset=modern", xlabel="environment steps, thousands", ylabel="return", xlim=(0, 61))
    axis.plot([], [], "o", color=GREY, markersize=4, label="published at 50 000 (mean ± s.d.)")
    axis.legend(loc="upper left")


def pendulum(axis: Axes) -> None:
    """MBPO on InvertedPendulum-v5, the seeds that were run once after the choice of the preset, and SAC alone."""
    text = section(page("actor_critic"), "## MBPO on InvertedPendulum-v5", "## MBPO on Hopper-v5")
    names = re.findall(r"^\| (MBPO, seed 1[1-5]) \|", text, re.MULTILINE)
    steps = row(text, "after steps")
    curves = [row(text, name) for name in names]
    for curve in curves:
        axis.plot(steps, curve, color=OURS, alpha=0.35, linewidth=1)
    axis.plot(steps, np.median(curves, 0), "o-", color=OURS, markersize=3, label=f"MBPO, median of {len(curves)} seeds")
    alone = re.search(r"\| InvertedPendulum-v5 \| sac \| \*\*([\d.]+)\*\*", text)
    assert alone is not None
    axis.plot(5000, float(alone[1]), "o", color=GREY, markersize=5, label="SAC alone, median of 3 seeds")
    axis.set(title="InvertedPendulum-v5: a model saves steps", xlabel="environment steps", ylabel="return", xticks=steps)
    axis.legend(loc="center right")


def offline(axis: Axes) -> None:
    """Pendulum-v1 from N random rows: with a model and without."""
    text, sizes = page("offline"), ("1000", "2000", "5000", "20 000")
    places = np.arange(len(sizes))
    for name, color, shift, label in (("`iql`", GREY, -0.18, "IQL, without a model"), ("`mopo`", OURS, 0.18, "MOPO, with a model")):
        medians = [row(section(text + "**N = ", f"**N = {size}**", "**N = "), name)[0] for size in sizes]
        axis.bar(places + shift, medians, 0.34, color=color, label=label)
        for place, value in zip(places + shift, medians, strict=True):
            axis.annotate(f"{value:.0f}", (place, value), (0, -3), textcoords="offset points", ha="center", va="top", fontsize=7)
    axis.set(title="Pendulum-v1 from random rows (best about -150)", xlabel="rows of the data set", ylabel="return, median of 3 seeds")
    axis.set_xticks(places, sizes)
    axis.set_ylim(-820, 0)
    axis.legend(loc="lower right")


def speed(axis: Axes) -> None:
    """How many times faster than other libraries, as the README says it."""
    text = (ROOT / "README.md").read_text()
    bars = []
    for line, pattern in (
        ("PETS plan, mbrl-lib", r"one PETS plan[^|]*\| ([\d.]+)"),
        ("model rollouts, mbrl-lib", r"100 000 model steps[^|]*\| ([\d.]+)"),
        ("ensemble fit, mbrl-lib", r"ensemble training \| ([\d.]+)"),
        ("SAC update, SB3", r"a SAC update, a TD3 update \| [\d.]+ \| ([\d.]+)"),
        ("PPO training, SB3", r"PPO, A2C, DQN \|[^|]*\| ([\d.]+)"),
        ("TD3+BC update, d3rlpy", r"TD3\+BC ([\d.]+)"),
        ("IQL update, d3rlpy", r"IQL ([\d.]+)"),
    ):
        match = re.search(pattern, text)
        if match is None:
            raise SystemExit(f"the README has no figure for {line}")
        bars.append((line, float(match[1])))
    names, values = zip(*reversed(bars), strict=True)
    axis.barh(names, values, color=OURS, height=0.62)
    axis.axvline(1, color="#444444", linewidth=1)
    for i, value in enumerate(values):
        axis.annotate(f"{value:g}", (value, i), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set(title="Times faster than ... (CPU)", xlim=(0, max(values) * 1.12))


def draw(out: Path) -> None:
    """All panels in one file."""
    options = {"font.size": 8, "axes.titlesize": 9, "legend.fontsize": 7, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context({**options, "legend.frameon": False, "figure.facecolor": "white"}):
        figure, axes = plt.subplots(2, 2, figsize=(9.2, 5.8), dpi=130, layout="constrained")
        for axis, panel in zip(axes.flat, (hopper, pendulum, offline, speed), strict=True):
            panel(axis)
        figure.savefig(out, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/results.png")
    draw(parser.parse_args().out)
