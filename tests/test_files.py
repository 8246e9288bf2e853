import errno
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from segformer.errors import UserError
from segformer.files import disk_errors, read_json, recover_folder, write_bytes, write_folder, write_json

OLD, NEW = b"old " * 5000, b"new! " * 7000


class FillingDisk(io.FileIO):
    """A file on a disk that is full after half of what is written."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(original: Callable[..., Any], call: int, code: int) -> Callable[..., Any]:
    """Return a function that fails at its n-th call (counted from 1) and else does what the original does."""
    calls = 0

    def replacement(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(code, os.strerror(code))
        return original(*arguments, **options)

    return replacement


def break_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda self, mode: FillingDisk(str(self), mode))


def break_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 1, errno.EIO))


def break_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", failing(Path.replace, 1, errno.EACCES))


def test_write_bytes_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for data in (OLD, NEW, b""):
        write_bytes(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("break_step", [break_write, break_sync, break_rename])
def test_a_file_is_the_old_one_after_a_failure_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_step: Callable[[pytest.MonkeyPatch], None], existing: bool
) -> None:
    path = tmp_path / "file"
    if existing:
        path.write_bytes(OLD)
    break_step(monkeypatch)
    with pytest.raises(UserError, match=re.escape(f"{path}: ")):
        write_bytes(path, NEW)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    assert not existing or path.read_bytes() == OLD
    write_bytes(path, NEW)
    assert path.read_bytes() == NEW


def test_an_interruption_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", NEW)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, OLD)
    done = threading.Event()

    def write() -> None:
        for i in range(100):
            write_bytes(path, (NEW, OLD)[i % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= {OLD, NEW}


def test_a_full_disk_is_an_error_that_names_the_file_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    break_write(monkeypatch)
    with pytest.raises(UserError, match=r"no space.*\d+\.\d MiB free") as raised:
        write_bytes(path, NEW)
    assert str(raised.value).startswith(f"{path}: ")
    free = float(re.search(r"([\d.]+) MiB", str(raised.value))[1])  # type: ignore[index]
    usage = os.statvfs(tmp_path)
    assert free == pytest.approx(usage.f_bavail * usage.f_frsize / 2**20, rel=0.2, abs=100)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ENOSPC", "no space to write this file"),
        ("EDQUOT", "no space to write this file"),
        ("EACCES", "permission denied; change the permissions"),
        ("EROFS", "permission denied; change the permissions"),
        ("ENOENT", "no such file or folder"),
        ("EIO", os.strerror(errno.EIO)),
    ],
)
def test_errors_of_the_disk_name_the_file_and_the_reason(tmp_path: Path, code: str, message: str) -> None:
    number = getattr(errno, code)
    path = tmp_path / "missing" / "folder" / "file"
    with pytest.raises(UserError, match=re.escape(f"{path}: {message}")), disk_errors(path):
        raise OSError(number, os.strerror(number))


def test_a_folder_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file" / "below"))):
        write_bytes(tmp_path / "file" / "below", NEW)


def test_json_is_written_and_read(tmp_path: Path) -> None:
    values = {"name": "Straße", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", values)
    assert read_json(tmp_path / "a.json") == values
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"{'a': 1}", b"\xff\xfe{}", b"[1] 2"])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.json: expected JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_json_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")


def fill(data: bytes) -> Callable[[Path], None]:
    """Return a function that writes two files, of which each says the version."""

    def write(folder: Path) -> None:
        (folder / "first").write_bytes(data)
        (folder / "second").write_bytes(data)

    return write


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def both(data: bytes) -> dict[str, bytes]:
    return {"first": data, "second": data}


def test_write_folder_replaces_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "below" / "model"
    write_folder(path, fill(OLD))
    (path / "stray").write_text("left over")
    write_folder(path, fill(NEW))
    assert content(path) == both(NEW)
    assert list(path.parent.iterdir()) == [path]


def write_half(folder: Path) -> None:
    (folder / "first").write_bytes(NEW)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("existing", [False, True])
def test_a_folder_is_the_old_one_where_writing_fails(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "model"
    if existing:
        write_folder(path, fill(OLD))
    with pytest.raises(UserError, match="no space"):
        write_folder(path, write_half)
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    assert not existing or content(path) == both(OLD)


@pytest.mark.parametrize("rename", [1, 2])
def test_a_folder_is_the_old_one_where_a_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int
) -> None:
    path = tmp_path / "model"
    write_folder(path, fill(OLD))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing(Path.rename, rename, errno.EACCES))
        with pytest.raises(UserError, match="permission denied"):
            write_folder(path, fill(NEW))
    recover_folder(path)
    assert content(path) == both(OLD)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_is_undone_without_being_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    write_folder(path, fill(OLD))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing(Path.rename, 2, errno.EACCES))
        with pytest.raises(UserError, match="permission denied"):
            write_folder(path, fill(NEW))
    assert content(path) == both(OLD)


KILL = """
import os, shutil, sys
from pathlib import Path
from segformer.errors import UserError
from segformer.files import write_folder

step, calls = sys.argv[2], 0
def counted(name, original):
    def replacement(*arguments, **options):
        global calls
        calls += 1
        if step == f"before {name} {calls}":
            os._exit(9)
        return original(*arguments, **options)
    return replacement
Path.rename = counted("rename", Path.rename)
def write(folder):
    (folder / "first").write_bytes(b"new! " * 7000)
    if step == "while writing":
        os._exit(9)
    (folder / "second").write_bytes(b"new! " * 7000)
original = shutil.rmtree
def rmtree(*arguments, **options):
    if step == "before the old one goes" and (Path(sys.argv[1]) / "first").read_bytes().startswith(b"new"):
        os._exit(9)
    original(*arguments, **options)
shutil.rmtree = rmtree
write_folder(Path(sys.argv[1]), write)
"""


def kill(path: Path, step: str) -> None:
    """Let another process replace a folder and kill it at a step."""
    killed = subprocess.run([sys.executable, "-c", KILL, str(path), step], check=False)
    assert killed.returncode == 9


@pytest.mark.parametrize(
    ("step", "expected"),
    [("while writing", OLD), ("before rename 1", OLD), ("before rename 2", OLD), ("before the old one goes", NEW)],
)
def test_a_kill_at_any_step_leaves_a_whole_folder(tmp_path: Path, step: str, expected: bytes) -> None:
    path = tmp_path / "model"
    write_folder(path, fill(OLD))
    kill(path, step)
    assert path.exists() == (step != "before rename 2")
    recover_folder(path)
    assert content(path) == both(expected)
    write_folder(path, fill(b"next"))
    assert content(path) == both(b"next")
    assert list(tmp_path.iterdir()) == [path]


def deny(*_: object) -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_after_a_kill_a_failing_write_does_not_lose_the_last_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    write_folder(path, fill(OLD))
    kill(path, "before rename 2")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", deny)
        with pytest.raises(UserError, match="permission denied"):
            write_folder(path, fill(NEW))
    recover_folder(path)
    assert content(path) == both(OLD)


def test_recovering_leaves_a_present_folder_and_an_absent_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    recover_folder(path)
    assert list(tmp_path.iterdir()) == []
    write_folder(path, fill(NEW))
    recover_folder(path)
    assert content(path) == both(NEW)
