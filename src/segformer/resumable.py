"""Support for long computations: their progress is reported, and their finished parts survive an interruption."""

import io
import json
import shutil
import struct
import textwrap
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.errors import UserError
from segformer.files import disk_errors, read_json, write_bytes, write_json

OnProgress = Callable[[int, int], None]
"""Function that reports progress; it is called with (number of finished pieces, total number of pieces)."""

IDENTITY = "identity.json"
SAVE_EVERY = 30.0  # minimum number of seconds between two saves of running sums
SHOWN = 80  # maximum number of characters of a value in an error message
REMEDY = "give another folder (--out), or remove this one"


class Store:
    """A folder with the finished pieces of one long computation, such as a robustness measurement.

    ``identity`` contains everything that the results depend on, as JSON values.  Pieces are reused only if the identity
    is the same.  If ``folder`` is None, nothing is stored.  The folder must not contain other files.

        store = Store(out / "cells", identity, work="robustness measurement")
        for name in names:
            if not store.has(name):
                store.save_json(name, measure(name))

    Raises a UserError that names the first difference if the folder contains unfinished work with another identity.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], *, work: str, remedy: str = REMEDY) -> None:
        """``work`` is the name of the computation in error messages; ``remedy`` is the advice at the end of them."""
        self.folder = folder
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # so that tuples become lists, as in the file
        self.work = work
        self.remedy = remedy
        self._is_ours = False  # whether the pieces in the folder have this identity
        self._is_replaceable = False  # whether the folder contains finished work with another identity
        if folder is not None and folder.is_dir():
            self._open(folder)

    def _open(self, folder: Path) -> None:
        if not (folder / IDENTITY).is_file():
            if any(not path.name.startswith(".") for path in folder.iterdir()):
                raise UserError(
                    f"{folder}: expected an empty folder or one with an {IDENTITY}, got other files; {self.remedy}"
                )
            return
        kept = read_json(folder / IDENTITY)
        theirs = kept.get("identity") if isinstance(kept, dict) else None
        if not isinstance(theirs, dict):
            raise self._damaged(folder / IDENTITY)
        self._is_ours = (kept.get("work"), theirs) == (self.work, self.identity)
        self._is_replaceable = not self._is_ours and kept.get("finished") is True
        if not self._is_ours and not self._is_replaceable:
            raise UserError(f"{folder} holds another {self.work}: {self._difference(theirs)}; {self.remedy}")

    def _difference(self, theirs: Mapping[str, Any]) -> str:
        kept, ours = _leaves(theirs), _leaves(self.identity)
        for name in (*ours, *kept):
            pair = [_shown(values[name]) if name in values else "missing" for values in (kept, ours)]
            if name not in kept or name not in ours or kept[name] != ours[name]:
                return f"{name} is {pair[0]} there and {pair[1]} here"
        return "its files belong to a different kind of work"

    def _damaged(self, path: Path) -> UserError:
        return UserError(f"{path}: damaged, expected a file of an interrupted {self.work}; {self.remedy}")

    def path(self, name: str) -> Path:
        """Return the path of the file for the piece ``name``.

        The folder is created if necessary.  If it contains finished work with another identity, that work is deleted.
        """
        assert self.folder is not None
        if not self._is_ours:
            if self._is_replaceable:
                with disk_errors(self.folder):
                    shutil.rmtree(self.folder)
            self._write_identity(finished=False)
        return self.folder / name

    def _write_identity(self, *, finished: bool) -> None:
        assert self.folder is not None
        about = {"work": self.work, "finished": finished, "identity": self.identity}
        write_json(self.folder / IDENTITY, about)
        self._is_ours = True

    def has(self, name: str) -> bool:
        """Whether the folder contains the piece ``name``, computed with the identity of this Store."""
        return self.folder is not None and self._is_ours and (self.folder / name).is_file()

    def save_json(self, name: str, values: Any) -> None:
        """Store a piece as JSON; the file is written completely or not at all."""
        if self.folder is not None:
            write_json(self.path(name), values)

    def load_json(self, name: str) -> Any:
        """Return a piece that was stored as JSON; raises a UserError that names the file if it is damaged."""
        path = self.path(name)
        try:
            return read_json(path)
        except UserError as error:
            raise self._damaged(path) from error

    def save_arrays(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Store named arrays as one piece; the file is written completely or not at all."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(buffer, **named)
        write_bytes(self.path(name), buffer.getvalue())

    def load_arrays(self, name: str) -> dict[str, Array]:
        """Return a piece that was stored as arrays; raises a UserError that names the file if it is damaged."""
        path = self.path(name)
        try:
            with disk_errors(path), np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except (AttributeError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, struct.error) as error:
            raise self._damaged(path) from error

    @contextmanager
    def saving(self, name: str, arrays: Callable[[], Mapping[str, Array]]) -> Iterator[Callable[[], None]]:
        """Save running sums as one piece about every 30 seconds, and when the ``with`` block ends or is interrupted.

        The ``with`` block gets a function that must be called after each update of the sums.  ``arrays`` is a function
        that returns the sums.  An interruption may cause a call of ``arrays`` at any moment, so the sums must be
        updated in one step: by assigning a new object, or by a single ``dict.update``.
        """
        saved_at = time.monotonic()
        changed = False

        def advanced() -> None:
            nonlocal saved_at, changed
            changed = True
            if time.monotonic() - saved_at > SAVE_EVERY:
                self.save_arrays(name, arrays())
                saved_at = time.monotonic()
                changed = False

        try:
            yield advanced
        finally:
            if changed:
                self.save_arrays(name, arrays())

    def finish(self) -> None:
        """Mark the work as finished; its pieces stay in the folder until work with another identity replaces them."""
        if self.folder is not None:
            self.path(IDENTITY)
            self._write_identity(finished=True)

    def remove(self) -> None:
        """Delete the folder with all pieces."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: {"a": {"b": 1}} -> {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves


def _shown(value: Any) -> str:
    return textwrap.shorten(value if isinstance(value, str) else json.dumps(value), SHOWN, placeholder=" ...")
