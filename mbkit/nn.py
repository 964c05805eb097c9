"""Networks shared by policies, critics and dynamics: many MLPs at once, policies and critics made of them, a normaliser.

Letters: E members, K critics, B batch, O observation, A action.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Literal["relu", "silu"]
ACTIVATION = {"relu": F.relu, "silu": F.silu}
MANY_ROWS = 128  # per member: from here on one large product per member beats one batched product (CPU, float32)
CHUNK_ROWS = 2048  # that go through all layers together, so that what lies between two layers stays in the cache (CPU, no gradient)
EVERY = slice(None)


class ReluMLP(torch.autograd.Function):
    """E networks of ReLU layers with a backward pass of their own: what autograd does, with fewer and warmer tensors.

    x [B, I] or [E, B, I], then weights [E, in, out] and biases [E, 1, out] in turn -> [E, B, out]. ReLU and its mask are done in place, on
    what has just been computed: a fresh tensor of each layer's size costs as much again as its product's share of memory traffic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *params: Tensor) -> Tensor:  # type: ignore[override]
        """Keeps every layer's input."""
        weight, bias = params[::2], params[1::2]
        ctx.shared = x.dim() == 2
        x = x.expand(len(weight[0]), *x.shape[-2:])
        inputs = []
        for n, (w, b) in enumerate(zip(weight, bias, strict=True)):
            inputs.append(x)
            x = torch.baddbmm(b, x, w)
            if n < len(weight) - 1:
                x.relu_()
        ctx.save_for_backward(*inputs, *weight)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """dW = x^T g, db = sum g, g <- (g W^T) [x > 0], layer by layer from the last; only what is asked for."""
        layers = len(ctx.saved_tensors) // 2
        inputs, weight = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        wanted, found = ctx.needs_input_grad, []
        for n in reversed(range(layers)):
            found.append(grad.sum(1, keepdim=True) if wanted[2 + 2 * n] else None)
            found.append(torch.bmm(inputs[n].mT, grad) if wanted[1 + 2 * n] else None)
            if n == 0 and not wanted[0]:
                return None, *reversed(found)
            grad = torch.bmm(grad, weight[n].mT)
            if n:
                torch.ops.aten.threshold_backward.grad_input(grad, inputs[n], 0, grad_input=grad)
        return grad.sum(0) if ctx.shared else grad, *reversed(found)


