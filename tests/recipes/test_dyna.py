"""Dyna: with the true model it is value iteration, without imagined updates it is the agent alone."""

import pytest
import torch
import torch.nn.functional as F

import mbkit
from mbkit import recipes
from mbkit.config import LoopConfig, compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.imagination.dyna import SeenPairs
from mbkit.loops import FitModel, Updates
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec, Learner, Step

TINY = ["env=Pendulum-v1", "threads=1", "gamma=0.98", "steps=150", "seed=3", "loop.warmup_steps=40", "loop.batch_size=16"]
TINY += [
    "loop.fit_every=50",
    "loop.buffer_size=1000",
    "agent.hidden=[16,16]",
    "agent.lr=1e-3",
    "eval.every=0",
    "eval.episodes=2",
    "eval.video=false",
]
TINY += ["agent.noise_scale=0.2"]  # said here, so that presets may differ
MODEL = ["dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[16]", "dynamics.max_epochs=2"]
S, A, GAMMA = 7, 3, 0.9


def same(a, b) -> bool:
    """Nested states, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class MDP:
    """A deterministic MDP as a model on one-hot observations: successor, reward and termination of every pair, [S, A] each."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.next = torch.randint(S, (S, A), generator=g)
        self.reward = torch.randn(S, A, generator=g, dtype=torch.float64)
        self.terminated = torch.rand(S, A, generator=g) < 0.2

    def init(self, obs):
        return obs.argmax(-1)

    def step(self, carry, action):
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
    """Q-learning with step size 1, which is exact where outcomes are certain."""

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


class Loop:
    """What a hook sees."""

    def __init__(self, num_envs: int = 1) -> None:
        self.env, self.step, self.metrics = type("Env", (), {"num_envs": num_envs})(), 0, {}
        self.recorder = type("Recorder", (), {"log": lambda _, step, metrics: self.metrics.update(metrics)})()

    def passed(self, every):
        return self.step % every == 0


def every_pair(known) -> ReplayBuffer:
    """All S A pairs once, with outcomes that are wrong: what is planned on must come from the model."""
    buffer = ReplayBuffer(S * A, EnvSpec(S, A, torch.device("cpu"), discrete=True))
    for s in range(S):
        for a in range(A):
            no = torch.zeros(1, dtype=torch.bool)
            buffer.extend(Experience(F.one_hot(torch.tensor([s]), S).float(), torch.tensor([a]), torch.full((1,), 50.0), known, no, no))
    return buffer


@pytest.mark.parametrize("seed", range(3))
def test_with_the_true_model_dyna_is_value_iteration(seed):
    torch.manual_seed(seed)
    model, agent, loop = MDP(seed), Tabular(), Loop()
    assert isinstance(agent, Learner)
    source = SeenPairs(every_pair(torch.eye(S)[:1]), model)
    cfg = LoopConfig(warmup_steps=0, batch_size=64)
    planning = Updates(agent, source, cfg, torch.device("cpu"), rate=20)
    planning.prefix = "imagined/"
    for _ in range(40):
        loop.step += 1
        planning(loop)
    torch.testing.assert_close(agent.q, model.optimal(), rtol=0, atol=1e-10)
    assert set(loop.metrics) == {"imagined/critic/q", "imagined/updates_per_second"}


def test_the_real_rows_alone_would_say_otherwise():
    model, agent = MDP(0), Tabular()
    buffer = every_pair(torch.eye(S)[:1])
    for _ in range(200):
        agent.update(buffer.sample(64))
    assert (agent.q - model.optimal()).abs().min() > 1


