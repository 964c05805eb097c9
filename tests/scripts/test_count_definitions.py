"""Which definitions count for an algorithm, on a package made up here."""

import importlib.util
import sys
from pathlib import Path
from textwrap import dedent

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/count_definitions.py"
FILES = {
    "__init__.py": "",
    "types.py": "class Transition: ...\n",
    "registry.py": "agents = recipes = dynamics = planners = None\n",
    "agents/__init__.py": "",
    "agents/toy.py": '''
        """An agent."""

        from typing import Literal

        from mbkit import networks
        from mbkit.agents import base
        from mbkit.registry import agents
        from mbkit.types import Transition

        # The paper's value.
        RATE = 0.1
        UNUSED = 0.2


        @agents.register("toy", object)
        class Toy(base.Learner):
            """Learns."""

            kind: Literal["helper"] = "helper"

            def __init__(self, depth: int) -> None:
                self.net = networks.Net()

            def update(self, batch: Transition) -> None:
                # blank lines do not count

                self.net.descend(RATE)
                getattr(self.net, "asked", None)

            def unused(self) -> None:
                UNUSED


        def helper() -> None: ...
    ''',
    "agents/base.py": """
        class Learner:
            def act(self, helper: int) -> "Action":
                return helper

            def never(self) -> None: ...


        class Action: ...


        def helper() -> None: ...
    """,
    "networks/__init__.py": "from mbkit.networks.net import Net\n",
    "networks/net.py": """
        from .kernels import product


        class Net:
            def forward(self) -> None:
                product()

            def descend(self, rate: float) -> None:
                later()

            def asked(self) -> None: ...

            def silent(self) -> None:
                never()


        def later() -> None: ...


        def never() -> None: ...
    """,
    "networks/kernels.py": "def product() -> None: ...\n",
    "planning.py": """
        from mbkit.registry import planners


        @planners.register("search", object)
        class Search: ...
    """,
    "recipes/__init__.py": "",
    "recipes/model_free.py": """
        def build(agent: object) -> None:
            agent.act()
            agent.update()
    """,
    "recipes/plan.py": """
        from mbkit.registry import recipes


        @recipes.register("plan", object, defaults={"steps": 3, "planner": {"name": "search"}})
        def build() -> None: ...
    """,
}


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("count_definitions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path) -> Path:
    """A checkout of the package made up here."""
    for name, text in FILES.items():
        path = tmp_path / "mbkit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return tmp_path


@pytest.fixture
def lines(script, tree):
    """name of an algorithm -> {"module:definition": lines to read}."""

    def of(name: str) -> dict[str, int]:
        checkout = script.Checkout(tree)
        counted = script.reading(checkout, checkout.roots(name))
        return {f"{key.module.removeprefix('mbkit.')}:{key.name}": len(numbers) for key, numbers in counted.items()}

    return of


def test_reading_agent_alone_reaches_what_its_class_and_its_wiring_name(lines):
    expected = {"agents.toy:Toy", "agents.toy:RATE", "agents.base:Learner", "agents.base:Action", "networks.net:Net"}
    assert set(lines("toy")) == expected | {"networks.net:later", "recipes.model_free:build"}


def test_reading_class_counts_header_attributes_and_called_methods(lines):
    counted = lines("toy")
    assert counted["agents.toy:Toy"] == 10  # without blank lines and the method that is never called
    assert counted["agents.base:Learner"] == 3
    assert counted["networks.net:Net"] == 6  # forward, and the methods named by an attribute and in getattr


def test_reading_constant_counts_the_comment_above_it(lines):
    assert lines("toy")["agents.toy:RATE"] == 2


def test_reading_recipe_adds_its_default_parts(lines):
    assert lines("plan") == {"recipes.plan:build": 2, "planning:Search": 2}


def test_roots_unknown_name_is_refused(lines):
    with pytest.raises(SystemExit, match="registers no algorithm 'other'"):
        lines("other")


def test_checkout_without_package_is_refused(script, tmp_path):
    with pytest.raises(SystemExit, match="holds no package mbkit"):
        script.Checkout(tmp_path)


def test_main_list_prints_files_and_a_table(script, tree, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["count_definitions.py", str(tree), "--names", "toy", "plan", "--list"])
    script.main()
    printed = capsys.readouterr().out
    assert "toy:   12 mbkit/agents/toy.py: RATE 2, Toy 10" in printed
    assert printed.endswith("| toy       | 7           | 26    | 4     |\n| plan      | 2           | 4     | 2     |\n")
