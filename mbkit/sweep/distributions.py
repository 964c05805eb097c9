"""What a search draws an option from: `log(1e-5..1e-3)`, `uniform(0..1)`, `int(1..8)`, `choice(a,b)`. Nothing here needs Optuna."""

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from mbkit.errors import UserError
from mbkit.sweep.lists import split_list

if TYPE_CHECKING:
    from mbkit.sweep.search import Suggesting

FORM = re.compile(r"(log|uniform|int|choice)\((.*)\)", re.DOTALL)
LOOKS_ALIKE = re.compile(r"([a-z_]+)\(.*(\.\.|,).*\)", re.DOTALL)
EXAMPLES = "log(1e-5..1e-3), uniform(0..1), int(1..8) or choice(a,b)"


class Distribution(NamedTuple):
    """One of the four, with its limits, or the texts of its choices."""

    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    @property
    def extremes(self) -> tuple[str, ...]:
        """The values that have to fit the option, as they are typed."""
        return self.choices or (text_of(self.kind, self.low), text_of(self.kind, self.high))

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.kind}({','.join(self.choices)})" if self.choices else f"{self.kind}({'..'.join(self.extremes)})"

    def suggest(self, trial: "Suggesting", key: str) -> str:
        """A value for this option from a trial of Optuna, as it is typed."""
        if self.choices:
            return str(trial.suggest_categorical(key, self.choices))
        if self.kind == "int":
            return self.written(trial.suggest_int(key, int(self.low), int(self.high)))
        return self.written(trial.suggest_float(key, self.low, self.high, log=self.kind == "log"))

    def written(self, value: Any) -> str:
        """A drawn value as it is typed."""
        return str(value) if self.choices else text_of(self.kind, value)


def text_of(kind: str, value: float) -> str:
    """A number as it is typed, of which `train` reads the very same one."""
    return str(int(value)) if kind == "int" else repr(float(value))


def distribution(text: str, typed: str) -> Distribution | None:
    """The distribution that an option's text stands for, None where it is a list of values; UserError for one that cannot be drawn from."""
    match = FORM.fullmatch(text)
    if match is None:
        alike = LOOKS_ALIKE.fullmatch(text)
        if alike is not None:
            raise UserError(f"{typed}: {alike[1]!r} is no distribution; a search knows {EXAMPLES}")
        return None
    kind, inside = match.groups()
    if kind == "choice":
        choices = tuple(part.strip() for part in split_list(inside))
        if len(choices) < 2 or "" in choices or len(set(choices)) < len(choices):
            raise UserError(f"{typed}: expected at least two different values, such as choice(a,b)")
        return Distribution(kind, choices=choices)
    limits = inside.split("..")
    try:
        low, high = (int(part) if kind == "int" else float(part) for part in limits)
    except ValueError:
        raise UserError(f"{typed}: expected two {'whole ' * (kind == 'int')}numbers, such as {EXAMPLES}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{typed}: expected a smaller and a larger number, came {inside}")
    if kind == "log" and low <= 0:
        raise UserError(f"{typed}: a logarithmic scale has positive numbers only, came {inside}")
    return Distribution(kind, low, high)
