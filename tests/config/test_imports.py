"""Import paths: what the user typed may lie in the working directory, what a file names may not, and is announced."""

import logging
import sys

import pytest

from mbkit.config import compose, imports
from mbkit.errors import UserError


def module(directory, name, text="def height(obs, action, next_obs):\n    return next_obs[:, 0]\n"):
    (directory / f"{name}.py").write_text(text)
    return f"{name}:height"


def test_import_paths_are_those_of_task_functions_priors_and_environments():
    pets = compose("pets", ["env=cartpole", "dynamics.reward=tasks.mine:height", "dynamics.termination=never", "run_dir=odd:name"])
    assert imports.import_paths(pets) == {"dynamics.reward": "tasks.mine:height"}
    soft = compose("soft_q", ["env=my_tasks:Mine-v0", "agent.prior=priors:calm"])
    assert imports.import_paths(soft) == {"env": "my_tasks:Mine-v0", "agent.prior": "priors:calm"}
    none = compose("pets", ["env=dm_control/cartpole-swingup-v0", "dynamics.load=C:/models/one.pt"])
    assert imports.import_paths(none) == {}


def test_import_typed_finds_modules_of_the_working_directory_and_leaves_the_path_alone(tmp_path, monkeypatch):
    path = module(tmp_path, "typed_task_1")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    imports.import_typed(compose("pets", ["env=cartpole", f"dynamics.reward={path}"]))
    assert "typed_task_1" in sys.modules
    assert sys.path == before
    with pytest.raises(UserError, match=r"module 'no_such_task_1' of 'no_such_task_1:fn' can't be imported: No module named"):
        imports.import_typed(compose("pets", ["env=cartpole", "dynamics.termination=no_such_task_1:fn"]))


def test_import_module_of_a_file_ignores_the_working_directory_and_says_how_to_allow_it(tmp_path, monkeypatch):
    path = module(tmp_path, "stored_task_1", "raise SystemError('was run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    with pytest.raises(UserError, match=r"No module named .*; it lies in the working directory, .* repeat the option, or set PYTHONPATH"):
        imports.import_module_of(path)


def test_without_repeated_imports_only_what_the_run_names(tmp_path, monkeypatch):
    path = module(tmp_path, "repeated_task_1")
    other = module(tmp_path, "other_task_1", "raise SystemError('was run')\n")
    monkeypatch.chdir(tmp_path)
    run = compose("pets", ["env=cartpole", f"dynamics.reward={path}"])
    assert imports.without_repeated(run, {"dynamics": {"reward": path}, "steps": 5}) == {"steps": 5}
    assert "repeated_task_1" in sys.modules
    assert imports.without_repeated(run, {"dynamics": {"reward": other}}) == {"dynamics": {"reward": other}}
    assert imports.without_repeated(run, {"dynamics": {"reward": path, "hidden": [8]}}) == {"dynamics": {"hidden": [8]}}


def test_announce_names_module_and_option(caplog):
    with caplog.at_level(logging.WARNING, "mbkit"):
        imports.announce(compose("pets", ["env=cartpole", "dynamics.reward=tasks.mine:height"]), "runs/one")
    assert caplog.messages == ["runs/one/config.yaml names code: module 'tasks.mine' is imported for dynamics.reward=tasks.mine:height"]
    caplog.clear()
    imports.announce(compose("pets", ["env=cartpole"]), "runs/one")
    imports.announce(compose("pets", ["env=cartpole", "dynamics.reward=mbkit.envs.shaping:upright"]), "runs/one")
    assert caplog.messages == []
