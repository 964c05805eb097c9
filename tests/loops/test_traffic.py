"""On a GPU the online loop sends one row and waits once a step, and stores and does what it would without packing."""

import pytest
import torch

from mbkit.agents.actor_critic.ddpg import DDPG, DDPGConfig
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.agents.value_based.dqn import DQN, DQNConfig
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.envs import make
from mbkit.loops import Online
from mbkit.loops.traffic import Direct, Packed
from mbkit.planning.cem import CEM, CEMConfig
from mbkit.planning.mpc import MPC, MPCConfig
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.trajectory import TrajectoryBuffer

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


class Silent:
    """A recorder that writes nothing."""

    def log(self, step, metrics): ...
    def event(self, step, values): ...


def planner(spec):
    model = Ensemble(spec, EnsembleConfig(members=2, elites=2, hidden=(8,), reward="learned", termination="learned"))
    return MPC(spec, CEM(spec, CEMConfig(candidates=8, elites=2, iterations=1)), model, MPCConfig(horizon=2, particles=2))


ACTORS = {
    "sac": ("InvertedPendulum-v5", lambda spec: SAC(spec, SACConfig(hidden=(8,)))),
    "ddpg": ("InvertedPendulum-v5", lambda spec: DDPG(spec, DDPGConfig(hidden=(8,)))),
    "dqn": ("CartPole-v1", lambda spec: DQN(spec, DQNConfig(hidden=(8,)))),
    "mpc": ("InvertedPendulum-v5", planner),
    "ppo": ("CartPole-v1", lambda spec: PPO(spec, PPOConfig(hidden=(8,)))),
}


def loop_of(name, traffic, num_envs=2, warmup=0):
    """An online loop of random weights, the same each time, and its store."""
    task, make_actor = ACTORS[name]
    env = make(task, seed=3, num_envs=num_envs)
    spec = env.spec._replace(device=CUDA)
    torch.manual_seed(0)
    actor = make_actor(spec)
    store = TrajectoryBuffer(1000, num_envs, spec) if name == "ppo" else ReplayBuffer(50, spec)
    between = Direct(actor, store) if traffic == "direct" else Packed(actor, store, num_envs, spec.obs_dim, CUDA, traffic)
    loop = Online(env, actor, store, warmup, between)
    loop.recorder = Silent()
    torch.manual_seed(1)
    loop.start()
    return loop


@pytest.mark.parametrize("name", ACTORS)
def test_what_is_stored_is_what_is_stored_without_packing(name):
    """Over ends of episodes, the end of the warm-up, and the end of the ring."""
    states = []
    for traffic in ("direct", "eager", "auto"):
        loop = loop_of(name, traffic, warmup=20)
        for _ in range(40):
            loop.advance()
        assert loop.episodes >= 2
        rows = loop.store.state_dict()
        states.append([rows["data"], rows["link"], rows["origin"], rows["open"]] if "data" in rows else rows["rows"])
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-3)  # a GPU's products may round otherwise in a graph
    torch.testing.assert_close(states[2], states[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ACTORS)
@pytest.mark.parametrize("traffic", ["eager", "auto"])
def test_a_step_waits_once_and_sends_one_row(name, traffic, pretended_device):
    loop = loop_of(name, traffic, num_envs=1)
    for _ in range(3):
        loop.advance()
    for _ in range(6):
        pretended_device.waits.clear()
        pretended_device.uploads.clear()
        loop.advance()
        if loop.episode_ended:
            continue  # a planner's plan is dropped, by a mask of the host
        assert pretended_device.waits.total() == 1, pretended_device.waits
        assert next(iter(pretended_device.waits)).startswith("event")
        assert pretended_device.uploads.total() == 1, pretended_device.uploads


def test_storing_and_acting_are_a_graph_each(pretended_device):
    loop = loop_of("sac", "auto", num_envs=1)
    for _ in range(3):
        loop.advance()
    pretended_device.kernels = pretended_device.replays = 0
    loop.advance()
    assert pretended_device.replays == 2
    assert pretended_device.kernels <= 3  # the row, the action, and its copy


def test_rows_of_the_warm_up_which_nobody_waits_for_are_all_stored():
    """Two pinned buffers in turn: the third row must not overwrite the first while it is being copied."""
    loop = loop_of("sac", "auto", warmup=1000)
    shown = []
    for _ in range(8):
        shown.append(loop.obs.clone())
        loop.advance()
    assert torch.equal(loop.store.all().obs.cpu(), torch.cat(shown))
