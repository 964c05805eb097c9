"""`mbkit dynamics report`: real ensembles on data that they know and do not know, and every sentence that ends it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import columns, dataset
from typer.testing import CliRunner

from mbkit import cli
from mbkit.data import Columns, Dataset, read, write
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.run.fitting import fit_dynamics
from mbkit.run.model_report import report_on, with_true
from mbkit.storage import plain

SMALL = ("dynamics.hidden=[16]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=2")


def wave(seed: int, low: float, high: float, rows: int = 400) -> Dataset:
    """x' = x + cos(2 x) + a / 10 from x between two bounds, an episode for each row; no rewards."""
    draw = np.random.default_rng(seed)
    x, a, no = draw.uniform(low, high, (rows, 1)), draw.uniform(-1, 1, (rows, 1)), np.zeros(rows, bool)
    whole = Columns(x, a, np.zeros(rows), x + np.cos(2 * x) + 0.1 * a, no, ~no, np.arange(rows))
    return Dataset.of(whole, action_low=[-1], action_high=[1], has_reward=False)


def walks(seed: int, episodes: int = 30, steps: int = 12, env: str | None = None, choices: int = 0) -> Dataset:
    """Random linear walks in three dimensions with a reward that nothing knows; the last is constant."""
    draw, parts = np.random.default_rng(seed), []
    for i in range(episodes):
        obs = np.append(draw.normal(size=(1, 2)), [[3.0]], 1).repeat(steps + 1, 0)
        action = draw.integers(0, choices, steps) if choices else draw.uniform(-2, 2, (steps, 1))
        for t in range(steps):
            obs[t + 1, :2] = 0.9 * obs[t, :2] + 0.2 * action[t]
        last = np.arange(steps) == steps - 1
        parts.append(Columns(obs[:-1], action, obs[1:, 0] ** 2, obs[1:], last & False, last, np.full(steps, i)))
    box = {"choices": choices} if choices else {"action_low": [-2], "action_high": [2]}
    return Dataset.of(Columns(*(np.concatenate(column) for column in zip(*parts, strict=True))), env=env, **box)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted to data.h5, and other.h5 of the same kind."""
    here = tmp_path_factory.mktemp("report")
    for name, seed in (("data", 0), ("other", 1)):
        write(walks(seed), here / f"{name}.h5")
    fit_dynamics(here / "data.h5", *SMALL, out=here / "dynamics.pt")
    return here


def test_members_that_know_half_of_the_states_disagree_where_they_err(tmp_path: Path) -> None:
    options = ("dynamics.hidden=[32,32]", "dynamics.members=5", "dynamics.elites=5", "dynamics.max_epochs=30", "dynamics.batch=32")
    fit_dynamics(wave(0, -2, 0), *options, "dynamics.lr=3e-3", out=tmp_path / "half.pt")
    facts = report_on(tmp_path / "half.pt", wave(10, -2, 2))
    quality = facts["penalties"]["disagreement"]["1"]
    assert quality["spearman"] > 0.8
    assert quality["auroc"] > 0.8
    assert quality["share_by_dimension"] == [1.0]
    assert "ranks errors at depth 1 with rho 0." in facts["verdict"]
    assert "in-sample" not in facts["verdict"]
    assert facts["rollouts"]["left_out"] == [2, 5, 10]
    assert "Fewer than 20 windows lie inside an episode for depth 2 and 5 and 10: reported at 1 of 1, 2, 5, 10." in facts["notes"]
    assert "The data have no rewards: errors and penalties are those of the observations alone." in facts["notes"]
    assert "return_gap" not in facts


def test_contents_are_complete_json_and_the_same_again(folder: Path) -> None:
    before = torch.get_rng_state()
    one, two = (report_on(folder / "dynamics.pt", folder / "other.h5") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbkit.run.model_report.SEED", 1)
        other = report_on(folder / "dynamics.pt", folder / "other.h5")
    assert other["horizon"] != one["horizon"]
    assert other["penalties"] == one["penalties"]  # errors and penalties hold none of the model's own noise
    assert torch.equal(torch.get_rng_state(), before)
    assert json.dumps(plain(one), allow_nan=False) == json.dumps(plain(two), allow_nan=False)
    assert one.keys() == {
        *("model", "data", "one_step", "calibration", "horizon", "return_gap", "epistemic", "rollouts", "penalties", "coverage"),
        *("dimensions", "notes", "verdict"),
    }
    assert one["penalties"].keys() == {"disagreement", "distance_from_mean", "ensemble_std", "max_aleatoric", "one_vs_rest"}
    for by_depth in one["penalties"].values():
        assert by_depth.keys() == {"1", "2", "5", "10"}
        assert all(sum(quality["share_by_dimension"]) == pytest.approx(1) for quality in by_depth.values())
    assert one["dimensions"] == ["obs 0", "obs 1", "obs 2", "reward"]
    assert one["data"]["in_sample"] is False
    assert one["coverage"]["low"] == [-2.0]
    assert one["horizon"]["steps"] == list(range(1, 6))  # 12 steps are too few for 15, and 5 are the next that are measured


def test_the_data_of_the_fit_are_told(folder: Path, tmp_path: Path) -> None:
    told = "; in-sample, since dynamics.pt was fitted to these rows"
    assert report_on(folder / "dynamics.pt", folder / "data.h5")["verdict"].endswith(told)
    data = read(folder / "data.h5")
    model = fit_dynamics(data, *SMALL).model  # as a run on a data set writes its model: without the file's fingerprint
    model.save(tmp_path / "dynamics.pt", env="none", steps=10)
    assert report_on(tmp_path / "dynamics.pt", folder / "data.h5")["verdict"].endswith(told)
    assert told not in report_on(tmp_path / "dynamics.pt", folder / "other.h5")["verdict"]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without content and without a figure, which take time; tests/report draws them."""
    monkeypatch.setattr("mbkit.report.model_page.render_model", lambda facts: "")
    monkeypatch.setattr("mbkit.report.model_page.overview", lambda facts: None)


