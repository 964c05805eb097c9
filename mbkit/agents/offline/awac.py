"""Advantage-weighted actor-critic (Nair, Gupta, Dalal and Levine 2020, arXiv:2006.09359): a policy cloned by the advantages
of its critic.

The weights are exp(A / temperature) with A(s, a) = Q(s, a) - E_pi Q(s, .), never the error of the critic, which vanishes as it learns.
Letters: B batch, O observation, A action, K critics, N sampled actions.
"""

from dataclasses import dataclass

from mbkit.agents.base import critic_metrics, needs_continuous
from mbkit.agents.critics import CriticOptions
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic, stochastic_policy
from mbkit.agents.offline.behaviour import advantage, values_under
from mbkit.agents.offline.cloning import exp_weights, weighted_log_likelihood_loss
from mbkit.fields import at_least, positive
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import polyak_
from mbkit.networks.passes import LikelihoodPass, q_pass
from mbkit.networks.policy import StochasticPolicy
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class AWACConfig(CriticOptions, CriticConfig):
    """Networks, learning rate, weights."""

    temperature: float = positive(1 / 3)  # temperature of the policy's weights exp(A / temperature). Paper: lambda, 0.3 or 1
    weight_clip: float = positive(100.0)  # largest weight. Paper: weights normalised over the batch; d3rlpy: so, without a largest
    samples: int = at_least(1, 1)  # actions of the policy by which its value is estimated, N


@agents.register("awac", AWACConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class AWAC(OfflineActorCritic):
    """Advantage-weighted actor-critic: a policy cloned by its own critic's advantages."""

    critics: Critics
    policy: StochasticPolicy

    def __init__(self, spec: EnvSpec, cfg: AWACConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("awac", spec)
        super().__init__(spec, cfg, gamma, target)
        self.cfg = cfg
        self.policy = stochastic_policy(spec, cfg.hidden)
        self.add_critics(spec, cfg)
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics and, with weights by the critics before it, one on the policy; then one on the target critics."""
        cfg = self.cfg
        y = self.targets(batch)
        policy = LikelihoodPass(self.policy, batch.obs)
        forward = q_pass(self.critics, y)
        q = forward.q
        policy_q, log_share, sampled = values_under(self.critics, batch.obs, policy.distribution, cfg.samples)
        weight = exp_weights(advantage(q, policy_q, log_share), cfg.temperature, cfg.weight_clip)
        shift = self.shift(policy_q[0], q[0], sampled) if self.measures else {}
        self.optimizers["critics"].descend(forward.regression(y))
        self.optimizers["policy"].descend(policy.gradients(batch.action, weight))
        polyak_(self.target_critics, self.critics, cfg.tau)
        if not self.measures:
            return {}
        actor_loss = weighted_log_likelihood_loss(policy.distribution.log_prob(batch.action), weight)
        return {**critic_metrics(q, y, self.critics), "actor/loss": actor_loss, "actor/weight": weight.mean(), **shift}
