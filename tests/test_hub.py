"""Publishing runs: cards, and the way to the Hub and back, where only HTTP is replaced."""

import json
import re

import pytest
import yaml
from fake_hub import FakeHub
from run_directories import make_run
from typer.testing import CliRunner

import mbkit
from mbkit import cli, hub
from mbkit.errors import UserError

OPTIONS = ("env=Pendulum-v1", "steps=60", "agent.hidden=[8]", "loop.warmup_steps=20", "loop.batch_size=8")
OPTIONS += ("eval.episodes=1", "eval.max_steps=20", "eval.video=false", "checkpoint.keep=best", "eval.every=30", "checkpoint.every=30")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a small run."""
    path = tmp_path_factory.mktemp("runs") / "sac"
    mbkit.train("sac", *OPTIONS, run_dir=str(path)).close()
    return path


@pytest.fixture
def there(monkeypatch, tmp_path):
    """The Hub, with the user "me" logged in; the working directory is an empty one."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    fake = FakeHub()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, fake.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", fake.endpoint)
    monkeypatch.setenv("HF_TOKEN", fake.token)
    monkeypatch.chdir(tmp_path)
    yield fake
    fake.close()


def head(text: str):
    """The YAML at the beginning of a card."""
    return yaml.safe_load(text.split("---\n")[1])


