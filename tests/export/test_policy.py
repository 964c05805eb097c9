"""Exported policies: the same actions as the run's, in files that need nothing of mbkit; and the runs and paths that are refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_runs import REPLAY, SHORT, largest_differences, train
from gymnasium import spaces
from pets_runs import train_pets
from toys import WIDE
from typer.testing import CliRunner

from mbkit import cli, config, recipes, registry  # noqa: F401  # agents register when recipes are imported
from mbkit.agents.base import LearningAgent
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.agents.value_based.soft_q import SoftQ, SoftQConfig
from mbkit.envs.spaces import ActionMap
from mbkit.errors import UserError
from mbkit.export import export, formats, greedy_module, policy
from mbkit.export.formats import read_pt2
from mbkit.export.policy import NativePolicy, is_tie
from mbkit.networks.plain import GreedyRule, plain
from mbkit.run import load

ROOT = Path(__file__).parents[2]
DISCRETE = WIDE._replace(discrete=True)
SEVERAL = WIDE._replace(discrete=True, action_dim=5, parts=(3, 2))
ENTRIES = [e for e in registry.agents if isinstance(e.target, type) and issubclass(e.target, LearningAgent)]
AGENTS = [e.name for e in ENTRIES]
RECIPES = ["mbpo", "mve", "dyna", "mba", "svg"]


def observations(scale: float) -> torch.Tensor:
    """257 rows within +-scale."""
    return (torch.rand(257, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1) * scale


def check_copy(agent: LearningAgent) -> None:
    """The plain copy acts as the agent does without exploration, far from the data too; its statistics are no longer the agent's."""
    if isinstance(getattr(agent, "normalizer", None), torch.nn.Module) and hasattr(agent.normalizer, "update"):
        agent.normalizer.update(5 + 3 * torch.randn(64, 3))
    copy = plain(greedy_module(agent))
    for scale in (1.0, 10.0, 1000.0):
        for rows in (observations(scale), observations(scale)[:1]):
            expected, action = agent.act(rows, explore=False), copy(rows)
            assert action.dtype == expected.dtype
            assert action.shape == expected.shape
            assert float((action - expected).abs().max()) <= (1e-6 * scale if action.is_floating_point() else 0)
    if hasattr(copy, "networks"):
        assert not any(p.requires_grad for p in copy.parameters())


@pytest.mark.parametrize("spec", [WIDE, DISCRETE, SEVERAL], ids=["continuous", "discrete", "several"])
@pytest.mark.parametrize("entry", ENTRIES, ids=AGENTS)
def test_plain_copy_of_every_agent_acts_as_it_does(entry, spec):
    torch.manual_seed(0)
    options = {"normalize_obs": True} if hasattr(entry.config(), "normalize_obs") else {}
    try:
        agent = entry.target(spec, entry.config(hidden=(24, 24), **options))
    except UserError:
        pytest.skip("another kind of actions")
    with torch.no_grad():
        for p in agent.parameters():  # far enough from zero that actions differ and saturate
            p.mul_(2).add_(0.1 * torch.randn_like(p))
    check_copy(agent)


@pytest.mark.parametrize("parameterization", ["naive", "dueling", "pgq"])
@pytest.mark.parametrize("prior", ["uniform", "ppo", "soft_q"])
def test_soft_q_counts_its_prior(parameterization, prior):
    torch.manual_seed(1)
    priors = {"uniform": None, "ppo": PPO(DISCRETE, PPOConfig()), "soft_q": SoftQ(DISCRETE, SoftQConfig(temperature=0.01))}
    agent = SoftQ(DISCRETE, SoftQConfig(parameterization=parameterization, temperature=1.0), prior=priors[prior])
    check_copy(agent)
    if parameterization == "naive" and prior == "soft_q":
        without = agent.q(observations(10))[0].argmax(-1)
        assert not torch.equal(plain(greedy_module(agent))(observations(10)), without)


