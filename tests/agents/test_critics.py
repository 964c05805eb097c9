"""Every agent that has modern critics, with every architecture and loss: the contract, what is refused, and what targets are."""

from dataclasses import replace

import pytest
import torch
from model_based_offline import random_steps
from toys import WIDE

import mbkit
from mbkit import recipes, registry  # noqa: F401  # agents register when recipes are imported
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.critics import Architecture, check_form, distributional
from mbkit.errors import UserError
from mbkit.imagination.mve import ValueExpansion
from mbkit.networks.form import CriticForm
from mbkit.networks.values import Distributional
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch

AGENTS = [entry for entry in registry.agents if issubclass(entry.config, Architecture)]
CRITICS, LOSSES = ["mlp", "layer_norm", "batch_norm", "simba", "simba_v2"], ["mse", "hl_gauss", "c51"]
DISCRETE = WIDE._replace(discrete=True, action_dim=3)
REFUSED = {("cql", "batch_norm"), ("iql", "c51")}


def refused(agent: str, critic: str, loss: str) -> bool:
    return bool({(agent, critic), (agent, loss)} & REFUSED)


def test_agents_with_modern_critics_are_those_of_the_documentation():
    names = {"ddpg", "td3", "sac", "kl_sac", "sac_discrete", "dqn", "double_dqn", "td3_bc", "iql", "cql", "awac"}
    assert {entry.name for entry in AGENTS} == names


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("entry", AGENTS, ids=[entry.name for entry in AGENTS])
def test_every_critic_and_loss_keeps_the_contract_or_is_refused(entry, critic, loss):
    few = {"samples": 2} if entry.name == "cql" else {}
    cfg = entry.config(hidden=(16, 16), critic=critic, loss=loss, **few)
    if refused(entry.name, critic, loss):
        with pytest.raises(UserError, match=r"agent\.(critic|loss)="):
            entry.target(WIDE, cfg)
        return
    check_agent(lambda spec: entry.target(spec, cfg))


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("loss", ["hl_gauss", "c51"])
def test_values_learn_a_reward_whatever_its_scale(loss, discrete):
    torch.manual_seed(0)
    name, spec = ("double_dqn", DISCRETE) if discrete else ("sac", WIDE)
    entry = registry.agents[name]
    agent = entry.target(spec, entry.config(hidden=(32,), lr=1e-2, loss=loss), gamma=0.0)
    agent.bootstrap.outputs.scale.fill_(200.0)
    batch = random_batch(spec, 64)._replace(reward=torch.full((64,), 437.0))
    for _ in range(300):
        metrics = agent.update(batch)
    assert metrics["critic/q"].item() == pytest.approx(437, abs=200 * 0.1)


def test_distributional_backup_of_one_atom_each_is_one_step():
    torch.manual_seed(0)
    agent = SAC(WIDE, SACConfig(hidden=(8,), loss="c51", temperature=0.3), gamma=0.9)
    outputs: Distributional = agent.bootstrap.outputs
    outputs.scale.fill_(10.0)
    batch = random_batch(WIDE, 6)
    action, bonus = agent.backup_action(batch.next_obs)
    out = agent.bootstrap.out(batch.next_obs, action)
    y = distributional(outputs, out, batch, (action, bonus), 0.9)
    expected = batch.reward + 0.9 * batch.discount * (outputs.values(out).amin(0) + bonus)
    torch.testing.assert_close(y.target, expected)
    torch.testing.assert_close(outputs.values(y.probs.clamp(min=1e-30).log()), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["sac", "kl_sac", "cql"])
def test_a_temperature_beside_distributions_is_in_return_scales(name):
    entry = registry.agents[name]
    agent = entry.target(WIDE, entry.config(hidden=(8,), loss="hl_gauss", initial_temperature=0.5, lr=1e-9))
    agent.critics.outputs.scale.fill_(20.0)
    assert agent.alpha.item() == pytest.approx(10.0)
    assert agent.target_critics.outputs is agent.critics.outputs
    assert agent.update(random_batch(WIDE, 8))["alpha"].item() == pytest.approx(10.0, rel=1e-3)


def test_a_subset_is_refused_for_any_architecture_of_batch_statistics(monkeypatch):
    monkeypatch.setattr(registry.critics["simba"].target, "joint", None, raising=False)
    with pytest.raises(UserError, match=r"agent\.target_subset=2: expected null with agent\.critic=simba"):
        SAC(WIDE, SACConfig(hidden=(8,), critics=4, target_subset=2, critic="simba"))


