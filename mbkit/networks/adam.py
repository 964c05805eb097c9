"""Fast path of torch's fused Adam (Kingma and Ba 2015, arXiv:1412.6980); every algorithm can be understood without it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


def uncompiled(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's optimizers without its decorator, which imports torch's compiler: a second and 80 MB that no training needs."""
    plain: Callable[..., Any] = getattr(method, "__wrapped__", method)
    return plain


class UncompiledAdam(torch.optim.Adam):
    """torch's Adam, whose methods do not import torch's compiler."""

    add_param_group = uncompiled(torch.optim.Optimizer.add_param_group)
    state_dict = uncompiled(torch.optim.Optimizer.state_dict)
    load_state_dict = uncompiled(torch.optim.Optimizer.load_state_dict)
    zero_grad = uncompiled(torch.optim.Optimizer.zero_grad)


class Slots(NamedTuple):
    """Adam's state: mean, mean square and step count of every parameter; the counts are elements of one tensor, which counts up at once."""

    mean: list[Tensor]
    square: list[Tensor]
    step: list[Tensor]
    steps: list[Tensor]  # the tensor of the counts, [parameters]; of several optimizers one for each


class AdamKernel(UncompiledAdam):
    """torch's fused Adam with a faster step, `descend`: the state tensors are gathered once, torch's `step` gathers them at every call."""

    after: Sequence[Callable[[], None]] = ()  # called after every step: projections of the parameters
    _slots: Slots | None = None
    _counts: tuple[list[Tensor], Tensor] | None = None  # the step counts, and the tensor whose elements they are

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As torch's."""
        super().load_state_dict(state)
        self.forget()

    def forget(self) -> None:
        """The state tensors are others now: gather them again at the next step."""
        self._slots = None

    def slots(self, grads: Sequence[Tensor]) -> Slots:
        """The state; torch makes it for parameters that have a gradient."""
        group = self.param_groups[0]
        if not self.state:
            for p, grad in zip(group["params"], grads, strict=True):
                p.grad = grad
            self._init_group(group, [], [], [], [], [], [])  # type: ignore[no-untyped-call]
            self.zero_grad()
        if self._slots is None:
            states = [self.state[p] for p in group["params"]]
            step, steps = self._counts or ([], torch.empty(0))
            if [id(s["step"]) for s in states] != [id(count) for count in step]:  # new ones
                steps = torch.stack([s["step"] for s in states])
                self._counts = step, steps = list(steps), steps
                for s, count in zip(states, step, strict=True):
                    s["step"] = count
            self._slots = Slots([s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], step, [steps])
        return self._slots

    def descend(self, grads: Sequence[Tensor], divisor: Tensor | None = None) -> None:
        """One step on these gradients, one for each parameter, all divided by `divisor`; torch's `step` would read them from `.grad`."""
        adam_step(self.param_groups[0], self.param_groups[0]["params"], grads, self.slots(grads), divisor)
        for project in self.after:
            project()


@torch.no_grad()
def adam_step(
    group: dict[str, Any],
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    slots: Slots,
    divisor: Tensor | None = None,
) -> None:
    """One call of torch's fused Adam with the settings of a group: parameters, gradients, `AdamKernel.slots` of each."""
    torch._foreach_add_(slots.steps, 1)
    torch._fused_adam_(
        list(params),
        list(grads),
        slots.mean,
        slots.square,
        [],
        slots.step,
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=divisor,
    )