@pytest.mark.parametrize(
    ("space", "action", "native"),
    [
        (spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)), [[3.0, -9.0], [0.5, 0.5]], [[2, 0], [1, 7.5]]),
        (spaces.Box(-1, 3, (2, 1)), [[-1.0, 1.0], [0.0, 0.0]], [[[-1], [3]], [[1], [1]]]),
        (spaces.Discrete(3, start=5), [0, 2], [5, 7]),
        (spaces.MultiDiscrete([3, 2], start=[-1, 4]), [[0, 1], [2, 0]], [[-1, 5], [1, 4]]),
        (spaces.MultiDiscrete([4]), [3, 0], [[3], [0]]),
    ],
)
def test_native_policy_speaks_the_units_of_the_task(space, action, native):
    policy = NativePolicy(torch.nn.Identity(), ActionMap(space, "toy"))
    result = policy(torch.tensor(action))
    assert result.tolist() == native
    assert result.dtype == (torch.float32 if isinstance(space, spaces.Box) else torch.int64)


def test_is_tie_only_where_rounding_decides():
    policy = GreedyRule(lambda obs: (obs[:, 0] > obs[:, 1]).long())
    assert is_tie(policy, torch.tensor([2.0, 2.0]), torch.tensor(1))
    assert is_tie(policy, torch.tensor([2.0, 2.0]), torch.tensor(0))
    assert not is_tie(policy, torch.tensor([2.0, 2.001]), torch.tensor(1))
    parts = GreedyRule(lambda obs: (obs > 0).long())
    assert is_tie(parts, torch.tensor([0.0, 5.0]), torch.tensor([1, 1]))
    assert not is_tie(parts, torch.tensor([0.0, 5.0]), torch.tensor([1, 0]))


# --- files ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each kind of network, by a name; made when it is asked for."""
    root, options = (
        tmp_path_factory.mktemp("runs"),
        {
            "sac": ("env=Pendulum-v1", "agent.normalize_obs=true", "checkpoint.every=30", "checkpoint.keep=all"),
            "td3": ("env=exported_runs:Lopsided-v0",),
            "ppo": ("env=Pendulum-v1", "agent.normalize_obs=true", "loop.rollout_steps=20"),
            "a2c": ("env=gym_toys:Steering-v0",),
            "naf": ("env=Pendulum-v1", "agent.layer_norm=true"),
        },
    )

    def run(name: str) -> Path:
        return root / name if (root / name).exists() else train(root / name, name, *options.get(name, ()))

    return run


@pytest.mark.parametrize("name", ["sac", "td3", "naf", "ppo", "a2c", "dqn", "soft_q", "sac_discrete"])
def test_pt2_acts_as_the_run(runs, name, tmp_path):
    exported = export(runs(name), tmp_path / "policy.pt2")
    assert exported.difference <= 1e-5
    check_files(runs(name), [exported.path])


def test_onnx_acts_as_the_run(runs, tmp_path, capfd):
    check_files(runs("sac"), [export(runs("sac"), tmp_path / "policy.onnx").path])
    assert "torchvision" not in capfd.readouterr().err


def test_onnx_of_choices_acts_as_the_run_and_holds_what_a_program_should_know(runs, tmp_path):
    import onnxruntime

    exported = export(runs("dqn"), tmp_path / "policy.onnx")
    check_files(runs("dqn"), [exported.path])
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    assert (session.get_inputs()[0].name, session.get_outputs()[0].name) == ("obs", "action")
    about = json.loads(session.get_modelmeta().custom_metadata_map["mbkit"])
    assert about == {
        "format": "mbkit policy 1",
        "env": "CartPole-v1",
        "env_kwargs": {"max_episode_steps": 20},
        "algo": "dqn",
        "agent": "dqn",
        "seed": 0,
        "step": exported.step,
        "obs_names": ["obs[0]", "obs[1]", "obs[2]", "obs[3]"],
        "action": {"kind": "discrete", "shape": [], "start": 0, "numbers": [2]},
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*AGENTS, *RECIPES])
def test_every_agent_and_recipe_acts_as_the_run_in_both_formats(name, tmp_path):
    directory = train(tmp_path / "run", name)
    check_files(directory, [export(directory, tmp_path / f"policy{suffix}").path for suffix in (".pt2", ".onnx")])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td3", "naf", "ppo", "a2c", "soft_q"])
