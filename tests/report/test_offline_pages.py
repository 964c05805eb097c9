"""Pages of runs on data sets: updates rather than environment steps, the data, and nothing of an environment where there is none."""

import json
from pathlib import Path

import pytest
from pendulum_data import pendulum

import mbkit
from mbkit.report import write_report

SMALL = ("agent.hidden=[8]", "loop.batch_size=16", "loop.log_every=10", "threads=1", "steps=40")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("pages")
    file = pendulum(here / "pendulum.h5")
    mbkit.train("td3_bc", f"data={file}", "env=none", f"run_dir={here / 'unscored'}", *SMALL)
    scored = ("eval.video=false", "eval.episodes=1", "eval.every=10")
    mbkit.train("td3_bc", f"data={file}", f"run_dir={here / 'scored'}", *SMALL, *scored)
    mbkit.finetune(here / "scored", f"run_dir={here / 'online'}", "steps=30", "loop.log_every=10", *scored)
    return here


def test_page_without_environment(place: Path) -> None:
    page = write_report([place / "unscored"]).read_text()
    assert "td3_bc <span>on pendulum.h5</span>" in page
    for text in (
        "not scored",
        "Gradient updates",
        "The data set",
        "Mean return of an episode",
        "Overestimation of the policy",
        "outside the data",
    ):
        assert text in page
    for text in ("nvironment steps", "No video", "Best evaluation", "on none"):
        assert text not in page


def test_page_of_a_scored_run_shows_the_datas_return(place: Path) -> None:
    page = write_report([place / "scored"]).read_text()
    assert "Return against gradient updates" in page
    assert "Dashed line: mean return of the episodes in the data set." in page
    data = json.loads((place / "scored/data.json").read_text())
    assert data["return_mean"] == pytest.approx(25 * (-0.5), abs=1)  # rewards of episode i lie about i - 2
    assert json.loads((place / "scored/summary.json").read_text())["data"] == data


def test_page_of_a_run_that_went_on_online(place: Path) -> None:
    page = write_report([place / "online"]).read_text()
    assert "Return against environment steps" in page
    assert "The data set" in page
    assert f"mbkit finetune {place / 'scored'}" in page
    assert "continues=" not in page
