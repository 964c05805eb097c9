"""Forward passes whose backward pass is called directly: on a CPU a node of autograd costs as much as a small product.

A fast path: `torch.autograd.grad` of the same networks gives the same numbers. Letters: E members, B rows, I inputs, K critics, O
observation, A dimensions of an action, S seeds, whose networks may be stacked: then rows are [S, B, ...] and values [K, S, B].
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mbkit.networks.distributions import Categorical, ClippedGaussian
from mbkit.networks.heads import ActionValues, Critics
from mbkit.networks.kernels import EVERY, gradients, relu_gradients, relu_layers
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import trained_of
from mbkit.networks.policy import Deterministic, StochasticPolicy
from mbkit.networks.stacked import of_seeds, with_seeds
from mbkit.types import Targets

Beside = tuple[Tensor, Tensor]  # the observations [B, O] and actions that follow rows


class Pass:
    """One pass of networks at x [B, I] or [E, B, I], constants: `out` [E, B, out] without gradient, and the gradients of any loss of it.

    Args:
        net: the networks; those of plain ReLU layers need no autograd, others do.
        x: the inputs.
        members: some of the networks; of these the parameters count as constants.
        fixed: all parameters are constants, and the gradient in x is wanted instead.
        beside: further rows, which count only in the statistics of a network that normalises by its batch, and move its running ones.
    """

    def __init__(self, net: nn.Module, x: Tensor, members: slice = EVERY, fixed: bool = False, beside: Tensor | None = None) -> None:
        self.net, self.fixed = net, fixed
        self.fast = isinstance(net, EnsembleMLP) and net.activation == "relu" and not net.norms and not net.dropout
        self.shared = x.dim() == 2
        if not self.fast:
            self.x = x.detach().requires_grad_() if fixed else x
            if fixed or not hasattr(net, "joint"):
                self.graph: Tensor = net(self.x, fixed, members)
            else:
                joint = cast("Callable[..., Tensor]", net.joint)
                self.graph = joint(x if beside is None else torch.cat((x, beside)), learn=True, wanted=slice(0, len(x)))
            self.out = self.graph.detach()
            return
        assert isinstance(net, EnsembleMLP)
        with torch.no_grad():
            self.layers = net.layers if members is EVERY else [(w[members], b[members]) for w, b in net.layers]
            *self.inputs, self.out = relu_layers(x.expand(len(self.layers[0][0]), *x.shape[-2:]), self.layers)

    def _backward(self, slope: Tensor, input_needed: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        needed = [input_needed] + [not input_needed] * (2 * len(self.layers))
        with torch.no_grad():
            return relu_gradients(slope, self.inputs, [w for w, _ in self.layers], needed)

    def gradients(self, slope: Tensor) -> Sequence[Tensor]:
        """Of the parameters, in their order, from the gradient in `out`."""
        if not self.fast:
            return gradients([self.graph], [slope], trained_of(self.net))
        _, grads = self._backward(slope, input_needed=False)
        return [grad for grad in (*grads[::2], *grads[1::2]) if grad is not None]  # all weights before all biases

    def input_gradient(self, slope: Tensor) -> Tensor:
        """Of x, from the gradient in `out`."""
        if not self.fast:
            return gradients([self.graph], [slope], [self.x])[0]
        grad, _ = self._backward(slope, input_needed=True)
        assert grad is not None
        if not self.shared:
            return grad
        return grad[0] if len(grad) == 1 else grad.sum(0)


class CriticPass:
    """One pass of critics of state-action pairs, obs [B, O] and action [B, A]: values `q` [K, B], or [1, B] of the `first` alone.

    `fixed`: the critics are constants, and the gradient in the action is wanted. `beside`: the next observations and actions, for critics
    that normalise by their batch.
    """

    def __init__(
        self, critics: Critics, obs: Tensor, action: Tensor, first: bool = False, fixed: bool = False, beside: Beside | None = None
    ) -> None:
        self.critics, self.obs_dim, x = critics, obs.shape[-1], torch.cat((critics.inputs(obs), action), -1)
        members, x = (slice(0, None, critics.members), x) if first else (EVERY, critics.rows(x))
        others = None if beside is None else torch.cat((critics.inputs(beside[0]), beside[1]), -1)
        self.net = Pass(critics.net, x, members, fixed, others)
        self.out = critics.by_critic(self.net.out)  # [K, B, Z]
        self.q = critics.outputs.values(self.out)

    def gradients(self, slope: Tensor) -> Sequence[Tensor]:
        """Of the critics' parameters, from the gradient in `q`."""
        return self.net.gradients(self.critics.by_network(self.critics.outputs.slopes(self.out, slope)))

    def regression(self, y: Targets) -> Sequence[Tensor]:
        """Of the critics' parameters, of their loss beside targets of these rows."""
        return self.net.gradients(self.critics.by_network(self.critics.outputs.loss_slopes(self.out, y)))

    def action_gradient(self, slope: Tensor) -> Tensor:
        """Of the action [B, A], from the gradient in `q`."""
        grad = self.net.input_gradient(self.critics.by_network(self.critics.outputs.slopes(self.out, slope)))
        grad = self.critics.by_critic(grad).sum(0) if self.critics.seeds else grad
        return grad[..., self.obs_dim :]


