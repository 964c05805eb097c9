"""The example of a plant's log: its record, its least squares, its rollouts and its chain, on plants that are known exactly."""

import numpy as np
import pytest
from plant_logs import FEEDBACK, INPUT, example, function_file, linear_log
from typer.testing import CliRunner

from mbkit import cli
from mbkit.data import read

QUICK = (
    "dynamics.hidden=[16]",
    "dynamics.members=2",
    "dynamics.elites=2",
    "dynamics.batch=32",
    "dynamics.max_epochs=150",
    "dynamics.lr=3e-3",
)


@pytest.fixture(scope="module")
def plant():
    return example()


def command_line(arguments):
    """One command of mbkit in this process, in place of the example's own."""
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.exception


# --- the record -----------------------------------------------------------------------------------------------------------------------


def test_records_are_the_blocks_of_the_function_file_column_by_column(plant):
    record = plant.records(function_file(dryer_rows=300, arm_rows=40))
    u, y = record["hair_dryer"]
    assert u.shape == y.shape == (300, 1)
    heat = y[:, 0]
    expected = 1.1 * heat[1:-1] - 0.4 * heat[:-2] + 0.2 * u[1:-1, 0] + 0.1 * u[:-2, 0]
    assert np.allclose(heat[2:], expected)  # only in the right order
    for ours, theirs in zip(record["cd_arm"], linear_log(40, lead=1), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_function_file_without_the_blocks_is_refused(plant):
    with pytest.raises(SystemExit, match=r"expected the blocks Y, U and UY in moen4.m, got Y"):
        plant.records("%! Y = [ 1 2\n%!       3 4 ];\n")
    with pytest.raises(SystemExit, match="got none"):
        plant.records("nothing")


def test_table_moves_inputs_to_the_row_from_which_they_act_and_marks_the_parts(plant, tmp_path):
    u, y = np.arange(20.0).reshape(10, 2), -np.arange(10.0)[:, None]
    for lead, count in ((0, 10), (1, 9)):
        names, rows = plant.table(u, y, lead)
        assert names == ["y1", "u1", "u2", "part"]
        assert len(rows) == count
        plant.write_csv(tmp_path / "log.csv", names, rows)
        parts = [plant.read_csv(tmp_path / "log.csv", part) for part in ("train", "test")]
        assert len(parts[0][0]) == round(0.7 * count)
        assert np.array_equal(np.concatenate([part[0] for part in parts]), u[lead:])
        assert np.array_equal(np.concatenate([part[1] for part in parts]), y[: 10 - lead])


# --- models ---------------------------------------------------------------------------------------------------------------------------


def test_least_squares_recovers_the_coefficients_of_an_arx_system(plant):
    u, y = linear_log(200)
    predict = plant.least_squares(u, y, 2)
    constant = predict(np.zeros((1, 6)), np.zeros((1, 2)))[0]
    weights = predict(np.eye(8)[:, :6], np.eye(8)[:, 6:]) - constant  # y[t], y[t-1], u[t-1], u[t]
    assert np.allclose(constant, 0.5)
    assert np.allclose(weights, np.concatenate((FEEDBACK[0].T, FEEDBACK[1].T, INPUT[1].T, INPUT[0].T)))


def test_largest_pole_is_that_of_the_companion_matrix(plant):
    u, y = linear_log(200)
    companion = np.block([[FEEDBACK[0], FEEDBACK[1]], [np.eye(2), np.zeros((2, 2))]])
    expected = np.abs(np.linalg.eigvals(companion)).max()
    assert plant.largest_pole(plant.least_squares(u, y, 2), 2, 2, 2) == pytest.approx(expected)


def test_least_squares_of_a_noisy_system_is_close_and_of_too_low_an_order_is_not(plant):
    u, y = linear_log(3000, noise=0.05)
    errors = [plant.open_loop(plant.least_squares(u, y, order), u, y, order) for order in (1, 2)]
    assert errors[1][0] == pytest.approx(0.05 * np.sqrt(np.mean(1 / y.var(0))), rel=0.05)  # the noise alone
    assert errors[0][0] > 1.3 * errors[1][0]


def test_histories_are_those_that_convert_writes_and_shifting_gives_the_next_one(plant, tmp_path):
    u, y = linear_log(40)
    plant.write_csv(tmp_path / "log.csv", *plant.table(u, y, 0))
    for order in (1, 2, 4):
        options = {"obs": "y1,y2", "action": "u1,u2", "low": -1, "high": 1, "episode": "part", "history": order}
        data = read(tmp_path / "log.csv", **options).between(0, 1).columns()
        part = plant.read_csv(tmp_path / "log.csv", "train")
        obs = plant.histories(*part, order)
        assert np.array_equal(obs[:-1], data.obs)
        assert np.array_equal(obs[1:], data.next_obs)
        assert np.array_equal(plant.shifted(data.obs, data.action, data.next_obs[:, :2], order), data.next_obs)


def test_open_loop_of_the_true_system_is_exact_at_every_horizon(plant):
    u, y = linear_log(120)

    def truth(obs, inputs):
        return obs[:, :2] @ FEEDBACK[0].T + obs[:, 2:4] @ FEEDBACK[1].T + inputs @ INPUT[0].T + obs[:, 4:6] @ INPUT[1].T + 0.5

    assert max(plant.open_loop(truth, u[60:], y[60:], 2)) < 1e-12
    constant = plant.open_loop(lambda obs, inputs: np.tile(y[60:].mean(0), (len(obs), 1)), u[60:], y[60:], 2)
    assert constant == pytest.approx([1, 1, 1], rel=0.5)


def test_open_loop_without_shift_takes_the_whole_prediction(plant):
    u, y = linear_log(120)
    arx = plant.least_squares(u, y, 2)
    whole = plant.open_loop(lambda obs, inputs: plant.shifted(obs, inputs, arx(obs, inputs), 2), u, y, 2, shift=False)
    assert max(whole) < 1e-9
    spoiled = plant.open_loop(lambda obs, inputs: np.concatenate((arx(obs, inputs), 0 * obs[:, 2:]), 1), u, y, 2, shift=False)
    assert spoiled[0] < 1e-9
    assert spoiled[1] > 0.1


# --- the chain ------------------------------------------------------------------------------------------------------------------------


def test_chain_from_a_function_file_to_small_open_loop_errors_of_the_exported_model(plant, tmp_path, monkeypatch, capsys):
    (tmp_path / "moen4.m").write_text(function_file())
    monkeypatch.setattr(plant, "run", command_line)
    plant.main([str(tmp_path), "--file", str(tmp_path / "moen4.m"), "--plants", "cd_arm", "--seeds", "1", "--order", "2", "--fit", *QUICK])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| cd_arm")]
    errors = [[float(cell.split()[0]) for cell in line.split("|")[2:-1]] for line in lines]
    arx, shifted, predicted = errors
    assert max(arx) < 1e-9
    assert shifted[0] < 0.1
    assert max(shifted) < 0.3
    assert predicted[0] == shifted[0]
    assert read(tmp_path / "cd_arm.h5").rows == round(0.7 * 399) - 2
    assert (tmp_path / "cd_arm-1.onnx").is_file()


def test_wrong_lead_costs_the_arx_model_its_accuracy(plant):
    u, y = linear_log(400, lead=1)
    names = {}
    for lead in (0, 1):
        numbers = np.array([[float(cell) for cell in row[:-1]] for row in plant.table(u, y, lead)[1]])
        inputs, outputs = numbers[:, 2:], numbers[:, :2]
        names[lead] = plant.open_loop(plant.least_squares(inputs, outputs, 2), inputs, outputs, 2)
    assert max(names[1]) < 1e-9
    assert names[0][0] > 0.1


def test_download_without_apt_names_what_is_needed(plant, monkeypatch):
    monkeypatch.setattr(plant.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"expected apt-get and dpkg .*--file names the moen4.m"):
        plant.download()
