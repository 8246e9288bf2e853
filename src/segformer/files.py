"""Write files safely: a crash or a full disk leaves either the old file or the new one, never a partial one."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segformer.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder, then rename it to ``path``; missing folders are created."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON; the file is written completely or not at all."""
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the values in a JSON file, which may start with a byte-order mark.

    Raises a UserError that names the file if it is missing or is not JSON.
    """
    try:
        with disk_errors(path):
            return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected JSON, got something else ({error})") from error


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder, then rename that to ``path``; an existing folder is replaced."""
    recover_folder(path)
    partial = path.with_name(f".{path.name}.partial")
    old = _previous(path)
    shutil.rmtree(partial, ignore_errors=True)
    with disk_errors(path):
        try:
            partial.mkdir(parents=True)
            write(partial)
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            partial.rename(path)
        finally:
            recover_folder(path)
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(partial, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Restore the previous version of a folder if ``write_folder`` was killed while it replaced the folder."""
    if not path.exists() and _previous(path).exists():
        with disk_errors(path):
            _previous(path).rename(path)


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert file system errors in a ``with`` block to a UserError that names ``path`` and the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {_explanation(error, path)}") from error


def _explanation(error: OSError, path: Path) -> str:
    if error.errno in NO_SPACE:
        parent = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(parent).free / 2**20
        return f"no space to write this file ({free:.1f} MiB free); free some space and try again"
    if error.errno in NO_PERMISSION:
        return "permission denied; change the permissions, or give another path"
    if error.errno in NOT_FOUND:
        return "no such file or folder; correct the path"
    return error.strerror or str(error)