def test_onnx_of_every_kind_of_network_acts_as_the_run(runs, name, tmp_path):
    check_files(runs(name), [export(runs(name), tmp_path / "policy.onnx").path])


def check_files(directory: Path, files: list[Path]) -> None:
    """Parity at data, in +-10 and +-1000, of one row and of 257."""
    with load(directory) as run:
        for file in files:
            for value, limit in largest_differences(run, file):
                assert value <= (0 if run.parts.spec.discrete else limit)


def test_pt2_holds_what_a_program_should_know(runs, tmp_path):
    export(runs("td3"), tmp_path / "policy.pt2")
    extra = {"mbkit.json": ""}
    torch.export.load(tmp_path / "policy.pt2", extra_files=extra)
    about = json.loads(extra["mbkit.json"])
    assert about["obs_names"] == ["gear=1", "gear=2", "gear=3", "where[0]", "where[1]"]
    assert about["action"] == {"kind": "continuous", "shape": [2, 2], "low": [[-1, 0], [2, -30]], "high": [[3, 0.5], [2.5, 10]]}


@pytest.mark.slow
def test_pt2_runs_without_mbkit(runs, tmp_path):
    export(runs("sac"), tmp_path / "policy.pt2")
    code = "import sys, torch; policy = torch.export.load('policy.pt2').module(); "
    code += "print(policy(torch.zeros(3, 3)).shape[0], 'mbkit' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.split() == ["3", "False"]


def test_export_of_a_checkpoint_and_of_a_loaded_run(runs, tmp_path):
    assert export(runs("sac"), tmp_path / "a.pt2", checkpoint=30).step == 30
    with load(runs("sac"), 30) as run:
        before = torch.get_rng_state()
        assert export(run, tmp_path / "b.pt2").step == 30
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.raises(UserError, match="checkpoint='best' applies to the directory"):
            export(run, tmp_path / "b.pt2", "best")
    rows = torch.randn(5, 3)
    a, b = (read_pt2((tmp_path / f"{name}.pt2").read_bytes())(rows) for name in "ab")
    assert torch.equal(a, b)
    assert not torch.equal(a, read_pt2(export(runs("sac"), tmp_path / "c.pt2").path.read_bytes())(rows))


def test_export_replaces_a_file_and_leaves_it_where_the_policies_differ(runs, tmp_path, monkeypatch):
    file = tmp_path / "policy.pt2"
    file.write_text("old")
    copy = plain

    def wrong(module):
        policy = copy(module)
        policy.half_width.mul_(1.001)
        return policy

    with monkeypatch.context() as patch:
        patch.setattr(policy, "plain", wrong)
        with pytest.raises(UserError, match=r"policy.pt2 was not written: its action differs from that of run.act by .* expected at most"):
            export(runs("sac"), file)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt2"]
    assert export(runs("sac"), file).replaced
    assert file.read_bytes()[:2] == b"PK"
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt2"]


def test_other_choices_are_no_parity(runs, tmp_path, monkeypatch):
    copy = plain
    monkeypatch.setattr(policy, "plain", lambda module: torch.nn.Sequential(copy(module), Other()))
    with pytest.raises(UserError, match="1000 of 1000 choices differ from those of the run"):
        export(runs("dqn"), tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


class Other(torch.nn.Module):
    """The other one of two choices."""

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        return 1 - action


def test_commands_and_code_of_the_page_run(tmp_path, monkeypatch, capfd):
    page = (ROOT / "docs/export.md").read_text()
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^mbkit (.*)$", page, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "export", "export", "data", "dynamics", "export"]
    shorter = {"train": [*SHORT, *REPLAY], "data": ["--steps", "300"], "dynamics": ["dynamics.hidden=[8]", "dynamics.max_epochs=2"]}
    for command in commands:
        result = CliRunner().invoke(cli.app, [*command.split(), *shorter.get(command.split()[0], [])])
        assert result.exit_code == 0, result.output
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "export.md", "exec"), {})


