"""Runs on the Hugging Face Hub: a model card, a run as a repository, and a repository as a run directory again.

`huggingface_hub` is an extra, imported when it is used. It finds its token itself: `hf auth login`, or HF_TOKEN.
"""

import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from mbkit.errors import UserError
from mbkit.paths import check_folder, exists, is_file, make_folder, matching, read_text, reason, short
from mbkit.recording import named_checkpoint
from mbkit.recording.checkpoint import best_checkpoint, checkpoints
from mbkit.report.collect import RunRecord, number, read_run
from mbkit.report.command import command
from mbkit.run.reading import read_config

CARD = "README.md"
FILES = ("config.yaml", "metrics.jsonl", "warnings.jsonl", "summary.json", "data.json", "diagnostics.json", "dynamics.pt")
PARTS = (r"checkpoint/step-\d+\.(?:pt|json)", r"videos/[\w.-]+\.(?:mp4|png)", r"plots/[\w.-]+\.png")
PULLED = re.compile("|".join([*map(re.escape, (*FILES, CARD)), *PARTS]))
FILM = "replay.mp4"  # the name under which the Hub shows a film beside the card
LOGIN = "`hf auth login`, or the variable HF_TOKEN, logs you in"


def card(directory: str | Path, repo: str = "USER/NAME") -> str:
    """The model card of a run, Markdown with a head of YAML; paths of this machine are left out.

    Args:
        directory: the run directory.
        repo: the repository that the card is for, named in its commands.

    Raises:
        UserError: no run.
    """
    read_config(directory)
    run = public(read_run(Path(directory)))
    head = yaml.safe_dump(card_data(run), sort_keys=False, allow_unicode=True)
    folder = default_out(repo).as_posix()
    notes = run.summary.get("notes", []) if run.finished else [f"Not finished: step {run.steps} of {run.planned}."]
    listed = "".join(f"\n- {note}" for note in notes)
    lines = [
        f"---\n{head}---\n",
        f"# {run.algo} on {run.task}\n",
        "A run of [mbkit](https://huggingface.co/models?library=mbkit), model-based reinforcement learning on PyTorch and MuJoCo.\n",
        "| | |\n|---|---|",
        *(f"| {name} | {value} |" for name, value in facts(run).items()),
        *([listed] if listed else []),
        "\n## Use\n",
        f'```bash\npip install "mbkit[hub]"\nmbkit pull {repo}\nmbkit evaluate {folder}\n```\n',
        f'```python\nimport mbkit\n\nrun = mbkit.load("{folder}")\naction = run.act(obs)  # of an observation, in units of the task\n```\n',
        f"## Train it again\n\n```bash\n{command(run)}\n```\n",
        f"## Hyperparameters\n\n```yaml\n{run.config_text.strip()}\n```",
    ]
    return "\n".join(lines) + "\n"


def card_data(run: RunRecord) -> dict[str, Any]:
    """The head of the card: what the Hub searches by, and the scores of a finished run."""
    data: dict[str, Any] = {"library_name": "mbkit", "pipeline_tag": "reinforcement-learning"}
    data["tags"] = ["mbkit", "reinforcement-learning", *(["offline-reinforcement-learning"] if run.data else []), run.algo, run.task]
    mean, std, _ = run.final()
    scores = {"mean_reward": mean, "std_reward": std, "best_mean_reward": run.best}
    known = {name: round(value, 4) for name, value in scores.items() if math.isfinite(value)}
    metrics = [{"type": name, "name": name, "value": value, "verified": False} for name, value in known.items()]
    if run.finished and metrics:
        task, place = {"type": "reinforcement-learning", "name": "reinforcement-learning"}, {"name": run.task, "type": run.task}
        data["model-index"] = [{"name": f"{run.algo}-{run.task}", "results": [{"task": task, "dataset": place, "metrics": metrics}]}]
    return data


def facts(run: RunRecord) -> dict[str, str]:
    """The table of the card."""
    mean, std, episodes = run.final()
    table = {"algorithm": f"`{run.algo}`", "environment": f"`{run.env}`", "seed": str(run.seed), run.unit: str(run.steps)}
    if math.isfinite(mean) and run.finished:
        table["return of the final policy"] = f"{mean:.1f} ± {std:.1f} over {episodes} fresh episodes"
    if math.isfinite(run.best):
        table["best evaluation while training"] = f"{run.best:.1f}"
    table["wall-clock time"] = f"{number(run.wall_seconds, 0.0):.0f} s on {run.summary.get('device', run.config.get('device', '?'))}"
    versions = run.summary.get("versions", {})
    table["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return {name: value for name, value in table.items() if value}


def public(run: RunRecord) -> RunRecord:
    """The run without paths of this machine: no run directory, and of its data set the name."""
    data = run.config.get("data")
    text = without_run_dir(run.config_text)
    if data is not None:
        text = text.replace(str(data), Path(str(data)).name)
    config = {**run.config, "run_dir": None, **({} if data is None else {"data": Path(str(data)).name})}
    return replace(run, config=config, config_text=text)


def without_run_dir(text: str) -> str:
    """A config.yaml whose run directory is the default one."""
    return re.sub(r"(?m)^run_dir:.*$", "run_dir: null", text)


def default_out(repo: str) -> Path:
    """Where a repository is put, runs/hub/USER-NAME."""
    return Path("runs", "hub", re.sub(r"[^\w.-]", "-", repo))


# --- push ------------------------------------------------------------------------------------------------------------------------------


def push(directory: str | Path, repo: str, private: bool = False) -> str:
    """Publish a run as the repository USER/NAME: its card, files, last and best checkpoint, figures and films; returns its address.

    The lock, trackers' files and reports stay here, as does the path of the run directory.

    Raises:
        UserError: no run, one without a checkpoint, a repository that cannot be written to.
    """
    hub, path = library(), Path(directory)
    read_config(path)
    files = published(path)
    if not any(name.startswith("checkpoint/") for name in files):
        raise UserError(f"{short(directory)} has no checkpoint to publish: expected checkpoint/step-N.pt")
    content: dict[str, Any] = {name: str(file) for name, file in files.items()}
    content["config.yaml"] = without_run_dir(read_text(path / "config.yaml")).encode()
    content[CARD] = card(path, repo).encode()
    operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=source) for name, source in content.items()]
    with told(repo, "written to"):
        api = hub.HfApi(library_name="mbkit")
        api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(repo, operations, commit_message="A run of mbkit")
    return f"{api.endpoint}/{repo}"


