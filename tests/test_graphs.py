"""What a captured graph leaves behind is what eager calls leave: counters, learning rates, filters that it holds, facts of a fit."""

import pytest
import torch

from mbkit.accelerate import accelerated
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.config import ReplayLoop
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.imagination.adversary import Adversary
from mbkit.imagination.dyna import ModelPredictions
from mbkit.imagination.mve import ValueExpansion
from mbkit.imagination.svg import ModelValue
from mbkit.loops.updates import Updates
from mbkit.planning.mppi import smoothing
from mbkit.planning.sampling import colouring
from mbkit.recording import Recorder
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.testing import random_batch, random_trajectory
from mbkit.types import EnvSpec, Trajectory

pytestmark = pytest.mark.gpu
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = EnvSpec(4, 2, CUDA)


def ensemble(spec=SPEC, **options):
    torch.manual_seed(2)
    return Ensemble(spec, EnsembleConfig(members=3, elites=2, hidden=(8,), reward="learned", max_epochs=2, **options))


def replay(rows=64):
    data, buffer = random_batch(SPEC._replace(device=CPU), rows), ReplayBuffer(rows, SPEC)
    ended = data.discount == 0
    buffer.extend(Experience(data.obs, data.action, data.reward, data.next_obs, ended, ended), column=0)
    return buffer


class Clock:
    """A step of the clock after which four updates are due."""

    step, stride = 4, 4
    passed = staticmethod(lambda every: False)
    recorder = type("Silent", (), {"log": staticmethod(lambda step, metrics: None)})


@pytest.mark.parametrize("form", ["dyna", "mve", "steve", "svg"])
def test_warming_up_a_graph_of_updates_counts_no_model_steps(form):
    model, buffer, counts = ensemble(), replay(), {}
    for mode in ("eager", "auto"):
        torch.manual_seed(4)
        asked = ModelPredictions(buffer, model) if form == "dyna" else ModelValue(model, 2, 1.0)
        if form in ("mve", "steve"):
            asked = ValueExpansion(model, 2, weighting="steve" if form == "steve" else "uniform")
        argument = {"mve": "target", "steve": "target", "svg": "objective"}
        agent = SAC(SPEC, SACConfig(hidden=(8,)), **({argument[form]: asked} if form in argument else {}))
        source = asked if form == "dyna" else buffer
        updates = Updates("sac", agent, source, ReplayLoop(warmup_steps=0, batch_size=16, mode=mode), CUDA)
        for _ in range(3):
            updates(Clock())
        counts[mode] = asked.counters.take()
    assert counts["auto"] == counts["eager"]
    assert counts["eager"]["asked"] >= 3 * 4 * 16


def test_annealed_graph_after_a_resumption_equals_eager_updates():
    """A checkpoint of the host is loaded into an agent whose update has been captured, and a second shape is captured afterwards."""
    spec, cfg = SPEC, PPOConfig(hidden=(8,), anneal_lr=True, epochs=2, minibatch=4)
    torch.manual_seed(0)
    first = PPO(spec, cfg)
    long, short = (Trajectory(*(x.to(CUDA) for x in random_trajectory(spec, steps, 2))) for steps in (8, 4))
    first.anneal(0.9)
    first.update(long)
    saved, states = torch.utils._pytree.tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, first.state_dict()), []
    for mode in ("eager", "cudagraph"):
        agent = PPO(spec, cfg)
        run = accelerated(lambda t, agent=agent: tuple(agent.update(t).values()), mode, CUDA, changes=[agent])
        run(long)  # captured before the checkpoint is loaded
        agent.load_state_dict(saved)
        torch.manual_seed(3)
        for remaining, trajectory in ((0.5, long), (0.4, short), (0.1, long)):
            agent.anneal(remaining)
            run(trajectory)
        states.append({name: x for name, x in agent.state_dict().items() if isinstance(x, torch.Tensor)})
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filter_of", [colouring, smoothing])
def test_filters_that_a_captured_plan_holds_are_never_freed(filter_of):
    run = accelerated(lambda x: filter_of(5, 0.75, torch.float32, CUDA) @ x, "cudagraph", CUDA)
    x = torch.ones(5, device=CUDA)
    expected = run(x)
    for horizon in range(6, 40):
        filter_of(horizon, 0.75, torch.float32, CUDA)
    torch.testing.assert_close(run(x), expected)


def test_facts_of_a_fit_are_computed_when_asked_for(pretended_device):
    data = random_batch(SPEC._replace(device=CPU), 40)
    facts = []
    for device in (CPU, CUDA):
        model = ensemble(SPEC._replace(device=device))
        torch.manual_seed(1)
        model.fit(type(data)(*(None if x is None else x.to(device) for x in data)))
        waits = pretended_device.waits.copy()
        facts.append(model.state_dict()["fitted"])
        assert pretended_device.waits == waits if device == CPU else pretended_device.waits != waits
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    assert set(facts[0]) == set(facts[1])


def test_an_event_copies_its_metrics_to_the_host_at_once(tmp_path, pretended_device):
    with Recorder(tmp_path, every=10) as recorder:
        metrics = {name: torch.full((), 2.5, device=CUDA) for name in "abcd"}
        before = pretended_device.waits.total()
        recorder.event(1, metrics)
        assert pretended_device.waits.total() == before + 1
    assert '"a": 2.5, "b": 2.5, "c": 2.5, "d": 2.5' in (tmp_path / "metrics.jsonl").read_text()


def test_an_adversarial_model_is_trained_without_waiting_for_the_device(pretended_device):
    agent, buffer = SAC(SPEC, SACConfig(hidden=(8,))), replay()
    model = ensemble()
    model.fit(buffer.all())
    adversary = Adversary(model, 0.1, 1e-3, horizon=2)
    adversary.train(agent, buffer, 1, 8, 0.99)
    pretended_device.waits.clear()
    adversary.train(agent, buffer, 4, 8, 0.99)
    assert not pretended_device.waits