class EnsembleMLP(nn.Module):
    """E networks at once: x [B, I] (the same rows for all) or [E, B, I] -> [E, B, out]; weights [E, in, out], biases [E, 1, out].

    Each hidden layer is: linear, dropout (if any), layer normalisation (if wanted), activation, the order of DroQ (arXiv:2110.02034).
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation: Activation = "relu", layer_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.members, self.sizes, self.activation, self.dropout = members, tuple(sizes), activation, dropout
        self.weight = nn.ParameterList()
        self.bias = nn.ParameterList()
        self.gain, self.shift = nn.ParameterList(), nn.ParameterList()  # of the layer normalisation, [E, 1, out]
        for i, o in pairwise(sizes):
            bound = 1 / math.sqrt(i)
            self.weight.append(nn.Parameter(torch.empty(members, i, o).uniform_(-bound, bound)))
            self.bias.append(nn.Parameter(torch.empty(members, 1, o).uniform_(-bound, bound)))
        for width in sizes[1:-1] if layer_norm else ():
            self.gain.append(nn.Parameter(torch.ones(members, 1, width)))
            self.shift.append(nn.Parameter(torch.zeros(members, 1, width)))
        self.layers = list(zip(self.weight, self.bias, strict=True))  # the same parameters: a ParameterList is slow to walk

    def forward(self, x: Tensor, fixed: bool = False) -> Tensor:
        """Outputs without an activation on the last layer; shapes as above. Dropout is on in training mode, as in torch.

        `fixed` takes the parameters as constants: a gradient reaches x alone.
        """
        if self.gain or self.dropout:
            return self._regularised(x)
        if x.device.type == "cpu" and x.shape[-2] >= 2 * MANY_ROWS and not torch.is_grad_enabled():
            inputs = x.expand(self.members, *x.shape[-2:])
            return member_by_member(inputs, self.sizes[-1], self.member)
        if self.activation == "relu" and torch.is_grad_enabled():
            return self.relu(x, fixed=fixed)
        act, last, inplace = ACTIVATION[self.activation], len(self.layers) - 1, not torch.is_grad_enabled()
        x = x.expand(self.members, *x.shape[-2:])
        for n, (w, b) in enumerate(self.layers):
            x = torch.baddbmm(b, x, w)
            x = x if n == last else act(x, inplace=inplace)
        return x

    def relu(self, x: Tensor, members: slice = EVERY, fixed: bool = False) -> Tensor:
        """Some of the members, with the backward pass of `ReluMLP`; shapes as above."""
        params = [p if members is EVERY else p[members] for pair in self.layers for p in pair]
        out: Tensor = ReluMLP.apply(x, *(p.detach() for p in params) if fixed else params)  # type: ignore[no-untyped-call]
        return out

    def _regularised(self, x: Tensor) -> Tensor:
        act = ACTIVATION[self.activation]
        x = x.expand(self.members, *x.shape[-2:])
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.baddbmm(b, x, w)
            if n == len(self.weight) - 1:
                return x
            x = F.dropout(x, self.dropout, self.training) if self.dropout else x
            x = F.layer_norm(x, x.shape[-1:]) * self.gain[n] + self.shift[n] if self.gain else x
            x = act(x)
        return x

    def member(self, e: int, x: Tensor) -> Tensor:
        """One network without dropout and normalisation, x [B, I] -> [B, out], no gradient; on a CPU the fastest way for many rows."""
        act = ACTIVATION[self.activation]
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.addmm(b[e], x, w[e])
            x = x if n == len(self.weight) - 1 else act(x, inplace=True)
        return x


class Critics(nn.Module):
    """K action-value functions: obs [B, O], action [B, A] -> [K, B]."""

    def __init__(
        self, members: int, obs_dim: int, action_dim: int, hidden: Sequence[int], layer_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.net = EnsembleMLP(members, (obs_dim + action_dim, *hidden, 1), layer_norm=layer_norm, dropout=dropout)

    def forward(self, obs: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
        """The values of every critic, [K, B]; `fixed`: the critics are constants, as in a policy's loss."""
        q: Tensor = self.net(torch.cat((obs, action), -1), fixed)
        return q.squeeze(-1)

    def first(self, obs: Tensor, action: Tensor) -> Tensor:
        """The first critic alone, [B], a constant and without computing the others: what the policy of DDPG and TD3 climbs."""
        if self.net.gain or self.net.dropout:
            q: Tensor = self(obs, action)[0]
            return q
        return self.net.relu(torch.cat((obs, action), -1), slice(0, 1), fixed=True)[0].squeeze(-1)


class ActionValues(nn.Module):
    """K critics of discrete actions: obs [B, O] -> the values of all A choices, [K, B, A]."""

    def __init__(self, members: int, obs_dim: int, actions: int, hidden: Sequence[int], layer_norm: bool = False) -> None:
        super().__init__()
        self.net = EnsembleMLP(members, (obs_dim, *hidden, actions), layer_norm=layer_norm)

    def forward(self, obs: Tensor) -> Tensor:
        """Shapes as above."""
        q: Tensor = self.net(obs)
        return q


