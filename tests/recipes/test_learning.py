"""Learners on CartPole-v1 with their presets: the pole stays up (minutes, so marked slow)."""

import pytest

import mbkit

STEPS = {"ppo": 100_000, "trpo": 100_000, "a2c": 300_000, "npg": 300_000, "soft_pg": 300_000, "reinforce": 300_000, "vtrace": 300_000}
STEPS |= {"retrace": 300_000, "dqn": 50_000, "double_dqn": 50_000, "fqi": 50_000, "soft_q": 100_000, "munchausen_dqn": 100_000}
STEPS |= {"sac_discrete": 200_000}


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_train_preset_keeps_the_pole_up(name, tmp_path):
    run = mbkit.train(name, env="CartPole-v1", steps=STEPS[name], seed=1, threads=1, run_dir=str(tmp_path / "run"), eval={"video": False})
    assert run.summary()["eval_return_mean"] >= 475
