"""An mbrl-lib configuration is data: nothing that it names is imported or called."""

import sys

import pytest
import torch
from mbrl_peer import models

from mbkit.dynamics.mbrl.settings import ACTIVATION, PROCESSES, SETTINGS, Settings, named_process, read_settings
from mbkit.errors import UserError

USUAL = """
dynamics_model:
  activation_fn_cfg: {_target_: torch.nn.SiLU}
algorithm:
  target_is_delta: ${overrides.delta}
  learned_rewards: ${overrides.learned_rewards}
overrides:
  delta: true
  learned_rewards: false
  no_delta_list: [0, 3]
root_dir: ${oc.env:HOME}/exp/${now:%Y.%m.%d}
"""


def write(directory, text):
    path = directory / SETTINGS
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_read_settings_follows_references_and_leaves_other_interpolations_alone(tmp_path):
    write(tmp_path, USUAL)
    assert read_settings(tmp_path) == Settings(no_delta=(0, 3))
    assert read_settings(tmp_path / "absent") is None


@pytest.mark.parametrize("name", ACTIVATION.values())
def test_read_settings_takes_the_activations_of_the_list(tmp_path, name):
    write(tmp_path, USUAL.replace("torch.nn.SiLU", name))
    assert read_settings(tmp_path).activation == name


def test_read_settings_without_an_activation_is_mbrl_libs_default(tmp_path):
    write(tmp_path, "algorithm: {learned_rewards: true}")
    assert read_settings(tmp_path) == Settings(activation="torch.nn.ReLU", learned_rewards=True)
    assert isinstance(models.GaussianMLP(2, 1, "cpu").hidden_layers[0][1], torch.nn.ReLU)


CALLABLES = [
    "os.system",
    "builtins.exec",
    "evil_module_5.run",
    "torch.load",
    "torch.nn.Linear",
    "torch.nn.LeakyReLU",
    "torch.nn.silu",
    "",
    "7",
]


@pytest.mark.parametrize("name", CALLABLES)
def test_read_settings_refuses_other_callables_and_imports_nothing(tmp_path, monkeypatch, name):
    (tmp_path / "evil_module_5.py").write_text("raise SystemError('was run')")
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, USUAL.replace("torch.nn.SiLU", name))
    with pytest.raises(UserError, match=r"config.yaml cannot be read .*: its activation is .*; expected one of torch.nn.SiLU, "):
        read_settings(tmp_path)
    assert "evil_module_5" not in sys.modules


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{_target_: torch.nn.SiLU}", "{_target_: torch.nn.ELU, alpha: 3.0}", r"its activation torch.nn.ELU has arguments \['alpha'\]"),
        ("{_target_: torch.nn.SiLU}", "torch.nn.SiLU", "cannot be read"),
        ("torch.nn.SiLU", "'${oc.env:HOME}'", "its activation is '{oc.env:HOME}'"),
        ("torch.nn.SiLU", "'${oc.create:{}}'", "its activation is"),
        ("${overrides.delta}", "yes please", "algorithm.target_is_delta is 'yes please'; expected true or false"),
        ("${overrides.delta}", "1", "expected true or false"),
        ("${overrides.delta}", "${oc.decode:1}", "expected true or false"),
        ("${overrides.delta}", "${overrides.absent}", "cannot be read"),
        ("${overrides.delta}", "${algorithm.target_is_delta}", "cannot be read"),
        ("[0, 3]", "[0, x]", "expected a list of dimensions"),
        ("[0, 3]", "[-1]", "expected a list of dimensions"),
        ("[0, 3]", "07x", "expected a list of dimensions"),
        ("[0, 3]", "5", "cannot be read"),
        ("overrides:", "overrides: &a\n  again: *a", "anchors"),
        (USUAL, "- a", "it holds a list"),
        (USUAL, "7", "it holds a int"),
        (USUAL, "a: [", "cannot be read"),
        (USUAL, "!!python/object/apply:os.system ['true']", "cannot be read"),
        (USUAL, "a: " + "[" * 5000, "cannot be read"),
        (USUAL, "a: " + "x" * 1_000_001, "more than 1000000 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_read_settings_refuses_what_is_no_configuration(tmp_path, old, new, reason):
    assert old in USUAL
    write(tmp_path, USUAL.replace(old, new))
    with pytest.raises(UserError, match=rf"config.yaml cannot be read as a configuration of mbrl-lib: .*{reason}|{reason}"):
        read_settings(tmp_path)


@pytest.mark.parametrize("path", PROCESSES)
def test_named_process_is_mbrl_libs_function(path):
    process = named_process(path)
    theirs = next(name for name, task in PROCESSES.items() if task == PROCESSES[path] and name.startswith("mbrl."))
    module, cls, function = theirs.rsplit(".", 2)
    expected = getattr(getattr(pytest.importorskip(module), cls), function)
    obs = torch.randn(7, 4 if PROCESSES[path] == "cartpole" else 18)
    assert torch.equal(process(obs), expected(obs))
    assert named_process(None) is None


@pytest.mark.parametrize(
    "path",
    ["os.system", "mbrl.env.pets_cartpole.os.system", "mbkit.envs.make.os.abort", "mbkit.envs.make.sys.exit", "mbrl.env.absent.fn", ""],
)
def test_named_process_imports_nothing_else(path):
    with pytest.raises(
        UserError, match=r"processes observations by .*; expected CartPoleEnv.preprocess_fn or HalfCheetahEnv.preprocess_fn"
    ):
        named_process(path)