class Counting(Tabular):
    """Counts its updates."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0

    def update(self, batch):
        self.updates += 1
        return {}


@pytest.mark.parametrize(("rate", "num_envs", "expected"), [(4, 1, 40), (0.25, 1, 2), (2.5, 3, 27), (None, 1, 30), (0, 1, 0)])
def test_how_often_an_agent_is_updated(rate, num_envs, expected):
    agent, loop = Counting(), Loop(num_envs)
    cfg = LoopConfig(warmup_steps=10, updates_per_step=3)
    hook = Updates(agent, every_pair(torch.eye(S)[:1]), cfg, torch.device("cpu"), rate=rate)
    while loop.step < 20:
        loop.step += num_envs
        hook(loop)
    assert agent.updates == expected  # (20 - 10) rate, or (21 - 10) rate rounded down


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return mbkit.train("naf", *TINY, f"run_dir={tmp_path_factory.mktemp('naf')}/run")


def test_without_imagined_updates_it_is_the_agent_alone(alone, tmp_path):
    run = mbkit.train("dyna", *TINY, "agent=naf", "imagination.updates=0", f"run_dir={tmp_path}/run")
    assert same(run.agent.state_dict(), alone.agent.state_dict())
    assert same(run.parts.buffer.state_dict(), alone.parts.buffer.state_dict())
    assert run.scores == alone.scores
    assert run.parts.dynamics is None


def test_a_resumed_run_equals_an_uninterrupted_one_and_imagining_changes_it(alone, tmp_path):
    words = [*TINY, *MODEL, "agent=naf", "imagination.updates=0.5"]
    whole = mbkit.train("dyna", *words, f"run_dir={tmp_path}/whole")
    mbkit.train("dyna", *words, "steps=70", f"run_dir={tmp_path}/half")
    half = mbkit.resume(f"{tmp_path}/half", steps=150)
    for name in whole.parts.stateful:
        assert same(whole.parts.stateful[name].state_dict(), half.parts.stateful[name].state_dict()), name
    assert not same(whole.agent.state_dict(), alone.agent.state_dict())
    warm = slice(0, 40)
    assert torch.equal(whole.parts.buffer.data[warm], alone.parts.buffer.data[warm])  # making a model spends no random numbers


def wired(*words):
    experiment = compose("dyna", ["loop.buffer_size=1000", *words])
    return recipes.build(experiment, make(experiment.env, env_kwargs=experiment.env_kwargs))


def test_real_updates_then_the_fit_then_imagined_updates():
    real, watch, fit, imagined = wired("env=Pendulum-v1", "imagination.updates=3").hooks
    assert isinstance(real, Updates)
    assert isinstance(fit, FitModel)
    assert isinstance(imagined, Updates)
    assert isinstance(imagined.source, SeenPairs)
    assert watch.seen is imagined.source.seen
    assert (real.rate, imagined.rate) == (1, 3)
    assert imagined.due(1000) == 0  # the step of the first fit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imagination.updates=-1"], "imagination.updates=-1.0 is out of range: expected in [0, 10000]"),
        (["env=CartPole-v1"], "naf needs continuous actions, but the environment has 2 discrete ones"),
        (["dynamics=mujoco"], "dynamics=mujoco only plans"),
        (["loop.warmup_steps=0"], "loop.warmup_steps=0: dyna would ask a model that learned nothing; expected loop.fit=true"),
        (["loop.warmup_steps=1"], "loop.warmup_steps=1: dyna would ask a model that learned nothing"),
        (["loop.fit=false"], "loop.fit=false and loop.warmup_steps=1000: dyna would ask a model that learned nothing"),
        (["dynamics=local_linear", "loop.fit=false"], "expected loop.fit=true and loop.warmup_steps >= 2"),
        (["agent=dpg"], "dpg learns on-policy, but dyna replays transitions"),
        (["imagination.horizon=3"], "unknown option imagination.horizon"),
    ],
)
def test_mistakes_are_named(words, said):
    with pytest.raises(UserError) as error:
        wired(*words)
    assert said in str(error.value)


def test_without_a_model_nothing_needs_to_be_learned_first():
    assert len(wired("imagination.updates=0", "loop.fit=false", "loop.warmup_steps=0").hooks) == 1


def test_a_model_that_breaks_after_its_fit_ends_the_run(tmp_path, broken_after_its_fit):
    with pytest.raises(
        UserError, match=r"the model diverged: \d+ of \d+ imagined steps are not finite at step 50, expected finite numbers"
    ):
        mbkit.train("dyna", *TINY, *MODEL, "agent=naf", "imagination.updates=1", f"run_dir={tmp_path}/run")
