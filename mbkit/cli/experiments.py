"""Which experiments there are, read from their sources: importing them, and matplotlib with them, takes seconds."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

from mbkit.errors import UserError
from mbkit.paths import matching, read_text
from mbkit.registry import nearest


class Listed(NamedTuple):
    """The arguments of an `@experiment(...)`."""

    name: str
    summary: str
    alias: str = ""


def experiments() -> list[Listed]:
    """All experiments of `mbkit.theory`, sorted by name."""
    spec = find_spec("mbkit.theory")
    folders = spec.submodule_search_locations if spec is not None else None
    return sorted(listed for folder in folders or () for file in matching(folder, "*.py") for listed in decorations(read_text(file)))


def decorations(source: str) -> Iterator[Listed]:
    """What the functions of a module are registered as."""
    for function in ast.parse(source).body:
        for call in function.decorator_list if isinstance(function, ast.FunctionDef) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "experiment":
                named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
                yield Listed(*(ast.literal_eval(value) for value in call.args), **named)


def check_experiment(name: str) -> None:
    """UserError, with the nearest name, for one that is no experiment."""
    names = [listed.name for listed in experiments()]
    if name not in ("all", *names, *(listed.alias for listed in experiments() if listed.alias)):
        raise UserError(f"unknown experiment {name!r}; {nearest(name, [*names, 'all'])}")