def test_members_without_variance_have_the_penalties_of_their_means(folder: Path, tmp_path: Path, undrawn: None) -> None:
    for members, names in ((3, {"disagreement", "distance_from_mean", "ensemble_std"}), (1, set())):
        options = [f"dynamics.members={members}", "dynamics.elites=1", "dynamics.probabilistic=false", *SMALL[::3]]
        fit_dynamics(folder / "data.h5", *options, out=tmp_path / "means.pt")
        facts = report_on(tmp_path / "means.pt", folder / "other.h5")
        assert facts["penalties"].keys() == names
    assert facts["verdict"].startswith("no penalty: a single deterministic member states no uncertainty")
    assert len(facts["rollouts"]["median"]) == 4
    result = run(tmp_path / "means.pt", folder / "other.h5", "--out", tmp_path / "page.html")
    assert result.exit_code == 0
    heads, errors, verdict, *_ = result.stdout.splitlines()
    assert heads.split() == ["@1", "@2", "@5", "@10"]
    assert errors.startswith("median error")
    assert verdict == f"verdict: {facts['verdict']}"
    assert {path.name for path in tmp_path.iterdir()} == {"means.pt", "page.html", "page.json"}


def test_a_known_reward_is_no_part_of_a_penalty(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    obs, no = draw.normal(size=(90, 4)), np.zeros(90, bool)
    whole = Columns(obs, draw.uniform(-3, 3, (90, 1)), np.ones(90), 0.9 * obs, no, ~no, np.arange(90))
    data = Dataset.of(whole, env="InvertedPendulum-v5", action_low=[-3], action_high=[3])
    fit_dynamics(data, *SMALL, "dynamics.termination=never", out=tmp_path / "dynamics.pt")
    facts = report_on(tmp_path / "dynamics.pt", data)
    assert facts["dimensions"] == ["position", "angle", "velocity", "angular velocity"]
    assert len(facts["penalties"]["disagreement"]["1"]["share_by_dimension"]) == 4
    assert any(note.startswith("The reward of the task is known") for note in facts["notes"])


def test_a_reward_that_makes_up_a_penalty_is_told(tmp_path: Path) -> None:
    data = walks(0)
    draw = np.random.default_rng(0)
    noisy = data.columns()._replace(reward=draw.normal(size=data.rows))
    made = Dataset.of(noisy, action_low=[-2], action_high=[2])
    fit_dynamics(made, *SMALL[:-1], "dynamics.max_epochs=40", "dynamics.batch=32", "dynamics.lr=5e-3", out=tmp_path / "d.pt")
    told = [note for note in report_on(tmp_path / "d.pt", made)["notes"] if note.startswith("The learned reward makes up most of ")]
    assert len(told) == 1
    assert "max_aleatoric" in told[0]


@pytest.mark.parametrize("termination", ["auto", "learned"])
def test_discrete_actions_and_learned_terminations(termination: str, tmp_path: Path) -> None:
    data = walks(0, choices=3)
    fit_dynamics(data, *SMALL, f"dynamics.termination={termination}", out=tmp_path / "dynamics.pt")
    facts = report_on(tmp_path / "dynamics.pt", walks(1, choices=3))
    assert facts["coverage"]["names"] == ["0", "1", "2"]
    assert sum(facts["coverage"]["frequencies"]) == pytest.approx(1)


def test_rows_without_a_true_successor_are_left_out(tmp_path: Path) -> None:
    whole = columns([4, 3, 5, 2] * 5)
    next_obs = whole.next_obs.copy()
    next_obs[np.flatnonzero(whole.terminated)] = 0
    data = Dataset.of(whole._replace(next_obs=next_obs), action_low=[-1, -2], action_high=[1, 2])
    buffer = data.buffer(data.spec())
    rest = with_true(buffer, torch.from_numpy(~whole.terminated))
    assert len(rest) == data.rows - whole.terminated.sum()
    stored = rest.rows_at(rest.order())
    same = (stored.obs[1:] == stored.next_obs[:-1]).all(1)
    assert torch.equal(same, ~stored.ended[:-1])  # what follows a row is its successor, or its episode has ended
    fit_dynamics(data, *SMALL, out=tmp_path / "dynamics.pt")
    facts = report_on(tmp_path / "dynamics.pt", data)
    assert f"{whole.terminated.sum()} rows that end an episode have no true successor and are left out." in facts["notes"]
    assert max(facts["rollouts"]["median"]) < 1000


def test_functions_of_a_user_that_a_file_names_are_not_imported(folder: Path, tmp_path: Path) -> None:
    model = fit_dynamics(folder / "data.h5", *SMALL).model
    model.network.cfg = model.cfg = model.cfg.__class__(**{**model.cfg.__dict__, "termination": "no_such_module:fell"})
    model.save(tmp_path / "dynamics.pt", env="none")
    facts = report_on(tmp_path / "dynamics.pt", folder / "other.h5")
    assert "return_gap" not in facts
    assert facts["penalties"]


# --- mistakes -----------------------------------------------------------------------------------------------------------------------------


def model_of(data: Dataset, path: Path, **meta: str) -> Path:
    """A model over the dimensions of the data, which it has not learned."""
    Ensemble(data.spec(), EnsembleConfig(members=2, elites=1, hidden=(8,))).save(path, **meta)
    return path


def refused(make: Callable[[Path], tuple[Path, Path]], tmp_path: Path) -> str:
    """The message of the command on a model and a data set, after which there is nothing beside them."""
    model, data = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = run(model, data)
    assert isinstance(result.exception, UserError)
    assert sorted(tmp_path.iterdir()) == before
    return str(result.exception)


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["dynamics", "report", *map(str, arguments)])


