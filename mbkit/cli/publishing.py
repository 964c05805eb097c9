"""Commands that publish runs: card, push, pull."""

from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import RunDir, app, say

Repo = Annotated[str, typer.Argument(metavar="USER/NAME", help="a repository of the Hugging Face Hub")]


@app.command()
def card(
    directory: RunDir,
    out: Annotated[Path | None, typer.Option(help="path of the card, by default it is printed")] = None,
) -> None:
    """The model card of RUN: scores, hyperparameters, how to load it and how to train it again."""
    from mbkit.hub import card as text_of
    from mbkit.recording import shown, write_text

    text = text_of(directory)
    if out is None:
        say(text.rstrip())
    else:
        write_text(out, text)
        say(shown(out))


@app.command()
def push(
    directory: RunDir, repo: Repo, private: Annotated[bool, typer.Option("--private", help="make a new repository private")] = False
) -> None:
    """Publish RUN with its card on the Hugging Face Hub; `hf auth login` logs you in."""
    from mbkit.hub import push as publish

    say(publish(directory, repo, private))


@app.command()
def pull(
    repo: Repo,
    out: Annotated[Path | None, typer.Option(help="a new directory, by default runs/hub/USER-NAME")] = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="a branch, tag or commit, by default the newest")] = None,
) -> None:
    """Fetch a run from the Hugging Face Hub; nothing in it is executed, and nothing needs pickle."""
    from mbkit.config.imports import import_paths
    from mbkit.hub import pull as fetch
    from mbkit.recording import shown
    from mbkit.run.reading import read_config

    path = fetch(repo, out, revision)
    for key, named in import_paths(read_config(path)).items():
        say(f"note: it names code that is imported when it is loaded, {key}={named}; load it only if you trust that")
    say(f"run: {shown(path)}")
    say(f"`mbkit evaluate {shown(path)}` evaluates it, `mbkit report {shown(path)}` shows how it was trained")