class Deterministic(nn.Module):
    """Policy into the box: obs [B, O] -> action [B, A] in [-1, 1] by tanh."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = EnsembleMLP(1, (obs_dim, *hidden, action_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """The action, [B, A]."""
        out: Tensor = self.net(obs)[0]
        return out.tanh()


class TanhGaussian(nn.Module):
    """Squashed Gaussian policy on [-1, 1]^A (SAC, arXiv:1801.01290, appendix C); log-probabilities include the tanh volume, stably."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int], log_std: tuple[float, float] = (-5.0, 2.0)) -> None:
        super().__init__()
        self.net = EnsembleMLP(1, (obs_dim, *hidden, 2 * action_dim))
        self.log_std = log_std  # its range. Paper's code: -20, 2

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, both [B, A]."""
        mean, log_std = self.net(obs)[0].chunk(2, -1)
        return mean, log_std.clamp(*self.log_std)

    def mode(self, obs: Tensor) -> Tensor:
        """tanh of the mean, [B, A]: what is done without exploration."""
        mean: Tensor = self(obs)[0]
        return mean.tanh()

    def rsample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised action [B, A] and its log-density [B]: a = tanh(u), log pi = log N(u) - sum log(1 - a^2)."""
        mean, log_std = self(obs)
        eps = torch.randn_like(mean)
        u = torch.addcmul(mean, log_std.exp(), eps)
        normal = torch.addcmul(log_std, eps, eps, value=0.5)  # -log N(u) without its constant
        half_volume = u + F.softplus(-2 * u)  # log(1 - tanh(u)^2) = 2 (log 2 - half_volume)
        constant = mean.shape[-1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))
        return u.tanh(), torch.sub(2 * half_volume, normal).sum(-1) - constant


@torch.no_grad()
def truncated_normal_init_(net: EnsembleMLP) -> EnsembleMLP:
    """PETS' initialisation: weights from a normal with sigma 1 / (2 sqrt(fan in)) cut at two sigmas, biases zero."""
    for w, b in zip(net.weight, net.bias, strict=True):
        sigma = 1 / (2 * math.sqrt(w.shape[1]))
        nn.init.trunc_normal_(w, std=sigma, a=-2 * sigma, b=2 * sigma)
        b.zero_()
    return net


def member_by_member(x: Tensor, width: int, network: Callable[[int, Tensor], Tensor]) -> Tensor:
    """network(e, rows) for every member e of x [E, R, I] -> float32 [E, R, width], a chunk of rows at a time through all layers."""
    out = torch.empty(*x.shape[:-1], width, device=x.device)
    for e in range(len(x)):
        for first in range(0, x.shape[1], CHUNK_ROWS):
            rows = slice(first, first + CHUNK_ROWS)
            out[e, rows] = network(e, x[e, rows])
    return out


class Normalizer(nn.Module):
    """Per-column mean and standard deviation of a data set [N, I]; the identity until fitted. A constant column keeps its scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Statistics in float64; sigma < 1e-12 becomes 1. One row has no spread: its columns count as constant."""
        x = x.double()
        std = x.std(0) if len(x) > 1 else torch.zeros_like(x[0])
        self.mean.copy_(x.mean(0))
        self.std.copy_(torch.where(std < 1e-12, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Back to raw units."""
        return x * self.std + self.mean


def params_of(module: nn.Module) -> list[Tensor]:
    """All parameters; the list is kept, since walking a module takes longer than averaging a small one. None may be added later."""
    found: list[Tensor] | None = module.__dict__.get("_all_params")
    if found is None:
        found = module.__dict__["_all_params"] = list(module.parameters())
    return found


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, over all parameters."""
    torch._foreach_lerp_(params_of(target), params_of(online), tau)


@torch.no_grad()
def copy_when_(target: nn.Module, online: nn.Module, due: Tensor) -> None:
    """target <- online where the 0-d `due` is true, without asking the device whether it is."""
    mine = params_of(target)
    weights = [due.to(mine[0].dtype)] * len(mine)  # 1 is a copy, to the last digit
    torch._foreach_lerp_(mine, params_of(online), weights)  # type: ignore[call-overload,arg-type]


@torch.no_grad()
def restore_optimizer_(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load an optimizer's `state_dict`, writing into its existing tensors where it has them (a captured graph may hold them).

    Where the saved optimizer had made no step yet, the existing tensors become zero, which is what Adam begins with.
    """
    held = {p: dict(slots) for p, slots in optimizer.state.items()}
    optimizer.load_state_dict(state)
    for p, before in held.items():
        slots = optimizer.state[p]
        for key, old in before.items():
            if isinstance(old, Tensor):
                value = slots.get(key)
                slots[key] = old.copy_(value) if isinstance(value, Tensor) else old.zero_()
