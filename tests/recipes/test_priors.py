"""A prior that is the policy of another run equals it, also in a resumed run; mistakes are named."""

import pytest
import torch

import mbkit
from mbkit.accelerate import rng_state
from mbkit.agents.actor_critic.kl_sac import KLSACConfig
from mbkit.agents.prior import PriorConfig, make_prior
from mbkit.errors import UserError
from mbkit.recipes.priors import prior_of_run
from mbkit.types import EnvSpec

CPU = torch.device("cpu")
OPTIONS = {"threads": 1, "steps": 20, "eval": {"video": False, "episodes": 1}, "loop": {"warmup_steps": 15}}
DISCRETE = {**OPTIONS, "env": "CartPole-v1", "loop": {"warmup_steps": 15, "num_envs": 1, "updates_per_step": 1}}
SMALL = {"hidden": [8]}


@pytest.fixture(scope="module")
def sac_run(tmp_path_factory):
    return mbkit.train("sac", env="Pendulum-v1", run_dir=str(tmp_path_factory.mktemp("sac") / "run"), agent=SMALL, **OPTIONS).path


def test_prior_of_run_is_its_policy_also_in_a_resumed_run(sac_run, tmp_path):
    directory = tmp_path / "after"
    mbkit.train("kl_sac", env="Pendulum-v1", run_dir=str(directory), agent={**SMALL, "prior": str(sac_run)}, **OPTIONS)
    obs, action = torch.randn(6, 3), torch.rand(6, 1)
    expected = make_prior(PriorConfig(), EnvSpec(3, 1, CPU), mbkit.load(sac_run).agent.policy).log_prob(obs, action)
    assert torch.equal(mbkit.load(directory).agent.prior.log_prob(obs, action), expected)
    assert torch.equal(mbkit.resume(directory, steps=25).agent.prior.log_prob(obs, action), expected)


def test_prior_of_run_spends_no_random_numbers(sac_run):
    before = rng_state()
    assert prior_of_run(KLSACConfig(prior=str(sac_run)), EnvSpec(3, 1, CPU)) is not None
    assert torch.equal(rng_state()["torch"], before["torch"])


@pytest.mark.parametrize("name", ["uniform", "scripts.priors:swing_up", "nowhere"])
def test_prior_of_run_of_another_kind_of_prior_is_none(name):
    assert prior_of_run(KLSACConfig(prior=name), EnvSpec(3, 1, CPU)) is None


def test_prior_of_run_mistakes_are_named(sac_run, tmp_path):
    other_env = EnvSpec(4, 1, CPU)
    sentence = "can be no prior of 4 observations and 1 action dimensions: its networks were made for other dimensions"
    with pytest.raises(UserError, match=sentence):
        prior_of_run(KLSACConfig(prior=str(sac_run)), other_env)
    with pytest.raises(UserError, match=r"agent.prior=.*: expected the directory of a run; it has no config.yaml"):
        prior_of_run(KLSACConfig(prior=str(tmp_path)), other_env)
    with pytest.raises(UserError, match=r"agent.prior=runs/absent: expected uniform"):
        mbkit.train("kl_sac", env="Pendulum-v1", run_dir=str(tmp_path / "run"), agent={"prior": "runs/absent"}, **OPTIONS)


def test_prior_of_run_without_a_policy_is_named(tmp_path):
    options = {**OPTIONS, "loop": {}}
    directory = mbkit.train("random", env="Pendulum-v1", run_dir=str(tmp_path / "run"), **options).path
    with pytest.raises(UserError, match=r"can be no prior of 3 observations and 1 action dimensions: random learns no policy"):
        prior_of_run(KLSACConfig(prior=str(directory)), EnvSpec(3, 1, CPU))


def test_prior_of_run_of_discrete_actions_is_its_policy(tmp_path):
    before = mbkit.train("soft_q", run_dir=str(tmp_path / "before"), **DISCRETE).path
    expected, obs = mbkit.load(before).agent, torch.randn(6, 4)
    for name in ("kl_sac", "soft_q", "sac_discrete"):
        more = {"target_entropy": None} if name == "sac_discrete" else {}  # the preset's is an entropy, not minus a divergence
        agent = mbkit.train(name, run_dir=str(tmp_path / name), agent={"prior": str(before), **more}, **DISCRETE).agent
        assert torch.equal(agent.prior.log_probs(obs), expected.log_probs(obs))
