"""Policies judged by a data set: estimates, rankings, and everything that is refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from pendulum_data import pendulum
from pets_runs import TINY
from recorded import dataset
from typer.testing import CliRunner

import mbkit
from mbkit import cli
from mbkit.data import read, write
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.run import ranking
from mbkit.run.judging import PolicyValue
from mbkit.storage import write_json
from mbkit.types import EnvSpec

SMALL = ("agent.hidden=[8]", "loop.batch_size=16", "loop.log_every=10", "threads=1", "checkpoint.keep=all", "checkpoint.every=10")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, two runs on it, with an environment and without, and a model of it."""
    here = tmp_path_factory.mktemp("judging")
    file = pendulum(here / "data.h5")
    for name, *options in (("one", "env=none"), ("two", "eval.video=false", "eval.episodes=1")):
        mbkit.train("td3_bc", f"data={file}", f"run_dir={here / name}", *SMALL, *options, "steps=20")
    model = Ensemble(EnvSpec(3, 1, torch.device("cpu")), EnsembleConfig(members=2, elites=1, hidden=(8,), max_epochs=1))
    model.fit(read(file).buffer(model.spec).all())
    model.save(here / "dynamics.pt", env="none")
    return here


def call(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_a_line_for_each_run_and_method(place: Path) -> None:
    runs = [place / "one", place / "two"]
    options = ("--method", "fqe,model", "--dynamics", place / "dynamics.pt", "--horizon", 3, "--updates", 20)
    lines = [json.loads(line) for line in call("evaluate", *runs, "--data", place / "data.h5", *options, "--json").splitlines()]
    assert [(line["run"], line["method"]) for line in lines] == [(str(run), method) for run in runs for method in ("fqe", "model")]
    assert all(line.keys() == {"run", "method", "value", "low", "high"} for line in lines)
    assert all(line["low"] <= line["value"] <= line["high"] for line in lines)
    again = mbkit.evaluate(runs, data=place / "data.h5", method=["fqe", "model"], dynamics=place / "dynamics.pt", horizon=3, updates=20)
    assert again == lines


def test_values_do_not_depend_on_the_other_runs(place: Path) -> None:
    both = mbkit.evaluate([place / "one", place / "two"], data=place / "data.h5", updates=10)
    assert mbkit.evaluate(place / "two", data=read(place / "data.h5"), updates=10) == both[1:]
    with mbkit.load(place / "two") as run:
        assert mbkit.evaluate(run, data=place / "data.h5", updates=10) == both[1:]


def test_checkpoints_are_judged_by_name(place: Path) -> None:
    named = mbkit.evaluate(f"{place / 'one'}@10", data=place / "data.h5", updates=10)[0]["value"]
    assert named == mbkit.evaluate(place / "one", data=place / "data.h5", updates=10, checkpoint=10)[0]["value"]
    assert named != mbkit.evaluate(place / "one", data=place / "data.h5", updates=10)[0]["value"]


def test_the_environments_value_is_discounted(place: Path) -> None:
    value = mbkit.evaluate(place / "two", data=place / "data.h5", method="environment", episodes=1, gamma=0.9)[0]
    with mbkit.load(place / "two") as run:
        rewards = [float(row.reward) for row in run.evaluate(1, keep_rows=True).rows]
    assert value["value"] == pytest.approx(sum(0.9**t * reward for t, reward in enumerate(rewards)), rel=1e-4)
    assert value["low"] is value["high"] is None


def test_fqe_stands_for_what_lies_beyond_the_horizon(place: Path) -> None:
    options = {"data": place / "data.h5", "dynamics": place / "dynamics.pt", "horizon": 1, "updates": 10}
    alone = mbkit.evaluate(place / "one", method="model", **options)[0]["value"]
    both = mbkit.evaluate(place / "one", method="fqe,model", **options)[1]["value"]
    assert alone != both
    assert abs(both - alone) < 1000


def test_the_ranking_is_told_with_what_it_is_compared_to(place: Path, tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        mbkit.train("bc", f"data={place / 'data.h5'}", "env=none", f"run_dir={tmp_path / name}", *SMALL, "steps=10", f"seed={number}")
    runs = [tmp_path / name for name in "ab"]
    silent = call("evaluate", *runs, "--data", place / "data.h5", "--updates", 5)
    assert "rank correlation" not in silent  # neither was scored
    for number, run in enumerate(runs):
        write_json(run / "summary.json", {"eval_return_mean": 10.0 * number})
    told = call("evaluate", *runs, "--data", place / "data.h5", "--updates", 5)
    assert "true returns: returns in summary.json, which are not discounted" in told
    assert "hold no bias of the fit" in told
    assert "fqe: rank correlation" in told
    assert "of the best 1, 0 of the best 2" in told


def test_regret_and_rank_correlation_by_hand() -> None:
    estimates = [PolicyValue(run, "fqe", value, 0, 0) for run, value in (("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 0.0))]
    true = {"a": 5.0, "b": 7.0, "c": 9.0, "d": -1.0}
    (result,) = ranking.rankings(estimates, true)
    assert result.regret == [4, 2, 0, 0]
    assert result.correlation == pytest.approx(1 - 6 * (4 + 0 + 4 + 0) / (4 * 15))
    assert math.isnan(ranking.rank_correlation([1, 1], [1, 2]))


REFUSED = {
    "unknown method": (["{one}", "--method", "fqr"], "unknown method 'fqr'; did you mean 'fqe'"),
    "twice": (["{one}", "--method", "fqe,fqe"], "each once"),
    "horizon of fqe": (["{one}", "--horizon", "5"], "horizon=5 counts only for the method model"),
    "no horizon": (["{one}", "--method", "model", "--horizon", "0"], "horizon=0: expected a whole number of at least 1"),
    "no model": (["{one}", "--method", "model"], "rolls a learned model, and .*one has none"),
    "no such model": (["{one}", "--method", "model", "--dynamics", "nowhere.pt"], "'nowhere.pt' does not exist"),
    "no environment": (["{one}", "--method", "environment"], "no environment"),
    "no run": (["nowhere"], "nowhere is not a run directory"),
    "discount": (["{one}", "--gamma", "1"], "gamma=1.0 is out of range"),
    "film": (["{one}", "--video"], "video counts only in an environment"),
    "no data": (["{one}", "{two}"], "2 runs are compared by a data set: --data FILE is missing"),
    "method without data": (["{one}", "--method", "fqe"], "--method counts only where policies are judged by a data set"),
    "other dimensions": (["{one}", "--data", "{other}"], "has 2 observations and 2 actions; the policy of .*one expects 3 obs"),
    "other action box": (["{one}", "--data", "{narrow}"], r"has actions in \[-1.0\] to \[1.0\]; the policy of .*one acts in \[-2.0\]"),
    "no rewards": (["{mute_run}", "--data", "{mute}"], "has no rewards, from which the method fqe"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_one_sentence(case: str, place: Path, tmp_path: Path) -> None:
    arguments, sentence = REFUSED[case]
    names = {"one": place / "one", "two": place / "two", "other": tmp_path / "other.h5", "narrow": tmp_path / "narrow.h5"}
    if case == "other dimensions":
        write(dataset([3, 4]), names["other"])
    if case == "other action box":
        pendulum(names["narrow"], low=-1, high=1)
    if case == "no rewards":
        names |= {"mute": write(dataset([30, 40], has_reward=False), tmp_path / "mute.h5"), "mute_run": tmp_path / "mute"}
        mbkit.train("bc", f"data={names['mute']}", "env=none", f"run_dir={names['mute_run']}", *SMALL, "steps=2")
    typed = [text.format(**names) for text in arguments]
    if "data" not in case:
        typed += [] if "--data" in typed else ["--data", str(place / "data.h5")]
    result = CliRunner().invoke(cli.app, ["evaluate", *typed])
    assert isinstance(result.exception, UserError), result.output
    with pytest.raises(UserError, match=sentence):
        raise result.exception


def test_runs_of_different_discounts_are_compared_by_one(place: Path, tmp_path: Path) -> None:
    mbkit.train("bc", f"data={place / 'data.h5'}", "env=none", f"run_dir={tmp_path / 'run'}", *SMALL, "steps=2", "gamma=0.9")
    with pytest.raises(UserError, match=r"gamma=0.99 and .* gamma=0.9: expected one discount, gamma=G"):
        mbkit.evaluate([place / "one", tmp_path / "run"], data=place / "data.h5", updates=2)
    assert len(mbkit.evaluate([place / "one", tmp_path / "run"], data=place / "data.h5", updates=2, gamma=0.9)) == 2


def test_a_planner_has_no_policy_to_judge(place: Path, tmp_path: Path) -> None:
    mbkit.train("pets", *TINY, "steps=60", f"run_dir={tmp_path / 'pets'}")
    with pytest.raises(UserError, match="pets has no policy but plans each action by a search"):
        mbkit.evaluate(tmp_path / "pets", data=place / "data.h5")
