"""The command that writes policies."""

import pytest
from exported_runs import train
from typer.testing import CliRunner

from mbkit import cli
from mbkit.errors import UserError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "sac", "sac", "env=Pendulum-v1", "checkpoint.every=30", "checkpoint.keep=all")


def test_export_prints_the_file_its_step_and_the_largest_difference(directory, tmp_path, capfd):
    for again in (False, True):
        result = CliRunner().invoke(cli.app, ["export", str(directory), "--out", str(tmp_path / "policy.pt2")])
        assert result.exit_code == 0, result.output
        first, second = result.stdout.splitlines()
        assert first == f"{tmp_path / 'policy.pt2'}{' (replaced)' * again}: the policy of step 60"
        assert second.startswith("largest difference from the run over 1000 observations: ")
        assert float(second.rpartition(" ")[2]) < 1e-5
    assert result.stderr == ""


def test_export_takes_a_checkpoint_and_refuses_others(directory, tmp_path):
    out = str(tmp_path / "policy.pt2")
    result = CliRunner().invoke(cli.app, ["export", str(directory), "--out", out, "--checkpoint", "30"])
    assert "the policy of step 30" in result.stdout
    for chosen in ("7", "worst"):
        result = CliRunner().invoke(cli.app, ["export", str(directory), "--out", out, "--checkpoint", chosen])
        assert isinstance(result.exception, UserError)
        assert "stored step" in str(result.exception)


def test_export_needs_a_path(directory):
    assert CliRunner().invoke(cli.app, ["export", str(directory)]).exit_code == 2