def published(path: Path) -> dict[str, Path]:
    """The files of a run that are published, by their names in the repository."""
    stored = {*checkpoints(path / "checkpoint")[-1:], best_checkpoint(path / "checkpoint")} - {None}
    chosen = [path / name for name in FILES]
    chosen += [file for pt in sorted(stored, key=str) if pt is not None for file in (pt, pt.with_suffix(".json"))]
    films = matching(path / "videos", "*.mp4")
    chosen += [file for film in films[-1:] for file in (film, film.with_suffix(".png"))] + matching(path / "plots", "*.png")
    named = {file.relative_to(path).as_posix(): file for file in chosen if is_file(file)}
    return {**named, FILM: films[-1]} if films else named


# --- pull ------------------------------------------------------------------------------------------------------------------------------


def pull(repo: str, out: str | Path | None = None, revision: str | None = None) -> Path:
    """Fetch the run in the repository USER/NAME into a new directory, by default runs/hub/USER-NAME; returns the directory.

    Only files that runs have are fetched, and they are a run only if the configuration is valid and the checkpoint can be read without
    pickle; else nothing remains. No code that the configuration may name is imported.

    Raises:
        UserError: no such repository or revision, one that holds no run, a directory that exists.
    """
    hub, path = library(), default_out(repo) if out is None else Path(out)
    if exists(path):
        raise UserError(f"{short(path)} exists already: expected a new directory, --out names another")
    with suppress(OSError):
        check_folder(path)
    make_folder(path.parent)
    with TemporaryDirectory(dir=path.parent, prefix=".pull-") as temporary:
        with told(repo, "read"):
            api = hub.HfApi(library_name="mbkit")
            names = [name for name in api.list_repo_files(repo, revision=revision) if PULLED.fullmatch(name)]
            if "config.yaml" not in names or not any(name.startswith("checkpoint/") for name in names):
                raise UserError(f"{repo} is no run of mbkit: expected config.yaml and checkpoint/step-N.pt in it")
            for name in names:
                api.hf_hub_download(repo, name, revision=revision, local_dir=temporary)
        shutil.rmtree(Path(temporary, ".cache"), ignore_errors=True)
        check_run(repo, Path(temporary))
        try:
            Path(temporary).rename(path)
        except OSError as error:
            raise UserError(f"{short(path)} cannot be written ({reason(error)})") from error
        Path(temporary).mkdir()  # for the end of the block
    path.chmod(0o755)
    return path


def check_run(repo: str, path: Path) -> None:
    """UserError where the files in `path` are no run that can be loaded without pickle."""
    try:
        read_config(path)
        named_checkpoint(path / "checkpoint", "last")
    except UserError as error:
        raise UserError(f"{repo} is no run that can be read here: {str(error).replace(str(path), repo)}") from error


def library() -> Any:
    """huggingface_hub; UserError where it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError('huggingface_hub is not installed; `pip install "mbkit[hub]"` brings it') from error
    return huggingface_hub


@contextmanager
def told(repo: str, what: str) -> Iterator[None]:
    """Failures of the Hub as one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the library, of HTTP, of the network
        raise UserError(_sentence(repo, what, error)) from error


def _sentence(repo: str, what: str, error: Exception) -> str:
    kinds, status = import_module("huggingface_hub.errors"), getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, kinds.HFValidationError):
        return f"{short(repo)!r} is no name of a repository: expected USER/NAME"
    if isinstance(error, kinds.RevisionNotFoundError):
        return f"{repo} has no such revision on the Hub: expected a branch, a tag or a commit"
    if isinstance(error, kinds.RepositoryNotFoundError) and what == "read":
        return f"there is no repository {repo} on the Hub, or it is private and you are not logged in ({LOGIN})"
    if isinstance(error, kinds.LocalTokenNotFoundError) or status == 401:
        return f"{repo} cannot be {what}: you are not logged in to the Hub ({LOGIN})"
    if status == 403:
        return f"{repo} cannot be {what}: your token does not allow it; expected one with write access to a repository of your own"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{repo} cannot be {what}: the Hub could not be reached or refused ({text})"
