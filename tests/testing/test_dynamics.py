"""The contract of dynamics models passes mbkit's own, and is violated by one broken model for each clause."""

import numpy as np
import pytest
import torch
from line_model import Line
from torch import nn

from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.local_linear import LocalLinear, LocalLinearConfig
from mbkit.dynamics.mujoco import MujocoDynamics
from mbkit.dynamics.network import encode_action
from mbkit.envs import make, task_knowledge
from mbkit.errors import UserError
from mbkit.imagination.pessimism import Penalized
from mbkit.testing import SPEC, check_dynamics
from mbkit.testing.systems import EDGE, KNOWN, transitions
from mbkit.types import EnvSpec, Prediction, Rollout, Step, TaskKnowledge


class Sound(nn.Module):
    """Three linear members, each fitted to a third of the rows; blocks of rows belong to one member. Rewards are known."""

    members, capturable, differentiable = 3, True, True

    def __init__(self, spec, task):
        super().__init__()
        if task.reward is None:
            raise UserError("linear members learn no reward")
        self.spec, self.task = spec, task
        self.weight = nn.Parameter(0.1 * torch.randn(self.members, spec.obs_dim + spec.action_dim, spec.obs_dim))
        self.std = nn.Parameter(torch.ones(spec.obs_dim), requires_grad=False)

    def x(self, obs, action):
        return torch.cat((obs, encode_action(self.spec, action)), -1)

    def member(self, rows):
        return torch.arange(rows) * self.members // rows

    @torch.no_grad()
    def fit(self, data):
        x = self.x(data.obs, data.action)
        for m in range(self.members):
            rows = slice(m, None, self.members)
            gram = x[rows].T @ x[rows] + 1e-3 * torch.eye(x.shape[1])
            self.weight.data[m].copy_(torch.linalg.solve(gram, x[rows].T @ data.next_obs[rows]))
        error = data.next_obs - self.predict(data.obs, data.action).mean.mean(0)
        self.std.copy_(error.std(0))
        return {"model/loss": error.square().mean()}

    def predict(self, obs, action):
        mean = self.x(obs, action) @ self.weight.detach()
        return Prediction(mean, self.std.square().expand_as(mean))

    def init(self, obs):
        return obs

    def noise(self, obs):
        return self.std * torch.randn_like(obs)

    def step(self, carry, action, predict=False, grad=False):
        with torch.set_grad_enabled(grad):
            weight = self.weight.detach()[self.member(len(carry))]
            obs = torch.einsum("bi,bio->bo", self.x(carry, action), weight) + self.noise(carry)
            reward, ended = self.task.reward(carry, action, obs), self.task.termination(carry, action, obs)
        return Step(obs, obs, reward, ended, self.predict(carry, action) if predict else None)

    def rollout(self, carry, actions):
        steps = []
        for action in actions.unbind(1):
            steps.append(self.step(carry, action))
            carry = steps[-1].state
        return Rollout(*(torch.stack([getattr(step, name) for step in steps], 1) for name in Rollout._fields))


class NoRollout(Sound):
    rollout = None


class WideReward(Sound):
    def rollout(self, carry, actions):
        out = super().rollout(carry, actions)
        return out._replace(reward=out.reward[..., None])


class DoubleObs(Sound):
    def step(self, *args, **kwargs):
        step = super().step(*args, **kwargs)
        return step._replace(obs=step.obs.double())


class FloatTermination(Sound):
    def step(self, *args, **kwargs):
        step = super().step(*args, **kwargs)
        return step._replace(terminated=step.terminated.float())


class NotFinite(Sound):
    def rollout(self, carry, actions):
        out = super().rollout(carry, actions)
        return out._replace(reward=out.reward / 0)


class WithGradient(Sound):
    def step(self, carry, action, predict=False, grad=False):
        return super().step(carry, action, predict, grad=True)._replace(reward=self.weight.sum() + carry[:, 0])


class ShortCarry(Sound):
    def init(self, obs):
        return obs, torch.zeros(1)


class UnrepeatableCarry(Sound):
    def init(self, obs):
        return (obs, {1})


class ChangesCarry(Sound):
    def step(self, carry, action, predict=False, grad=False):
        step = super().step(carry, action, predict, grad)
        if not grad:
            carry.add_(1)
        return step


class OtherReward(Sound):
    def rollout(self, carry, actions):
        out = super().rollout(carry, actions)
        return out._replace(reward=out.reward.roll(1, 1))

    def step(self, *args, **kwargs):
        return super().step(*args, **kwargs)


class EndsForGood(Sound):
    def rollout(self, carry, actions):
        out = super().rollout(carry, actions)
        return out._replace(terminated=out.terminated.cummax(1).values)