def values_pass(values: ActionValues, obs: Tensor, beside: Tensor | None = None) -> Pass:
    """One pass of critics of discrete actions at obs [B, O]; its `out` are the outputs [K, B, A Z]; of S seeds [S K, B, A Z]."""
    return Pass(values.net, values.rows(values.inputs(obs)), beside=None if beside is None else values.inputs(beside))


class TakenPass:
    """One pass of critics of discrete actions at obs [B, O]: the values `q` [K, B] of actions int64 [B]."""

    def __init__(self, critics: ActionValues, obs: Tensor, action: Tensor, beside: Beside | None = None) -> None:
        self.critics = critics
        self.net = values_pass(critics, obs, None if beside is None else beside[0])
        every = critics.by_action(self.net.out)  # [K, B, A, Z]
        self.shape, self.index = every.shape, action[:, None, None].expand(*every.shape[:-2], 1, every.shape[-1])
        self.out = every.gather(-2, self.index)[..., 0, :]  # [K, B, Z]
        self.q = critics.outputs.values(self.out)

    def gradients(self, slope: Tensor) -> Sequence[Tensor]:
        """Of the critics' parameters, from the gradient in `q`."""
        return self._of_taken(self.critics.outputs.slopes(self.out, slope))

    def regression(self, y: Targets) -> Sequence[Tensor]:
        """Of the critics' parameters, of their loss beside targets of these rows."""
        return self._of_taken(self.critics.outputs.loss_slopes(self.out, y))

    def _of_taken(self, slope: Tensor) -> Sequence[Tensor]:
        every = slope.new_zeros(self.shape).scatter_(-2, self.index, slope[..., None, :])
        return self.net.gradients(every.flatten(-2))


def q_pass(critics: Critics | ActionValues, y: Targets) -> CriticPass | TakenPass:
    """One pass of critics of either kind at the rows of the targets, in which those beside them count where the critics need them."""
    beside = y.beside if hasattr(critics.net, "joint") else None
    if isinstance(critics, ActionValues):
        return TakenPass(critics, y.obs, y.action, beside)
    return CriticPass(critics, y.obs, y.action, beside=beside)


class LikelihoodPass:
    """One pass of a policy of `fused` layers at obs [B, O]: its `distribution`, and a step towards recorded actions."""

    def __init__(self, policy: StochasticPolicy, obs: Tensor) -> None:
        if not isinstance(policy.net, EnsembleMLP):
            raise TypeError("expected a policy of fused layers")
        self.policy = policy
        self.net = Pass(policy.net, policy.inputs(obs))
        with torch.no_grad():
            self.distribution = policy.distribution(self.net.out[0])

    @torch.no_grad()
    def gradients(self, action: Tensor, weight: Tensor) -> Sequence[Tensor]:
        """Of the policy's parameters, of the loss -mean w log pi(a|s) of actions [B, A] or int64 [B], weighted [B]."""
        distribution, by_row = self.distribution, (weight / -len(weight))[:, None]
        if isinstance(distribution, Categorical):
            chosen = torch.zeros_like(distribution.logits).scatter_(-1, action[:, None], 1)
            return self.net.gradients((by_row * (chosen - distribution.logits.softmax(-1)))[None])
        log_std, (low, high) = self.policy.log_std, self.policy.log_std_range or (-math.inf, math.inf)
        if log_std is None or not isinstance(distribution, ClippedGaussian):
            raise TypeError("several discrete actions taken at once have no gradient by hand")
        in_mean, in_log_std = (by_row * slope for slope in distribution.log_prob_slopes(action))
        return [in_log_std.sum(0) * ((log_std >= low) & (log_std <= high)), *self.net.gradients(in_mean[None])]


class PolicyPass:
    """One pass of a deterministic policy at obs [B, O]: `action` [B, A]."""

    def __init__(self, policy: Deterministic, obs: Tensor) -> None:
        self.net = Pass(policy.net, with_seeds(policy.inputs(obs)))
        self.action = of_seeds(self.net.out, obs).tanh()

    def gradients(self, slope: Tensor) -> Sequence[Tensor]:
        """Of the policy's parameters, from the gradient in `action`."""
        return self.net.gradients(with_seeds(torch.ops.aten.tanh_backward(slope, self.action)))
