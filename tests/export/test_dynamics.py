"""Exported dynamics models: the means of the ensemble's elites, in files that need nothing of mbkit; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import dataset
from typer.testing import CliRunner

from mbkit import cli
from mbkit.data import write
from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.network import EnsembleNetwork
from mbkit.envs.known import task_knowledge
from mbkit.errors import UserError
from mbkit.export import dynamics as exporting
from mbkit.export import export, export_network
from mbkit.export.dynamics import ElitesMean, Units
from mbkit.export.formats import read_onnx, read_pt2
from mbkit.run.fitting import fit_dynamics
from mbkit.types import EnvSpec, TaskKnowledge, Transition

CPU = torch.device("cpu")
READ = {".pt2": read_pt2, ".onnx": read_onnx}
BOX = {"action_low": [2.0, -30.0], "action_high": [6.0, 10.0]}
LOW_HIGH = {"low": BOX["action_low"], "high": BOX["action_high"]}
BENCHMARKS = [("mbkit/cartpole-v0", EnvSpec(4, 1, CPU)), ("mbkit/halfcheetah-v0", EnvSpec(18, 6, CPU))]
KNOWN = TaskKnowledge(reward=lambda obs, action, next_obs: next_obs[..., 0])


def fitted(spec: EnvSpec, task: TaskKnowledge = TaskKnowledge(), scale: float = 1.0, **options: object) -> Ensemble:
    """An ensemble that has fitted a nonlinear system for a moment, whose weights are far from those it began with."""
    torch.manual_seed(0)
    obs = scale * torch.randn(200, spec.obs_dim)
    if spec.discrete:
        action = (torch.rand(200, *spec.action_shape) * torch.tensor(spec.parts or spec.action_dim)).long()
    else:
        action = torch.rand(200, spec.action_dim) * 2 - 1
    push = action.double().reshape(200, -1)[:, :1].float() * scale
    next_obs = obs + 0.3 * push + 0.1 * obs.roll(1, 1).sin()
    cfg = EnsembleConfig(members=4, elites=3, hidden=(16, 16), max_epochs=8, batch=32, propagation="expectation", **options)
    model = Ensemble(spec, cfg, task)
    model.fit(Transition(obs, action, push[:, 0] / scale, next_obs, (obs[:, 0] < 0.5 * scale).float()))
    return model


def with_termination(spec: EnvSpec, task: TaskKnowledge = KNOWN) -> Ensemble:
    """One that has learned when episodes end, and is certain of it at many observations."""
    model = fitted(spec, task, termination="learned")
    with torch.no_grad():
        model.network.net.weight[-1][..., -1] *= 100
    model.refresh()
    return model


def outputs(path: Path, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What a file puts out."""
    result = READ[path.suffix](path.read_bytes())(*inputs)
    return result if isinstance(result, tuple) else (result,)


def close(ours: torch.Tensor, theirs: torch.Tensor, scale: float = 1.0) -> bool:
    """Whether two tensors agree to float32's digits."""
    assert ours.shape == theirs.shape
    return bool((ours - theirs).abs().max() <= 2e-5 * scale)


# --- the same outputs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [True, False])
def test_module_steps_as_the_planners_model_does_from_actions_in_the_units_of_the_task(delta: bool) -> None:
    model = fitted(EnvSpec(3, 2, CPU), scale=50, delta=delta)
    module, (low, high) = ElitesMean(model.network, Units(**LOW_HIGH)), map(torch.tensor, LOW_HIGH.values())
    obs, scaled = 50 * torch.randn(300, 3), torch.rand(300, 2) * 2 - 1
    next_obs, reward = module(obs, (low + high) / 2 + (high - low) / 2 * scaled)
    step = model.step(obs, scaled)  # folded weights, another path than that of the check
    assert close(next_obs, step.obs, 50)
    assert close(reward, step.reward)


def test_actions_outside_the_box_count_as_its_bounds() -> None:
    module, obs = ElitesMean(fitted(EnvSpec(3, 2, CPU)).network, Units(**LOW_HIGH)), torch.randn(1, 3)
    for action, bound in (([[7.0, -31.0]], [[6.0, -30.0]]), ([[-9.0, 99.0]], [[2.0, 10.0]])):
        assert all(map(torch.equal, module(obs, torch.tensor(action)), module(obs, torch.tensor(bound))))


