"""The YAML of options and of config.yaml: what is written is read back as the same value of the same type.

Only `true`, `false`, `null`, `~` and numbers are anything but text: `no`, `on`, `2024-01-01` and `=` are text. Arguments of tasks may be
tuples, paths, and NumPy's arrays and scalars, which are written with tags: `!tuple [1, 2]`, `!scalar {dtype: int8, shape: [], values: 3}`.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mbkit.errors import UserError

PLAIN = {  # type -> what YAML reads as such; any other plain scalar is text
    "null": r"null|Null|NULL|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)",
    "float": r"[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)",
}
ODD = {
    r"[+-]?0[0-9_]+(\.[0-9_]*)?([eE][+-]?[0-9]+)?": "has a leading zero, which YAML may read as octal; write the number without it",
    r"[+-]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?": "is a number to the base of sixty in YAML; write it in seconds, or in quotes",
}
STRUCTURE = re.compile(r"""[\[{"']|!(tuple|path|array|scalar)\s""")  # how a list, a mapping, quoted text or a tagged value begins
STORABLE = "biufU"  # kinds of NumPy numbers and text that config.yaml holds


class Loader(yaml.SafeLoader):
    """Reads the dialect; two equal keys are an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as in PyYAML

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping without duplicate keys."""
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "found a key twice", node.start_mark)
        return mapping


class Dumper(yaml.SafeDumper):
    """Writes the dialect; text that would be read as anything else is quoted."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as in PyYAML

    def ignore_aliases(self, data: Any) -> bool:
        """A value that occurs twice is written twice."""
        return True


for kind, pattern in PLAIN.items():
    for side in (Loader, Dumper):
        side.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), None)  # type: ignore[no-untyped-call]
for pattern in ODD:  # quoted, since `refuse_odd_numbers` would refuse them
    Dumper.add_implicit_resolver("!odd", re.compile(rf"(?:{pattern})\Z"), None)  # type: ignore[no-untyped-call]


def _numpy_node(dumper: Dumper, value: Any) -> Any:
    numbers = {"dtype": str(value.dtype), "shape": list(value.shape), "values": np.ravel(value).tolist()}
    return dumper.represent_mapping("!array" if isinstance(value, np.ndarray) else "!scalar", numbers, flow_style=True)


def _array(loader: Loader, node: Any) -> Any:
    parts = loader.construct_mapping(node, deep=True)
    dtype = np.dtype(parts["dtype"])
    if dtype.kind not in STORABLE:
        raise ValueError(f"dtype {dtype}")
    return np.array(parts["values"], dtype).reshape(parts["shape"])


TAGS = {
    "!array": _array,
    "!scalar": lambda loader, node: _array(loader, node)[()],
    "!tuple": lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
    "!path": lambda loader, node: Path(loader.construct_scalar(node)),
}
for tag, construct in TAGS.items():
    Loader.add_constructor(tag, construct)
Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_sequence("!tuple", value, flow_style=True))
Dumper.add_multi_representer(Path, lambda dumper, value: dumper.represent_scalar("!path", str(value)))
for numpy_type in (np.ndarray, np.generic):
    Dumper.add_multi_representer(numpy_type, _numpy_node)


def load(text: str) -> Any:
    """The value that YAML text stands for; yaml.YAMLError where it stands for none."""
    try:
        return yaml.load(text, Loader)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # odd content of a tag
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def dump(value: Any) -> str:
    """YAML text, with innermost lists and mappings on one line each."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, default_flow_style=None)
    return text


def value_text(value: Any) -> str:
    """A value on one line, as it is written behind `key=`: 0.001, null, [200,200], "on"."""
    if not tagged(value):
        with suppress(ValueError):  # inf and nan have no JSON
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            if text.isprintable():
                return text
    written: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, default_flow_style=True, width=10**9)
    return written.removesuffix("\n").removesuffix("\n...")


def tagged(value: Any) -> bool:
    """Whether a value, or a part of one, is written with a tag."""
    if isinstance(value, Mapping):
        return any(map(tagged, value.values()))
    return any(map(tagged, value)) if type(value) is list else not (value is None or type(value) in (bool, int, float, str))


def scalar(text: str) -> Any:
    """Text without quotes as a number, true, false, null or that very text."""
    plain = Loader("").resolve(yaml.ScalarNode, text, (True, False)) != "tag:yaml.org,2002:str"  # type: ignore[no-untyped-call]
    return load(text) if plain and text else text


def argument_value(value: Any, name: str) -> Any:
    """A copy of a task's argument, of the same types; UserError naming it where config.yaml cannot hold it."""
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, Path):
        return value
    if type(value) in (list, tuple):
        return type(value)(argument_value(item, f"{name}[{i}]") for i, item in enumerate(value))
    if isinstance(value, Mapping) and all(type(key) in (str, int, bool) for key in value):
        return {key: argument_value(item, f"{name}.{key}") for key, item in value.items()}
    if (type(value) is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in STORABLE and value.dtype.char not in "gG":
        return value.copy()
    what = f"NumPy {type(value).__name__} of {value.dtype}" if isinstance(value, np.ndarray | np.generic) else type(value).__qualname__
    raise UserError(
        f"{name}: expected what config.yaml can hold (numbers, text, paths, NumPy arrays of numbers, and lists, tuples and dictionaries "
        f"of them), got a {what}"
    )
