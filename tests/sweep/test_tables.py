"""Tables of a sweep: what they say, and that they fit a terminal of 80 columns."""

import json
import math

import numpy as np
import pytest
from rich.console import Console

from mbkit.stats import bootstrap
from mbkit.sweep.planning import Combination, Planned, planned
from mbkit.sweep.results import row_of
from mbkit.sweep.tables import numbers, plan_table, result_table, span

RETURNS = [3.0, 5.0, 4.0, 100.0]


def printed(table: object, width: int) -> list[str]:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


@pytest.fixture
def row(tmp_path):
    group = Combination("sac_lr=1e-3", "sac", "E", 10, (), {"agent.lr": "0.00123456"})
    for seed, value in enumerate(RETURNS):
        path = tmp_path / Planned(group, seed).name
        path.mkdir(parents=True)
        (path / "summary.json").write_text(json.dumps({"eval_return_mean": value, "wall_seconds": 90.0}))
    return row_of(tmp_path, group, range(6))


def test_a_group_s_figures_are_those_of_its_finished_runs(row):
    assert (row.runs, row.returns, row.seconds) == (4, RETURNS, 90.0)
    assert row.median == np.median(RETURNS)
    assert row.iqm == bootstrap(RETURNS)
    assert row.iqm.point == pytest.approx(4.5)  # the middle half of four


def test_the_table_of_results(row):
    head, line = printed(result_table([row], ["agent.lr"]), 80)
    assert head.split() == ["group", "lr", "runs", "median", "IQM", "95", "%", "interval", "minutes"]
    assert line.split()[:5] == ["sac_lr=1e-3", "0.00123", "4", "4.5", "4.5"]
    assert line.split()[-1] == "1.5"


def test_a_group_without_a_finished_run_has_empty_figures(tmp_path):
    empty = row_of(tmp_path, Combination("sac", "sac", "E", 10, (), {}), [0])
    assert math.isnan(empty.median)
    assert math.isnan(empty.iqm.point)
    assert printed(result_table([empty]), 80)[1].split() == ["sac", "0"]


def test_the_plan_has_a_column_for_each_option_that_differs_and_fits_80_columns():
    plan = planned(
        "dqn,double_dqn", ["env=CartPole-v1,Acrobot-v1", "agent.lr=1e-4,3e-4", "double_dqn:loop.batch_size=32,64", "gamma=0.9"], [1, 2, 3]
    )
    head, *lines = printed(plan_table(plan, None), 80)
    assert head.split() == ["algorithm", "environment", "lr", "batch_size", "steps", "seeds"]
    assert len(lines) == len(plan.groups) == 12
    assert max(map(len, [head, *lines])) <= 80
    assert lines[0].split() == ["dqn", "CartPole-v1", "1e-4", "30", "000", "1..3"] or lines[0].split()[-1] == "1..3"
    searched = planned("dqn", ["agent.lr=log(1e-5..1e-3)"], [1])
    assert "log(1e-05..0.001)" in printed(plan_table(searched, 20), 80)[1]


def test_numbers_and_seeds_are_short():
    assert numbers(3.14159, 2.0) == ["3.14", "2.00"]
    assert numbers(0.5) == ["0.500"]
    assert numbers(1234.56, math.nan) == ["1234.6", "nan"]
    assert [span([5]), span([1, 2, 3]), span([1, 3]), span(list(range(0, 40, 2)))] == ["5", "1..3", "1,3", "0,…,38"]