@pytest.mark.parametrize(("parts", "start"), [((), 5), ((3, 2), [-1, 4])])
def test_discrete_actions_count_from_the_first_of_the_task(parts: tuple, start: int | list) -> None:
    spec = EnvSpec(3, sum(parts) or 4, CPU, True, parts)
    model = fitted(spec)
    obs, action = torch.randn(20, 3), (torch.rand(20, *spec.action_shape) * torch.tensor(parts or 4)).long()
    next_obs, reward = ElitesMean(model.network, Units(start=start))(obs, action + torch.tensor(start))
    step = model.step(obs, action)
    assert close(next_obs, step.obs)
    assert close(reward, step.reward)


def test_learned_termination_is_the_mean_probability_of_the_elites() -> None:
    model = with_termination(EnvSpec(3, 2, CPU))
    obs, action = torch.randn(50, 3), torch.rand(50, 2) * 2 - 1
    next_obs, probability = ElitesMean(model.network, Units())(obs, action)
    step = model.step(obs, action)
    assert close(next_obs, step.obs)
    assert torch.equal(probability > 0.5, step.terminated)
    assert 0 <= probability.min() < 0.3 < 0.7 < probability.max() <= 1


@pytest.mark.parametrize(("env", "spec"), BENCHMARKS)
def test_processed_observations_and_absolute_dimensions_of_a_benchmark_are_inside(env: str, spec: EnvSpec) -> None:
    task = task_knowledge(env, spec)
    assert task.preprocess is not None
    model = fitted(spec, task)
    obs, action = torch.randn(20, spec.obs_dim), torch.rand(20, spec.action_dim) * 2 - 1
    assert close(ElitesMean(model.network, Units())(obs, action), model.step(obs, action).obs)


# --- files ----------------------------------------------------------------------------------------------------------------------------


def test_pt2_of_a_benchmarks_model_takes_any_number_of_rows(tmp_path: Path) -> None:
    env, spec = BENCHMARKS[0]
    check_files(fitted(spec, task_knowledge(env, spec)), {"env": env}, tmp_path, ".pt2")


def test_onnx_of_discrete_actions_with_every_output_takes_any_number_of_rows(tmp_path: Path) -> None:
    model = with_termination(EnvSpec(3, 5, CPU, True, (3, 2)), TaskKnowledge())
    check_files(model, {"action_start": [-1, 4]}, tmp_path, ".onnx")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("kind", ["box", "choices", *(env for env, _ in BENCHMARKS)])
def test_files_of_every_kind_take_any_number_of_rows(kind: str, suffix: str, tmp_path: Path) -> None:
    spec = {"box": EnvSpec(3, 2, CPU), "choices": EnvSpec(3, 4, CPU, True), **dict(BENCHMARKS)}[kind]
    meta = {"box": BOX, "choices": {"action_start": 7}}.get(kind, {"env": kind})
    check_files(fitted(spec, task_knowledge(kind, spec) if "env" in meta else TaskKnowledge()), meta, tmp_path, suffix)


def check_files(model: Ensemble, meta: dict, folder: Path, suffix: str) -> None:
    """The file of a model puts out what the module does, for one row and for many."""
    model.save(folder / "dynamics.pt", **meta)
    done, spec = export(folder / "dynamics.pt", folder / f"model{suffix}"), model.spec
    assert done.difference < 1e-5
    units = Units.of(spec, meta, "")
    for rows in (1, 300):
        obs, action = torch.randn(rows, spec.obs_dim), torch.rand(rows, spec.action_dim)
        if spec.discrete:
            action = (torch.rand(rows, *spec.action_shape) * torch.tensor(spec.parts or spec.action_dim)).long() + torch.tensor(units.start)
        expected = ElitesMean(model.network, units)(obs, action)
        expected = expected if isinstance(expected, tuple) else (expected,)
        assert all(map(close, outputs(done.path, obs, action), expected))


def test_what_the_file_cannot_have_is_said() -> None:
    spec, part = EnvSpec(3, 2, CPU), TaskKnowledge(reward_part=lambda obs, action, next_obs: action[..., 0])
    for task, meta, said in (
        (TaskKnowledge(), BOX, []),
        (TaskKnowledge(), {}, ["`action` is in [-1, 1], as the model sees it"]),
        (KNOWN, BOX, ["no output `reward`: the model has learned none"]),
        (part, BOX, ["no output `reward`: the model has learned a part of it"]),
    ):
        network = EnsembleNetwork(spec, EnsembleConfig(members=2, elites=1, hidden=(4,)), task)
        lines = exporting.notes(network, Units.of(spec, meta, ""))
        assert [line.startswith(start) for line, start in zip(lines, said, strict=True)] == [True] * len(said)
        assert ("reward" in exporting.output_names(network)) == (task.reward is None and task.reward_part is None)