def test_card_holds_the_scores_of_summary_json(trained):
    text, summary = hub.card(trained, "me/pendulum"), json.loads((trained / "summary.json").read_text())
    data = head(text)
    assert data["library_name"] == "mbkit"
    assert {"sac", "Pendulum-v1", "reinforcement-learning"} <= set(data["tags"])
    [result] = data["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["mean_reward"] == pytest.approx(summary["eval_return_mean"], abs=1e-4)
    assert values["best_mean_reward"] == pytest.approx(summary["best_eval_return"], abs=1e-4)
    assert "mbkit pull me/pendulum" in text


def test_card_is_understood_by_the_hubs_library(trained):
    library = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    data = library.ModelCard(hub.card(trained)).data
    assert data.model_name == "sac-Pendulum-v1"
    assert {result.metric_type for result in data.eval_results} == {"mean_reward", "std_reward", "best_mean_reward"}


def test_card_has_the_command_that_repeats_the_run_and_no_path_of_this_machine(trained):
    text = hub.card(trained)
    line = next(line for line in text.splitlines() if line.startswith("mbkit train"))
    assert "steps=60" in line
    assert "agent.hidden=[8]" in line.replace("'", "")
    assert str(trained.parent) not in text


def test_card_of_a_run_that_is_not_finished_has_no_scores(tmp_path):
    text = hub.card(make_run(tmp_path / "run", algo="sac", env="Pendulum-v1", learned=False, finished=False))
    assert "model-index" not in head(text)
    assert "- Not finished: step 1400 of 3000." in text


def test_card_command_prints_or_writes(trained, tmp_path):
    printed = CliRunner().invoke(cli.app, ["card", str(trained)])
    assert printed.output.rstrip() == hub.card(trained).rstrip()
    assert CliRunner().invoke(cli.app, ["card", str(trained), "--out", str(tmp_path / "c.md")]).exit_code == 0
    assert (tmp_path / "c.md").read_text() == hub.card(trained)


def test_push_and_pull_bring_a_run_that_acts_as_the_original(trained, there, tmp_path):
    pushed = CliRunner().invoke(cli.app, ["push", str(trained), "me/pendulum"], catch_exceptions=False)
    assert pushed.output.splitlines()[-1] == f"{there.endpoint}/me/pendulum"
    stored = there.repos["me/pendulum"]
    assert {"README.md", "config.yaml", "metrics.jsonl", "summary.json"} <= set(stored)
    assert not {"run.lock", "report.html"} & set(stored)
    assert str(trained).encode() not in stored["config.yaml"]
    stored["evil.py"] = b"raise SystemExit"  # what no run has is not fetched
    stored["checkpoint/../../up.pt"] = b""
    pulled = CliRunner().invoke(cli.app, ["pull", "me/pendulum"], catch_exceptions=False)
    assert pulled.exit_code == 0
    path = tmp_path / "runs" / "hub" / "me-pendulum"
    assert "`mbkit evaluate runs/hub/me-pendulum`" in pulled.output
    assert {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} == set(stored) - {
        "evil.py",
        "checkpoint/../../up.pt",
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["me-pendulum"]
    with mbkit.load(path) as copy, mbkit.load(trained) as original:
        assert mbkit.evaluate(copy, 1) == mbkit.evaluate(original, 1)


def test_push_replaces_what_is_there_and_may_be_private(trained, there):
    hub.push(trained, "me/secret", private=True)
    first = dict(there.repos["me/secret"])
    hub.push(trained, "me/secret", private=True)
    assert there.repos["me/secret"] == first
    assert "me/secret" in there.private


def test_push_without_login_or_rights_says_so(trained, there, monkeypatch):
    with pytest.raises(UserError, match="you/x cannot be written to: your token does not allow it"):
        hub.push(trained, "you/x")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match="you are not logged in to the Hub"):
        hub.push(trained, "me/x")


def test_push_of_what_is_no_run_asks_nobody(tmp_path, there):
    with pytest.raises(UserError, match="is not a run directory"):
        hub.push(tmp_path, "me/x")
    with pytest.raises(UserError, match="has no checkpoint to publish"):
        hub.push(make_run(tmp_path / "run", algo="sac", env="Pendulum-v1", learned=False), "me/x")
    assert there.requests == []


@pytest.mark.parametrize(
    ("repo", "revision", "told"),
    [
        ("me/nothing", None, "there is no repository me/nothing on the Hub"),
        ("me/run", "v9", "me/run has no such revision"),
        ("me/text", None, "me/text is no run of mbkit"),
        ("a/b/c", None, "'a/b/c' is no name of a repository: expected USER/NAME"),
    ],
)
def test_pull_of_what_is_no_run_leaves_nothing(there, tmp_path, repo, revision, told):
    there.repos |= {"me/text": {"README.md": b"hello"}, "me/run": {}}
    with pytest.raises(UserError, match=re.escape(told)):
        hub.pull(repo, "here", revision)
    assert not (tmp_path / "here").exists()
    assert not list(tmp_path.glob(".pull*"))


def test_pull_refuses_a_checkpoint_that_needs_pickle_and_a_configuration_that_is_none(trained, there, tmp_path):
    import pickle

    hub.push(trained, "me/odd")
    stored = there.repos["me/odd"]
    sound = dict(stored)
    for name in [name for name in stored if name.endswith(".pt")]:
        stored[name] = pickle.dumps(object)
    with pytest.raises(UserError, match="me/odd is no run that can be read here"):
        hub.pull("me/odd", "here")
    there.repos["me/odd"] = {**sound, "config.yaml": b"algo: nonsense\n"}
    with pytest.raises(UserError, match="unknown algorithm 'nonsense'"):
        hub.pull("me/odd", "here")
    assert not (tmp_path / "here").exists()


def test_pull_into_a_directory_that_exists_is_refused_before_anything_is_asked(there, tmp_path):
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="here exists already"):
        hub.pull("me/run", "here")
    assert there.requests == []


def test_pull_names_code_that_loading_would_import(trained, there, tmp_path):
    hub.push(trained, "me/code")
    stored = there.repos["me/code"]
    stored["config.yaml"] = stored["config.yaml"].replace(b"env: Pendulum-v1", b"env: some_tasks:Pendulum-v1")
    pulled = CliRunner().invoke(cli.app, ["pull", "me/code", "--out", "code"], catch_exceptions=False)
    assert "it names code that is imported when it is loaded, env=some_tasks:Pendulum-v1" in pulled.output


def test_hub_that_cannot_be_reached_is_one_sentence(trained, there, monkeypatch):
    there.close()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the library's tries
    with pytest.raises(UserError, match="me/x cannot be read: the Hub could not be reached or refused"):
        hub.pull("me/x", "here")


def test_library_that_is_missing_names_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'`pip install "mbkit\[hub\]"` brings it'):
        hub.library()