# --- what is refused -----------------------------------------------------------------------------------------------------------------


def test_paths_of_other_kinds_are_refused_before_the_run_is_read(tmp_path):
    for out, sentence in (
        ("policy.pt", r"policy.pt: expected a path that ends in .onnx or .pt2, came .pt"),
        ("policy", "came none of them"),
        ("absent/policy.pt2", "there is no directory .*absent"),
        ("folder.pt2", "it is a directory"),
    ):
        (tmp_path / "folder.pt2").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=sentence):
            export(tmp_path / "no_run", tmp_path / out)
    with pytest.raises(UserError, match="no_run is not a run directory"):
        export(tmp_path / "no_run", tmp_path / "policy.pt2")


def test_a_full_disk_leaves_nothing(runs, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    run = runs("sac")  # trained before the disk is full
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"policy.pt2 cannot be written \(No space left on device\)"):
        export(run, tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


def test_absent_packages_are_named_with_their_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match=re.escape('.onnx needs the package onnxscript: pip install "mbkit[onnx]"; .pt2 needs none')):
        export(tmp_path / "no_run", tmp_path / "policy.onnx")


@pytest.mark.parametrize(
    ("algo", "options", "reason"),
    [
        ("pets", ("env=cartpole",), "pets plans each action with its model"),
        ("pets", ("env=cartpole", "dynamics=mujoco"), r"pets plans each action in the simulator itself \(dynamics=mujoco\)"),
        ("loop", ("env=Hopper-v5",), "loop plans each action with its model"),
        ("random", ("env=CartPole-v1",), "random draws each action"),
    ],
)
def test_runs_without_a_policy_say_why(algo, options, reason, tmp_path):
    (tmp_path / "config.yaml").write_text(config.to_yaml(config.compose(algo, options)))
    with pytest.raises(UserError, match=rf"a run of {algo} cannot be exported: {reason}.*expected an agent, whose policy is a network"):
        export(tmp_path, tmp_path / "policy.pt2")


def test_a_loaded_run_of_a_planner_is_refused(tmp_path):
    run = train_pets(tmp_path / "run", 40)
    with pytest.raises(UserError, match="pets plans each action"):
        export(run, tmp_path / "policy.pt2")


def test_an_agent_without_a_mode_is_told_of_the_hook(runs, tmp_path):
    with load(runs("sac")) as run:
        run.parts.actor.policy = torch.nn.Identity()
        with pytest.raises(UserError, match=r"a run of SAC cannot be exported: expected a policy or action values.*SAC.greedy_module\(\)"):
            export(run, tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


def test_a_rule_that_cannot_be_traced_is_refused(runs, tmp_path):
    with load(runs("sac")) as run:
        run.parts.actor.greedy_module = lambda: GreedyRule(lambda obs: obs[:, :1] if float(obs.sum()) > 0 else -obs[:, :1])
        with pytest.raises(UserError, match=r"a run of sac cannot be exported: torch.export cannot trace its policy \(\w+: .+\)"):
            export(run, tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


def test_a_rule_of_its_owner_that_counts_rows_by_len_is_traced(runs, tmp_path):
    with load(runs("sac")) as run:
        rule = GreedyRule(lambda obs, policy: policy.mode(obs) * torch.ones(len(obs), 1), policy=run.parts.actor.policy)
        run.parts.actor.greedy_module = lambda: rule
        export(run, tmp_path / "policy.pt2")
        assert read_pt2((tmp_path / "policy.pt2").read_bytes())(torch.zeros(7, 3)).shape == (7, 1)