class StandsStill(Sound):
    def step(self, carry, action, predict=False, grad=False):
        step = super().step(carry, action, predict, grad)
        over = (carry[:, 0] > EDGE)[:, None]
        obs = torch.where(over, carry, step.obs)
        return step._replace(
            obs=obs, state=obs, reward=self.task.reward(carry, action, obs), terminated=self.task.termination(carry, action, obs)
        )


class PrivateGenerator(Sound):
    def noise(self, obs):
        return torch.from_numpy(np.random.default_rng().normal(size=obs.shape)).float()


class StepDiffers(Sound):
    def step(self, carry, action, predict=False, grad=False):
        step = super().step(carry, action, predict, grad)
        return step._replace(reward=step.reward + 1)

    def rollout(self, carry, actions):
        out = super().rollout(carry, actions)
        return out._replace(reward=out.reward - 1)


class StateIsNotObs(Sound):
    """Goes on from an older state than `rollout` does."""

    def step(self, carry, action, predict=False, grad=False):
        return super().step(carry, action, predict, grad)._replace(state=carry)

    def rollout(self, carry, actions):
        steps = []
        for action in actions.unbind(1):
            steps.append(self.step(carry, action))
            carry = steps[-1].obs
        return Rollout(*(torch.stack([getattr(step, name) for step in steps], 1) for name in Rollout._fields))


class MixesRows(Sound):
    def x(self, obs, action):
        return super().x(obs, action - action.mean(0) if action.is_floating_point() else action)


class CandidateMajor(Sound):
    """Member m gets rows m, m + 3, ..., and so every candidate one member alone; the members differ."""

    def member(self, rows):
        return torch.arange(rows) % self.members

    def step(self, carry, action, predict=False, grad=False):
        step = super().step(carry, action, predict, grad)
        obs = step.obs + 0.1 * self.member(len(carry))[:, None]
        return step._replace(
            obs=obs, state=obs, reward=self.task.reward(carry, action, obs), terminated=self.task.termination(carry, action, obs)
        )

    def predict(self, obs, action):
        mean, var = super().predict(obs, action)
        return Prediction(mean + 0.1 * torch.arange(3.0)[:, None, None], var)


class NegativeVariance(Sound):
    def predict(self, obs, action):
        mean, var = super().predict(obs, action)
        return Prediction(mean, -var)


class MeanOfMembers(Sound):
    def predict(self, obs, action):
        return Prediction(*(x.mean(0) for x in super().predict(obs, action)))


class OneMember(Sound):
    def predict(self, obs, action):
        return Prediction(*(x[:1] for x in super().predict(obs, action)))


class PredictsChanges(Sound):
    def predict(self, obs, action):
        mean, var = super().predict(obs, action)
        return Prediction(mean - obs, var)

    def fit(self, data):
        return super().fit(data)


class Silent(Sound):
    def step(self, carry, action, predict=False, grad=False):
        return super().step(carry, action, False, grad)


class DrawsForPrediction(Sound):
    def step(self, carry, action, predict=False, grad=False):
        if predict:
            torch.randn(3)
        return super().step(carry, action, predict, grad)


class NoGradient(Sound):
    def step(self, carry, action, predict=False, grad=False):
        return super().step(carry, action, predict)


class WrongGradient(Sound):
    def step(self, carry, action, predict=False, grad=False):
        return super().step(carry, (action + action.detach()) / 2 if grad else action, predict, grad)


class ParameterGradient(Sound):
    def step(self, carry, action, predict=False, grad=False):
        step = super().step(carry, action, predict, grad)
        return step._replace(reward=step.reward + 0 * self.weight.sum()) if grad else step


class Synchronises(Sound):
    def rollout(self, carry, actions):
        if carry.sum() > 1e9:
            raise ValueError
        return super().rollout(carry, actions)


class LearnsNothing(Sound):
    def fit(self, data):
        return {"model/loss": data.reward.mean()}


class NumberAsMetric(Sound):
    def fit(self, data):
        return {"model/loss": float(super().fit(data)["model/loss"])}


class ChangesData(Sound):
    def fit(self, data):
        data.reward.mul_(2)
        return super().fit(data)


class ReplacesTensors(Sound):
    def fit(self, data):
        metrics = super().fit(data)
        self.std = nn.Parameter(self.std.clone(), requires_grad=False)
        return metrics


class Forgets(Sound):
    def state_dict(self):
        return {"weight": self.weight.detach().clone()}

    def load_state_dict(self, state):
        self.weight.data.copy_(state["weight"])


class Shares(Sound):
    def load_state_dict(self, state):
        self.weight.data, self.std.data = state["weight"], state["std"]


