"""What every gradient-based agent shares: optimizers, and a state that `load_state_dict` restores in place."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.networks.heads import ActionValues, Critics
from mbkit.networks.kernels import gradients
from mbkit.networks.normalizer import Normalizer, RunningNormalizer
from mbkit.networks.optimizers import FusedAdam, restore_optimizer_
from mbkit.networks.passes import q_pass
from mbkit.networks.values import Distributional, regression_loss
from mbkit.types import EnvSpec, Metrics, State, Targets

SEVERAL = "reinforce, a2c, ppo, trpo, npg, soft_pg, vtrace and retrace take several, and so does pets with planner=discrete_cem"
# An optimizer, and outputs with the loss's gradient in each; a loss itself is an output whose gradient, 1, is None.
Sloped = tuple[FusedAdam, Sequence[tuple[Tensor, Tensor | None]]]
INPUT_CLIP = 100.0  # standard deviations of the warm-up, which a trained policy leaves behind: only what would drown the rest is cut off


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float | None = None) -> Tensor:
    """One step on the parameters of this optimizer; no others get a gradient. Returns the detached loss.

    `max_grad_norm`: a gradient whose norm, over all these parameters, is larger is scaled down to it.
    """
    params = optimizer.param_groups[0]["params"]
    grads = torch.autograd.grad(loss, params)
    divisor = None if max_grad_norm is None else excess(grads, max_grad_norm)
    if isinstance(optimizer, FusedAdam):
        optimizer.descend(grads, divisor)
        return loss.detach()
    if divisor is not None:
        torch._foreach_div_(grads, divisor)
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def excess(grads: Sequence[Tensor], max_norm: float) -> Tensor:
    """What gradients must be divided by so that their norm, over all of them, is at most `max_norm`; at least 1, 0-d."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(grads))))
    return ((norm + 1e-6) / max_norm).clamp(min=1).float()  # the fused Adam takes no other type


def clipped(grads: Sequence[Tensor], max_norm: float, seeds: int) -> list[Tensor]:
    """Gradients [S K, ...] of S seeds, each divided by its own `excess`."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.reshape(seeds, -1), dim=1) for g in grads]), dim=0)
    divisor = ((norm + 1e-6) / max_norm).clamp(min=1)
    return [grad / divisor.repeat_interleave(len(grad) // seeds)[:, None, None] for grad in grads]


def descend_each(*steps: Sloped, max_grad_norm: float | None = None) -> None:
    """One step of each optimizer on a loss that is known by its gradients in some outputs of networks, or by itself.

    All in one backward pass, whose start costs as much as a small network. Where the gradient of a small loss is written by hand, a dozen
    operators of autograd become two or three. No outputs may depend on the parameters of another step's optimizer. `max_grad_norm` as in
    `descend`.
    """
    params = [optimizer.param_groups[0]["params"] for optimizer, _ in steps]
    pairs = [pair for _, pairs in steps for pair in pairs]
    grads = iter(gradients([y for y, _ in pairs], [slope for _, slope in pairs], [p for group in params for p in group]))
    for (optimizer, _), group in zip(steps, params, strict=True):
        each = [next(grads) for _ in group]
        optimizer.descend(each, None if max_grad_norm is None else excess(each, max_grad_norm))


def regress(optimizer: FusedAdam, critics: Critics | ActionValues, y: Targets) -> Tensor:
    """One step on the critics' loss at the rows of y; their values before it, [K, N], without gradient."""
    forward = q_pass(critics, y)
    optimizer.descend(forward.regression(y))
    q: Tensor = forward.q
    return q


def critic_metrics(q: Tensor, y: Targets, critics: Critics | ActionValues | None = None) -> Metrics:
    """The critics' squared error and mean value, of q [K, N]; of S seeds, q [K, S, N], both [S]. Of distributions, the targets outside."""
    q = q.detach()
    metrics = {"critic/loss": regression_loss(q, y), "critic/q": q.mean((0, -1))}
    return metrics if critics is None else metrics | support_metrics(critics, y)


def support_metrics(critics: Critics | ActionValues, y: Targets) -> Metrics:
    """Of critics whose values are distributions: the share of targets beyond their support, and the return scale. Others: none."""
    outputs = critics.outputs
    return {"critic/outside": outputs.outside(y), "critic/scale": outputs.scale.clone()} if isinstance(outputs, Distributional) else {}


class LearningAgent(nn.Module):
    """An agent whose optimizers are part of its `state_dict`."""

    cycle = 1  # calls of `update` after which it does the same work again
    acts_by_sampling = False  # an exploring `act` is `sample`, which changes nothing on the host: it can be a CUDA graph
    recorded_only = False  # `update` needs the fields of Recorded, which transitions lack that an environment or a model gives
    uses_reward = True  # `update` needs rewards, which some logs lack
    computes_targets = False  # `update` regresses critics on targets of its own and ignores the target function
    contrasts = False  # `update` pushes values of recorded rows up, of which a batch with rows of a model must hold one
    stackable = False  # `update` is written for batches [S, B, ...] of S seeds, too; see `mbkit.agents.stacked`
    pessimistic = False  # critics that are low on purpose: values far below any return are no sign of divergence
    measures = True  # `update` returns its metrics; where several updates follow one another, only those of the last one are read
    count = 0  # calls of `update` in the present cycle; on the host, so that no call synchronises with the device

    def __init__(self) -> None:
        super().__init__()
        self.optimizers: dict[str, FusedAdam] = {}
        self.lines: dict[str, tuple[float, float]] = {}  # learning rates at the two ends of a run, by optimizer, where they fall

    def add_optimizers(self, lr: float | Tensor, **owners: nn.Module | nn.Parameter) -> None:
        """One Adam under each name, for a module's parameters or one parameter; none where all are constants.

        With the tensor that `learning_rate` makes on a GPU the rate changes for all of them, and they can step in one call.
        """
        for name, owner in owners.items():
            params = [p for p in (owner.parameters() if isinstance(owner, nn.Module) else [owner]) if p.requires_grad]
            if params:
                self.optimizers[name] = FusedAdam(params, lr)
                modules = owner.modules() if isinstance(owner, nn.Module) else ()
                self.optimizers[name].after = [cast("Callable[[], None]", m.project_) for m in modules if hasattr(m, "project_")]

    def let_rates_fall(self, lr: float, final_lr: float | None) -> None:
        """All learning rates so far fall along lines with the run, in the proportion in which lr falls to final_lr; None: they stay.

        Raises:
            UserError: final_lr is above lr.
        """
        if final_lr is None:
            return
        if final_lr > lr:
            raise UserError(f"agent.final_lr={final_lr:g}: expected at most agent.lr={lr:g}, from where it falls")
        rates = {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.optimizers.items()}
        self.lines = {name: (rate, rate * final_lr / lr) for name, rate in rates.items()}

    def anneal(self, remaining: float) -> None:
        """Set every falling learning rate for the share of the run that remains, 1 to 0."""
        for name, (first, last) in self.lines.items():
            self.optimizers[name].set_lr(last + (first - last) * remaining)

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
            restore_optimizer_(optimizer, state[name])


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