def test_units_that_nobody_knows_are_minus_one_to_one() -> None:
    network = EnsembleNetwork(EnvSpec(3, 2, CPU), EnsembleConfig(members=2, elites=1, hidden=(4,)))
    action = exporting.description(network, Units(), {})["action"]
    assert action == {"kind": "continuous", "low": [-1, -1], "high": [1, 1], "scaled": True}
    rows = torch.tensor([[-0.5, 1.5]])
    assert Units().scaled(network.spec, rows).tolist() == [[-0.5, 1.0]]


# --- a fit and its command ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    data = dataset([20, 30], env="none")
    data.obs_names, data.action_names = ("angle", "rate"), ("left", "right")
    sizes = "dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=2"
    fit_dynamics(data, *sizes, "dynamics.termination=never", out=folder / "dynamics.pt")
    return folder / "dynamics.pt"


def test_command_writes_a_model_with_what_a_program_should_know(fit: Path, tmp_path: Path) -> None:
    import onnxruntime

    (tmp_path / "model.onnx").write_text("old")
    result = CliRunner().invoke(cli.app, ["export", str(fit), "--out", str(tmp_path / "model.onnx")])
    assert result.exit_code == 0, result.exception
    first, second = result.stdout.splitlines()
    assert first == f"{tmp_path / 'model.onnx'} (replaced): the dynamics model"
    assert second.startswith("largest difference from the ensemble over 1000 inputs: ")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["obs", "action"]
    assert [node.name for node in session.get_outputs()] == ["next_obs", "reward"]
    content, facts = files.read(fit), json.loads(session.get_modelmeta().custom_metadata_map["mbkit"])
    assert facts == {
        "format": "mbkit dynamics 1",
        "env": "none",
        "steps": content["meta"]["steps"],
        "data": content["meta"]["data"],
        "obs_names": ["angle", "rate"],
        "action_names": ["left", "right"],
        "action": {"kind": "continuous", "low": [-1, -2], "high": [1, 2], "scaled": False},
        "members": 3,
        "elites": content["state"]["elites"].tolist(),
    }
    code = "import sys, numpy as np, onnxruntime; session = onnxruntime.InferenceSession('model.onnx'); "
    code += "next_obs, reward = session.run(None, {'obs': np.zeros((5, 2), 'f'), 'action': np.zeros((5, 2), 'f')}); "
    code += "print(*next_obs.shape, *reward.shape, 'mbkit' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["5", "2", "5", "False", "False"]


def test_command_says_what_is_missing(tmp_path: Path) -> None:
    data = write(dataset([20, 30], has_reward=False), tmp_path / "log.h5")
    fit_dynamics(data, "dynamics.hidden=[8]", "dynamics.max_epochs=1", "dynamics.termination=never", out=tmp_path / "dynamics.pt")
    result = CliRunner().invoke(cli.app, ["export", str(tmp_path / "dynamics.pt"), "--out", str(tmp_path / "model.pt2")])
    assert result.stdout.splitlines()[2:] == ["note: no output `reward`: the model has learned none"]


# --- what is refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("output", "name"), enumerate(("next_obs", "reward", "termination")))
def test_outputs_that_differ_by_a_thousandth_are_refused(output: int, name: str, tmp_path: Path) -> None:
    network, units = with_termination(EnvSpec(3, 2, CPU), TaskKnowledge()).network, Units(**LOW_HIGH)
    rows, module = exporting.check_rows(network, units), ElitesMean(network, units)
    assert exporting.compared(network, units, module, *rows, tmp_path / "model.pt2") < 1e-4

    def wrong(*inputs: torch.Tensor) -> tuple:
        return tuple(1.001 * result if n == output else result for n, result in enumerate(module(*inputs)))

    with pytest.raises(UserError, match=rf"model.pt2 was not written: its {name} differs from that of the ensemble by .*; expected"):
        exporting.compared(network, units, wrong, *rows, tmp_path / "model.pt2")


