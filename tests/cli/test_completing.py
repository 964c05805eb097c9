"""What a shell completes, asked as bash and zsh ask."""

import os
import subprocess
import sys

import pytest

from mbkit import registry
from mbkit.cli.completing import LISTS, algorithms, keys
from mbkit.cli.listing import LISTED


def asked(shell: str, line: str) -> set[str]:
    """What is offered for the last word of a line, which bash divides at "="."""
    environment = {**os.environ, "_MBKIT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, "COMP_WORDS": line}
    environment["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    result = subprocess.run([sys.executable, "-m", "mbkit"], env=environment, capture_output=True, text=True, timeout=120, check=True)
    text = result.stdout.replace('"', " ").replace("(", " ").replace(")", " ")
    return set(text.split()) - {"_arguments", "'*:", ":", "'"}


@pytest.mark.parametrize(
    ("shell", "line", "offered"),
    [
        ("bash", "mbkit train sac", {"sac", "sac_bc", "sac_discrete"}),
        ("bash", "mbkit list pr", {"presets"}),
        ("bash", "mbkit config mbpo dev", {"device="}),
        ("bash", "mbkit config mbpo device =", {"cpu", "cuda"}),
        ("bash", "mbkit config mbpo device = cu", {"cuda"}),
        ("bash", "mbkit train mbpo env = Hopper-v5 preset = ma", {"macura"}),
        ("zsh", "mbkit train sac env=Pend", {"env=Pendulum-v1"}),
        ("zsh", "mbkit train sac tensorboard=", {"tensorboard=true", "tensorboard=false"}),
        ("zsh", "mbkit train sac checkpoint.", {"checkpoint.every=", "checkpoint.keep="}),
    ],
)
def test_completions_of_a_line(shell, line, offered):
    assert asked(shell, line) == offered


def test_algorithms_are_those_that_are_registered():
    assert algorithms("") == sorted(entry.name for kind in (registry.agents, registry.recipes) for entry in kind)


def test_keys_of_a_group_are_the_algorithms():
    assert "agent.target_entropy" in keys("sac", "agent.t")
    assert "agent.target_entropy" not in keys("td3", "agent.t")
    assert keys("nothing", "agent.t") == []


def test_lists_are_all_that_can_be_listed():
    assert set(LISTS) == {*LISTED, "envs", "presets", "experiments"}
