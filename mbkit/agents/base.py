"""What every gradient-based agent shares: optimizers, and a state that `load_state_dict` restores in place."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.networks.normalizer import Normalizer, RunningNormalizer
from mbkit.networks.optimizers import FusedAdam, restore_optimizer_
from mbkit.types import EnvSpec, State, Targets

SEVERAL = "reinforce, a2c, ppo, trpo, npg, soft_pg, vtrace and retrace take several, and so does pets with planner=discrete_cem"
INPUT_CLIP = 100.0  # standard deviations of the warm-up, which a trained policy leaves behind: only what would drown the rest is cut off


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float | None = None) -> Tensor:
    """One step on the parameters of this optimizer; no others get a gradient. Returns the detached loss, 0-d, or [S] of S seeds.

    `max_grad_norm`: a gradient whose norm, over all these parameters, is larger is scaled down to it.
    """
    params = optimizer.param_groups[0]["params"]
    grads = torch.autograd.grad(loss.sum() if loss.dim() else loss, params)
    if max_grad_norm is not None:
        clip_(grads, max_grad_norm, loss)
    if isinstance(optimizer, FusedAdam):
        optimizer.descend(grads)
        return loss.detach()
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def clip_(grads: tuple[Tensor, ...], most: float, loss: Tensor) -> None:
    """Scale gradients down where their norm, over all of them, is larger than `most`; those of S seeds, loss [S], each by its own norm."""
    if loss.dim():
        norms = torch.stack([torch.linalg.vector_norm(grad.reshape(len(loss), -1), dim=1) for grad in grads])
        scale = (most / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1)
        for grad in grads:  # [S K, in, out]
            grad.mul_(scale.repeat_interleave(len(grad) // len(loss))[:, None, None])
        return
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1))


def descend_each(*steps: tuple[FusedAdam, Tensor]) -> list[Tensor]:
    """`descend` of several optimizers, each on its own loss, in one backward pass, whose start costs as much as a small network.

    No loss may depend on the parameters of another one's optimizer. Returns the detached losses.
    """
    params = [optimizer.param_groups[0]["params"] for optimizer, _ in steps]
    grads = iter(torch.autograd.grad([loss for _, loss in steps], [p for group in params for p in group]))
    for (optimizer, _), group in zip(steps, params, strict=True):
        optimizer.descend([next(grads) for _ in group])
    return [loss.detach() for _, loss in steps]


def regression_loss(q: Tensor, y: Targets) -> Tensor:
    """Half the squared error of K critics, q [K, N] against targets [N]: weighted mean over rows, summed over critics. [K, S, N]: [S].

    Because of the sum, a critic's gradient does not depend on the number of critics.
    """
    return 0.5 * (y.weight * (q - y.target).square()).mean(-1).sum(0)


def mean_value(q: Tensor) -> Tensor:
    """The mean of q [K, N] without gradient, 0-d; of S seeds, [K, S, N]: [S]."""
    return q.detach().mean((0, -1))


class LearningAgent(nn.Module):
    """An agent whose optimizers are part of its `state_dict`."""

    cycle = 1  # calls of `update` after which it does the same work again
    recorded_only = False  # `update` needs the fields of Recorded, which transitions lack that an environment or a model gives
    uses_reward = True  # `update` needs rewards, which some logs lack
    computes_targets = False  # `update` regresses critics on targets of its own and ignores the target function
    contrasts = False  # `update` pushes values of recorded rows up, of which a batch with rows of a model must hold one
    stackable = False  # `update` is written for batches [S, B, ...] of S seeds, too; see `mbkit.agents.stacked`
    pessimistic = False  # critics that are low on purpose: values far below any return are no sign of divergence
    count = 0  # calls of `update` in the present cycle; on the host, so that no call synchronises with the device

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, FusedAdam] = {}

    def add_optimizers(self, lr: float, **owners: nn.Module | nn.Parameter) -> None:
        """One Adam under each name, for a module's parameters or one parameter; none where all are constants."""
        for name, owner in owners.items():
            params = [p for p in (owner.parameters() if isinstance(owner, nn.Module) else [owner]) if p.requires_grad]
            if params:
                self.optimizers[name] = FusedAdam(params, lr)

    def normalize_inputs(self, obs_dim: int, wanted: bool) -> None:
        """Every network made so far, target networks included, sees observations through one normaliser; see `ObsStatistics` in `loops`.

        Until it has statistics it is the identity. Nothing happens unless it is `wanted`.
        """
        if not wanted:
            return
        self.normalizer = self.make_normalizer(obs_dim)
        for network in [module for module in self.modules() if hasattr(module, "inputs")]:
            network.inputs = self.normalizer

    def make_normalizer(self, obs_dim: int) -> Normalizer:
        """The normaliser of `normalize_inputs`."""
        return RunningNormalizer(obs_dim, INPUT_CLIP)

    def reset(self, mask: Tensor) -> None:
        """Environments bool [M] begin a new episode; most agents store nothing of the last one."""

    def get_extra_state(self) -> State:
        """What `state_dict` holds besides the module's tensors: the optimizers, and the place in the cycle."""
        return {"count": self.count, **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`, in place: a captured graph may hold the tensors."""
        self.count = state["count"]
        for name, optimizer in self.optimizers.items():
            restore_optimizer_(optimizer, deepcopy(state[name]))  # a copy: an optimizer without moments yet adopts these tensors


def needs_continuous(name: str, spec: EnvSpec) -> None:
    """UserError where the environment's actions are discrete."""
    if spec.discrete:
        several = f" in {len(spec.parts)} parts taken at once; {SEVERAL}" if spec.parts else ""
        raise UserError(f"{name} needs continuous actions, but the environment has {spec.action_dim} discrete ones{several}")


def needs_discrete(name: str, spec: EnvSpec) -> None:
    """UserError where the environment's actions are continuous, or several discrete ones are taken at once."""
    if not spec.discrete:
        raise UserError(f"{name} needs discrete actions, but the environment has continuous ones, of {spec.action_dim} dimensions")
    needs_one_action(name, spec)


def needs_one_action(name: str, spec: EnvSpec) -> None:
    """UserError where several discrete actions are taken at once."""
    if spec.parts:
        sizes = ", ".join(map(str, spec.parts))
        raise UserError(f"{name} takes one discrete action at a time, but the environment takes {len(spec.parts)}, of {sizes}; {SEVERAL}")