MISTAKES: dict[str, tuple[Callable[[Path], tuple[Path, Path]], str]] = {
    "other dimensions": (
        lambda at: (model_of(walks(0), at / "m.pt"), write(dataset([9, 9, 9]), at / "d.h5")),
        "m.pt is a model of 3 observations and 1 action, but {}/d.h5 has 2 observations and 2 actions",
    ),
    "other actions": (
        lambda at: (model_of(walks(0, choices=2), at / "m.pt"), write(walks(0), at / "d.h5")),
        "m.pt is a model of 3 observations and 2 discrete actions, but {}/d.h5 has 3 observations and 1 action",
    ),
    "another task": (
        lambda at: (model_of(walks(0), at / "m.pt", env="Swimmer-v5"), write(walks(0, env="Pendulum-v1"), at / "d.h5")),
        "m.pt is a model of Swimmer-v5, but {}/d.h5 was recorded on Pendulum-v1",
    ),
    "few rows": (
        lambda at: (model_of(walks(0), at / "m.pt"), write(walks(0, 1, 12), at / "d.h5")),
        "{}/d.h5 has 12 rows with a true successor; a report on a model needs at least 20",
    ),
    "damaged": (
        lambda at: (damaged(model_of(walks(0), at / "m.pt")), write(walks(0), at / "d.h5")),
        "m.pt cannot be read: expected 'mbkit.dynamics/1', found a damaged or foreign file",
    ),
    "no model": (lambda at: (at / "m.pt", write(walks(0), at / "d.h5")), "m.pt' does not exist"),
    "no data": (lambda at: (model_of(walks(0), at / "m.pt"), at / "d.h5"), "there is no file {}/d.h5"),
}


def damaged(path: Path) -> Path:
    """The first half of the file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_one_sentence(mistake: str, tmp_path: Path) -> None:
    make, message = MISTAKES[mistake]
    text = refused(make, tmp_path)
    assert message.format(tmp_path) in text
    assert "\n" not in text


# --- the command --------------------------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_page_json_and_figure(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "dynamics.pt"
    model.write_bytes((folder / "dynamics.pt").read_bytes())
    result = run(model, folder / "other.h5")
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["penalty", *(word for name in ("rho", "AUROC") for depth in (1, 2, 5, 10) for word in (name, f"@{depth}"))]
    facts = json.loads((tmp_path / "dynamics.report.json").read_text())
    assert f"verdict: {facts['verdict']}" in lines
    assert lines[-3:] == [f"{kind + ':':6}{tmp_path / f'dynamics.report.{kind}'}" for kind in ("html", "json", "png")]
    assert (tmp_path / "dynamics.report.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"dynamics.pt", *(f"dynamics.report.{kind}" for kind in ("html", "json", "png"))}


def test_the_command_prints_json_alone(folder: Path, tmp_path: Path, undrawn: None) -> None:
    result = run(folder / "dynamics.pt", folder / "data.h5", "--json", "--out", tmp_path / "page.html")
    assert json.loads(result.stdout) == json.loads((tmp_path / "page.json").read_text())


def test_out_names_a_page_in_a_directory(folder: Path, tmp_path: Path) -> None:
    for out, message in (("page.json", "--out names the page: expected FILE.html, came"), ("no/page.html", "there is no directory")):
        result = run(folder / "dynamics.pt", folder / "other.h5", "--out", tmp_path / out)
        assert isinstance(result.exception, UserError)
        assert message in str(result.exception)
    assert not list(tmp_path.iterdir())