class LoadsNewTensors(Sound):
    def load_state_dict(self, state):
        self.std = nn.Parameter(state["std"].clone(), requires_grad=False)
        self.weight.data.copy_(state["weight"])


def test_sound_models_pass():
    check_dynamics(Sound)
    check_dynamics(lambda spec, task: LocalLinear(spec, LocalLinearConfig(centres=4), task))


@pytest.mark.parametrize("options", [{}, {"propagation": "ts1"}, {"propagation": "moment_matching"}, {"probabilistic": False}])
def test_an_ensemble_passes(options):
    cfg = EnsembleConfig(members=3, elites=2, hidden=(16,), max_epochs=25, lr=1e-2, batch=64, **options)

    def build(spec, task):
        if spec.discrete:
            raise UserError("one kind of actions is enough here")
        return Ensemble(spec, cfg, task)

    check_dynamics(build, task=KNOWN if options else TaskKnowledge())


def test_a_model_passes_as_it_is():
    check_dynamics(Line(edge=0.5, noise=0.1), EnvSpec(1, 1, torch.device("cpu")))
    model = LocalLinear(SPEC, LocalLinearConfig(centres=2), KNOWN)
    model.fit(transitions(SPEC, 100))
    before = model.coef.clone()
    check_dynamics(model, task=KNOWN)
    check_dynamics(Penalized(model, lambda prediction: prediction.var.sum((0, 2)), 0.1))
    assert torch.equal(before, model.coef)  # copies were fitted


def test_the_simulator_passes():
    with make("InvertedPendulum-v5", num_envs=3) as env:
        obs = env.reset()
        model = MujocoDynamics(env)
        check_dynamics(model, env.spec, task_knowledge("InvertedPendulum-v5", env.spec), obs)
        model.close()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NoRollout, "lacks a method|not callable"),
        (WideReward, r"rollout: reward: expected the shape \(12, 3\), came \(12, 3, 1\)"),
        (DoubleObs, "step: obs: expected torch.float32, came torch.float64"),
        (FloatTermination, "step: terminated: expected torch.bool, came torch.float32"),
        (NotFinite, "rollout: reward: expected finite numbers"),
        (WithGradient, "step: reward: expected no gradient"),
        (ShortCarry, "init: expected 4 rows in the carry"),
        (UnrepeatableCarry, "init: the carry of a dynamics model holds a set"),
        (ChangesCarry, "step: expected the carry to stay as it is"),
        (OtherReward, "rollout: expected the known reward|step: expected the reward of a rollout"),
        (EndsForGood, "rollout: expected terminated to be the known termination of each step alone"),
        (StandsStill, "rollout: expected rows to go on after they terminated"),
        (PrivateGenerator, "expected the same outcome from the same seed"),
        (StepDiffers, "step: expected the reward of a rollout of one step"),
        (StateIsNotObs, "step: expected 2 steps to lead where a rollout does"),
        (MixesRows, "rows were mixed or reordered"),
        (CandidateMajor, "expected every candidate to meet every member"),
        (NegativeVariance, "predict: expected variances of at least 0"),
        (MeanOfMembers, r"predict: expected mean of the shape \(E, 12, 3\), came \(12, 3\)|fit: expected"),
        (OneMember, "predict: expected the 3 members that the model says it has, came 1"),
        (PredictsChanges, "fit: expected a squared error below"),
        (Silent, "step: expected every member's prediction with predict=True, came None"),
        (DrawsForPrediction, "step: expected the same outcome with and without predict"),
        (NoGradient, "step: expected observation and reward with gradients"),
        (WrongGradient, "step: expected the gradient .* of finite differences"),
        (ParameterGradient, "step: expected parameters without gradient"),
        (Synchronises, "capturable: expected no operator that synchronises with the device"),
        (LearnsNothing, "fit: expected a squared error below"),
        (NumberAsMetric, "metric model/loss: expected a 0-d tensor"),
        (ChangesData, "fit: expected the transitions to stay as they are, but reward changed"),
        (ReplacesTensors, "fit: expected a capturable model to change its tensors in place"),
        (Forgets, "load_state_dict: expected the saved model's rollouts"),
        (Shares, "load_state_dict: expected a copy of the state|written in place"),
        (LoadsNewTensors, "load_state_dict: expected tensors to be written in place"),
    ],
)
def test_check_dynamics_names_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message) as raised:
        check_dynamics(lambda spec, task: broken(spec, task) if not spec.discrete else refuse())
    assert "\n" not in str(raised.value)


def refuse():
    raise UserError("continuous actions alone")


def test_a_builder_that_refuses_everything_is_told_with_its_reason():
    with pytest.raises(AssertionError, match="neither continuous nor discrete actions are supported: continuous actions alone"):
        check_dynamics(lambda spec, task: refuse())
