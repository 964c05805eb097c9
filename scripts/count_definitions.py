"""Count the definitions that a newcomer must read to know what an algorithm does.

    python scripts/count_definitions.py [TREE] [--names sac ppo pets mbpo] [--list]

TREE is any checkout of the repository; it is parsed, never imported. From an algorithm's class and the recipe that wires it, every name is
followed through the imports to the function, class or constant of the package that it stands for, and so on from there. Functions count as
a whole. Of a class count its header, its attributes, the methods that Python itself calls (`__init__`, `__call__`, `forward`) and those
whose name occurs as an attribute in something that is read. Lines include docstrings and comments, not blank lines.
"""

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "mbkit"
# Services that an algorithm uses without being made of them: vocabulary, options, files, environments, command line.
SERVICES = {"accelerate", "cli", "config", "describe", "envs", "errors", "fields", "recording", "registry", "report", "run", "stats"}
SERVICES |= {"storage", "testing", "types"}
# Fast paths that compute what plain code computes: no reader needs them to follow an algorithm.
FAST_PATHS = {"dynamics.frozen", "frozen", "networks.frozen", "networks.kernels", "replay.in_place"}
CALLED_BY_PYTHON = {"__init__", "__post_init__", "__call__", "forward"}
# The functions that wire an agent alone, by what it learns from; those that a checkout has.
WIRING = {
    "replay": ("recipes.model_free:build", "recipes.replay:build"),
    "fresh": ("recipes.model_free:build", "recipes.fresh:build"),
    "trajectories": ("recipes.model_free:build", "recipes.model_free:build_from_trajectories", "recipes.trajectories:build"),
}
PARTS = {"agent": "agents", "dynamics": "dynamics", "planner": "planners"}  # group of options -> registry of the parts that it names


class Definition(NamedTuple):
    """A function, class or constant at the top of a module."""

    module: str  # dotted
    name: str


class Module:
    """The top of one parsed file: its definitions, and what each imported name stands for."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.lines = path.read_text().splitlines()
        tree = ast.parse(path.read_text())
        self.definitions = {key: node for node in top(tree.body) for key in names_of(node)}
        self.imports: dict[str, tuple[str, str]] = {}  # local name -> (module, name in it; "" for the module itself)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports[alias.asname or alias.name.split(".")[0]] = (alias.name if alias.asname else alias.name.split(".")[0], "")
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = (self.source(node), alias.name)

    def source(self, node: ast.ImportFrom) -> str:
        """The module that `from ... import` names, relative ones included."""
        if not node.level:
            return node.module or ""
        package = self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]
        parts = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def span(self, first: int, last: int) -> set[int]:
        """Numbers of the lines first .. last that are not blank, with the comments directly above."""
        while first > 1 and self.lines[first - 2].lstrip().startswith("#"):
            first -= 1
        return {number for number in range(first, last + 1) if self.lines[number - 1].strip()}


def top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements at the top of a module, those under `if` and `try` included."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from top([*node.body, *node.orelse, *(x for handler in getattr(node, "handlers", []) for x in handler.body)])
        else:
            yield node


def names_of(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)]


def first_line(node: ast.stmt) -> int:
    """The line where a statement begins, decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def names_read(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """The dotted names of a piece of code, without those that begin with a local variable of it."""
    local = {x.id for x in ast.walk(node) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)} if is_function(node) else set()
    local |= {x.arg for x in ast.walk(node) if isinstance(x, ast.arg)}
    for x in [*ast.walk(node), *quoted_annotations(node)]:
        chain, base = [], x
        while isinstance(base, ast.Attribute):
            chain, base = [base.attr, *chain], base.value
        if isinstance(base, ast.Name) and base.id not in local:
            yield (base.id, *chain)


