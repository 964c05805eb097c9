"""Measures of a model's uncertainty by the names that options give them, each with what the model must have for it."""

from mbkit.config import Part
from mbkit.dynamics.uncertainty import disagreement, distance_from_mean, ensemble_std, max_aleatoric
from mbkit.errors import UserError
from mbkit.imagination.gate import one_vs_rest
from mbkit.types import Measure

MEASURES: dict[str, Measure] = {
    "max_aleatoric": max_aleatoric,
    "disagreement": disagreement,
    "distance_from_mean": distance_from_mean,
    "ensemble_std": ensemble_std,
    "one_vs_rest": one_vs_rest,
}
COMPARES_MEMBERS = ("disagreement", "distance_from_mean", "one_vs_rest")
NEEDS_VARIANCE = ("max_aleatoric", "one_vs_rest")


def possible(members: int, probabilistic: bool) -> list[str]:
    """Names of the measures that an ensemble of so many members can give."""
    names = {name for name in MEASURES if members > 1 or name not in COMPARES_MEMBERS}
    names -= set() if probabilistic else set(NEEDS_VARIANCE)
    return sorted(names if members > 1 or probabilistic else ())


def measure(name: str, option: str, dynamics: Part) -> Measure:
    """The measure that `option` names, for the model in `dynamics`.

    Raises:
        UserError: the model cannot give it: no ensemble, one member, or members without a variance.
    """
    if dynamics.name != "ensemble":
        raise UserError(f"{option}={name} is measured on the members of an ensemble; expected dynamics=ensemble, came {dynamics.name}")
    members, probabilistic = dynamics.config.members, dynamics.config.probabilistic
    if name not in possible(members, probabilistic):
        kind = f"{members} {'' if probabilistic else 'deterministic '}member{'s' * (members != 1)}"
        can = possible(members, probabilistic)
        instead = f"expected {' or '.join(can)}" if can else "expected at least 2 members"
        raise UserError(f"{option}={name} cannot be measured on a model of {kind}; {instead}")
    return MEASURES[name]