def test_a_file_that_differs_leaves_the_old_one(fit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.pt2").write_text("old")
    forward = ElitesMean.forward
    monkeypatch.setattr(ElitesMean, "forward", lambda self, obs, action: forward(self, 1.001 * obs, action))
    with pytest.raises(UserError, match=r"model.pt2 was not written: its next_obs differs"):
        export(fit, tmp_path / "model.pt2")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.pt2", "old")]


def test_files_and_paths_of_other_kinds_are_refused(fit: Path, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_text("no model")
    for source, out, sentence in (
        (fit, "model.pt", "model.pt: expected a path that ends in .onnx or .pt2, came .pt"),
        (tmp_path / "other.pt", "model.pt2", "other.pt cannot be read: expected 'mbkit.dynamics/1'"),
        (tmp_path / "absent.pt", "model.pt2", "dynamics file .*absent.pt' does not exist"),
        (tmp_path / "absent", "model.pt2", "absent is not a run directory"),
    ):
        with pytest.raises(UserError, match=sentence):
            export(source, tmp_path / out)
    with pytest.raises(UserError, match=r"checkpoint='last' applies to the directory of a run; .* is a file, expected none"):
        export(fit, tmp_path / "model.pt2", "last")


def test_absent_packages_are_named_with_their_extra(fit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbkit.export.formats.find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(UserError, match=r".onnx needs the package onnx: pip install"):
        export(fit, tmp_path / "model.onnx")


def squares(obs: torch.Tensor) -> torch.Tensor:
    """Processing of a user's own."""
    return torch.cat((obs, obs.square()), -1)


def branching(obs: torch.Tensor) -> torch.Tensor:
    """Processing that looks at the values."""
    return obs if float(obs.sum()) > 0 else -obs


def test_observation_processing_of_ones_own_is_exported_from_python_alone(tmp_path: Path) -> None:
    model = fitted(EnvSpec(3, 2, CPU), TaskKnowledge(preprocess=squares))
    model.save(tmp_path / "dynamics.pt", env="none", **BOX)
    with pytest.raises(UserError, match=r"its model sees observations processed by a function that is not in the file .* env=none"):
        export(tmp_path / "dynamics.pt", tmp_path / "model.pt2")
    done = export_network(model.network, tmp_path / "model.pt2", BOX)
    obs = torch.randn(5, 3)
    next_obs, _ = outputs(done.path, obs, torch.tensor([BOX["action_low"]] * 5))
    assert close(next_obs, model.step(obs, -torch.ones(5, 2)).obs)


def test_observation_processing_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    model = fitted(EnvSpec(3, 2, CPU), TaskKnowledge(preprocess=branching))
    with pytest.raises(UserError, match=r"the model cannot be exported: torch.export cannot trace its observation processing \(\w+: .+\)"):
        export_network(model.network, tmp_path / "model.pt2")


@pytest.mark.slow
def test_observation_processing_without_an_onnx_operator_is_refused_for_onnx_alone(tmp_path: Path) -> None:
    model = fitted(EnvSpec(3, 2, CPU), TaskKnowledge(preprocess=lambda obs: torch.special.bessel_j0(obs)))
    with pytest.raises(UserError, match=r"as .onnx: ONNX lacks an operator of its observation processing .*; .pt2 may do"):
        export_network(model.network, tmp_path / "model.onnx")
    export_network(model.network, tmp_path / "model.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.parametrize(
    ("meta", "sentence"),
    [
        ({"action_low": [0.0], "action_high": [1.0]}, r"bounds of its actions are \[0.0\]; expected 2 numbers"),
        ({"action_low": [0.0, 1.0]}, "bounds of its actions are None; expected 2 numbers"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(meta: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=f"dynamics.pt cannot be exported: {sentence}"):
        Units.of(EnvSpec(3, 2, CPU), meta, "dynamics.pt")


def test_damaged_dimensions_are_refused(fit: Path, tmp_path: Path) -> None:
    content = files.read(fit)
    for key, value in (("observation dimensions", "two"), ("action dimensions", 0), ("discrete actions", None)):
        torch.save({**content, "fits": {**content["fits"], key: value}}, tmp_path / "dynamics.pt")
        with pytest.raises(UserError, match="expected numbers of dimensions"):
            export(tmp_path / "dynamics.pt", tmp_path / "model.pt2")


def test_a_runs_model_knows_the_box_of_its_task(tmp_path: Path) -> None:
    from pets_runs import train_pets

    run = train_pets(tmp_path / "run", 40)
    meta = files.read(run.path / "dynamics.pt")["meta"]
    space = run.spaces[1]
    assert np.array_equal(meta["action_low"], space.low)
    assert np.array_equal(meta["action_high"], space.high)
