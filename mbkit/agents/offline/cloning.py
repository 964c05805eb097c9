"""Losses of policies that imitate recorded actions: alike, or weighted by how good an action is.

Behaviour cloning: Pomerleau 1991, Neural Computation 3(1). Weights exp(A / temperature): MARWIL (Wang et al. 2018, NeurIPS 31), AWR
(arXiv:1910.00177), AWAC (arXiv:2006.09359), IQL (arXiv:2110.06169); they differ in the advantage A alone.
Letters: B batch, A dimensions of an action.
"""

from torch import Tensor, nn

from mbkit.networks.policy import Logits, TanhGaussian


def squared_error(action: Tensor, recorded: Tensor) -> Tensor:
    """(mu(s) - a)^2, mean over rows and dimensions; both [B, A]."""
    return (action - recorded).square().mean()


def log_likelihood_loss(log_prob: Tensor) -> Tensor:
    """-E log pi(a|s) of the recorded actions, log pi [B]."""
    return -log_prob.mean()


def imitation_loss(policy: nn.Module, obs: Tensor, recorded: Tensor) -> Tensor:
    """The loss, 0-d, of a policy that imitates recorded actions [B, A] or int64 [B] at obs [B, O]: by likelihood where it has one."""
    if isinstance(policy, TanhGaussian):
        return log_likelihood_loss(policy.log_prob(obs, recorded))
    output = policy(obs)
    if isinstance(policy, Logits):
        return log_likelihood_loss(output.gather(-1, recorded[:, None])[:, 0])
    return squared_error(output, recorded) if isinstance(output, Tensor) else log_likelihood_loss(output.log_prob(recorded))


def exp_weights(advantage: Tensor, temperature: float | Tensor, clip: float) -> Tensor:
    """min(exp(A / temperature), clip) as constants, [B].

    The KL-constrained improvement of b is b(a|s) exp(A / temperature) / Z(s); Z, which differs between states, is left out.
    """
    return (advantage.detach() / temperature).exp().clamp(max=clip)


def weighted_log_likelihood_loss(log_prob: Tensor, weight: Tensor) -> Tensor:
    """-E w log pi(a|s) of the recorded actions; log pi and the constants w [B]."""
    return -(weight.detach() * log_prob).mean()
