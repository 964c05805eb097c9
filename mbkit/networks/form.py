"""What a critic is made of, as options say it: an architecture by name, and how its outputs stand for values."""

from typing import NamedTuple


class CriticForm(NamedTuple):
    """The default is the critic of 2018: ReLU layers, squared error."""

    critic: str = "mlp"  # a name of `mbkit.registry.critics`
    loss: str = "mse"  # mse, huber, hl_gauss or c51; see `networks.values`
    dropout: float = 0.0  # probability, of `layer_norm` alone


PLAIN = CriticForm()
