"""Dyna: with the true model it is value iteration, without updates on model predictions it is the agent alone."""

import pytest
import torch
import torch.nn.functional as F
from clocks import ManualClock
from resumption import check_resumption, same

import mbkit
from mbkit import recipes
from mbkit.config import FreshLoop, compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.imagination.dyna import ModelPredictions
from mbkit.loops import ModelFits, Updates
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec, Learner, Step

RUN = ["env=Pendulum-v1", "threads=1", "gamma=0.98", "seed=3", "eval.every=0", "eval.episodes=2", "eval.video=false"]
LOOP = ["loop.warmup_steps=40", "loop.batch_size=16", "loop.buffer_size=1000"]
AGENT = ["agent.hidden=[16,16]", "agent.lr=1e-3", "agent.noise_scale=0.2"]  # said here, so that presets may differ
MODEL = ["loop.fit_every=50", "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[16]", "dynamics.max_epochs=2"]
TINY = [*RUN, *LOOP, *AGENT]
S, A, GAMMA = 7, 3, 0.9


class MDP:
    """A deterministic MDP as a model on one-hot observations: successor, reward and termination of every pair, [S, A] each."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.next = torch.randint(S, (S, A), generator=g)
        self.reward = torch.randn(S, A, generator=g, dtype=torch.float64)
        self.terminated = torch.rand(S, A, generator=g) < 0.2

    def init(self, obs):
        return obs.argmax(-1)

    def step(self, carry, action, predict=False):
        new = self.next[carry, action]
        return Step(new, F.one_hot(new, S).float(), self.reward[carry, action], self.terminated[carry, action])

    def rollout(self, carry, actions):
        raise NotImplementedError

    def optimal(self):
        """Q* [S, A] by value iteration."""
        q = torch.zeros(S, A, dtype=torch.float64)
        for _ in range(400):
            q = self.reward + GAMMA * torch.where(self.terminated, 0.0, q.amax(1)[self.next])
        return q


class Tabular:
    """Q-learning with learning rate 1, which is exact where outcomes are certain."""

    cycle = 1

    def __init__(self) -> None:
        self.q = torch.zeros(S, A, dtype=torch.float64)

    def act(self, obs, explore=True):
        return self.q[obs.argmax(-1)].argmax(-1)

    def sample(self, obs):
        return torch.randint(A, (len(obs),))

    def reset(self, mask):
        pass

    def value(self, obs):
        return self.q[obs.argmax(-1)].amax(-1)

    def update(self, batch):
        target = batch.reward + GAMMA * batch.discount.double() * self.value(batch.next_obs)
        self.q[batch.obs.argmax(-1), batch.action] = target
        return {"critic/q": self.q.mean()}

    def state_dict(self):
        return {"q": self.q}

    def load_state_dict(self, state):
        self.q.copy_(state["q"])


def every_pair(outcome) -> ReplayBuffer:
    """All S A pairs once, with one wrong outcome: what is planned on must come from the model."""
    buffer = ReplayBuffer(S * A, EnvSpec(S, A, torch.device("cpu"), discrete=True))
    for s in range(S):
        for a in range(A):
            no = torch.zeros(1, dtype=torch.bool)
            buffer.extend(Experience(F.one_hot(torch.tensor([s]), S).float(), torch.tensor([a]), torch.full((1,), 50.0), outcome, no, no))
    return buffer


@pytest.mark.parametrize("seed", range(3))
def test_dyna_with_the_true_model_is_value_iteration(seed):
    torch.manual_seed(seed)
    model, agent, clock = MDP(seed), Tabular(), ManualClock()
    assert isinstance(agent, Learner)
    source = ModelPredictions(every_pair(torch.eye(S)[:1]), model)
    clock.run(40, [Updates("tabular", agent, source, FreshLoop(batch_size=64), torch.device("cpu"), rate=20, prefix="model_updates/")])
    torch.testing.assert_close(agent.q, model.optimal(), rtol=0, atol=1e-10)
    assert set(clock.recorder.logs[-1][1]) == {"model_updates/critic/q", "model_updates/updates_per_second"}


def test_dyna_from_real_rows_alone_would_learn_their_wrong_outcomes():
    model, agent = MDP(0), Tabular()
    buffer = every_pair(torch.eye(S)[:1])
    for _ in range(200):
        agent.update(buffer.sample(64))
    assert (agent.q - model.optimal()).abs().min() > 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return mbkit.train("naf", *TINY, "steps=150", f"run_dir={tmp_path_factory.mktemp('naf')}/run")


def test_dyna_without_model_updates_is_the_agent_alone(alone, tmp_path):
    run = mbkit.train("dyna", *TINY, "steps=150", "imagination.updates=0", f"run_dir={tmp_path}/run")
    assert same(run.agent.state_dict(), alone.agent.state_dict())
    assert same(run.parts.replay.state_dict(), alone.parts.replay.state_dict())
    assert run.scores == alone.scores
    assert run.parts.dynamics is None


def test_dyna_resumes_bit_for_bit_and_model_updates_change_it(alone, tmp_path):
    options = [*TINY, *MODEL, "agent=naf", "imagination.updates=0.5"]
    whole, *_ = check_resumption(tmp_path, "dyna", *options, steps=150, pause=70)
    assert not same(whole.agent.state_dict(), alone.agent.state_dict())
    warm = slice(0, 40)
    assert torch.equal(whole.parts.replay.data[warm], alone.parts.replay.data[warm])  # making a model spends no random numbers


def wired(*options):
    experiment = compose("dyna", ["loop.buffer_size=1000", *options])
    return recipes.build(experiment, make(experiment.env, env_kwargs=experiment.env_kwargs))


def test_dyna_updates_on_real_rows_then_fits_then_updates_on_predictions():
    real, fits, planning = wired("env=Pendulum-v1", "imagination.updates=3").hooks
    assert isinstance(real, Updates)
    assert isinstance(fits, ModelFits)
    assert isinstance(planning, Updates)
    assert isinstance(planning.source, ModelPredictions)
    assert fits.first[0].counters is planning.source.counters
    assert (real.cadence.rate, planning.cadence.rate) == (1, 3)
    assert planning.cadence.due(1000) == 0  # the step of the first fit


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["imagination.updates=-1"], "imagination.updates=-1.0 is out of range: expected in [0, 10000]"),
        (["env=CartPole-v1"], "naf needs continuous actions, but the environment has 2 discrete ones"),
        (["dynamics=mujoco"], "dynamics=mujoco only plans"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0: dyna would use a model that learned nothing; expected loop.fit=true"),
        (["loop.warmup_steps=1"], "loop.warmup_steps=1: dyna would use a model that learned nothing"),
        (["loop.fit=false"], "loop.fit=false and loop.warmup_steps=1000: dyna would use a model that learned nothing"),
        (["dynamics=local_linear", "loop.fit=false"], "expected loop.fit=true and loop.warmup_steps >= 2"),
        (["agent=dpg"], "agent 'dpg' learns from its newest transitions, but dyna offers replayed transitions"),
        (["imagination.horizon=3"], "unknown option imagination.horizon"),
        (["imagination.updates=0", "loop.fit=false"], "loop.fit has no meaning here: loop.fit counts only where a model is used"),
    ],
)
def test_dyna_mistakes_are_named(options, sentence):
    with pytest.raises(UserError) as error:
        wired(*options)
    assert sentence in str(error.value)


def test_dyna_without_a_model_needs_no_warm_up():
    assert len(wired("imagination.updates=0", "loop.warmup_steps=0").hooks) == 1


def test_dyna_model_that_breaks_after_its_fit_ends_the_run(tmp_path, broken_after_its_fit):
    sentence = r"the model diverged: \d+ of \d+ model steps are not finite at step 50, expected finite numbers"
    with pytest.raises(UserError, match=sentence):
        mbkit.train("dyna", *TINY, *MODEL, "steps=150", "imagination.updates=1", f"run_dir={tmp_path}/run")
