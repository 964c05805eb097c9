"""Values that no rewards explain and a temperature without end are warned of once; ordinary learning is not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clocks import ManualClock

import mbkit
from mbkit.agents.actor_critic.sac import SAC
from mbkit.config import ReplayLoop
from mbkit.loops import Updates
from mbkit.loops.updates import check_metrics
from mbkit.loops.watch import Watch

AGENT = SimpleNamespace(gamma=0.9)


def watch(reward: float = 3.0) -> Watch:
    """A watch that has seen rewards up to 3: without a bonus |Q| may be 60."""
    made = Watch()
    made.see(np.array([0.5, -reward]))
    made.see(np.array([1.0, 1.0]))
    return made


@pytest.mark.parametrize("metric", ["critic/q", "critic/value"])
@pytest.mark.parametrize(("value", "warned"), [(59.0, False), (61.0, True), (-59.0, False), (-61.0, True)])
def test_watch_warns_of_values_beyond_twice_the_largest_return(metric, value, warned):
    warnings = watch().check("sac", AGENT, {metric: value}, 4000)
    assert bool(warnings) == warned
    if warned:
        assert warnings[0].startswith(f"The values of sac diverge: at step 4000 they are {value:g} on average, beyond 60")


def test_watch_bonus_widens_the_limit_and_is_stored():
    """alpha |log pi| = 2 at its largest: (3 + 2) * 2 / (1 - 0.9) = 100."""
    one = watch()
    assert not one.check("sac", AGENT, {"critic/q": 0.0, "alpha": 1.0, "actor/entropy": -2.0}, 1)
    assert not one.check("sac", AGENT, {"critic/q": 99.0, "alpha": 0.1, "actor/entropy": 1.0}, 2)
    assert one.check("sac", AGENT, {"critic/q": 101.0, "alpha": 0.1, "actor/entropy": 1.0}, 3)


@pytest.mark.parametrize(
    ("agent", "metrics", "limit"),
    [
        (SimpleNamespace(gamma=0.9, alpha=0.5), {"actor/prior_kl": 4.0}, 100),  # soft Q-learning
        (SimpleNamespace(gamma=0.9, cfg=SimpleNamespace(alpha=0.5)), {"actor/prior_kl": 4.0}, 100),  # soft policy gradients
        (SimpleNamespace(gamma=0.9, largest_bonus=2.0), {}, 100),  # Munchausen
        (SimpleNamespace(gamma=0.9, cfg=SimpleNamespace(alpha=0.9)), {"actor/entropy": 0.0}, 60),
    ],
)
def test_watch_temperatures_that_are_not_logged_count(agent, metrics, limit):
    assert not watch().check("agent", agent, {"critic/q": limit - 1.0, **metrics}, 1)
    assert watch().check("agent", agent, {"critic/q": limit + 1.0, **metrics}, 1)


def test_watch_pessimistic_critics_are_exempt_below_zero():
    assert not watch().check("sac", AGENT, {"critic/q": -1e6}, 1, pessimistic=True)
    assert watch().check("sac", AGENT, {"critic/q": 1e6}, 1, pessimistic=True)


def test_watch_before_the_first_reward_values_of_a_new_network_are_no_divergence():
    assert not Watch().check("dqn", AGENT, {"critic/q": 0.3}, 1)
    assert Watch().check("dqn", AGENT, {"critic/q": 3.0}, 1)


def test_watch_undiscounted_values_have_no_limit():
    assert not watch().check("sac", SimpleNamespace(gamma=1.0), {"critic/q": 1e9}, 1)
    assert not watch().check("plug-in", object(), {"critic/q": 1e9}, 1)


def test_watch_temperature_beyond_rewards_and_its_first_value_is_warned_of():
    one = watch()
    assert not one.check("sac", AGENT, {"alpha": 1.0}, 1000)
    assert not one.check("sac", AGENT, {"alpha": 29.0}, 2000)
    (warning,) = one.check("sac", AGENT, {"alpha": 31.0}, 3000)
    assert warning.startswith("The temperature of sac grows without end: at step 3000 alpha is 31, where rewards are at most 3")
    fixed = watch(reward=0.001)
    assert not any(fixed.check("sac", AGENT, {"alpha": 5.0}, step) for step in range(5))


def test_watch_warns_once_also_after_a_resume():
    one, two = watch(), Watch()
    assert one.check("sac", AGENT, {"critic/q": 1e3}, 1)
    two.load_state_dict(one.state_dict())
    for again in (one, two):
        assert not again.check("sac", AGENT, {"critic/q": 1e4}, 2)
        assert len(again.warnings) == 1
    assert two.largest_reward == 3.0


class Rising:
    """A learner whose Q grows by 10 with each update."""

    cycle, gamma, q = 1, 0.9, 0.0

    def update(self, batch):
        self.q += 10
        return {"critic/q": torch.tensor(self.q)}


class Nothing:
    def sample(self, n):
        return None


@pytest.mark.parametrize("prefix", ["", "model_updates/"])
def test_updates_warn_at_the_next_log_line_and_go_on(prefix):
    clock, agent = ManualClock(), Rising()
    clock.watch.see(np.array([3.0]))
    cfg = ReplayLoop(warmup_steps=0, log_every=5)
    clock.run(30, [Updates("toy", agent, Nothing(), cfg, torch.device("cpu"), prefix=prefix)])
    assert agent.q == 300
    assert clock.recorder.said == list(clock.watch.warnings.values())
    assert "at step 10 they are 100" in clock.recorder.said[0]


def test_check_metrics_of_trajectory_learners_warns_too():
    clock = ManualClock()
    check_metrics("ppo", AGENT, {"critic/value": 5.0}, clock)
    assert len(clock.recorder.said) == 1


def test_run_that_diverges_says_so_on_stderr_and_in_its_notes(tmp_path, capfd, monkeypatch):
    """Rewards of 1, and critics that are regressed on values far too large."""
    honest = SAC.backup_q
    monkeypatch.setattr(SAC, "backup_q", lambda agent, obs, action: honest(agent, obs, action) + 1e5)
    options = [
        "env=InvertedPendulum-v5",
        "steps=80",
        "loop.warmup_steps=30",
        "loop.log_every=10",
        "agent.lr=0.01",
        "gamma=0.5",
        "threads=1",
    ]
    run = mbkit.train("sac", *options, "agent.hidden=[32]", "eval.episodes=1", "eval.video=false", f"run_dir={tmp_path / 'run'}")
    assert len([note for note in run.summary()["notes"] if "The values of sac diverge" in note]) == 1
    assert capfd.readouterr().err.count("The values of sac diverge") == 1


@pytest.mark.parametrize("algo", ["sac", "sac_discrete", "dqn", "munchausen_dqn", "ppo", "td3"])
def test_run_that_learns_ordinarily_warns_of_nothing(tmp_path, algo):
    env = "CartPole-v1" if algo in ("sac_discrete", "dqn", "munchausen_dqn", "ppo") else "InvertedPendulum-v5"
    options = [
        f"env={env}",
        "steps=200",
        "loop.log_every=20",
        "threads=1",
        "eval.episodes=1",
        "eval.video=false",
        f"run_dir={tmp_path / 'run'}",
    ]
    options += ["loop.rollout_steps=50"] if algo == "ppo" else ["loop.warmup_steps=50"]
    run = mbkit.train(algo, *options)
    assert run.loop.watch.largest_reward == 1.0
    assert not run.loop.watch.warnings


def test_targets_beyond_the_support_of_distributions_are_said_once():
    one, metrics = Watch(), {"critic/outside": 0.02, "critic/scale": 12.5}
    (warning,) = one.check("sac", AGENT, metrics, 2000)
    assert warning.startswith("2.0 % of the targets of sac at step 2000 lie beyond the support of its critics, five return scales of 12.5")
    assert not one.check("sac", AGENT, metrics, 3000)
    assert not Watch().check("sac", AGENT, {"critic/outside": 0.01, "critic/scale": 1.0}, 2000)
