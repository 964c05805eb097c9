"""Several seeds of one experiment: the option `seeds` of `train`, beside those of the experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

from mbkit.config.reading import parse_overrides
from mbkit.errors import UserError


def taken_seeds(arguments: Sequence[str], options: Mapping[str, Any]) -> tuple[list[int] | None, list[str], dict[str, Any]]:
    """The value of `seeds`, None without one, and the other options; UserError where it is no list of different seeds."""
    rest = [argument for argument in arguments if not argument.startswith("seeds=")]
    came = parse_overrides([argument for argument in arguments if argument.startswith("seeds=")])
    came |= {"seeds": options["seeds"]} if "seeds" in options else {}
    if "seeds" not in came:
        return None, list(arguments), dict(options)
    if isinstance(came["seeds"], str):  # seeds=11,12,13
        came["seeds"] = list(parse_overrides([f"seeds=[{came['seeds']}]"])["seeds"])
    seeds, others = came["seeds"], {key: value for key, value in options.items() if key != "seeds"}
    several = isinstance(seeds, list | tuple | range) and len(seeds) > 0
    if not several or not all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={seeds!r}: expected a list of different whole numbers below 2^32, such as seeds=11,12,13")
    if "seed" in others or any(argument.startswith("seed=") for argument in rest):
        raise UserError("seed= and seeds= contradict one another; expected one of them")
    return list(seeds), rest, others
