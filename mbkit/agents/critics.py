"""What agents with modern critics share: the options, and targets that are distributions. K critics, B batch, Z atoms."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.base import LearningAgent
from mbkit.errors import UserError
from mbkit.fields import at_least, between
from mbkit.networks.form import PLAIN, CriticForm
from mbkit.networks.heads import ActionValues, Critics
from mbkit.networks.values import Distributional
from mbkit.registry import critics as architectures
from mbkit.targets import one_step
from mbkit.types import TargetFn, Targets, Transition


@dataclass(frozen=True)
class Architecture:
    """Architecture of the critics; a subclass has their `loss`."""

    critic: str = "mlp"  # architecture of the critics: mlp, layer_norm, batch_norm, simba, simba_v2. CrossQ, XQC: batch_norm
    dropout: float = between(0.0, 0.0, 0.9, when="critic=layer_norm")  # dropout probability in the critics. DroQ: 0.01 (0.005 to 0.1)
    reset_every: int | None = at_least(None, 1)  # updates from one reset of all networks to the next; null: none. BRO: resets

    @property
    def normalized_inputs(self) -> bool:
        """Whether the networks see normalised observations: by the option, or since the critics' architecture needs it."""
        return bool(getattr(self, "normalize_obs", False) or getattr(architectures[self.critic].target, "normalizes_obs", False))

    @property
    def critic_form(self) -> CriticForm:
        """As networks are told it."""
        return CriticForm(self.critic, vars(self)["loss"], self.dropout)


@dataclass(frozen=True)
class CriticOptions(Architecture):
    """Architecture and loss of the critics."""

    loss: Literal["mse", "hl_gauss", "c51"] = "mse"  # squared error of values, or cross-entropy of distributions. XQC, SimbaV2: c51


def normalized_inputs(cfg: object) -> bool:
    """Whether networks made by these options see normalised observations."""
    return bool(getattr(cfg, "normalized_inputs", getattr(cfg, "normalize_obs", False)))


def check_form(form: CriticForm, target: TargetFn = one_step, computed: bool = False, joint: bool = True) -> CriticForm:
    """The form itself; UserError for an unknown architecture, one that the agent or its targets cannot have.

    Args:
        form: of the critics.
        target: the targets that they are regressed on.
        computed: whether the agent computes its targets itself, from other networks.
        joint: whether they see nothing in training but pairs (s, a) and (s', a').
    """
    if hasattr(critic_class(form), "joint") and not joint:
        raise UserError(f"agent.critic={form.critic}: actions sampled for other ends would enter its statistics; expected another critic")
    if form.loss == "c51" and computed:
        raise UserError("agent.loss=c51 backs up the distribution of a next state, which this agent does not; expected hl_gauss or mse")
    if form.loss == "c51" and target is not one_step:
        name = getattr(target, "__name__", type(target).__name__)
        raise UserError(f"agent.loss=c51 backs up the distribution of one next state, which the targets of {name} are not; hl_gauss does")
    return form


def critic_class(form: CriticForm) -> object:
    """What makes the networks of critics of this form."""
    return architectures[form.critic].target


def check_subset(subset: int | None, critics: int, form: CriticForm) -> None:
    """UserError where targets cannot take the minimum over so many critics, drawn at random; None: over all of them."""
    if subset is not None and subset > critics:
        raise UserError(f"agent.target_subset={subset}: expected at most agent.critics={critics}")
    if subset is not None and (form.loss == "c51" or hasattr(critic_class(form), "joint")):
        raise UserError(f"agent.target_subset={subset}: expected null with agent.critic={form.critic}, agent.loss={form.loss}")


class CriticAgent(LearningAgent):
    """An agent whose critics may have any form; a subclass makes `critics` and `target_critics`."""

    gamma: float
    target: TargetFn
    target_critics: Critics | ActionValues

    @property
    def bootstrap(self) -> Critics | ActionValues:
        """The critics that targets bootstrap from."""
        return self.target_critics

    @property
    def pairs(self) -> bool:
        """Whether critics normalise by their batch, so that pairs (s, a) and (s', a') pass together."""
        return hasattr(getattr(self.bootstrap, "net", None), "joint")

    @property
    def backs_up_values(self) -> bool:
        """Whether `one_step` needs nothing but `backup_q`, a function of observations and actions."""
        form: CriticForm = getattr(self.bootstrap, "form", PLAIN)
        return form.loss != "c51" and not form.dropout and not self.pairs

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """See `mbkit.types.Backup`."""
        raise TypeError(f"{type(self).__name__} has no backup action")

    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """See `mbkit.types.Backup`."""
        raise TypeError(f"{type(self).__name__} has no critics")

    @torch.no_grad()
    def successor_q(self, batch: Transition, action: Tensor) -> Tensor:
        """`backup_q` at the next observations, [K, B], of critics that see the pairs before them in the same batch."""
        return self.bootstrap.outputs.values(self.bootstrap.beside(batch.obs, batch.action, batch.next_obs, action))

    @torch.no_grad()
    def targets(self, batch: Transition) -> Targets:
        """What the critics are regressed on: by the target function, or for `loss=c51` distributions."""
        outputs = getattr(self.bootstrap, "outputs", None)
        if not isinstance(outputs, Distributional) or self.bootstrap.form.loss != "c51":
            return self.target(self, batch, self.gamma)
        action, bonus = self.backup_action(batch.next_obs)
        if self.pairs:
            out = self.bootstrap.beside(batch.obs, batch.action, batch.next_obs, action)
        else:
            out = self.bootstrap.out(batch.next_obs, action)
        return distributional(outputs, out, batch, (action, bonus), self.gamma)


def distributions_of(agent: object) -> Distributional | None:
    """The outputs of an agent's critics where they are distributions, whose return scale belongs to the run."""
    outputs = agent.bootstrap.outputs if isinstance(agent, CriticAgent) else None
    return outputs if isinstance(outputs, Distributional) else None


def distributional(outputs: Distributional, out: Tensor, batch: Transition, backup: tuple[Tensor, Tensor], gamma: float) -> Targets:
    """`one_step` of whole distributions: that of the critic with the least mean, moved to r + gamma d (R + bonus).

    out: the critics' outputs at the next observations and actions, [K, B, Z]; backup: these actions, and the bonus [B].
    """
    (action, bonus), q = backup, outputs.values(out)
    least = q.argmin(0)[None, :, None].expand(1, *out.shape[1:])
    probs = out.gather(0, least)[0].softmax(-1)
    factor = gamma * batch.discount
    shift = batch.reward + factor * bonus
    target = shift + factor * q.amin(0)
    return Targets(batch.obs, batch.action, target, batch.weight, (batch.next_obs, action), outputs.projected(probs, shift, factor))
