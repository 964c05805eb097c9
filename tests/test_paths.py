"""Looking up, listing, reading and checking paths."""

import ast
import errno
import os
from pathlib import Path

import pytest

from mbkit.errors import UserError
from mbkit.paths import (
    check_file,
    check_folder,
    exists,
    is_dir,
    is_file,
    make_folder,
    matching,
    read_text,
    resolved,
    short,
)

ROOT = Path(__file__).parent.parent
IMPOSSIBLE = ["x" * 300, "d/" * 3000, "a\0b", "\ud800"]
LOOKING_UP = {"is_file", "is_dir", "exists", "glob", "rglob", "iterdir", "read_text", "mkdir", "resolve", "lstat"}
# files of the system or the package; directories inside a run's that was made, or inside a temporary one
ELSEWHERE = {
    "mbkit/loops/memory.py": 2,
    "mbkit/data/scores.py": 1,
    "mbkit/data/minari_writer.py": 2,
    "mbkit/recording/rundir.py": 3,
    "mbkit/recording/checkpoint.py": 1,
    "mbkit/theory/experiment.py": 1,
    "mbkit/hub.py": 1,
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_lookups_of_a_name_that_no_file_can_have_are_false(name, tmp_path):
    for path in (name, tmp_path / name):
        assert (exists(path), is_file(path), is_dir(path), matching(path, "*")) == (False, False, False, [])


def test_lookups_agree_with_pathlib(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to file").symlink_to("file")
    for name in ("", "file", "link", "to file", "absent", "file/below", "absent/below"):
        path = tmp_path / name
        assert (exists(path), is_file(path), is_dir(path)) == (path.exists(), path.is_file(), path.is_dir())
    assert not exists(tmp_path / "loop")
    assert is_dir("") and exists(os.devnull) and not is_file(os.devnull)  # noqa: PT018


@pytest.mark.parametrize("look_up", [exists, is_file, is_dir, lambda path: matching(path, "*"), check_file, make_folder])
def test_lookups_that_the_system_refuses_are_told(look_up, monkeypatch, tmp_path):
    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match=r"secret.*cannot be looked up \(Permission denied\)"):
        look_up("secret")


def test_matching_is_sorted_and_takes_the_name_alone(tmp_path):
    folder = tmp_path / "[a]*"
    folder.mkdir()
    for name in ("b.yaml", "a.yaml", ".c.yaml", "a.yml", "A.YAML"):
        (folder / name).write_text("")
    assert [path.name for path in matching(folder, "*.yaml")] == [".c.yaml", "a.yaml", "b.yaml"]
    assert matching(folder / "a.yaml", "*") == []


def test_matching_of_a_directory_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UserError, match=r"cannot be listed \(Permission denied\)"):
        matching(tmp_path, "*")


@pytest.mark.parametrize(
    ("name", "why"), [("absent", "No such file"), ("", "Is a directory"), ("x" * 300, "too long"), ("a\0b", "null"), ("latin", "utf-8")]
)
def test_read_text_that_fails_is_one_sentence(name, why, tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe9\xff")
    with pytest.raises(UserError, match=why) as told:
        read_text(tmp_path / name)
    assert str(told.value).isprintable()
    assert read_text(tmp_path / "latin", errors="replace") == "\ufffd\ufffd"


def test_resolved_circle_of_links_is_told(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for path in (tmp_path / "one", "a\0b"):
        with pytest.raises(UserError, match="cannot be looked up"):
            resolved(path)
    assert resolved(tmp_path / "a" / "..") == tmp_path.resolve()


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_checks_refuse_a_name_that_no_file_can_have_and_make_nothing(name, tmp_path):
    for path in (tmp_path / name, tmp_path / "absent" / name):
        for attempt in (check_file, lambda path: check_file(path, makes_folders=True), make_folder):
            with pytest.raises(UserError, match="cannot be"):
                attempt(path)
        with pytest.raises(OSError, match=r".+"):
            check_folder(path)
    assert list(tmp_path.iterdir()) == []


def test_check_file_counts_the_letters_of_the_temporary_file(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(".tmp")
    check_file(tmp_path / ("x" * longest))
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        check_file(tmp_path / ("x" * (longest + 1)))
    check_folder(tmp_path / ("x" * (longest + 1)))


def test_check_file_needs_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for name, sentence in {
        "": "it is a directory",
        "absent/x": "there is no directory .*absent",
        "file/x": "there is no directory .*file",
    }.items():
        with pytest.raises(UserError, match=f"cannot be written: {sentence}"):
            check_file(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        check_file(tmp_path / "file/x/y", makes_folders=True)
    check_file(tmp_path / "absent/x/y", makes_folders=True)
    check_file(tmp_path / "file")


def test_check_folder_counts_what_is_to_lie_below(tmp_path):
    most = os.pathconf(tmp_path, "PC_PATH_MAX") - 1 - len(str(tmp_path)) - 1  # the last letter of all is a NUL
    path = tmp_path / "/".join(["d" * 199] * (most // 200))
    check_folder(path)
    with pytest.raises(OSError, match="too long"):
        check_folder(path, "d" * 200 + "/some/file")


def test_make_folder_makes_all_or_tells_why(tmp_path):
    make_folder(tmp_path / "a/b")
    make_folder(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file cannot be made \(it is a file\)"):
        make_folder(tmp_path / "file")
    with pytest.raises(UserError, match=r"file/below cannot be made \(Not a directory\)"):
        make_folder(tmp_path / "file/below")


def test_short_is_one_line_and_leaves_usual_paths_alone():
    for text in ("runs/sac/Hopper-v5/0-20260101-120000", "/home/user/é/a b.yaml", "C:\\runs", ""):
        assert short(text) == short(Path(text) if text else text) == text
    assert short("a\nb\0\udcff\t") == r"a\nb\x00\udcff\t"
    assert short("runs/" + "x" * 200 + ".pt") == "runs/" + "x" * 50 + "…" + "x" * 30 + ".pt"
    assert len(short("d/" * 3000)) < 300


def test_paths_are_looked_up_by_these_functions_alone():
    """pathlib's own raise for names that are too long; `ELSEWHERE` counts the calls on paths that nobody types."""
    calls: dict[str, int] = {}
    for file in (ROOT / "mbkit").rglob("*.py"):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)) if any(f".{name}(" in text for name in LOOKING_UP) else ():
            name = file.relative_to(ROOT).as_posix()
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOKING_UP and is_pathlibs(node):
                calls[name] = calls.get(name, 0) + 1
    del calls["mbkit/paths.py"]
    assert calls == ELSEWHERE


def is_pathlibs(call: ast.Call) -> bool:
    """Whether a call may be one of a path's methods, which take a pattern or nothing but keywords."""
    return not call.args or call.func.attr in ("glob", "rglob")
