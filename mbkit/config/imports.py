"""Import paths in a configuration, `package.module:name`: which there are, which the user typed himself, and what they import.

The working directory is searched only for import paths that were typed; those of a config.yaml, which may come from elsewhere, are imported
from the Python path alone, and the log says which modules they are.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mbkit.config.identity import flatten
from mbkit.config.schema import GROUPS, Experiment
from mbkit.errors import UserError, crashed
from mbkit.paths import is_dir, is_file

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # pkg.mod:fn
TASK = re.compile(r"[A-Za-z_][\w.]*:.+")  # pkg.mod:Name-v0
SHORT = {"reward": "dynamics.reward", "termination": "dynamics.termination"}  # options that may be written without their group
log = logging.getLogger("mbkit")


def import_paths(experiment: Experiment) -> dict[str, str]:
    """Options that name code to import, "dynamics.reward" -> "pkg.mod:fn"."""
    named = {key: value for key, value in flatten(experiment.to_dict()).items() if key.split(".")[0] in ("env", *GROUPS)}
    form = {"env": TASK}
    return {key: value for key, value in named.items() if isinstance(value, str) and form.get(key, FUNCTION).fullmatch(value)}


def object_at(path: str) -> Any:
    """What stands at an import path whose module is imported already, `module:name` or `module:Class.name`; None where nothing does."""
    module, _, names = path.partition(":")
    thing: Any = sys.modules.get(module)
    for name in names.split("."):
        thing = getattr(thing, name, None)
    return thing


def path_of(thing: Any) -> str | None:
    """The import path that leads another process to this very object; None for lambdas, locals, and what a script or a notebook defines."""
    module = getattr(thing, "__module__", None)
    if not isinstance(module, str) or module == "__main__" or module not in sys.modules:
        return None
    names = [getattr(thing, "__qualname__", None), *(name for name, value in vars(sys.modules[module]).items() if value is thing)]
    paths = (f"{module}:{name}" for name in names if isinstance(name, str))
    return next((path for path in paths if FUNCTION.fullmatch(path) and object_at(path) is thing), None)


def text_of(thing: Any) -> str:
    """An object as it stands in a configuration: its import path, or "<name>" where it has none."""
    named = getattr(thing, "func", thing)  # of a partial
    name = getattr(named, "__name__", None) or type(thing).__name__
    return path_of(thing) or f"<{str(name).strip('<>')}>"


def without_path(text: Any) -> bool:
    """Whether an option stands for an object without an import path."""
    return isinstance(text, str) and re.fullmatch(r"<.+>", text) is not None


def import_module_of(path: str, here: bool = False) -> ModuleType:
    """The module of an import path, searched for in the working directory too where `here`; UserError where it fails."""
    name = path.partition(":")[0]
    directory = os.getcwd()
    if here:
        sys.path.insert(0, directory)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name and f"{name}.".startswith(f"{error.name}.")):
            raise crashed(f"module {name!r} of {path!r} can't be imported: it", error) from error
        raise UserError(f"module {name!r} of {path!r} can't be imported: {error}{_advice(name, here)}") from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        raise crashed(f"module {name!r} of {path!r} can't be imported: it", error) from error
    finally:
        if here:
            sys.path.remove(directory)


def _advice(name: str, here: bool) -> str:
    """How to allow a module of the working directory, where there is one of this name."""
    root = Path(name.partition(".")[0])
    if here or not (is_dir(root) or is_file(f"{root}.py")):
        return ""
    return (
        "; it lies in the working directory, which is searched only for import paths that are typed: repeat the option, or set PYTHONPATH=."
    )


def import_typed(experiment: Experiment) -> None:
    """Import the modules of the import paths that the user typed, which may lie in the working directory; UserError where that fails."""
    for key, path in import_paths(experiment).items():
        if key in experiment.typed:
            import_module_of(path, here=True)


def without_repeated(experiment: Experiment, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` without import paths that repeat those of the experiment, and whose modules are imported as typed ones."""
    paths, rest = import_paths(experiment), {}
    for group, value in options.items():
        repeated = {key: v for key, v in flatten({group: value}).items() if paths.get(SHORT.get(key, key)) == v}
        for path in repeated.values():
            import_module_of(path, here=True)
        if not repeated:
            rest[group] = value
        elif isinstance(value, Mapping) and (left := {k: v for k, v in value.items() if f"{group}.{k}" not in repeated}):
            rest[group] = left
    return rest


def announce(experiment: Experiment, directory: str | Path) -> None:
    """Say in the log which modules a stored configuration imports, before it does; not those of mbkit, or of objects that are at hand."""
    for key, path in import_paths(experiment).items():
        if key not in experiment.objects:
            announce_path(f"{directory}/config.yaml", key, path)


def announce_path(file: str, key: str, path: str) -> None:
    """The same of one import path in a file, for the option `key`."""
    name = path.partition(":")[0]
    if name.partition(".")[0] != "mbkit":
        log.warning("%s names code: module %r is imported for %s=%s", file, name, key, path)
