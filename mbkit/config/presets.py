"""Which presets there are."""

from typing import NamedTuple

from mbkit import registry
from mbkit.config.reading import config_root, read_preset
from mbkit.config.regimes import algorithm
from mbkit.config.schema import Options
from mbkit.paths import is_dir, matching, read_text

FOLDED = ("dm_control-",)  # beginnings of environments' names whose / is a - in names of files


class Preset(NamedTuple):
    """A file in configs/."""

    algo: str
    env: str
    name: str  # behind preset=; empty: the default of the environment
    steps: int
    description: str  # first line of its comment; … where that goes on


def presets(algo: str | None = None) -> list[Preset]:
    """All presets, or those of one algorithm, sorted; UserError for an unknown algorithm."""
    if algo is not None:
        algorithm(algo)
    folders = [path for path in matching(config_root(), "*") if is_dir(path)] if algo is None else [config_root() / algo]
    return [_preset(folder.name, path.stem) for folder in folders for path in matching(folder, "*.yaml")]


def _preset(algo: str, stem: str) -> Preset:
    env, _, name = stem.partition(".")
    env = env.replace("-", "/", 1) if env.startswith(FOLDED) else env
    options, text = read_preset(algo, env, name or None), read_text(config_root() / algo / f"{stem}.yaml")
    entry = next((kind[algo] for kind in (registry.recipes, registry.agents) if algo in kind), None)
    steps = options.get("steps", (entry.defaults if entry is not None else {}).get("steps", Options.steps))
    comment = next((line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")), "")
    return Preset(algo, env, name, int(steps), f"{comment} …" if comment and not comment.endswith(".") else comment)