def quoted_annotations(node: ast.AST) -> Iterator[ast.AST]:
    """What annotations in quotes are made of."""
    for x in ast.walk(node):
        annotation = getattr(x, "annotation", None) or getattr(x, "returns", None)
        literals = {id(y) for z in ast.walk(annotation) if is_literal(z) for y in ast.walk(z)} if annotation else set()
        for y in ast.walk(annotation) if annotation else ():
            if isinstance(y, ast.Constant) and isinstance(y.value, str) and id(y) not in literals:
                yield from ast.walk(ast.parse(y.value, mode="eval"))


def is_literal(node: ast.AST) -> bool:
    """Whether an annotation is `Literal[...]`, whose strings are values."""
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"


def is_function(node: ast.AST) -> bool:
    """Whether it has local variables of its own."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def attributes(node: ast.AST) -> set[str]:
    """Names of the attributes that occur in a piece of code, those in quotes in `getattr` and `hasattr` included."""
    asked = (x.args[1] for x in ast.walk(node) if isinstance(x, ast.Call) and len(x.args) > 1 and called(x) in ("getattr", "hasattr"))
    quoted = {x.value for x in asked if isinstance(x, ast.Constant)}
    return quoted | {x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute)}


def called(call: ast.Call) -> str:
    """The last name of what is called: `register` of `agents.register(...)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


class Checkout:
    """The modules of the package in a checkout, and the names under which its parts are registered."""

    def __init__(self, root: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted((root / PACKAGE).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path)
        if not self.modules:
            raise SystemExit(f"{root} holds no package {PACKAGE}")
        self.root, self.registered = root, {}
        for module in self.modules.values():
            for key, node in module.definitions.items():
                for registry, name, call in registrations(node):
                    self.registered[registry, name] = Definition(module.name, key), call

    def definition(self, module: str, dotted: tuple[str, ...]) -> Definition | None:
        """What a dotted name stands for where it is read in `module`; None: nothing of the package."""
        if module not in self.modules or not dotted:
            return None
        (name, *rest), here = dotted, self.modules[module]
        if name in here.definitions:
            return Definition(module, name)
        source, original = here.imports.get(name, ("", ""))
        if source and (source, original) != (module, name):  # a package may import its own modules
            return self.definition(source, (original, *rest) if original else tuple(rest))
        return self.definition(f"{module}.{name}", tuple(rest))

    def roots(self, name: str) -> list[Definition]:
        """The class or recipe of an algorithm with what wires it, or with the parts that it has unless others are chosen."""
        registry = "recipes" if ("recipes", name) in self.registered else "agents"
        if (registry, name) not in self.registered:
            raise SystemExit(f"{self.root} registers no algorithm {name!r}")
        root, call = self.registered[registry, name]
        if registry == "recipes":
            parts = [self.registered[key][0] for key in default_parts(call) if key in self.registered]
            return [root, *parts]
        kind = learns_from(self.modules[root.module].definitions[root.name], call)
        places = [(f"{PACKAGE}.{module}", function) for module, _, function in (place.partition(":") for place in WIRING[kind])]
        wiring = [Definition(*x) for x in places if x[0] in self.modules and x[1] in self.modules[x[0]].definitions]
        if not wiring:
            raise SystemExit(f"{self.root} wires agents alone in none of {', '.join(WIRING[kind])}")
        return [root, *wiring]


def registrations(node: ast.stmt) -> Iterator[tuple[str, str, ast.Call]]:
    """(registry, name, call) of the decorators `@registry.register("name", ...)`."""
    for call in getattr(node, "decorator_list", []):
        if isinstance(call, ast.Call) and called(call) == "register" and call.args and isinstance(call.args[0], ast.Constant):
            owner = call.func.value
            yield getattr(owner, "attr", getattr(owner, "id", "")), call.args[0].value, call


def learns_from(node: ast.stmt, call: ast.Call) -> str:
    """What a registered agent learns from alone: `fresh` as it says itself, otherwise by the annotation of its `update`."""
    updates = [x for x in ast.walk(node) if is_function(x) and x.name == "update"]
    if any(isinstance(x, ast.Name) and x.id == "Trajectory" for update in updates for x in ast.walk(update.args)):
        return "trajectories"
    return "fresh" if any(isinstance(x, ast.Constant) and x.value == "fresh" for x in ast.walk(call)) else "replay"


def default_parts(call: ast.Call) -> Iterator[tuple[str, str]]:
    """(registry, name) of the parts in a recipe's registration: `planner={"name": "icem"}`, as keywords or inside of a dictionary."""
    pairs = [(x.arg, x.value) for x in call.keywords]
    pairs += [(key.value, value) for x in ast.walk(call) if isinstance(x, ast.Dict) for key, value in zip(x.keys, x.values, strict=True)]
    for group, value in pairs:
        if group in PARTS and isinstance(value, ast.Dict) and "name" in (options := ast.literal_eval(value)):
            yield PARTS[group], options["name"]


def unread(module: str) -> bool:
    """Whether nothing in a module is followed."""
    inside = module.removeprefix(f"{PACKAGE}.")
    return inside.split(".")[0] in SERVICES or inside in FAST_PATHS


def reading(checkout: Checkout, roots: Iterable[Definition]) -> dict[Definition, set[int]]:
    """Definition -> numbers of the lines to read, for everything that is reached from the roots."""
    lines: dict[Definition, set[int]] = {root: set() for root in roots}
    named: set[str] = set()  # every attribute in what was read
    read: set[tuple[Definition, tuple[ast.AST, ...]]] = set()
    while pieces := [(key, *piece) for key in lines for piece in pieces_of(checkout, key, named) if (key, piece[0]) not in read]:
        for key, nodes, numbers in pieces:
            read.add((key, nodes))
            lines[key] |= numbers
            named |= {name for node in nodes for name in attributes(node)}
            reached = (checkout.definition(key.module, dotted) for node in nodes for dotted in names_read(node))
            lines |= {other: set() for other in reached if other and other not in lines and not unread(other.module)}
    return lines


def pieces_of(checkout: Checkout, key: Definition, named: set[str]) -> Iterator[tuple[tuple[ast.AST, ...], set[int]]]:
    """The pieces of a definition that are read, each with its lines: of a class not every method."""
    module = checkout.modules[key.module]
    node = module.definitions[key.name]
    if not isinstance(node, ast.ClassDef):
        yield (node,), module.span(first_line(node), node.end_lineno or 0)
        return
    header = module.span(first_line(node), first_line(node.body[0]) - 1)
    yield (*node.decorator_list, *node.bases, *(x.value for x in node.keywords)), header
    for part in node.body:
        if not is_function(part) or part.name in CALLED_BY_PYTHON | named:
            yield (part,), module.span(first_line(part), part.end_lineno or 0)


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as a table of Markdown."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows = [rows[0], tuple("-" * width for width in widths), *rows[1:]]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", nargs="?", type=Path, default=Path(), help="a checkout")
    parser.add_argument("--names", nargs="+", default=["sac", "ppo", "pets", "mbpo"], help="agents and recipes")
    parser.add_argument("--list", action="store_true", help="also every file with its definitions")
    args = parser.parse_args()
    checkout = Checkout(args.tree)
    rows = [("algorithm", "definitions", "lines", "files")]
    for name in args.names:
        lines = reading(checkout, checkout.roots(name))
        files: dict[str, list[Definition]] = defaultdict(list)
        for key in lines:
            files[str(checkout.modules[key.module].path.relative_to(args.tree))].append(key)
        total = {path: len(set().union(*(lines[key] for key in keys))) for path, keys in files.items()}
        rows.append((name, str(len(lines)), str(sum(total.values())), str(len(files))))
        for path in sorted(files, key=lambda path: -total[path]) if args.list else ():
            print(f"{name}: {total[path]:4d} {path}: " + ", ".join(f"{key.name} {len(lines[key])}" for key in sorted(files[path])))
    print(table(rows))


if __name__ == "__main__":
    main()