def test_precision_of_sampled_actions_counts_for_plain_critics_alone(tmp_path):
    data = random_steps(tmp_path / "d.npz")
    for other in ("agent.critic=simba", "agent.loss=hl_gauss"):
        with pytest.raises(UserError, match=r"agent\.precision"):
            mbkit.train("cql", f"data={data}", "steps=2", "agent.precision=bfloat16", other, f"run_dir={tmp_path / 'run'}")
        assert not (tmp_path / "run").exists()


def test_modern_targets_of_the_default_form_are_the_target_function_s():
    agent, batch = SAC(WIDE, SACConfig(hidden=(8,))), random_batch(WIDE, 6)
    torch.manual_seed(1)
    ours = agent.targets(batch)
    torch.manual_seed(1)
    assert torch.equal(ours.target, one_step(agent, batch, 0.99).target)


def test_c51_of_value_expansion_is_refused_by_name():
    with pytest.raises(UserError, match=r"agent\.loss=c51 backs up .* which the targets of ValueExpansion are not; hl_gauss does"):
        check_form(CriticForm(loss="c51"), object.__new__(ValueExpansion))


def test_unknown_architectures_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="unknown critic 'simba_v3'; did you mean 'simba_v2'"):
        SAC(WIDE, SACConfig(critic="simba_v3"))


def test_a_subset_of_critics_has_no_distribution():
    with pytest.raises(UserError, match=r"agent\.target_subset=2: expected null"):
        SAC(WIDE, replace(SACConfig(), critics=4, target_subset=2, loss="c51"))


def test_batch_norm_updates_do_not_depend_on_the_running_statistics_of_the_targets():
    """Both halves pass together: the target critics' own statistics count only where nothing stands beside the rows."""
    losses = []
    for moved in (False, True):
        torch.manual_seed(0)
        agent = SAC(WIDE, SACConfig(hidden=(8,), critic="batch_norm"))
        if moved:
            agent.target_critics.net.mean[1].data.add_(3.0)
        torch.manual_seed(1)
        losses.append(agent.update(random_batch(WIDE, 16))["critic/loss"])
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("algo", ["rambo", "combo"])
def test_recipes_that_sample_actions_of_their_own_refuse_batch_statistics(algo, tmp_path):
    """RAMBO's adversary and COMBO's push-down ask critics about actions that no pair of the data holds."""
    data = random_steps(tmp_path / "d.npz")
    model = ["dynamics.hidden=[8]", "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=1"]
    with pytest.raises(UserError, match=r"agent\.critic=batch_norm: actions that are sampled|agent\.critic=batch_norm: actions sampled"):
        mbkit.train(algo, f"data={data}", "steps=10", "agent.critic=batch_norm", *model, f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["ddpg", "sac", "kl_sac", "sac_discrete"])
def test_policy_every_3_moves_the_policy_with_every_third_update(name):
    entry = registry.agents[name]
    spec = DISCRETE if name == "sac_discrete" else WIDE
    agent = entry.target(spec, entry.config(hidden=(8,), policy_every=3))
    assert agent.cycle == 3
    moved, critics = [], []
    for _ in range(6):
        policy, critic = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (agent.policy, agent.critics))
        agent.update(random_batch(spec, 8))
        moved.append(not torch.equal(policy, torch.cat([p.detach().flatten() for p in agent.policy.parameters()])))
        critics.append(not torch.equal(critic, torch.cat([p.detach().flatten() for p in agent.critics.parameters()])))
    assert moved == [False, False, True] * 2
    assert all(critics)


@pytest.mark.parametrize("push", ["logsumexp", "policy"])
def test_cql_beside_distributions_learns_the_same_in_any_unit_of_reward(push):
    entry, policies, gaps = registry.agents["cql"], [], []
    for unit in (1.0, 64.0):
        torch.manual_seed(0)
        agent = entry.target(WIDE, entry.config(hidden=(8,), loss="hl_gauss", samples=2, lagrange=0.1, push=push))
        agent.critics.outputs.scale.fill_(unit)
        batch = random_batch(WIDE, 16)
        batch = batch._replace(reward=unit * batch.reward)
        gaps.append([agent.update(batch)["critic/gap"].item() / unit for _ in range(3)])
        policies.append(torch.cat([p.detach().flatten() for p in agent.parameters()]))
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-3, abs=1e-5)
    torch.testing.assert_close(*policies, rtol=1e-3, atol=1e-5)
