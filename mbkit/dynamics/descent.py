"""Steps of Adam down the training loss, which nobody has to read to follow the algorithm: autograd's arithmetic in fewer operators.

The gradient is written out and fills memory that is allocated once; on CUDA several steps are one graph.
Letters: S steps, E members, b batch, I input, D prediction, F outputs.
"""

import operator
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mbkit.accelerate import accelerated
from mbkit.dynamics.loss import BOUND_PENALTY, TrainingRows
from mbkit.dynamics.network import EnsembleNetwork
from mbkit.networks.adam import UncompiledAdam
from mbkit.networks.kernels import affine, weight_gradient
from mbkit.networks.optimizers import restore_optimizer_
from mbkit.types import State

AT_ONCE = 8  # steps of one CUDA graph
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, torch's default


class DecayingAdam(UncompiledAdam):
    """torch's fused Adam for groups that differ in weight decay alone, with a faster step, `descend`; its states are torch's."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        device = groups[0]["params"][0].device
        on_gpu = device.type == "cuda"  # there a captured graph reads the learning rate, so it is a tensor
        rate = torch.tensor(lr, device=device) if on_gpu else lr
        super().__init__(groups, lr=rate, betas=BETAS, eps=EPSILON, fused=True, capturable=on_gpu)

    @torch.no_grad()
    def descend(self, grads: Sequence[Tensor]) -> None:
        """One step on these gradients, one for each parameter in the order of the groups; on CUDA they are changed."""
        rest = list(grads)
        groups = [(group, [rest.pop(0) for _ in group["params"]]) for group in self.param_groups]
        if grads[0].is_cuda:  # one kernel for all: what each group decays is added to its gradients beforehand
            pairs = [(p, g, group["weight_decay"]) for group, its in groups for p, g in zip(group["params"], its, strict=True)]
            decayed = [(p, g, decay) for p, g, decay in pairs if decay]
            if decayed:
                params, gradients, decay = (list(column) for column in zip(*decayed, strict=True))
                torch._foreach_add_(gradients, torch._foreach_mul(params, decay))
            groups = [({**self.param_groups[0], "params": [p for p, *_ in pairs], "weight_decay": 0.0}, list(grads))]
        for group, its in groups:
            slots = [self._slots(p) for p in group["params"]]
            mean, square, count = (list(column) for column in zip(*slots, strict=True))
            torch._foreach_add_(count, 1)
            settings = {"weight_decay": group["weight_decay"], "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPSILON}
            torch._fused_adam_(group["params"], its, mean, square, [], count, lr=group["lr"], amsgrad=False, maximize=False, **settings)

    def _slots(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, mean square and step count of a parameter, as torch initialises them."""
        slot = self.state[p]
        if not slot:
            slot |= {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        return slot["exp_avg"], slot["exp_avg_sq"], slot["step"]


def optimizer(network: EnsembleNetwork) -> DecayingAdam:
    """Adam whose weight decay is the gradient of 0.5 wd ||W||^2 for each layer's weights; biases and bounds have none."""
    decay, bounds = network.cfg.weight_decay, network.logvar_bounds
    groups = [{"params": [w], "weight_decay": decay[min(n, len(decay) - 1)]} for n, w in enumerate(network.net.weight)]
    free = [*network.net.bias, *([bounds] if bounds.requires_grad else [])]
    return DecayingAdam([*groups, {"params": free, "weight_decay": 0.0}], network.cfg.lr)


def gaussian_gradient(mean: Tensor, raw: Tensor, y: Tensor, bounds: Tensor, share: float | Tensor) -> tuple[Tensor, ...]:
    """sum share ((mu - y)^2 / v + log v), v the soft-bounded variance, and its gradients by mean and raw log-variance, [E, b, D].

    With s = sigmoid(raw - high): v = v_low + v_high s, of which a share v_high s / v grows with raw, at the rate 1 - s. A step of the
    log-variance itself, of that share and of raw change the loss as the last three tensors say, [E, b, D] each: raw's gradient is the last.
    """
    low, high = bounds.exp()
    gap = raw - bounds[1]
    inner = high * gap.sigmoid()
    var = low + inner
    error = mean - y
    scaled = share * (error / var)
    square = scaled * error
    by_logvar = share - square
    by_inner = by_logvar * (inner / var)
    by_raw = by_inner * gap.neg_().sigmoid_()  # 1 - s would lose its digits where s is near 1
    return (square + share * var.log()).sum(), 2 * scaled, by_logvar, by_inner, by_raw


class Memory:
    """Tensors that one forward and backward pass of a network on b rows of each member fills."""

    def __init__(self, network: EnsembleNetwork, rows: int) -> None:
        net, widths = network.net, network.net.sizes[1:-1]
        self.product = [net.weight[0].new_empty(net.members, rows, width) for width in widths]  # later the gradients by them
        self.hidden = [torch.empty_like(product) for product in self.product]
        self.scratch = {product.shape[-1]: torch.empty_like(product) for product in self.product}
        self.weight, self.bias = [torch.empty_like(w) for w in net.weight], [torch.empty_like(b) for b in net.bias]


class Descent:
    """Adam's steps on `loss.loss` of a network; on CUDA several of them are one graph, which later fits use again."""

    def __init__(self, network: EnsembleNetwork, adam: DecayingAdam) -> None:
        self.network, self.adam = network, adam
        device, bounds = network.spec.device, network.logvar_bounds
        self.at_once = AT_ONCE if device.type == "cuda" else 1
        self.penalty = BOUND_PENALTY * (bounds.new_tensor([[-1.0], [1.0]]).expand_as(bounds))  # its gradient, [2, D]
        self.memory: dict[int, Memory] = {}
        self.graph = accelerated(self.steps, "cudagraph", device, changes=[self]) if device.type == "cuda" else None

    def run(self, batches: TrainingRows) -> Tensor:
        """`steps`, on CUDA as a graph."""
        return self.steps(batches) if self.graph is None else self.graph(batches)

    @torch.no_grad()
    def steps(self, batches: TrainingRows) -> Tensor:
        """One step on each of the normalised batches [S, E, b, ...]; returns the losses before them, [S]."""
        losses = []
        for n in range(len(batches.x)):
            value, grads = self.gradient(batches.each(operator.itemgetter(n)))
            self.adam.descend(grads)
            losses.append(value)
        return torch.stack(losses)

    @torch.no_grad()
    def gradient(self, batch: TrainingRows) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch [E, b, ...] and its gradient by weights, biases and trained bounds, valid until the next call."""
        rows = batch.x.shape[1]
        if rows not in self.memory:
            self.memory[rows] = Memory(self.network, rows)
        memory, layers = self.memory[rows], self.network.net.layers
        inputs = [batch.x]
        for (w, b), product, hidden in zip(layers, memory.product, memory.hidden, strict=False):
            torch.baddbmm(b, inputs[-1], w, out=product)
            inputs.append(torch.ops.aten.silu.out(product, out=hidden))
        value, grad, by_bounds = self.output_gradient(affine(layers[-1][1], inputs[-1], layers[-1][0]), batch)
        *weights, last = memory.weight
        for n in reversed(range(len(layers))):
            torch.sum(grad, 1, keepdim=True, out=memory.bias[n])
            if n == len(layers) - 1:
                last = weight_gradient(inputs[n], grad)
            else:
                torch.bmm(inputs[n].mT, grad, out=weights[n])
            if n:
                product = memory.product[n - 1]
                by_hidden = torch.bmm(grad, layers[n][0].mT, out=memory.scratch[product.shape[-1]])
                grad = torch.ops.aten.silu_backward.grad_input(by_hidden, product, grad_input=product)
        return value, [*weights, last, *memory.bias, *([] if by_bounds is None else [by_bounds])]

    def output_gradient(self, out: Tensor, batch: TrainingRows) -> tuple[Tensor, Tensor, Tensor | None]:
        """The loss and its gradients by the raw outputs [E, b, F] and by the bounds [2, D], where they are trained."""
        mean, raw, logit = self.network.split(out)
        share: float | Tensor = 1 / batch.y[0].numel()  # of an element in its member's mean
        if batch.known is not None:
            share = batch.known / (batch.known.sum((1, 2), keepdim=True).clamp(min=1) * batch.y.shape[-1])
        by_bounds, bounds = None, self.network.logvar_bounds
        if raw is None:
            error = mean - batch.y
            by_mean = 2 * share * error
            value, by_outputs = 0.5 * (by_mean * error).sum(), [by_mean]
        else:
            value, by_mean, by_logvar, by_inner, by_raw = gaussian_gradient(mean, raw, batch.y, bounds, share)
            value = value + torch.dot(self.penalty.flatten(), bounds.flatten())
            by_outputs = [by_mean, by_raw]
            if bounds.requires_grad:
                total = torch.stack((by_logvar, by_inner, by_raw)).sum((1, 2))
                by_bounds = self.penalty + (total[:2] - total[1:])
        if logit is not None:
            value = value + F.binary_cross_entropy_with_logits(logit, batch.ended, reduction="none").mean(1).sum()
            by_outputs.append((logit.sigmoid() - batch.ended)[..., None] / logit.shape[1])
        return value, torch.cat(by_outputs, -1), by_bounds

    def __deepcopy__(self, memo: dict[int, object]) -> "Descent":
        """A descent of the copied network; graphs cannot be copied, so they are captured again."""
        return Descent(deepcopy(self.network, memo), deepcopy(self.adam, memo))

    def state_dict(self) -> State:
        """What a step changes."""
        return {"network": self.network.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.network.load_state_dict(state["network"])
        restore_optimizer_(self.adam, state["adam"])
