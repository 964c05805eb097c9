"""Predictions along an episode: the numbers behind the pictures, the film of real beside predicted states, what is stored of them."""

import gymnasium
import numpy as np
import pytest
import torch
from pets_runs import train_pets

from mbkit.errors import UserError
from mbkit.report import write_report
from mbkit.report.collect import read_run
from mbkit.report.film_beside import StateLayout, layout_of, states_of
from mbkit.report.pictured import of_run
from mbkit.report.prediction_plots import pictures
from mbkit.report.predictions import RESTART, fingerprint, load_predictions, predictions, save_predictions

MEMBERS = ["disagreement of the members", "noise of the members"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with train_pets(tmp_path_factory.mktemp("pets") / "run", 60) as run:
        yield run


@pytest.fixture(scope="module")
def table(run):
    return predictions(run, 20)


def test_predictions_start_from_the_real_state_and_leave_the_run_as_it_was(run, table):
    before = torch.random.get_rng_state()
    again = predictions(run, 20)
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(again.fan, table.fan)
    assert table.obs.shape == (21, 4)
    np.testing.assert_allclose(table.fan[:, 0], np.broadcast_to(table.obs[table.fan_start], table.fan[:, 0].shape))
    for start, plan in zip(table.plan_starts, table.plans, strict=True):
        np.testing.assert_allclose(plan[:, 0], np.broadcast_to(table.obs[int(start)], plan[:, 0].shape))
        assert np.isfinite(plan[:, :5]).all()  # the planner's horizon is 4
        assert np.isnan(plan[:, 5:]).all()
    assert table.planned
    np.testing.assert_array_equal(table.replayed[::RESTART], table.obs[::RESTART])


def test_uncertainties_of_one_step_are_those_of_the_members(run, table):
    """By an own formula, from the actions that another run of the same episode takes."""
    actions = []
    act = run.parts.actor_for(run.env).__class__.act

    def noted(self, obs, explore=True):
        actions.append(act(self, obs, explore))
        return actions[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbkit.planning.mpc.MPC.act", noted)
        predictions(run, 20)
    obs = torch.tensor(table.obs, dtype=torch.float32)
    p = run.parts.dynamics.predict(obs[:-1], torch.cat(actions))
    scale = (obs[1:] - obs[:-1]).std(0, correction=0)
    for expected, values in (
        (((p.mean.std(0, correction=0) / scale) ** 2).mean(-1) ** 0.5, table.epistemic),
        ((p.var.mean(0) / scale**2).mean(-1) ** 0.5, table.aleatoric),
        ((((p.mean.mean(0) - obs[1:]) / scale) ** 2).mean(-1) ** 0.5, table.error),
    ):
        np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-4)


def test_predictions_are_stored_for_one_model(run, table, tmp_path):
    save_predictions(tmp_path / "x.npz", fingerprint(run.path, 60), table)
    loaded = load_predictions(tmp_path / "x.npz", fingerprint(run.path, 60))
    assert (loaded.names, loaded.fan_start, loaded.planned) == (table.names, table.fan_start, table.planned)
    np.testing.assert_array_equal(loaded.fan, table.fan)
    assert load_predictions(tmp_path / "x.npz", fingerprint(run.path, 61)) is None
    (tmp_path / "x.npz").write_bytes(b"none")
    assert load_predictions(tmp_path / "x.npz", fingerprint(run.path, 60)) is None


def test_pictures_have_an_axis_for_each_dimension_and_the_truth_in_it(table):
    trajectory, fan, uncertainty = pictures(table)
    for plot in (trajectory, fan):
        shown = [ax for ax in plot.figure.axes if ax.get_visible()]
        assert [ax.get_title(loc="left") for ax in shown] == table.names
        for i, ax in enumerate(shown):
            (real,) = [line for line in ax.get_lines() if line.get_label() == "real"]
            x, y = real.get_data()
            np.testing.assert_array_equal(y, table.obs[x.astype(int), i])
    assert [line.get_label() for line in uncertainty.figure.axes[0].get_lines()] == ["error", *MEMBERS]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("InvertedPendulum-v5", StateLayout(0, 0)),
        ("Hopper-v5", StateLayout(0, 1)),
        ("HalfCheetah-v5", StateLayout(0, 1)),
        ("Swimmer-v5", StateLayout(0, 2)),
        ("Reacher-v5", None),
    ],
)
def test_layout_of_observations_is_read_off_an_episode(env, expected):
    with gymnasium.make(env) as task:
        obs, _ = task.reset(seed=1)
        task.action_space.seed(1)
        rows, states = [], []
        for _ in range(8):
            rows.append(obs)
            states.append((task.unwrapped.data.qpos.copy(), task.unwrapped.data.qvel.copy()))
            obs, *_ = task.step(task.action_space.sample())
    assert layout_of(np.array(rows), *map(np.array, zip(*states, strict=True))) == expected


def test_states_of_a_perfect_rollout_are_the_real_ones(table):
    perfect = table._replace(replayed=table.obs)
    qpos, qvel = states_of(perfect, StateLayout(0, 0), 0.02)
    np.testing.assert_allclose(qpos, table.qpos, atol=1e-5)
    np.testing.assert_allclose(qvel, table.qvel, atol=1e-5)


def test_hidden_positions_follow_the_predicted_velocity(table):
    """x of the root is not observed: it is the integral of its velocity."""
    moving = table._replace(qpos=np.zeros((20, 2)), qvel=np.zeros((20, 2)), replayed=np.tile([0.5, 3.0, 1.0], (21, 1)))
    qpos, _ = states_of(moving, StateLayout(0, 1), 0.1)
    np.testing.assert_allclose(qpos[:, 0], 0.3 * np.arange(20))


def test_report_shows_predictions_once_computed(run, tmp_path, monkeypatch):
    monkeypatch.setattr("mbkit.report.pictured.predictions", lambda loaded: predictions(loaded, 6))
    html = write_report([run.path], tmp_path / "page.html", pictures=True).read_text()
    for title in ("Planned and real trajectory", "Fan of the ensemble", "Uncertainty over time"):
        assert title in html
    no_renderer = "No film of real beside predicted states" in html
    assert no_renderer or html.count("data:video/mp4") == 1
    monkeypatch.setattr("mbkit.report.pictured.computed", lambda *_: pytest.fail("they are stored"))
    again = of_run(read_run(run.path), tmp_path)
    assert [plot.name for plot in again.plots] == ["planned_trajectory", "ensemble_fan", "uncertainty"]
    assert bool(again.films) is not no_renderer


def test_report_of_a_run_that_cannot_be_loaded_says_why(run, tmp_path):
    (tmp_path / "copy").mkdir()
    for name in ("config.yaml", "metrics.jsonl", "summary.json"):
        (tmp_path / "copy" / name).write_text((run.path / name).read_text())
    html = write_report([tmp_path / "copy"], tmp_path / "page.html", pictures=True).read_text()
    assert "No predictions are shown: " in html
    assert "Fan of the ensemble" not in html


def test_predictions_of_a_run_without_a_model_are_refused(run, monkeypatch):
    monkeypatch.setattr(run.parts, "dynamics", None)
    with pytest.raises(UserError, match="has no learned model"):
        predictions(run)
