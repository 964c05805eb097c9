"""Critics of 2018: ReLU layers, with layer normalisation and dropout by name (DroQ, Hiraoka et al. 2022, arXiv:2110.02034)."""

from collections.abc import Sequence

from mbkit.networks.form import CriticForm
from mbkit.networks.mlp import EnsembleMLP
from mbkit.registry import critics
from mbkit.types import NoOptions


@critics.register("mlp", NoOptions)
def mlp(members: int, sizes: Sequence[int], form: CriticForm) -> EnsembleMLP:
    """ReLU layers."""
    return EnsembleMLP(members, sizes)


@critics.register("layer_norm", NoOptions)
def layer_norm(members: int, sizes: Sequence[int], form: CriticForm) -> EnsembleMLP:
    """ReLU layers, each after dropout and layer normalisation."""
    return EnsembleMLP(members, sizes, layer_norm=True, dropout=form.dropout)
